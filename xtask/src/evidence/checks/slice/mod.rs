//! `evidence slice`: what the first slice promises, from the handshake to a fresh clone.

mod bulk;
mod demo;
mod flood;
mod flow;
mod fresh_clone;
mod fuzzing;
mod handshake_cost;
mod handshakes;
mod pings;
mod recovery;
mod throughput;
mod wire;
mod worlds;

use super::{Check, Measured, Run, field, program};

/// All of them, quick ones first.
pub const CHECKS: &[Check] = &[
    Check {
        name: "demo",
        what: "shadowmesh demo ends in success",
        run: Run::Once(demo::run),
    },
    Check {
        name: "handshake-cost",
        what: "CPU and bytes of a handshake on each side, beside classical X25519 + Ed25519",
        run: Run::Once(handshake_cost::run),
    },
    Check {
        name: "handshake-time",
        what: "the client is done within 1.15 round trips, on first contact and on return",
        run: Run::Once(handshakes::time),
    },
    Check {
        name: "handshake-loss",
        what: "of 1,000 handshakes at 5 % loss and at 20 % none hangs",
        run: Run::Once(handshakes::loss),
    },
    Check {
        name: "worlds",
        what: "random simulated worlds stay safe and recover",
        run: Run::Worlds(worlds::SEEDS, worlds::run),
    },
    Check {
        name: "pings",
        what: "2,000 pings at 1 ms lose none, IPv4 and IPv6 inside and outside",
        run: Run::Once(pings::run),
    },
    Check {
        name: "wire",
        what: "on the wire no plaintext, address or name, and nothing that is not QUIC version 1",
        run: Run::Once(wire::run),
    },
    Check {
        name: "recovery",
        what: "after kill -9 of either side packets flow within 1.5 s of its restart",
        run: Run::Once(recovery::run),
    },
    Check {
        name: "flood",
        what: "50,000 spoofed first packets a second cost little and keep nobody out",
        run: Run::Once(flood::run),
    },
    Check {
        name: "throughput",
        what: "one TCP stream through the tunnel, beside the bare veth",
        run: Run::Once(throughput::run),
    },
    Check {
        name: "bulk",
        what: "4 GiB each way arrive unchanged while keys rotate every 10 s",
        run: Run::Once(bulk::run),
    },
    Check {
        name: "fresh-clone",
        what: "the README's two commands succeed in a fresh clone",
        run: Run::Once(fresh_clone::run),
    },
    Check {
        name: "fuzz",
        what: "every fuzz target runs ten minutes clean",
        run: Run::Once(fuzzing::run),
    },
];
