//! Two nodes with relays find the way straight, lose it, and find it again.

use std::fmt::Write as _;
use std::time::Duration;

use shadowmesh_net::PathInfo;

use super::relay::{Relayed, add_relay};
use crate::link::LinkProfile;
use crate::middlebox::NatKind;
use crate::world::{HostConfig, HostId, World};

/// Round trip between any two places.
const ROUND_TRIP: Duration = Duration::from_millis(40);
/// How long a cell of the grid is watched for a straight way.
const WATCH: Duration = Duration::from_secs(8);

/// What a pair of kinds came to.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The two kinds.
    pub kinds: [NatKind; 2],
    /// From the first packet to the first one that came out, in the slower direction.
    pub connected: Option<Duration>,
    /// From the first packet until both nodes send straight.
    pub direct: Option<Duration>,
    /// Packets that were lost after the first had come out.
    pub lost: usize,
}

/// Whether a straight way exists that probes can find. Two translations that draw a new port for each
/// remote, one of them at random, leave nothing to aim at.
pub fn has_direct_way(kinds: [NatKind; 2]) -> bool {
    use NatKind::{SymmetricRandom, SymmetricSequential, UdpBlocked};
    let symmetric = |kind| matches!(kind, SymmetricRandom | SymmetricSequential);
    let blocked = kinds.contains(&UdpBlocked);
    let hopeless = kinds.iter().all(|kind| symmetric(*kind)) && kinds.contains(&SymmetricRandom);
    !blocked && !hopeless
}

/// Two nodes and two relays that have had two seconds; nobody has called anybody yet.
pub fn pair(seed: u64, kinds: [NatKind; 2]) -> Relayed {
    pair_on(seed, kinds, LinkProfile::round_trip(ROUND_TRIP))
}

