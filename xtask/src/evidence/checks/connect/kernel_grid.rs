//! The grid of NATs once more, with the kernel's own NAT, real programs and real devices.

use super::Measured;
use super::field::text;
use super::program;
use serde_json::json;
use shadowmesh::lab::internet::INSIDE;
use shadowmesh::lab::{Internet, Meeting};
use shadowmesh_io::lab::{NatBoxConfig, NatBoxKind};
use shadowmesh_sim::NatKind;
use shadowmesh_sim::scenario::direct::{Cell, has_direct_way, table};
use std::time::Duration;

/// The promise, from when both programs answer and traffic begins.
const CONNECTED_MAX: Duration = Duration::from_secs(2);
const DIRECT_MAX: Duration = Duration::from_secs(5);
/// How long is waited at most, to tell late from never.
const CONNECTED_WAIT: Duration = Duration::from_secs(10);
const DIRECT_WAIT: Duration = Duration::from_secs(7);
/// Where no straight way exists the pair is looked at for so long.
const NO_WAY_WAIT: Duration = Duration::from_secs(1);
/// Ports of the router that counts them.
const COUNTED: std::ops::RangeInclusive<u16> = 20_000..=29_999;
/// Games of guessing.
const GAMES: usize = 10;

/// The kernel's boxes of a kind, the outermost first.
fn boxes(kind: NatKind) -> Vec<NatBoxConfig> {
    let of = NatBoxConfig::new;
    match kind {
        NatKind::Open => vec![],
        NatKind::FullCone => vec![of(NatBoxKind::FullCone(INSIDE))],
        NatKind::AddressRestricted => vec![of(NatBoxKind::AddressRestricted(INSIDE))],
        NatKind::PortRestricted => vec![of(NatBoxKind::PortRestricted)],
        NatKind::SymmetricSequential => vec![of(NatBoxKind::SymmetricSequential(COUNTED))],
        NatKind::SymmetricRandom => vec![of(NatBoxKind::FullyRandom)],
        NatKind::Double => vec![of(NatBoxKind::PortRestricted); 2],
        NatKind::UdpBlocked => vec![NatBoxConfig {
            udp_blocked: true,
            ..of(NatBoxKind::PortRestricted)
        }],
    }
}

/// Whether the straight way of a pair has to be guessed at; see [`guessing`].
fn is_guessed(kinds: [NatKind; 2]) -> bool {
    let filters_by_port =
        |kind: &NatKind| matches!(kind, NatKind::PortRestricted | NatKind::Double);
    kinds.contains(&NatKind::SymmetricRandom) && kinds.iter().any(filters_by_port)
}

/// Two fresh nodes of these kinds meet.
fn meet(internet: &mut Internet, kinds: [NatKind; 2]) -> Result<Meeting, String> {
    let [first, second] = kinds.map(boxes);
    let mut pair = internet.pair([&first, &second]).map_err(text)?;
    pair.start().map_err(text)?;
    let direct_wait = match has_direct_way(kinds) {
        true => DIRECT_WAIT,
        false => NO_WAY_WAIT,
    };
    Ok(pair.meet(CONNECTED_WAIT, direct_wait))
}

fn build() -> Result<(Internet, tempfile::TempDir), String> {
    let directory = tempfile::tempdir().map_err(text)?;
    let mut internet = Internet::build(&program::path(), directory.path()).map_err(text)?;
    internet.start_relays().map_err(text)?;
    Ok((internet, directory))
}

