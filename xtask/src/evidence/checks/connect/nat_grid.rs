//! The grid of NATs: who connects, how soon, and who goes straight.

use super::Measured;
use crate::evidence::checks::worlds::on_all_cores;
use serde_json::json;
use shadowmesh_sim::NatKind;
use shadowmesh_sim::scenario::direct::{Cell, cell, grid, has_direct_way, table};
use std::time::Duration;

/// Every pair of kinds once.
pub fn run() -> Result<Measured, String> {
    let cells = grid(1);
    let text = table(&cells);
    eprintln!("{text}");
    let within = |time: Option<Duration>, seconds| {
        time.is_some_and(|time| time <= Duration::from_secs(seconds))
    };
    let names = |which: &dyn Fn(&Cell) -> bool| {
        let missing = cells.iter().filter(|cell| which(cell));
        let names = missing.map(|cell| cell.kinds.map(NatKind::name).join(" - "));
        names.collect::<Vec<_>>()
    };
    let apart = names(&|cell| !within(cell.connected, 2));
    let crooked = names(&|cell| has_direct_way(cell.kinds) && !within(cell.direct, 5));
    let could = cells
        .iter()
        .filter(|cell| has_direct_way(cell.kinds))
        .count();
    let lost: usize = cells.iter().map(|cell| cell.lost).sum();
    let not = |names: &[String]| match names {
        [] => String::new(),
        names => format!(" (not: {})", names.join(", ")),
    };
    let (connected, direct) = (cells.len() - apart.len(), could - crooked.len());
    Ok(Measured {
        pass: apart.is_empty() && crooked.is_empty() && lost == 0,
        figure: format!(
            "{connected} of {} cells connected within 2 s{}, {direct} of {could} with a straight way on it \
             within 5 s{}, {lost} packets lost",
            cells.len(),
            not(&apart),
            not(&crooked)
        ),
        values: json!({"table": text, "connected": connected, "direct": direct, "lost": lost}),
    })
}

/// Random ports against filtering by port: the birthday game, over many seeds.
pub fn guessing() -> Result<Measured, String> {
    const GAMES: u64 = 60;
    let kinds = [NatKind::SymmetricRandom, NatKind::PortRestricted];
    let games = on_all_cores(1..=GAMES, |seed| cell(seed, kinds).direct);
    let mut times: Vec<Duration> = games.into_iter().flatten().collect();
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
