//! `evidence speed`: what the data plane promises, on two cores and with both ends on them.

mod comparison;
mod memory;
mod mtu;
mod planes;
mod soak;
mod stream;

use super::{Check, Measured, Run, field, program};

/// All of them, quick ones first.
pub const CHECKS: &[Check] = &[
    Check {
        name: "tcp",
        what: "one TCP stream, both ciphers, reverse, four, inner IPv6, and the memory",
        run: Run::Once(comparison::tcp),
    },
    Check {
        name: "peers",
        what: "a clear multiple of the best other tunnel of the same run, in speed and in cost",
        run: Run::Once(comparison::peers),
    },
    Check {
        name: "ping",
        what: "what the tunnel adds to a ping, idle and beside a TCP stream that saturates it",
        run: Run::Once(comparison::ping),
    },
    Check {
        name: "udp",
        what: "datagrams one by one, paced and in a flood, beside the best other tunnel",
        run: Run::Once(comparison::udp),
    },
    Check {
        name: "udp-gso",
        what: "datagrams in super-packets, paced and in a flood, beside the best other tunnel",
        run: Run::Once(comparison::udp_gso),
    },
    Check {
        name: "mtu",
        what: "64 MiB arrive intact over every underlay from 576 to 9000, and while 1500 becomes 1300",
        run: Run::Once(mtu::run),
    },
    Check {
        name: "quic-plane",
        what: "the namespace tests pass with packets in QUIC datagrams",
        run: Run::Once(planes::quic),
    },
    Check {
        name: "soak-asserted",
        what: "as soak, ten minutes of a build that stops when a counter is used twice",
        run: Run::For(soak::TIME_ASSERTED, soak::asserted),
    },
    Check {
        name: "soak",
        what: "30 minutes at full speed with new keys every 10 s: only the queue drops, memory is flat",
        run: Run::For(soak::TIME, soak::released),
    },
];
