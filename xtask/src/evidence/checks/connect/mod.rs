//! `evidence connect`: what is promised of ways to peers, whatever stands between.

mod breaks;
mod crowd;
mod darkness;
mod kernel_grid;
mod nat_grid;
mod random_worlds;
mod relay_clients;
mod relay_death;
mod relay_rate;
mod thousand_peers;
mod web;

use super::{Check, Measured, Run, field, program};

/// All of them, quick ones first.
pub const CHECKS: &[Check] = &[
    Check {
        name: "web",
        what: "without UDP, or with nothing but an HTTP proxy, connected by WebSocket within 3 s",
        run: Run::Once(web::run),
    },
    Check {
        name: "nat-grid",
        what: "64 pairs of NATs: connected within 2 s, straight within 5 s where that is possible",
        run: Run::Simulated(nat_grid::run),
    },
    Check {
        name: "guessing",
        what: "random ports against filtering by port are met by guessing in most runs",
        run: Run::Simulated(nat_grid::guessing),
    },
    Check {
        name: "kernel-grid",
        what: "36 pairs of the kernel's own NATs: connected over a relay within 2 s, straight within 5 s where that is possible",
        run: Run::Once(kernel_grid::run),
    },
    Check {
        name: "kernel-guessing",
        what: "random ports of the kernel against filtering by port are met by guessing in most runs",
        run: Run::Once(kernel_grid::guessing),
    },
    Check {
        name: "breaks",
        what: "a way cut under traffic: the relay within 500 ms; a relay killed: the next within 1 s; in silence: within 30 s",
        run: Run::Simulated(breaks::breaks),
    },
    Check {
        name: "switching",
        what: "20 switches each way under 500 Mbit/s: none lost or doubled by them, pauses under 50 ms, migration under 201 ms",
        run: Run::Simulated(breaks::switching),
    },
    Check {
        name: "relay-rate",
        what: "one TCP stream over a relay, all three on this machine: 2 Gbit/s and more",
        run: Run::Once(relay_rate::run),
    },
    Check {
        name: "relay-death",
        what: "a relay is killed under traffic: packets flow over the second within a second",
        run: Run::Once(relay_death::run),
    },
    Check {
        name: "relay-clients",
        what: "a relay with 1,000 clients: memory, CPU, and no more than its share for a greedy one",
        run: Run::Once(relay_clients::run),
    },
    Check {
        name: "thousand-peers",
        what: "1,000 connected peers of one node take less than 512 MiB; 10,000 connect, and their memory is shown",
        run: Run::Once(thousand_peers::run),
    },
    Check {
        name: "darkness",
        what: "a transfer goes on after 60 s without any network, and pings within 5 s",
        run: Run::Once(darkness::run),
    },
    Check {
        name: "random-worlds",
        what: "10,000 random worlds: who has a way is connected, nothing is delivered twice, queues are bounded",
        run: Run::Worlds(random_worlds::SEEDS, random_worlds::run),
    },
];
