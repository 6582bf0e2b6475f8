//! Random worlds, as many as fit between other checks.

use super::Measured;
use crate::evidence::checks::worlds;
use shadowmesh_sim::scenario::random;

/// Worlds, one for each seed from 1.
const SEEDS: u64 = 300;

/// Stops at the first seed that fails and says how to replay it.
pub fn run() -> Result<Measured, String> {
    worlds::run(SEEDS, &[random::run])
}
