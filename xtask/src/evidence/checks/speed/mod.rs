//! `evidence speed`: what the data plane promises, on two cores and with both ends on them.

use super::Check;

/// All of them, quick ones first.
pub const CHECKS: &[Check] = &[];
