//! The synchronisation primitives of what the data threads share, in one place so that the model
//! checker can put its own under the same source files (`model`).

pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
