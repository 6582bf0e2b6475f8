//! What must hold however threads interleave, checked over every interleaving by loom.
//!
//! The files under check are the real ones, compiled here once more with loom's primitives where
//! they otherwise have those of `std`.

#![allow(dead_code, reason = "the models use a part of each file")]

use super::{Authentic, OpenError, Opened, ReplayWindow};

mod sync {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;
}

#[expect(clippy::duplicate_mod, reason = "that is the point: other primitives")]
#[path = "counters.rs"]
mod counters;
#[expect(clippy::duplicate_mod, reason = "that is the point: other primitives")]
#[path = "window.rs"]
mod window;

use counters::Counters;
use loom::sync::Arc;
use loom::thread;
use window::SharedWindow;

/// Threads that take ranges of different lengths, until nothing is left, and seal under each counter.
/// The record that builds with debug assertions keep is under check too.
// PROTOCOL SM-SF-3
#[test]
fn model_no_counter_is_reserved_or_sealed_twice() {
    let seal = |counters: &Counters, lens: [u64; 2]| {
        let ranges = lens.map(|n| counters.reserve(n, 6).map(|first| first..first + n));
        let all: Vec<u64> = ranges.into_iter().flatten().flatten().collect();
        all.iter().for_each(|&counter| counters.spend(counter));
        all
    };
    loom::model(move || {
        let counters = Arc::new(Counters::default());
        let theirs = Arc::clone(&counters);
        let thread = thread::spawn(move || seal(&theirs, [2, 1]));
        let mut all = seal(&counters, [1, 3]);
        all.extend(thread.join().unwrap());
        all.sort_unstable();
        let given: Vec<u64> = (0..all.len() as u64).collect();
        assert_eq!(all, given, "no counter twice, none left out");
        assert!(all.len() >= 4, "one range at most did not fit");
    });
}

/// Two receivers, each with a run of its own frames and a copy of one of the other's.
// PROTOCOL SM-SF-4
#[test]
fn model_a_frame_that_reaches_two_threads_is_accepted_by_exactly_one() {
    loom::model(|| {
        let window = Arc::new(SharedWindow::new());
        let runs = [vec![7, 8, 10], vec![8, 9, 10, 7]];
        let [first, second] = runs.map(|run| {
            let window = Arc::clone(&window);
            move || {
                let before = window.highest();
                let mut accepted = Vec::new();
                let mut acceptance = window.lock();
                for counter in run {
                    match acceptance.accept(&Authentic::of(counter)) {
                        Ok(opened) => accepted.push(opened.counter),
                        Err(error) => assert_eq!(error, OpenError::Replayed),
                    }
                }
                drop(acceptance);
                // What expands the next run's counters never goes back.
                assert!(window.highest() >= before.max(10));
                accepted
            }
        });
        let thread = thread::spawn(first);
        let mut all = second();
        all.extend(thread.join().unwrap());
        all.sort_unstable();
        assert_eq!(
            all,
            [7, 8, 9, 10],
            "each once, and none refused that was fresh"
        );
    });
}
