//! Ways that break and come back under traffic.

use super::Measured;
use serde_json::json;
use shadowmesh_sim::scenario::direct::{Breaks, broken, switches};
use std::time::Duration;

const SEEDS: u64 = 20;

/// The straight way is cut, or the relay dies.
pub fn breaks() -> Result<Measured, String> {
    let limits = [
        (Breaks::Direct, "straight way cut", 500),
        (Breaks::DirectOneWay, "cut one way", 500),
        (Breaks::Relay, "relay killed", 1000),
    ];
    let (mut pass, mut figures, mut values) = (true, Vec::new(), Vec::new());
    for (what, name, limit) in limits {
        let mut worst = Duration::ZERO;
        for seed in 1..=SEEDS {
            let found = broken(seed, what);
            let healed = found.healed_in.unwrap_or(Duration::MAX);
            pass &= found.kept_session && healed <= Duration::from_millis(limit);
            worst = worst.max(healed);
        }
        figures.push(format!(
            "{name}: at most {} ms (limit {limit})",
            worst.as_millis()
        ));
        values.push(json!({"what": name, "worst_ms": worst.as_millis() as u64}));
    }
    Ok(Measured {
        pass,
        figure: format!("{SEEDS} runs each: {}", figures.join("; ")),
        values: json!(values),
    })
}

/// Twenty times over the relay and back, at each loss.
pub fn switching() -> Result<Measured, String> {
    let (mut pass, mut figures, mut values) = (true, Vec::new(), Vec::new());
    for loss in [0.0, 0.001, 0.02] {
        let mut found = switches(1, 20, loss);
        found.pauses.sort_unstable();
        found.breaks.sort_unstable();
        let pause = found.pauses.last().copied().unwrap_or_default();
        let broke = found.breaks.last().copied().unwrap_or_default();
        let share = found.lost as f64 / found.sent.max(1) as f64;
        // Over the relay a packet crosses two links.
        pass &= share <= 2.5 * loss && pause < Duration::from_millis(50);
        pass &= found.migration < Duration::from_millis(201);
        pass &= broke < Duration::from_millis(500);
        figures.push(format!(
            "links lose {} %: {} of {} lost around {} switches, longest pause {} ms, back on the relay \
             within {} ms, first migration {} ms",
            loss * 100.0,
            found.lost,
            found.sent,
            found.count,
            pause.as_millis(),
            broke.as_millis(),
            found.migration.as_millis()
        ));
        values.push(json!({
            "loss": loss, "sent": found.sent, "lost": found.lost, "switches": found.count,
            "pause_ms": pause.as_millis() as u64, "back_ms": broke.as_millis() as u64,
            "migration_ms": found.migration.as_millis() as u64,
        }));
    }
    Ok(Measured {
        pass,
        figure: figures.join("; "),
        values: json!(values),
    })
}
