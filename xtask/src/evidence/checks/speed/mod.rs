//! `evidence speed`: what the data plane promises, on two cores and with both ends on them.

mod memory;
mod mtu;
mod soak;
mod stream;

use super::{Check, Measured, Run, field, program};

/// All of them, quick ones first.
pub const CHECKS: &[Check] = &[
    Check {
        name: "mtu",
        what: "64 MiB arrive intact over every underlay from 576 to 9000, and while 1500 becomes 1300",
        run: Run::Once(mtu::run),
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
