//! The lines that judge one run of `cargo xtask bench`: the first of them that is asked for runs it, the
//! others judge the same run. The bounds stand in [`crate::bench::verdicts`].

use super::Measured;
use crate::bench;
use crate::bench::results::Results;
use crate::bench::verdicts::{self, Verdict};
use std::sync::OnceLock;

/// One TCP stream and its siblings.
pub fn tcp() -> Result<Measured, String> {
    judged(verdicts::tcp)
}

/// The multiple of the best peer.
pub fn peers() -> Result<Measured, String> {
    judged(verdicts::peers)
}

/// Delay.
pub fn ping() -> Result<Measured, String> {
    judged(verdicts::ping)
}

/// Datagrams one by one.
pub fn udp() -> Result<Measured, String> {
    judged(verdicts::udp)
}

/// Datagrams in super-packets.
pub fn udp_gso() -> Result<Measured, String> {
    judged(verdicts::udp_gso)
}

fn judged(judge: fn(&Results) -> Verdict) -> Result<Measured, String> {
    static RUN: OnceLock<Result<Results, String>> = OnceLock::new();
    let run = RUN.get_or_init(|| bench::evidence().map_err(|failure| failure.to_string()));
    let results = run.as_ref().map_err(Clone::clone)?;
    let verdict = judge(results);
    Ok(Measured {
        pass: verdict.pass,
        figure: verdict.figure,
        values: results.to_json(),
    })
}
