//! One replay window for any number of receiving threads.
//!
//! Opening a frame is the expensive part and needs no lock: it asks the window only for the highest
//! counter so far, to expand the truncated one, and an old answer does as well as a new one (the
//! expansion tolerates 2^31 counters either way, RFC 9000 appendix A.3; threads are late by
//! thousands). Accepting is cheap and is done under the lock, a run of frames at a time, after
//! authentication and before anything of the run is delivered. So two threads that open the same
//! frame at the same moment both find it authentic, and exactly one of them may deliver it.
//!
//! This file is compiled a second time against a model checker (`model`): it must take its
//! primitives from `super::sync`.

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError};
use super::{Authentic, OpenError, Opened, ReplayWindow};

/// The replay window of a session. Shared by threads.
#[derive(Debug)]
pub struct SharedWindow {
    /// Follows the highest counter of `window`: behind it while a run is accepted, never ahead.
    highest: AtomicU64,
    window: Mutex<ReplayWindow>,
}

impl SharedWindow {
    /// An empty window.
    pub fn new() -> Self {
        Self {
            highest: AtomicU64::new(0),
            window: Mutex::new(ReplayWindow::new()),
        }
    }

    /// About the highest counter seen, for [`Opener::open`](super::Opener::open). HOT PATH.
    pub fn highest(&self) -> u64 {
        // Relaxed: nothing is read on the strength of it, and any recent value will do.
        self.highest.load(Ordering::Relaxed)
    }

    /// Locks the window for a run of frames. Hold it neither while opening nor while delivering.
    /// HOT PATH, once for each run.
    pub fn lock(&self) -> Acceptance<'_> {
        Acceptance {
            highest: &self.highest,
            // A thread that panicked while it held the window left it valid: it is only bits.
            window: self.window.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

impl Default for SharedWindow {
    fn default() -> Self {
        Self::new()
    }
}

/// The right to accept frames; others wait.
pub struct Acceptance<'w> {
    highest: &'w AtomicU64,
    window: MutexGuard<'w, ReplayWindow>,
}

impl Acceptance<'_> {
    /// HOT PATH. Accepts an authentic frame, once.
    ///
    /// # Errors
    /// [`OpenError::Replayed`] and [`OpenError::TooOld`].
    // PROTOCOL SM-SF-4
    #[inline]
    pub fn accept(&mut self, frame: &Authentic) -> Result<Opened, OpenError> {
        self.window.accept(frame.counter())?;
        Ok(frame.accepted())
    }
}

impl Drop for Acceptance<'_> {
    fn drop(&mut self) {
        // Under the lock still, so that it never goes back.
        self.highest.store(self.window.highest(), Ordering::Relaxed);
    }
}
