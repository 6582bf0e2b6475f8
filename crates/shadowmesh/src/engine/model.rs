//! What must hold however the data threads interleave, checked over every interleaving by loom.
//!
//! The files under check are the real ones, compiled here once more with loom's primitives where
//! they otherwise have those of `std`. A deadlock, that is, threads that all wait, fails a model too.

#![allow(dead_code, reason = "the models use a part of each file")]

mod sync {
    pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub use std::sync::PoisonError;
}

#[expect(clippy::duplicate_mod, reason = "that is the point: other primitives")]
#[path = "cell.rs"]
mod cell;
#[expect(clippy::duplicate_mod, reason = "that is the point: other primitives")]
#[path = "turnstile.rs"]
mod turnstile;

use std::collections::VecDeque;

use cell::SnapshotCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use turnstile::Turnstile;

/// What receivers share: batches waiting in a socket, and what was delivered.
struct World {
    turnstile: Turnstile,
    socket: Mutex<VecDeque<u32>>,
    device: Mutex<Vec<u32>>,
}

impl World {
    fn new(threads: usize, batches: u32) -> Arc<Self> {
        Arc::new(Self {
            turnstile: Turnstile::new(threads),
            socket: Mutex::new((0..batches).collect()),
            device: Mutex::new(Vec::new()),
        })
    }

    /// A receiver: takes, works, delivers. With `keep` it stays in the entrance all the time, as for
    /// small batches. It ends after `batches_max`, or when nothing is left.
    fn receive(&self, batches_max: usize, keep: bool) {
        let mut kept = None;
        for _ in 0..batches_max {
            let mut entrance = kept.take().unwrap_or_else(|| self.turnstile.enter());
            let Some(batch) = self.socket.lock().unwrap().pop_front() else {
                return;
            };
            let ticket = entrance.ticket();
            kept = keep.then_some(entrance);
            thread::yield_now();
            ticket.wait();
            self.device.lock().unwrap().push(batch);
            drop(ticket);
        }
    }

    /// A receiver that fails with a batch in hand.
    fn fail(&self) {
        let mut entrance = self.turnstile.enter();
        if self.socket.lock().unwrap().pop_front().is_some() {
            let _ticket = entrance.ticket();
            drop(entrance);
        }
    }

    fn delivered(&self) -> Vec<u32> {
        self.device.lock().unwrap().clone()
    }
}

// PROTOCOL SM-DV-3
#[test]
fn model_two_receivers_deliver_in_the_order_they_received() {
    loom::model(|| {
        let world = World::new(2, 3);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || other.receive(3, false));
        world.receive(3, false);
        thread.join().unwrap();
        assert_eq!(world.delivered(), [0, 1, 2]);
    });
}

// PROTOCOL SM-DV-3
#[test]
fn model_three_receivers_one_of_which_stays_in_the_entrance_deliver_in_order() {
    let mut model = loom::model::Builder::new();
    // Every interleaving of three threads takes minutes; those with up to three preemptions seconds.
    model.preemption_bound = Some(3);
    model.check(|| {
        let world = World::new(3, 3);
        let others = [true, false].map(|keep| {
            let other = Arc::clone(&world);
            thread::spawn(move || other.receive(2, keep))
        });
        world.receive(1, false);
        for thread in others {
            thread.join().unwrap();
        }
        assert_eq!(world.delivered(), [0, 1, 2]);
    });
}

#[test]
fn model_a_receiver_that_fails_with_a_batch_in_hand_or_stops_hangs_nobody() {
    loom::model(|| {
        let world = World::new(2, 3);
        let other = Arc::clone(&world);
        let thread = thread::spawn(move || other.fail());
        world.receive(3, false);
        thread.join().unwrap();
        let delivered = world.delivered();
        assert!(delivered.is_sorted(), "{delivered:?}");
        assert!(delivered.len() >= 2, "only one was in the failed hands");
    });
}

/// Stands for a snapshot with keys in it: counts its own end.
struct Keys(Arc<AtomicUsize>);

impl Drop for Keys {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

// PROTOCOL SM-EP-3
#[test]
fn model_the_old_keys_are_gone_when_the_last_batch_with_them_ends() {
    loom::model(|| {
        let [old_ends, new_ends] = [0; 2].map(|_| Arc::new(AtomicUsize::new(0)));
        let cell = Arc::new(SnapshotCell::new(Arc::new(Keys(Arc::clone(&old_ends)))));
        let threads = [0; 2].map(|_| {
            let (cell, ends) = (Arc::clone(&cell), Arc::clone(&old_ends));
            thread::spawn(move || {
                let batch = cell.load();
                let is_old = Arc::ptr_eq(&batch.0, &ends);
                // Whoever works with the old keys has them to the end of the batch.
                assert!(!is_old || ends.load(Ordering::Relaxed) == 0);
                drop(batch);
            })
        });
        cell.store(Arc::new(Keys(Arc::clone(&new_ends))));
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(old_ends.load(Ordering::Relaxed), 1, "gone, and once");
        assert_eq!(new_ends.load(Ordering::Relaxed), 0, "in use");
    });
}
