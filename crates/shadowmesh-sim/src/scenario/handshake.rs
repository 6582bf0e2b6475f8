//! How long a handshake takes, in round trips without loss and in time with it.

use std::time::Duration;

use serde_json::{Value, json};
use shadowmesh_net::NetEvent;

use super::Sorted;
use crate::link::LinkProfile;
use crate::world::{Host, HostConfig, HostId, World};

/// What one handshake looked like from outside.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeFigures {
    /// From the demand until the client's handshake was complete, in round trips.
    pub handshaken_rtts: f64,
    /// From the demand until the client could seal a packet, in round trips.
    pub session_rtts: f64,
    /// UDP payload the client sent until then, bytes.
    pub client_bytes: usize,
    /// UDP payload the server sent until then, bytes.
    pub server_bytes: usize,
    /// Whether a session ticket was used.
    pub resumed: bool,
    /// Whether the server took 0-RTT data.
    pub early_data: bool,
}

impl HandshakeFigures {
    /// As evidence.
    pub fn json(&self) -> Value {
        json!({
            "handshaken_rtts": self.handshaken_rtts,
            "session_rtts": self.session_rtts,
            "client_bytes": self.client_bytes,
            "server_bytes": self.server_bytes,
            "resumed": self.resumed,
            "early_data": self.early_data,
        })
    }
}

/// A handshake between strangers, and a second one after the client slept so long that its
/// connection is gone. The server calls back as soon as it hears of that; its own call is kept out,
/// so that one handshake is measured and not two that cross.
pub fn first_contact_and_return(seed: u64, rtt: Duration) -> [HandshakeFigures; 2] {
    let mut world = World::new(seed);
    world.default_link = LinkProfile::round_trip(rtt);
    let (client, server) = world.pair(HostConfig::default());
    world.tap(Some(Box::new(move |passing| {
        passing.from != server || !is_first_packet(&passing.data)
    })));
    let first = measure(&mut world, client, server, rtt, |world| {
        let server = world.host(server).id();
        world.with_node(client, |node, now| node.connect(&server, now));
    });
    // Tickets and tokens follow the handshake.
    world.run_for(Duration::from_secs(5));
    let again = measure(&mut world, client, server, rtt, |world| {
        world.jump_clock(client, Duration::from_secs(300));
        let server = world.host(server).id();
        world.with_node(client, |node, now| node.connect(&server, now));
    });
    [first, again]
}

/// The first packets of a client are the only long headers with a destination id of 20 bytes.
// PROTOCOL SM-HS-7
fn is_first_packet(datagram: &[u8]) -> bool {
    datagram[0] & 0x80 != 0 && datagram[5] == 20
}

fn measure(
    world: &mut World,
    client: HostId,
    server: HostId,
    rtt: Duration,
    demand: impl FnOnce(&mut World),
) -> HandshakeFigures {
    let start = world.now();
    let seen = world.host(client).events.len();
    let bytes = [client, server].map(|h| world.host(h).sent_bytes);
    demand(world);
    let up = world.run_until(Duration::from_secs(30), |w| {
        up_since(w.host(client), seen).is_some()
    });
    assert!(up, "no session within 30 s of virtual time");
    let host = world.host(client);
    let up_at = up_since(host, seen).expect("just seen");
    let (handshaken_at, resumed, early_data) = host.events[seen..]
        .iter()
        .find_map(|(at, event)| match event {
            NetEvent::Handshaken {
                resumed,
                early_data,
                ..
            } => Some((*at, *resumed, *early_data)),
            _ => None,
        })
        .expect("a handshake comes before its session");
    let rtts = |at: Duration| (at - start).as_secs_f64() / rtt.as_secs_f64();
    HandshakeFigures {
        handshaken_rtts: rtts(handshaken_at),
        session_rtts: rtts(up_at),
        client_bytes: host.sent_bytes - bytes[0],
        server_bytes: world.host(server).sent_bytes - bytes[1],
        resumed,
        early_data,
    }
}

/// When a session came up among the events after the first `seen`.
fn up_since(host: &Host, seen: usize) -> Option<Duration> {
    host.events[seen..]
        .iter()
        .find(|(_, e)| matches!(e, NetEvent::PeerUp { .. }))
        .map(|(at, _)| *at)
}

/// Many handshakes between strangers over a lossy link.
#[derive(Clone, Debug)]
pub struct LossFigures {
    /// Loss on each direction, 0 to 1.
    pub loss: f64,
    /// Time from demand to session, of those that came up.
    pub times: Sorted,
    /// Seeds of those that did not within [`HANG_AFTER`].
    pub hung: Vec<u64>,
}

/// A handshake that takes longer than this hangs.
pub const HANG_AFTER: Duration = Duration::from_secs(30);

impl LossFigures {
    /// As evidence.
    pub fn json(&self) -> Value {
        let ms = |percent| self.times.percentile(percent).as_secs_f64() * 1e3;
        json!({
            "loss": self.loss,
            "done": self.times.count(),
            "hung_seeds": self.hung,
            "p50_ms": ms(50),
            "p95_ms": ms(95),
            "max_ms": ms(100),
        })
    }
}

/// `count` handshakes between strangers, each in a world of its own with `rtt` and `loss`.
pub fn under_loss(first_seed: u64, count: u64, rtt: Duration, loss: f64) -> LossFigures {
    let mut hung = Vec::new();
    let seeds = first_seed..first_seed + count;
    let times = seeds.filter_map(|seed| {
        let took = one_under_loss(seed, rtt, loss);
        if took.is_none() {
            hung.push(seed);
        }
        took
    });
    let times = times.collect();
    LossFigures { loss, times, hung }
}

/// The demand is repeated, as that of a program which sends again when nothing comes back.
fn one_under_loss(seed: u64, rtt: Duration, loss: f64) -> Option<Duration> {
    const DEMAND_EVERY: Duration = Duration::from_secs(1);
    let mut world = World::new(seed);
    world.default_link = LinkProfile::round_trip(rtt).losing(loss);
    let (client, server) = world.pair(HostConfig::default());
    let server = world.host(server).id();
    let start = world.now();
    while world.now() < start + HANG_AFTER {
        world.with_node(client, |node, now| node.connect(&server, now));
        if world.run_until(DEMAND_EVERY, |w| up_since(w.host(client), 0).is_some()) {
            break;
        }
    }
    Some(up_since(world.host(client), 0)? - start)
}
