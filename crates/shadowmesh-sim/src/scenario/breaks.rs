//! Ways that break, under traffic and in silence.

use std::time::Duration;

use shadowmesh_net::NetEvent;

use super::direct::{ROUND_TRIP, pair};
use super::relay::{Relayed, way};
use crate::link::LinkProfile;
use crate::middlebox::NatKind;
use crate::world::HostId;

/// Calm before a break that nobody's packets show: longer than anything that follows traffic.
const CALM: Duration = Duration::from_secs(60);
/// How closely nodes are watched then, and how long.
const GLANCE: Duration = Duration::from_millis(50);
const WATCH: Duration = Duration::from_secs(60);

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaks {
    /// The straight way, in both directions.
    Direct,
    /// The straight way, in one direction.
    DirectOneWay,
    /// The relay in use, without a word.
    Relay,
}

/// What follows when something breaks under traffic.
#[derive(Clone, Copy, Debug)]
pub struct Break {
    /// From the break until a packet sent after it came out, in the slower direction.
    pub healed_in: Option<Duration>,
    /// Whether both nodes kept their session.
    pub kept_session: bool,
}

/// Two nodes under traffic both ways when that happens.
///
/// # Panics
/// When they were not connected to begin with, or the ledger is violated.
pub fn broken(seed: u64, breaks: Breaks) -> Break {
    let mut pair = connected(seed, breaks);
    let at = pair.world.now();
    break_it(&mut pair, breaks);
    pair.talk(Duration::from_secs(4));
    pair.world.run_for(Duration::from_secs(1));
    assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
    Break {
        healed_in: pair.healed(at),
        kept_session: !lost_session(&pair, at),
    }
}

/// Two nodes that have said nothing for a while when that happens: how long until both know it and have gone
/// elsewhere. `None`: they had not within a minute.
///
/// # Panics
/// When they were not connected to begin with, when a packet is lost after they have gone elsewhere, or when the
/// ledger is violated.
pub fn broken_in_silence(seed: u64, breaks: Breaks) -> Option<Duration> {
    let mut pair = connected(seed, breaks);
    pair.world.run_for(CALM);
    let at = pair.world.now();
    let directions = [(pair.a, pair.b), (pair.b, pair.a)];
    let before = directions.map(|(from, to)| way(&pair.world, from, to));
    let broken = break_it(&mut pair, breaks);
    let still = |pair: &Relayed| {
        let mut both = directions.iter().zip(&before);
        both.any(|((from, to), before)| {
            let on_it = broken.is_none() || pair.relay_between(*from, *to) == broken;
            on_it && way(&pair.world, *from, *to) == *before
        })
    };
    while still(&pair) {
        if pair.world.now() >= at + WATCH {
            return None;
        }
        pair.world.run_for(GLANCE);
    }
    let took = pair.world.now() - at;
    let sent = pair.talk(Duration::from_secs(1));
    pair.world.run_for(Duration::from_secs(1));
    assert_eq!(pair.world.ledger.lost(&sent), 0, "seed {seed}: {breaks:?}");
    assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
    assert!(!lost_session(&pair, at), "seed {seed}: {breaks:?}");
    Some(took)
}

/// Two nodes on the way that is to break.
fn connected(seed: u64, breaks: Breaks) -> Relayed {
    let kinds = match breaks {
        Breaks::Relay => [NatKind::SymmetricRandom; 2],
        _ => [NatKind::PortRestricted; 2],
    };
    let mut pair = pair(seed, kinds);
    pair.talk(Duration::from_secs(8));
    assert_eq!(pair.is_direct(), breaks != Breaks::Relay, "seed {seed}");
    pair
}

/// Breaks it; which relay it was, if it was one.
fn break_it(pair: &mut Relayed, breaks: Breaks) -> Option<HostId> {
    let dead = LinkProfile::round_trip(ROUND_TRIP).losing(1.0);
    match breaks {
        Breaks::Direct => pair.world.link(pair.a, pair.b, dead),
        Breaks::DirectOneWay => pair.world.link_one_way(pair.a, pair.b, dead),
        Breaks::Relay => {
            let relay = pair.relay_between(pair.a, pair.b);
            let relay = relay.expect("one is in use");
            pair.world.kill(relay);
            return Some(relay);
        }
    }
    None
}

fn lost_session(pair: &Relayed, since: Duration) -> bool {
    [(pair.a, pair.b), (pair.b, pair.a)]
        .iter()
        .any(|(host, other)| {
            let other = pair.world.host(*other).id();
            let events = pair.world.host(*host).events.iter();
            events.filter(|(at, _)| *at >= since).any(
                |(_, event)| matches!(event, NetEvent::PeerDown { peer, .. } if *peer == other),
            )
        })
}
