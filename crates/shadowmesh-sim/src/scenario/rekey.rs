//! Rekeying under traffic: what the network does not lose, the change of keys must not lose either.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use shadowmesh_net::NetEvent;

use crate::link::LinkProfile;
use crate::world::{HostConfig, HostId, World};

/// Length of the traffic's IP packets, bytes: chosen so that no QUIC packet has the same size once
/// sealed, and the observer can tell which datagrams it lost were traffic; and short enough for every
/// path, so that one packet is always one datagram.
const PACKET_LEN: usize = 477;
/// Time between two packets of one direction.
const PACKET_INTERVAL: Duration = Duration::from_millis(4);

/// What a run with rekeys gave.
#[derive(Clone, Copy, Debug)]
pub struct RekeyFigures {
    /// Epochs begun at either side, the first not counted.
    pub rekeys: usize,
    /// Packets handed to the devices.
    pub sent: usize,
    /// Packets that came out.
    pub delivered: usize,
    /// Packets whose datagram the network lost.
    pub lost_by_network: usize,
}

impl RekeyFigures {
    /// Packets lost, but not by the network.
    pub fn lost_by_rekey(&self) -> usize {
        self.sent - self.delivered - self.lost_by_network
    }

    /// As evidence.
    pub fn json(&self) -> Value {
        json!({
            "rekeys": self.rekeys,
            "sent": self.sent,
            "delivered": self.delivered,
            "lost_by_network": self.lost_by_network,
            "lost_by_rekey": self.lost_by_rekey(),
        })
    }
}

/// Traffic both ways for `time` with a rekey every 10 s, over a link that reorders and loses.
pub fn under_traffic(seed: u64, time: Duration, loss: f64) -> RekeyFigures {
    let mut world = World::new(seed);
    world.default_link = LinkProfile::round_trip(Duration::from_millis(60))
        .reordering(0.3, Duration::from_millis(50));
    let config = HostConfig {
        rekey_interval: Duration::from_secs(10),
        ..HostConfig::default()
    };
    let (a, b) = world.pair(config);
    assert!(world.settle(a, b), "no session before the traffic");
    let lost_by_network = lose_and_count(&mut world, loss);
    let seen = [a, b].map(|h| world.host(h).events.len());
    let end = world.now() + time;
    while world.now() < end {
        for (from, to) in [(a, b), (b, a)] {
            let (source, destination) = (world.ipv4(from), world.ipv4(to));
            world.send_packet(from, to, source, destination, PACKET_LEN);
        }
        world.run_for(PACKET_INTERVAL);
    }
    world.run_for(Duration::from_secs(1));
    let (sent, delivered) = world.ledger.totals();
    assert_eq!(world.ledger.violations(), Vec::<String>::new());
    let rekeys = rekeys_since(&world, a, seen[0]) + rekeys_since(&world, b, seen[1]);
    RekeyFigures {
        rekeys,
        sent,
        delivered,
        lost_by_network: lost_by_network.get(),
    }
}

/// Loses datagrams on all links from now on and counts those that carried traffic.
fn lose_and_count(world: &mut World, loss: f64) -> Rc<Cell<usize>> {
    let lost = Rc::new(Cell::new(0));
    let count = lost.clone();
    let mut rng = StdRng::seed_from_u64(world.rng().random());
    world.tap(Some(Box::new(move |passing| {
        let loses = rng.random_bool(loss);
        if loses && passing.data.len() == PACKET_LEN + shadowmesh_wire::sealed::OVERHEAD {
            count.set(count.get() + 1);
        }
        !loses
    })));
    lost
}

fn rekeys_since(world: &World, host: HostId, seen: usize) -> usize {
    world.host(host).events[seen..]
        .iter()
        .filter(|(_, e)| matches!(e, NetEvent::Rekeyed { .. }))
        .count()
}
