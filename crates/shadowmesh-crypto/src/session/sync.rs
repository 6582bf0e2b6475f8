//! The synchronisation primitives of the data plane, in one place so that the model checker can put
//! its own under the same source files (`model`).

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};
