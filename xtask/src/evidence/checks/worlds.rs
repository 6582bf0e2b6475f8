//! Random worlds: whatever a seed brings, nothing forbidden comes through and all is well again.

use super::Measured;
use serde_json::json;
use shadowmesh_sim::scenario::random::RandomFigures;

/// What runs the world of a seed.
pub type Scenario = fn(u64) -> Result<RandomFigures, String>;

/// Runs a world of each scenario for each seed from 1 on, `seeds` in all. Stops at the first that fails and
/// says how to replay it.
pub fn run(seeds: u64, scenarios: &[Scenario]) -> Result<Measured, String> {
    let (mut sent, mut delivered, mut events) = (0, 0, 0);
    for seed in 1..=seeds / scenarios.len() as u64 {
        for scenario in scenarios {
            let figures = scenario(seed).map_err(|violation| {
                format!("seed {seed}: {violation}; cargo xtask sim --seed {seed} random")
            })?;
            sent += figures.sent;
            delivered += figures.delivered;
            events += figures.events;
        }
    }
    let values = json!({"worlds": seeds, "sent": sent, "delivered": delivered, "events": events});
    let figure = format!(
        "{seeds} worlds, {delivered} of {sent} packets delivered, none twice or to the wrong host"
    );
    Ok(Measured {
        pass: true,
        figure,
        values,
    })
}
