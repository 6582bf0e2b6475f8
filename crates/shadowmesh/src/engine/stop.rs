//! How a data thread is told to end, whether it works or sleeps.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use shadowmesh_io::poll::Waker;

/// Shared by control and one data thread. A thread of its own each: a wake-up wakes one sleeper.
pub struct Stop {
    set: AtomicBool,
    waker: Waker,
}

impl Stop {
    /// Not set yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            set: AtomicBool::new(false),
            waker: Waker::new()?,
        })
    }

    /// Tells the thread to end. The wake-up is never cleared, so it cannot be missed.
    pub fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    /// Whether it is time to end: a busy thread asks once for each batch.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Relaxed)
    }

    /// What a thread watches while it sleeps.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }
}
