//! Random worlds, as many as fit between other checks.

use super::Measured;
use crate::evidence::checks::worlds;
use shadowmesh_sim::scenario::random;
use std::ops::RangeInclusive;

/// Worlds, one for each seed from 1.
pub const SEEDS: u64 = 300;

/// The worlds of these seeds.
pub fn run(seeds: RangeInclusive<u64>) -> Result<Measured, String> {
    worlds::run(seeds, &[random::run])
}
