//! Handshakes on the simulated world: how many round trips, and whether loss makes any hang.

use super::Measured;
use serde_json::{Value, json};
use shadowmesh_sim::scenario::handshake::{first_contact_and_return, under_loss};
use std::time::Duration;

const ROUND_TRIP: Duration = Duration::from_millis(100);

/// Client done, on first contact and on return.
const ROUND_TRIPS_MAX: f64 = 1.15;

/// Worlds for the time without loss, which differs little between seeds.
const SEEDS: u64 = 20;

/// Handshakes at each rate of loss.
const COUNT: u64 = 1000;

/// First contact and return, each in at most 1.15 round trips.
pub fn time() -> Result<Measured, String> {
    let runs: Vec<_> = (1..=SEEDS)
        .map(|seed| first_contact_and_return(seed, ROUND_TRIP))
        .collect();
    let worst = |which: usize| {
        runs.iter()
            .map(|run| run[which].handshaken_rtts)
            .fold(0.0, f64::max)
    };
    let (first, again) = (worst(0), worst(1));
    let resumed = runs.iter().all(|run| run[1].resumed && run[1].early_data);
    let bytes = |which: usize| (runs[0][which].client_bytes, runs[0][which].server_bytes);
    let figure = format!(
        "first contact {first:.2} round trips, return {again:.2}, worst of {SEEDS} seeds; bytes of \
         client and server {:?}, on return {:?}",
        bytes(0),
        bytes(1)
    );
    let rows = runs.iter().map(|run| json!([run[0].json(), run[1].json()]));
    Ok(Measured {
        pass: first <= ROUND_TRIPS_MAX && again <= ROUND_TRIPS_MAX && resumed,
        figure,
        values: Value::from_iter(rows),
    })
}

/// A thousand handshakes at 5 % and at 20 % loss, none of which may hang.
pub fn loss() -> Result<Measured, String> {
    let runs: Vec<_> = std::thread::scope(|scope| {
        let start = |loss| scope.spawn(move || under_loss(1, COUNT, ROUND_TRIP, loss));
        let running = [start(0.05), start(0.20)];
        running
            .map(|run| run.join().expect("a simulated world does not panic"))
            .into()
    });
    let figures: Vec<String> = runs
        .iter()
        .map(|run| {
            format!(
                "{:.0} % loss: {} of {COUNT} done, {} hung, p95 {} ms",
                run.loss * 100.0,
                run.times.count(),
                run.hung.len(),
                run.times.percentile(95).as_millis()
            )
        })
        .collect();
    Ok(Measured {
        pass: runs
            .iter()
            .all(|run| run.hung.is_empty() && run.times.count() as u64 == COUNT),
        figure: figures.join("; "),
        values: runs.iter().map(|run| run.json()).collect(),
    })
}
