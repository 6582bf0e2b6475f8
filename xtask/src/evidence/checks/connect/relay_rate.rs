//! One TCP stream between two nodes that a relay joins, all three on this machine.

use super::Measured;
use super::crowd::process_cpu;
use super::field::text;
use super::program;
use serde_json::json;
use shadowmesh::lab::RelayedLab;
use shadowmesh::lab::bulk::{self, Amount, CONGESTION};
use std::thread;
use std::time::Duration;

/// The promise.
const GBIT_S_MIN: f64 = 2.0;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(8);
/// How long the two may take to reach each other.
const REACH_MAX: Duration = Duration::from_secs(10);
/// What the way takes must be found before a TCP connection is told of it.
const SETTLE: Duration = Duration::from_secs(2);

/// Median of the rounds, and the CPU time of the relay beside it.
pub fn run() -> Result<Measured, String> {
    let directory = tempfile::tempdir().map_err(text)?;
    let mut lab = RelayedLab::apart(&program::path(), directory.path(), 1).map_err(text)?;
    lab.configure().map_err(text)?;
    lab.start_all().map_err(text)?;
    let (from, to) = (&lab.nodes[0], &lab.nodes[1]);
    let address = to.overlay_v4().into();
    from.ping_until_answered(address, REACH_MAX)
        .ok_or("the two do not reach each other over the relay")?;
    thread::sleep(SETTLE);
    let relay = lab.nodes[2].pid().ok_or("the relay does not run")?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let before = process_cpu(relay)?;
        let report = bulk::transfer(&from.netns, &to.netns, address, Amount::Time(ROUND));
        let report = report.map_err(text)?;
        let cpu_s = (process_cpu(relay)? - before).as_secs_f64();
        let gbit = report.bytes as f64 * 8.0 / 1e9;
        rounds.push((report.gbit_s(), cpu_s / gbit.max(1e-9)));
    }
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (gbit_s, relay_cpu_s_per_gbit) = rounds[rounds.len() / 2];
    let peers = from.query("peers", &[]).map_err(text)?;
    let path = peers["peers"][0]["path"].clone();
    let is_relayed = path["kind"] == "relay";
    Ok(Measured {
        pass: gbit_s >= GBIT_S_MIN && is_relayed,
        figure: format!(
            "{gbit_s:.2} Gbit/s, the relay's CPU {relay_cpu_s_per_gbit:.3} s per Gbit; inner \
             {CONGESTION}, path {}",
            path["kind"]
        ),
        values: json!({
            "gbit_s": gbit_s,
            "relay_cpu_s_per_gbit": relay_cpu_s_per_gbit,
            "rounds": rounds,
            "path": path,
            "congestion": CONGESTION,
        }),
    })
}
