//! The grid of NATs: who connects, how soon, and who goes straight.

use super::Measured;
use serde_json::json;
use shadowmesh_sim::NatKind;
use shadowmesh_sim::scenario::direct::{Cell, cell, grid, has_direct_way, table};
use std::time::Duration;

/// Sockets in the simulated world are UDP only: where that is blocked the program goes by WebSocket, which
/// `namespaces` tests show; here such a pair is not expected to meet.
fn is_expected_to_connect(cell: &Cell) -> bool {
    !cell.kinds.contains(&NatKind::UdpBlocked)
}

/// Every pair of kinds once.
pub fn run() -> Result<Measured, String> {
    let cells = grid(1);
    let text = table(&cells);
    eprintln!("{text}");
    let within = |time: Option<Duration>, seconds| {
        time.is_some_and(|time| time <= Duration::from_secs(seconds))
    };
    let count = |which: &dyn Fn(&&Cell) -> bool| cells.iter().filter(which).count();
    let to_connect = count(&|cell| is_expected_to_connect(cell));
    let connected = count(&|c| is_expected_to_connect(c) && within(c.connected, 2));
    let to_go = count(&|cell| has_direct_way(cell.kinds));
    let direct = count(&|cell| has_direct_way(cell.kinds) && within(cell.direct, 5));
    let lost: usize = cells.iter().map(|cell| cell.lost).sum();
    let missing: Vec<String> = cells
        .iter()
        .filter(|cell| has_direct_way(cell.kinds) && !within(cell.direct, 5))
        .map(|cell| cell.kinds.map(NatKind::name).join(" - "))
        .collect();
    Ok(Measured {
        pass: connected == to_connect && direct == to_go && lost == 0,
        figure: format!(
            "{connected} of {to_connect} cells with UDP connected within 2 s, {direct} of {to_go} with a \
             straight way on it within 5 s{}, {lost} packets lost",
            if missing.is_empty() {
                String::new()
            } else {
                format!(" (not: {})", missing.join(", "))
            }
        ),
        values: json!({"table": text, "connected": connected, "direct": direct, "lost": lost}),
    })
}

/// Random ports against filtering by port: the birthday game, over many seeds.
pub fn guessing() -> Result<Measured, String> {
    const GAMES: u64 = 60;
    let kinds = [NatKind::SymmetricRandom, NatKind::PortRestricted];
    let mut times: Vec<Duration> = (1..=GAMES)
        .filter_map(|seed| cell(seed, kinds).direct)
        .collect();
    times.retain(|time| *time <= Duration::from_secs(5));
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(Measured {
        pass: times.len() as u64 * 2 > GAMES,
        figure: format!(
            "straight within 5 s in {} of {GAMES} runs, median {} ms",
            times.len(),
            median.as_millis()
        ),
        values: json!({"games": GAMES, "met": times.len(), "median_ms": median.as_millis() as u64}),
    })
}
