//! Two nodes behind boxes, and relays between them.

use std::time::Duration;

use shadowmesh_net::RelayConfig;

use crate::link::LinkProfile;
use crate::middlebox::NatKind;
use crate::world::{HostConfig, HostId, World};

/// Two nodes that know each other and use the same relays; all running.
pub struct Relayed {
    /// The world, with a round trip of 40 ms between any two.
    pub world: World,
    /// One node.
    pub a: HostId,
    /// The other.
    pub b: HostId,
    /// The relays, which serve anybody.
    pub relays: Vec<HostId>,
}

impl Relayed {
    /// A fresh world.
    pub fn new(seed: u64, kinds: [NatKind; 2], relays: usize) -> Self {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(Duration::from_millis(40));
        let relays: Vec<HostId> = (0..relays).map(|_| add_relay(&mut world)).collect();
        let [a, b] = kinds.map(|kind| {
            let host = world.add_host(HostConfig::default());
            let home = world.add_nat(kind);
            if home.is_some() {
                world.put_behind(host, home);
            }
            host
        });
        world.introduce(a, b);
        for host in [a, b] {
            for &relay in &relays {
                world.use_relay(host, relay);
            }
            world.start(host);
        }
        Self {
            world,
            a,
            b,
            relays,
        }
    }

    /// Sends a packet each way every 10 ms for so long; the numbers of those sent.
    pub fn talk(&mut self, time: Duration) -> Vec<u64> {
        let mut sent = Vec::new();
        let end = self.world.now() + time;
        while self.world.now() < end {
            sent.push(self.world.send(self.a, self.b));
            sent.push(self.world.send(self.b, self.a));
            self.world.run_for(Duration::from_millis(10));
        }
        sent
    }
}

/// A running relay that serves anybody.
pub fn add_relay(world: &mut World) -> HostId {
    add_relay_with(
        world,
        RelayConfig {
            enabled: true,
            ..RelayConfig::default()
        },
    )
}

/// A running relay.
pub fn add_relay_with(world: &mut World, relay: RelayConfig) -> HostId {
    let host = world.add_host(HostConfig {
        relay,
        ..HostConfig::default()
    });
    world.start(host);
    host
}
