//! `evidence connect`: what is promised of ways to peers, whatever stands between.

mod random_worlds;

use super::{Check, Measured, Run};

/// All of them, quick ones first.
pub const CHECKS: &[Check] = &[Check {
    name: "random-worlds",
    what: "10,000 random worlds: who has a way is connected, nothing is delivered twice, queues are bounded",
    run: Run::Once(random_worlds::run),
}];
