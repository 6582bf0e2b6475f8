//! A relay is killed while packets flow over it; the second one takes over.

use super::Measured;
use super::field::text;
use super::program;
use serde_json::json;
use shadowmesh::lab::RelayedLab;
use std::thread;
use std::time::Duration;

/// The promise: as long as this packets may be missing.
const GAP_MAX: Duration = Duration::from_secs(1);
const ROUNDS: usize = 5;
/// Pings flow before the relay dies, and until long after.
const INTERVAL: Duration = Duration::from_millis(10);
const BEFORE: Duration = Duration::from_secs(1);
const PINGS: u32 = 500;
/// How long the two may take to reach each other.
const REACH_MAX: Duration = Duration::from_secs(10);
/// For the second relay to be warm.
const SETTLE: Duration = Duration::from_secs(2);

/// The longest gap of several rounds, each with fresh nodes.
pub fn run() -> Result<Measured, String> {
    let mut gaps = Vec::new();
    for _ in 0..ROUNDS {
        gaps.push(round()?);
    }
    let longest = gaps.iter().copied().max().unwrap_or(Duration::MAX);
    let gaps_ms: Vec<u128> = gaps.iter().map(Duration::as_millis).collect();
    Ok(Measured {
        pass: longest <= GAP_MAX,
        figure: format!("pings every 10 ms were missing for {gaps_ms:?} ms"),
        values: json!({ "gaps_ms": gaps_ms.iter().map(|ms| *ms as u64).collect::<Vec<_>>() }),
    })
}

/// For how long packets were missing: every lost ping stands for its interval.
fn round() -> Result<Duration, String> {
    let directory = tempfile::tempdir().map_err(text)?;
    let mut lab = RelayedLab::apart(&program::path(), directory.path(), 2).map_err(text)?;
    lab.configure().map_err(text)?;
    lab.start_all().map_err(text)?;
    let (nodes, relays) = lab.nodes.split_at_mut(2);
    let (from, to) = (&nodes[0], nodes[1].overlay_v4().into());
    from.ping_until_answered(to, REACH_MAX)
        .ok_or("the two do not reach each other over a relay")?;
    thread::sleep(SETTLE);
    let peers = from.query("peers", &[]).map_err(text)?;
    let used = peers["peers"][0]["path"]["relay"]
        .as_str()
        .unwrap_or_default();
    let used = relays.iter_mut().find(|relay| relay.id.to_string() == used);
    let used = used.ok_or("the path leads over none of the relays")?;
    let report = thread::scope(|scope| {
        let pings = scope.spawn(|| from.ping(to, PINGS, INTERVAL));
        thread::sleep(BEFORE);
        let killed = used.kill();
        let report = pings.join().expect("pinging does not panic");
        killed.and(report)
    });
    let lost = PINGS - report.map_err(text)?.received.min(PINGS);
    Ok(INTERVAL * lost)
}
