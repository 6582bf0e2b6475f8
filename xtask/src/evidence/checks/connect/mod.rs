//! `evidence connect`: what is promised of ways to peers, whatever stands between.

mod breaks;
mod nat_grid;
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
        name: "nat-grid",
        what: "64 pairs of NATs: connected over a relay within 2 s, straight within 5 s where that is possible",
        run: Run::Once(nat_grid::run),
    },
    Check {
        name: "guessing",
        what: "random ports against filtering by port are met by guessing in most runs",
        run: Run::Once(nat_grid::guessing),
    },
    Check {
        name: "breaks",
        what: "a straight way cut under traffic: the relay within 500 ms; a relay killed: the next within 1 s",
        run: Run::Once(breaks::breaks),
    },
    Check {
        name: "switching",
        what: "20 switches each way under a stream: none lost or doubled by them, pauses under 50 ms, migration under 201 ms",
        run: Run::Once(breaks::switching),
    },
    Check {
        name: "random-worlds",
        what: "10,000 random worlds: who has a way is connected, nothing is delivered twice, queues are bounded",
        run: Run::Once(random_worlds::run),
    },
];
