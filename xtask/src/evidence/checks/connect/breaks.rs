//! Ways that break and come back under traffic, and ways that break in silence.

use super::Measured;
use crate::evidence::checks::worlds::on_all_cores;
use serde_json::json;
use shadowmesh_sim::scenario::breaks::{Breaks, broken, broken_in_silence};
use shadowmesh_sim::scenario::switches::{Cut, Plan, Switches, switches};
use std::time::Duration;

const SEEDS: u64 = 20;

/// What breaks, and how soon packets flow again.
const BREAKS: [(Breaks, &str, Duration); 3] = [
    (
        Breaks::Direct,
        "straight way cut",
        Duration::from_millis(500),
    ),
    (
        Breaks::DirectOneWay,
        "cut one way",
        Duration::from_millis(500),
    ),
    (Breaks::Relay, "relay killed", Duration::from_secs(1)),
];
/// The health interval: two nodes that say nothing have left a broken way by then.
const IN_SILENCE_MAX: Duration = Duration::from_secs(30);

/// The straight way is cut, or the relay dies.
pub fn breaks() -> Result<Measured, String> {
    let (mut pass, mut figures, mut values) = (true, Vec::new(), Vec::new());
    for (what, name, limit) in BREAKS {
        let loud = on_all_cores(1..=SEEDS, |seed| {
            let found = broken(seed, what);
            found.healed_in.filter(|_| found.kept_session)
        });
        let silent = on_all_cores(1..=SEEDS, |seed| broken_in_silence(seed, what));
        let [(loud, loud_ok), (silent, silent_ok)] =
            [(loud, limit), (silent, IN_SILENCE_MAX)].map(|(times, limit)| {
                let all = times.iter().all(|time| time.is_some_and(|t| t <= limit));
                (times.into_iter().flatten().max().unwrap_or_default(), all)
            });
        pass &= loud_ok && silent_ok;
        figures.push(format!(
            "{name}: at most {} ms (limit {}), in silence {:.1} s (limit {})",
            loud.as_millis(),
            limit.as_millis(),
            silent.as_secs_f64(),
            IN_SILENCE_MAX.as_secs()
        ));
        values.push(json!({
            "what": name, "worst_ms": loud.as_millis() as u64, "in_silence_ms": silent.as_millis() as u64,
            "all": loud_ok && silent_ok,
        }));
    }
    Ok(Measured {
        pass,
        figure: format!("{SEEDS} runs each: {}", figures.join("; ")),
        values: json!(values),
    })
}

const CYCLES: usize = 20;
/// 504 Mbit/s of packets.
const PACKETS_PER_MS: usize = 45;
const PAUSE_MAX: Duration = Duration::from_millis(50);
const MIGRATION_MAX: Duration = Duration::from_millis(201);
const BREAK_MAX: Duration = Duration::from_millis(500);

/// Twenty times over the relay and back, at each loss, with sound links under the stream and with cut ones.
pub fn switching() -> Result<Measured, String> {
    let losses = [0.0, 0.001, 0.02].iter();
    let runs: Vec<(Cut, f64)> = losses
        .flat_map(|loss| [(Cut::WayBack, *loss), (Cut::BothWays, *loss)])
        .collect();
    let found = on_all_cores(1..=runs.len() as u64, |number| {
        let (cut, loss) = runs[number as usize - 1];
        switches(Plan {
            seed: number,
            cycles: CYCLES,
            cut,
            loss,
            packets_per_ms: PACKETS_PER_MS,
        })
    });
    let (mut pass, mut figures, mut values) = (true, Vec::new(), Vec::new());
    for ((cut, loss), found) in runs.into_iter().zip(found) {
        pass &= is_seamless(&found, cut, loss);
        figures.push(figure(&found, cut, loss));
        values.push(json!({
            "loss": loss, "cut": format!("{cut:?}"), "to_relay": found.to_relay, "to_direct": found.to_direct,
            "sent": found.sent, "lost": found.lost, "stream_lost": found.stream_lost,
            "lost_by_nodes": found.lost_by_nodes,
            "pause_to_relay_ms": found.pauses_to_relay.percentile(99).as_millis() as u64,
            "pause_to_direct_ms": found.pauses_to_direct.percentile(99).as_millis() as u64,
            "back_ms": found.breaks.max().as_millis() as u64,
            "migration_ms": found.migration.as_millis() as u64,
        }));
    }
    Ok(Measured {
        pass,
        figure: figures.join("; "),
        values: json!(values),
    })
}

/// No packet lost but by links, none doubled (that ends the run), and no pause that the switch made.
fn is_seamless(found: &Switches, cut: Cut, loss: f64) -> bool {
    let sound = cut == Cut::WayBack;
    found.to_relay == CYCLES
        && found.to_direct == CYCLES
        && found.lost_by_nodes == 0
        && (found.stream_lost == 0 || loss > 0.0 || !sound)
        && found.pauses_to_direct.percentile(99) < PAUSE_MAX
        && (found.pauses_to_relay.percentile(99) < PAUSE_MAX || !sound)
        && found.breaks.max() < BREAK_MAX
        && found.migration < MIGRATION_MAX
}

fn figure(found: &Switches, cut: Cut, loss: f64) -> String {
    let pause = |pauses: &shadowmesh_sim::scenario::Sorted| pauses.percentile(99).as_millis();
    let (how, to_relay) = match cut {
        Cut::WayBack => (
            "way back cut",
            format!("{} ms to the relay", pause(&found.pauses_to_relay)),
        ),
        Cut::BothWays => (
            "cut",
            format!("on the relay within {} ms", found.breaks.max().as_millis()),
        ),
    };
    format!(
        "links lose {} %, {how}: {} packets, {} lost ({} of the stream), {} of them not by a link, p99 pause {} ms \
         to the straight way, {to_relay}, first migration {} ms",
        loss * 100.0,
        found.sent,
        found.lost,
        found.stream_lost,
        found.lost_by_nodes,
        pause(&found.pauses_to_direct),
        found.migration.as_millis()
    )
}