fn pair_on(seed: u64, kinds: [NatKind; 2], link: LinkProfile) -> Relayed {
    let mut world = World::new(seed);
    world.default_link = link;
    let relays: Vec<HostId> = (0..2).map(|_| add_relay(&mut world)).collect();
    let [a, b] = kinds.map(|kind| {
        let host = world.add_host(HostConfig {
            tells_addresses: true,
            ..HostConfig::default()
        });
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
    world.run_for(Duration::from_secs(2));
    Relayed {
        world,
        a,
        b,
        relays,
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

/// Whether both send straight.
pub fn is_direct(pair: &Relayed) -> bool {
    let straight = |from, to| matches!(way(&pair.world, from, to), Some(PathInfo::Direct(_)));
    straight(pair.a, pair.b) && straight(pair.b, pair.a)
}

/// One cell of the grid.
///
/// # Panics
/// When the ledger is violated.
pub fn cell(seed: u64, kinds: [NatKind; 2]) -> Cell {
    let mut pair = pair(seed, kinds);
    let began = pair.world.now();
    let mut direct = None;
    let mut sent = Vec::new();
    while pair.world.now() < began + WATCH && direct.is_none() {
        sent.extend(pair.talk(Duration::from_millis(20)));
        direct = is_direct(&pair).then(|| pair.world.now() - began);
    }
    sent.extend(pair.talk(Duration::from_millis(200)));
    pair.world.run_for(Duration::from_secs(1));
    let ledger = &pair.world.ledger;
    assert_eq!(ledger.violations(), Vec::<String>::new());
    let first = |from, to| ledger.first_delivery(from, to, began);
    let connected = match (first(pair.a, pair.b), first(pair.b, pair.a)) {
        (Some(there), Some(back)) => Some(there.max(back) - began),
        _ => None,
    };
    let after = connected.map(|took| began + took);
    sent.retain(|number| after.is_some_and(|after| ledger.entry(*number).sent >= after));
    Cell {
        kinds,
        connected,
        direct,
        lost: ledger.lost(&sent),
    }
}

/// All 64 cells, in the order of the kinds.
pub fn grid(seed: u64) -> Vec<Cell> {
    let kinds = NatKind::ALL;
    let pairs = kinds.iter().flat_map(|a| kinds.iter().map(|b| [*a, *b]));
    pairs.map(|kinds| cell(seed, kinds)).collect()
}

/// The grid as a table in Markdown: connected after, straight after, in milliseconds.
pub fn table(cells: &[Cell]) -> String {
    let mut text = String::from("| |");
    for kind in NatKind::ALL {
        let _ = write!(text, " {} |", kind.name());
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(NatKind::ALL.len()));
    text.push('\n');
    for row in cells.chunks(NatKind::ALL.len()) {
        let _ = write!(text, "| {} |", row[0].kinds[0].name());
        for cell in row {
            let ms = |time: Option<Duration>| {
                time.map_or("-".into(), |time| time.as_millis().to_string())
            };
            let _ = write!(text, " {} / {} |", ms(cell.connected), ms(cell.direct));
        }
        text.push('\n');
    }
    text
}

/// How twenty switches from the relay to the straight way went.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// How many there were.
    pub count: usize,
    /// Packets sent while the switches took place, from the moment at which the straight way was there again
    /// until 300 ms after both sides used it.
    pub sent: usize,
    /// Of these, how many did not come out.
    pub lost: usize,
    /// For each switch, the longest time between two packets that came out, in the slower direction.
    pub pauses: Vec<Duration>,
    /// For each break, from the cut until a packet came out over the relay, in the slower direction.
    pub breaks: Vec<Duration>,
    /// The first migration of all: from its first probe to the switch, on the side that was slower.
    pub migration: Duration,
}

/// A packet each way every millisecond, while the straight way is cut for two seconds and comes back,
/// `count` times; each link loses this share of its datagrams.
///
/// # Panics
/// When the pair does not go straight within 40 s, or the ledger is violated.
pub fn switches(seed: u64, count: usize, loss: f64) -> Switches {
    const RTT: Duration = Duration::from_millis(20);
    let sound = LinkProfile::round_trip(RTT).losing(loss);
    let mut pair = pair_on(seed, [NatKind::PortRestricted; 2], sound);
    let mut figures = Switches::default();
    go_straight(&mut pair);
    figures.migration = [pair.a, pair.b]
        .map(|host| {
            let totals = pair.world.host(host).node().connectivity().totals();
            Duration::from_micros(totals.migration_us / totals.migrations.max(1))
        })
        .into_iter()
        .max()
        .unwrap_or_default();
    for _ in 0..count {
        let cut = pair.world.now();
        pair.world.link(pair.a, pair.b, sound.losing(1.0));
        stream(&mut pair, Duration::from_secs(2));
        figures.breaks.extend(healed(&pair, cut));
        pair.world.link(pair.a, pair.b, sound);
        let restored = pair.world.now();
        let mut sent = go_straight(&mut pair);
        sent.extend(stream(&mut pair, Duration::from_millis(300)));
        let until = pair.world.now();
        pair.world.run_for(Duration::from_millis(200));
        figures.count += 1;
        figures.sent += sent.len();
        figures.lost += pair.world.ledger.lost(&sent);
        figures
            .pauses
            .push(longest_pause(&pair, &sent, restored, until));
    }
    assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
    figures
}

fn healed(pair: &Relayed, since: Duration) -> Option<Duration> {
    let first = |from, to| {
        let since = since + Duration::from_millis(1);
        pair.world.ledger.first_delivery(from, to, since)
    };
    Some(first(pair.a, pair.b)?.max(first(pair.b, pair.a)?) - since)
}

/// A packet each way every millisecond for so long; the numbers of those sent.
fn stream(pair: &mut Relayed, time: Duration) -> Vec<u64> {
    let mut sent = Vec::new();
    let end = pair.world.now() + time;
    while pair.world.now() < end {
        sent.push(pair.world.send(pair.a, pair.b));
        sent.push(pair.world.send(pair.b, pair.a));
        pair.world.run_for(Duration::from_millis(1));
    }
    sent
}

fn go_straight(pair: &mut Relayed) -> Vec<u64> {
    let end = pair.world.now() + Duration::from_secs(40);
    let mut sent = Vec::new();
    while !is_direct(pair) {
        assert!(pair.world.now() < end, "no straight way");
        sent.extend(stream(pair, Duration::from_millis(50)));
    }
    sent
}

/// The longest time between two packets that came out, in either direction.
fn longest_pause(pair: &Relayed, sent: &[u64], from: Duration, until: Duration) -> Duration {
    let mut longest = Duration::ZERO;
    for to in [pair.a, pair.b] {
        let entries = sent.iter().map(|number| pair.world.ledger.entry(*number));
        let mut out: Vec<Duration> = entries
            .filter(|entry| entry.to == to)
            .filter_map(|entry| entry.delivered.first().map(|(_, at)| *at))
            .filter(|at| (from..=until).contains(at))
            .collect();
        out.sort_unstable();
        let gaps = out.windows(2).map(|two| two[1] - two[0]);
        longest = longest.max(gaps.max().unwrap_or_default());
    }
    longest
}

/// What follows when something breaks under traffic.
#[derive(Clone, Copy, Debug)]
pub struct Break {
    /// From the break until a packet sent after it came out, in the slower direction.
    pub healed_in: Option<Duration>,
    /// Whether both nodes kept their session.
    pub kept_session: bool,
}

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

/// Two nodes under traffic both ways when that happens.
///
/// # Panics
/// When they were not connected to begin with, or the ledger is violated.
pub fn broken(seed: u64, breaks: Breaks) -> Break {
    let kinds = match breaks {
        Breaks::Relay => [NatKind::SymmetricRandom; 2],
        _ => [NatKind::PortRestricted; 2],
    };
    let mut pair = pair(seed, kinds);
    pair.talk(Duration::from_secs(8));
    assert_eq!(is_direct(&pair), breaks != Breaks::Relay, "seed {seed}");
    let at = pair.world.now();
    let dead = LinkProfile::round_trip(ROUND_TRIP).losing(1.0);
    match breaks {
        Breaks::Direct => pair.world.link(pair.a, pair.b, dead),
        Breaks::DirectOneWay => pair.world.link_one_way(pair.a, pair.b, dead),
        Breaks::Relay => {
            let used = way(&pair.world, pair.a, pair.b);
            let relay = pair.relays.iter().copied().find(|relay| {
                let id = pair.world.host(*relay).id();
                used == Some(PathInfo::Relayed { relay: id })
            });
            pair.world.kill(relay.expect("one is in use"));
        }
    }
    pair.talk(Duration::from_secs(4));
    pair.world.run_for(Duration::from_secs(1));
    let ledger = &pair.world.ledger;
    assert_eq!(ledger.violations(), Vec::<String>::new());
    let first = |from, to| ledger.first_delivery(from, to, at + Duration::from_millis(1));
    let healed = match (first(pair.a, pair.b), first(pair.b, pair.a)) {
        (Some(there), Some(back)) => Some(there.max(back) - at),
        _ => None,
    };
    let ends = [pair.a, pair.b].iter().any(|host| {
        let events = pair.world.host(*host).events.iter();
        let other = if *host == pair.a { pair.b } else { pair.a };
        let other = pair.world.host(other).id();
        events.filter(|(when, _)| *when >= at).any(|(_, event)| {
            matches!(event, shadowmesh_net::NetEvent::PeerDown { peer, .. } if *peer == other)
        })
    });
    Break {
        healed_in: healed,
        kept_session: !ends,
    }
}
