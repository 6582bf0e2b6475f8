//! `evidence connect`: what is promised of ways to peers, whatever stands between.

mod random_worlds;
mod web;

use super::{Check, Measured, Run};

/// All of them, quick ones first.
pub const CHECKS: &[Check] = &[
    Check {
        name: "web",
        what: "without UDP, or with nothing but an HTTP proxy, connected by WebSocket within 3 s",
        run: Run::Once(web::run),
    },
    Check {
        name: "random-worlds",
        what: "10,000 random worlds: who has a way is connected, nothing is delivered twice, queues are bounded",
        run: Run::Once(random_worlds::run),
    },
];
