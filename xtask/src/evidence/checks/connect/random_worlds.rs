//! Random worlds, as many as the promise names.

use super::Measured;
use crate::evidence::checks::worlds;
use shadowmesh_sim::scenario::{random, random_ways};
use std::ops::RangeInclusive;

/// Each is the seed of two worlds: one with everybody in the internet, and one with NATs and firewalls, and with
/// relays that die and lie.
pub const SEEDS: u64 = 5_000;

/// The worlds of these seeds.
pub fn run(seeds: RangeInclusive<u64>) -> Result<Measured, String> {
    worlds::run(seeds, &[random::run, random_ways::run])
}
