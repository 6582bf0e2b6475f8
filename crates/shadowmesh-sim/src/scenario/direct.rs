//! Two nodes with relays connect, and find the way straight where there is one.

use std::fmt::Write as _;
use std::time::Duration;

use super::relay::Relayed;
use crate::link::LinkProfile;
use crate::middlebox::NatKind;
use crate::world::HostConfig;

/// Round trip between any two places.
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(40);
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

/// The same with such links.
pub fn pair_on(seed: u64, kinds: [NatKind; 2], link: LinkProfile) -> Relayed {
    let mut pair = started(seed, kinds, link);
    pair.world.run_for(Duration::from_secs(2));
    pair
}

/// The same at the moment at which they are started.
fn started(seed: u64, kinds: [NatKind; 2], link: LinkProfile) -> Relayed {
    let config = HostConfig {
        tells_addresses: true,
        ..HostConfig::default()
    };
    Relayed::with(seed, (link, config), kinds, 2)
}

/// One cell of the grid.
///
/// # Panics
/// When the ledger is violated.
pub fn cell(seed: u64, kinds: [NatKind; 2]) -> Cell {
    meeting(pair(seed, kinds), kinds)
}

/// The same where both nodes have just been started, and have neither relay yet.
pub fn cold_cell(seed: u64, kinds: [NatKind; 2]) -> Cell {
    meeting(
        started(seed, kinds, LinkProfile::round_trip(ROUND_TRIP)),
        kinds,
    )
}

/// One cell where both nodes have one relay and nobody else; whether that can be asked at a second port.
///
/// # Panics
/// When the ledger is violated.
pub fn one_relay_cell(seed: u64, kinds: [NatKind; 2], second_port: bool) -> Cell {
    let config = HostConfig {
        tells_addresses: true,
        ..HostConfig::default()
    };
    let link = LinkProfile::round_trip(ROUND_TRIP);
    let mut pair = Relayed::with(seed, (link, config), kinds, 1);
    let relay = pair.relays[0];
    pair.world.kill(relay);
    pair.world.host_mut(relay).config.second_port = second_port;
    pair.world.start(relay);
    pair.world.run_for(Duration::from_secs(2));
    meeting(pair, kinds)
}

fn meeting(mut pair: Relayed, kinds: [NatKind; 2]) -> Cell {
    let began = pair.world.now();
    let mut direct = None;
    let mut sent = Vec::new();
    while pair.world.now() < began + WATCH && direct.is_none() {
        sent.extend(pair.talk(Duration::from_millis(20)));
        direct = pair.is_direct().then(|| pair.world.now() - began);
    }
    sent.extend(pair.talk(Duration::from_millis(200)));
    pair.world.run_for(Duration::from_secs(1));
    let ledger = &pair.world.ledger;
    assert_eq!(ledger.violations(), Vec::<String>::new());
    let first = |from, to| ledger.first_delivery(from, to, began);
    let both = first(pair.a, pair.b).zip(first(pair.b, pair.a));
    let connected = both.map(|(there, back)| there.max(back) - began);
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
