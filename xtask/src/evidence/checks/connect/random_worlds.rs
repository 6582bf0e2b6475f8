//! Random worlds, as many as the promise names.

use super::Measured;
use crate::evidence::checks::worlds;
use shadowmesh_sim::scenario::{random, random_ways};

/// Worlds: half of them with everybody in the internet, half behind NATs, with relays that die and lie.
const SEEDS: u64 = 10_000;

/// Stops at the first seed that fails and says how to replay it.
pub fn run() -> Result<Measured, String> {
    worlds::run(SEEDS, &[random::run, random_ways::run])
}
