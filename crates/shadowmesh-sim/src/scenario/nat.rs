//! A node behind each kind of NAT keeps its session with a public one, whatever its boxes forget.
//!
//! There is no relay here, so only what a pair can do alone is seen: a node behind any kind that passes UDP
//! reaches a public node and stays reachable, because the probe of an idle session keeps the mapping alive;
//! and when a box forgets its mappings or gets another address under traffic, the probe that silence brings
//! about shows the public node the new one. When only the public node sends, a rebooted box costs packets
//! until the next probe of the idle one. What pairs with relays do is in [`direct`](super::direct).

use std::time::Duration;

use shadowmesh_net::NetEvent;

use crate::link::LinkProfile;
use crate::middlebox::NatKind;
use crate::world::{BoxId, HostConfig, HostId, World};

/// How long traffic is watched after a mishap.
const WATCH: Duration = Duration::from_secs(20);
/// Packets count from here on: one that was sent at the moment of the mishap may still come out.
const SETTLED_AFTER: Duration = Duration::from_millis(1);

/// What happens to the innermost box under traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It loses its mappings and keeps its address.
    Reboot,
    /// It loses its mappings and gets another address.
    Renumber,
}

/// Who sends while it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// Both.
    BothWays,
    /// Only the node behind the NAT.
    FromInside,
    /// Only the public node.
    FromOutside,
}

/// How a rebinding went.
#[derive(Clone, Copy, Debug)]
pub struct Rebinding {
    /// Time from the mishap until a packet sent after it came out, for the slower direction in use;
    /// `None` if that took more than 20 s.
    pub healed_in: Option<Duration>,
    /// Whether both nodes still use the session they had.
    pub kept_session: bool,
    /// Whether the public node saw another address afterwards.
    pub moved: bool,
}

/// A node behind a kind of NAT and a public one, both running and knowing each other.
pub struct Pair {
    /// The world.
    pub world: World,
    /// The node behind the NAT.
    pub inside: HostId,
    /// The public node.
    pub public: HostId,
    /// The innermost box, if there is one.
    pub home: Option<BoxId>,
}

impl Pair {
    /// A fresh world with a round trip of 40 ms.
    pub fn new(seed: u64, kind: NatKind) -> Self {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(Duration::from_millis(40));
        let home = world.add_nat(kind);
        let public = world.add_host(HostConfig::default());
        let inside = world.add_host(HostConfig::default());
        if home.is_some() {
            world.put_behind(inside, home);
        }
        world.introduce(inside, public);
        world.start(inside);
        world.start(public);
        Self {
            world,
            inside,
            public,
            home,
        }
    }

    /// Sends as said for so long, a packet each 20 ms and direction.
    pub fn talk(&mut self, talk: Talk, time: Duration) {
        let end = self.world.now() + time;
        while self.world.now() < end {
            for (from, to) in self.directions(talk) {
                self.world.send(from, to);
            }
            self.world.run_for(Duration::from_millis(20));
        }
    }

    fn directions(&self, talk: Talk) -> Vec<(HostId, HostId)> {
        let (out, back) = ((self.inside, self.public), (self.public, self.inside));
        match talk {
            Talk::BothWays => vec![out, back],
            Talk::FromInside => vec![out],
            Talk::FromOutside => vec![back],
        }
    }

    fn sessions_changed_since(&self, since: Duration) -> bool {
        [self.inside, self.public].iter().any(|host| {
            let events = self.world.host(*host).events.iter();
            events.filter(|(at, _)| *at >= since).any(|(_, event)| {
                matches!(event, NetEvent::PeerUp { .. } | NetEvent::PeerDown { .. })
            })
        })
    }

    /// Whether the public node follows the other to another address since then.
    fn moved_since(&self, since: Duration) -> bool {
        let events = self.world.host(self.public).events.iter();
        events
            .filter(|(at, _)| *at >= since)
            .any(|(_, event)| matches!(event, NetEvent::PathChanged { .. }))
    }
}

/// The innermost box of a node that is connected meets with a mishap under traffic.
///
/// # Panics
/// When there is no session to begin with, the kind has no box, or the ledger is violated.
pub fn rebinding(seed: u64, kind: NatKind, mishap: Mishap, talk: Talk) -> Rebinding {
    let mut pair = Pair::new(seed, kind);
    assert!(
        pair.world.settle(pair.inside, pair.public),
        "no session through {}",
        kind.name()
    );
    pair.talk(Talk::BothWays, Duration::from_secs(2));
    let home = pair.home.expect("a kind with a box");
    let at = pair.world.now();
    match mishap {
        Mishap::Reboot => pair.world.reboot_box(home),
        Mishap::Renumber => pair.world.renumber_box(home),
    }
    pair.talk(talk, WATCH);
    let ledger = &pair.world.ledger;
    assert_eq!(ledger.violations(), Vec::<String>::new());
    let healed = pair
        .directions(talk)
        .into_iter()
        .map(|(from, to)| ledger.first_delivery(from, to, at + SETTLED_AFTER))
        .collect::<Option<Vec<_>>>();
    Rebinding {
        healed_in: healed
            .and_then(|all| all.into_iter().max())
            .map(|last| last - at),
        kept_session: !pair.sessions_changed_since(at),
        moved: pair.moved_since(at),
    }
}