/// Every pair of kinds once; which of the two pings makes no difference to the boxes, so the table is
/// mirrored.
pub fn run() -> Result<Measured, String> {
    let (mut internet, _directory) = build()?;
    let mut cells: Vec<Cell> = Vec::new();
    for (number, row) in NatKind::ALL.into_iter().enumerate() {
        for (column, kind) in NatKind::ALL.into_iter().enumerate() {
            let kinds = [row, kind];
            let mirrored = column < number;
            let cell = if mirrored {
                let twin = cells[column * NatKind::ALL.len() + number];
                Cell { kinds, ..twin }
            } else {
                let meeting = meet(&mut internet, kinds)?;
                Cell {
                    kinds,
                    connected: meeting.connected,
                    direct: meeting.direct,
                    lost: meeting.lost as usize,
                }
            };
            cells.push(cell);
        }
    }
    let text = table(&cells);
    eprintln!("{text}");
    let once: Vec<Cell> = cells
        .into_iter()
        .filter(|c| c.kinds[0] <= c.kinds[1])
        .collect();
    Ok(judge(&once, text))
}

fn judge(cells: &[Cell], table: String) -> Measured {
    let within = |time: Option<Duration>, limit| time.is_some_and(|time| time <= limit);
    let name = |cell: &Cell| cell.kinds.map(NatKind::name).join(" - ");
    let connected = cells
        .iter()
        .filter(|cell| within(cell.connected, CONNECTED_MAX))
        .count();
    let (guessed, aimed): (Vec<&Cell>, Vec<&Cell>) = cells
        .iter()
        .filter(|cell| has_direct_way(cell.kinds))
        .partition(|cell| is_guessed(cell.kinds));
    let is_met = |cell: &&&Cell| within(cell.direct, DIRECT_MAX);
    let direct = aimed.iter().filter(is_met).count();
    let won = guessed.iter().filter(is_met).count();
    let slowest = |times: &dyn Fn(&Cell) -> Option<Duration>| {
        let slowest = cells.iter().filter_map(times).max().unwrap_or_default();
        slowest.as_millis()
    };
    let late = cells
        .iter()
        .filter(|cell| !within(cell.connected, CONNECTED_MAX));
    let not_direct = aimed.iter().filter(|cell| !is_met(cell)).copied();
    let missing: Vec<String> = late.chain(not_direct).map(name).collect();
    let astray = cells
        .iter()
        .filter(|c| !has_direct_way(c.kinds) && c.direct.is_some());
    let lost: usize = cells.iter().map(|cell| cell.lost).sum();
    Measured {
        pass: missing.is_empty() && lost == 0 && astray.count() == 0,
        figure: format!(
            "{connected} of {} pairs connected within 2 s, slowest {} ms; {direct} of {} that can be aimed at \
             straight within 5 s, slowest of all {} ms; {won} of {} by guessing; {lost} pings lost{}",
            cells.len(),
            slowest(&|cell| cell.connected),
            aimed.len(),
            slowest(&|cell| cell.direct),
            guessed.len(),
            match missing.is_empty() {
                true => String::new(),
                false => format!(" (not: {})", missing.join(", ")),
            },
        ),
        values: json!({
            "table": table,
            "connected": connected,
            "direct": direct,
            "guessed": won,
            "lost": lost,
        }),
    }
}

/// Random ports against filtering by port, with the kernel drawing the ports.
pub fn guessing() -> Result<Measured, String> {
    let (mut internet, _directory) = build()?;
    let mut all = Vec::new();
    for _ in 0..GAMES {
        let kinds = [NatKind::SymmetricRandom, NatKind::PortRestricted];
        all.push(meet(&mut internet, kinds)?.direct);
    }
    let met = all.iter().flatten().filter(|time| **time <= DIRECT_MAX);
    let mut times: Vec<u128> = met.map(Duration::as_millis).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(Measured {
        pass: times.len() * 2 > GAMES,
        figure: format!(
            "straight within 5 s in {} of {GAMES} runs, median {median} ms, slowest {} ms",
            times.len(),
            times.last().copied().unwrap_or_default(),
        ),
        values: json!({
            "games": GAMES,
            "met": times.len(),
            "median_ms": median as u64,
            "times_ms": times.iter().map(|ms| *ms as u64).collect::<Vec<_>>(),
        }),
    })
}
