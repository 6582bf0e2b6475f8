//! Two nodes behind boxes, and relays between them.

use std::time::Duration;

use shadowmesh_net::{PathInfo, RelayConfig};

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
        let link = LinkProfile::round_trip(Duration::from_millis(40));
        Self::with(seed, (link, HostConfig::default()), kinds, relays)
    }

    /// A fresh world with such links and such nodes.
    pub fn with(
        seed: u64,
        (link, config): (LinkProfile, HostConfig),
        kinds: [NatKind; 2],
        relays: usize,
    ) -> Self {
        let mut world = World::new(seed);
        world.default_link = link;
        let relays: Vec<HostId> = (0..relays).map(|_| add_relay(&mut world)).collect();
        let [a, b] = kinds.map(|kind| add_client(&mut world, kind, &relays, &config));
        world.introduce(a, b);
        for host in [a, b] {
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

    /// Whether both send straight.
    pub fn is_direct(&self) -> bool {
        let straight = |from, to| matches!(way(&self.world, from, to), Some(PathInfo::Direct(_)));
        straight(self.a, self.b) && straight(self.b, self.a)
    }

    /// The relay over which one host reaches the other, if it is one of these.
    pub fn relay_between(&self, from: HostId, to: HostId) -> Option<HostId> {
        let Some(PathInfo::Relayed { relay }) = way(&self.world, from, to) else {
            return None;
        };
        let mut relays = self.relays.iter().copied();
        relays.find(|host| self.world.host(*host).id() == relay)
    }

    /// From `since` until a packet sent after it had come out, in the slower direction.
    pub fn healed(&self, since: Duration) -> Option<Duration> {
        // What was sent at that very moment may have come through before.
        let after = since + Duration::from_millis(1);
        let first = |from, to| self.world.ledger.first_delivery(from, to, after);
        Some(first(self.a, self.b)?.max(first(self.b, self.a)?) - since)
    }
}

/// The way one host has to another, if there is a session.
pub fn way(world: &World, from: HostId, to: HostId) -> Option<PathInfo> {
    let status = world.host(from).node().status(world.clock_of(from));
    let to = world.host(to).id();
    let peers = status.peers.into_iter().filter_map(|peer| peer.net);
    let peer = peers.into_iter().find(|peer| peer.peer == to)?;
    Some(peer.session?.path)
}

/// A node behind boxes of that kind that uses these relays; it does not run yet.
pub fn add_client(
    world: &mut World,
    kind: NatKind,
    relays: &[HostId],
    config: &HostConfig,
) -> HostId {
    let host = world.add_host(config.clone());
    let home = world.add_nat(kind);
    if home.is_some() {
        world.put_behind(host, home);
    }
    for &relay in relays {
        world.use_relay(host, relay);
    }
    host
}

/// A running relay that serves anybody, by UDP or by streams.
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
        takes_streams: true,
        ..HostConfig::default()
    });
    world.start(host);
    host
}
