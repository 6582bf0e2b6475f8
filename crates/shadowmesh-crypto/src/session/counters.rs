//! The counters of one direction of a session: handed out once, used once.
//!
//! A counter that seals two frames under one key gives the key away, so builds with debug assertions
//! watch every one of them: what was handed out and not used yet is kept as a short list of ranges,
//! and sealing with anything else panics. That holds over all epochs and threads of the session. A
//! release build pays nothing for it: there this is one atomic.
//!
//! This file is compiled a second time against a model checker (`model`): it must take its
//! primitives from `super::sync`, and its tests are elsewhere.

#[cfg(debug_assertions)]
use std::collections::BTreeMap;

use super::sync::{AtomicU64, Ordering};
#[cfg(debug_assertions)]
use super::sync::{Mutex, MutexGuard, PoisonError};

/// Ranges that are remembered; with more, the lowest is forgotten, and a frame that comes for it after
/// so long stops the program. Whoever seals what it reserved leaves no range behind.
#[cfg(debug_assertions)]
const RANGES_MAX: usize = 1 << 14;

#[derive(Debug, Default)]
pub(super) struct Counters {
    /// The next free one.
    next: AtomicU64,
    #[cfg(debug_assertions)]
    ledger: Mutex<Ledger>,
}

impl Counters {
    /// The next free counter.
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// HOT PATH. Hands out `n` counters that nobody else gets, if they end at `end` or before.
    // PROTOCOL SM-SF-3
    #[inline]
    pub(super) fn reserve(&self, n: u64, end: u64) -> Option<u64> {
        // Relaxed: all that is needed is that no two threads get the same range, and the total
        // order of one atomic's changes gives that.
        let first = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                next.checked_add(n).filter(|&after| after <= end)
            })
            .ok()?;
        #[cfg(debug_assertions)]
        assert!(
            self.ledger().hand_out(first, first + n),
            "counters from {first} on are handed out a second time"
        );
        Some(first)
    }

    /// HOT PATH. A frame is sealed with `counter` now.
    ///
    /// # Panics
    /// In builds with debug assertions, when the counter was never handed out or sealed a frame before.
    // PROTOCOL SM-SF-3
    #[inline]
    pub(super) fn spend(&self, counter: u64) {
        #[cfg(debug_assertions)]
        assert!(
            self.ledger().unused.take(counter, counter + 1),
            "counter {counter} seals a second frame, or was never reserved"
        );
        #[cfg(not(debug_assertions))]
        let _ = counter;
    }

    #[cfg(debug_assertions)]
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A thread that panicked over one counter leaves what is known of the others.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As if `next` counters had been handed out and used.
    #[cfg(test)]
    pub(super) fn set(&self, next: u64) {
        self.next.store(next, Ordering::Relaxed);
    }

    /// How many ranges of unused counters are remembered.
    #[cfg(all(test, debug_assertions))]
    pub(super) fn unused_ranges(&self) -> usize {
        self.ledger().unused.0.len()
    }
}

/// What happened to every counter so far.
#[cfg(debug_assertions)]
#[derive(Debug, Default)]
struct Ledger {
    /// Nothing from here on was handed out.
    top: u64,
    /// Below the top and not written down as handed out yet: a thread is between the two.
    gaps: Ranges,
    /// Handed out and not used yet.
    unused: Ranges,
}

#[cfg(debug_assertions)]
impl Ledger {
    /// Writes down that `first..end` is somebody's; false when it was somebody's already.
    fn hand_out(&mut self, first: u64, end: u64) -> bool {
        if first >= self.top {
            self.gaps.add(self.top, first);
            self.top = end;
        } else if !self.gaps.take(first, end) {
            return false;
        }
        self.unused.add(first, end);
        true
    }
}

/// Ranges that do not touch: first of each, and the first behind it. At most [`RANGES_MAX`].
#[cfg(debug_assertions)]
#[derive(Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

#[cfg(debug_assertions)]
impl Ranges {
    fn add(&mut self, first: u64, end: u64) {
        if first == end {
            return;
        }
        let before = self.0.range(..first).next_back();
        match before.filter(|(_, before)| **before == first) {
            Some((&start, _)) => self.0.insert(start, end),
            None => self.0.insert(first, end),
        };
        if self.0.len() > RANGES_MAX {
            self.0.pop_first();
        }
    }

    /// Takes out `first..end`; false when not all of it is there.
    fn take(&mut self, first: u64, end: u64) -> bool {
        let around = self.0.range(..=first).next_back();
        let Some((&from, &to)) = around.filter(|(_, to)| end <= **to) else {
            return false;
        };
        self.0.remove(&from);
        if from < first {
            self.0.insert(from, first);
        }
        if end < to {
            self.0.insert(end, to);
        }
        true
    }
}
