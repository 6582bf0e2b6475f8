//! Random worlds, as many as the promise names.

use super::Measured;
use crate::evidence::checks::worlds;

/// Worlds, one for each seed from 1.
const SEEDS: u64 = 10_000;

/// Stops at the first seed that fails and says how to replay it.
pub fn run() -> Result<Measured, String> {
    worlds::run(SEEDS)
}
