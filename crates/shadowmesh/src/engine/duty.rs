//! Who takes packets from the device: the sender, or the receiver while there is little to do.
//!
//! A ping that is answered passes both threads of a node, and each time the one that it finds asleep has
//! to be woken, which costs more than all the work on it. So while both have little to do the receiver
//! watches the device beside its sockets, and the sender sleeps; what comes back for a write of its own
//! wakes nobody. At the first sign of real work the receiver calls the sender back, for two threads carry
//! more than one.
//!
//! This decides only who watches. Whoever takes packets from the device holds the lock of the work
//! meanwhile, so that one who takes over never overtakes the other.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use shadowmesh_io::poll::Waker;

/// Shared by one sender and the receiver that may stand in for it.
pub struct Duty {
    /// The receiver watches the device; the sender waits for `recall`.
    is_receivers: AtomicBool,
    /// The sender sleeps, and had little to do of late.
    is_sender_calm: AtomicBool,
    recall: Waker,
}

impl Duty {
    /// The sender's, which may not be relieved before it says that it is calm.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            is_receivers: AtomicBool::new(false),
            is_sender_calm: AtomicBool::new(false),
            recall: Waker::new()?,
        })
    }

    /// For the sender: whether the receiver watches the device in its place.
    pub fn is_receivers(&self) -> bool {
        self.is_receivers.load(Ordering::Acquire)
    }

    /// The sender begins to work.
    pub fn sender_works(&self) {
        self.is_sender_calm.store(false, Ordering::Relaxed);
    }

    /// The sender is about to sleep.
    pub fn sender_rests(&self, is_calm: bool) {
        self.is_sender_calm.store(is_calm, Ordering::Relaxed);
    }

    /// What the sender watches while it is relieved. Readable from a recall on until
    /// [`recalled`](Self::recalled).
    pub fn recall(&self) -> &Waker {
        &self.recall
    }

    /// The sender has seen the recall, and is going to ask whose the duty is.
    pub fn recalled(&self) {
        self.recall.clear();
    }

    /// For the receiver, before it waits: whether to watch the device. It relieves a calm sender when it
    /// is calm itself, and calls it back when it no longer is.
    pub fn is_taken(&self, is_calm: bool) -> bool {
        let is_taken = self.is_receivers();
        if is_taken && !is_calm {
            self.give_back();
            return false;
        }
        if !is_taken && is_calm && self.is_sender_calm.load(Ordering::Relaxed) {
            self.is_receivers.store(true, Ordering::Release);
            return true;
        }
        is_taken
    }

    /// Calls the sender back, which is to say itself that it has little to do before it is relieved again.
    pub fn give_back(&self) {
        self.sender_works();
        self.is_receivers.store(false, Ordering::Release);
        self.recall.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shadowmesh_io::poll::{self, Watch};

    use super::*;

    fn is_recalled(duty: &Duty) -> bool {
        let mut watches = [Watch::readable(duty.recall())];
        poll::wait(&mut watches, Some(Duration::ZERO)).unwrap() > 0
    }

    #[test]
    fn a_calm_receiver_relieves_a_calm_sender_and_no_other() {
        let duty = Duty::new().unwrap();
        assert!(!duty.is_taken(true), "nobody knows how the sender is");
        duty.sender_rests(false);
        assert!(!duty.is_taken(true));
        duty.sender_rests(true);
        assert!(!duty.is_taken(false));
        duty.sender_works();
        assert!(!duty.is_taken(true));
        duty.sender_rests(true);
        assert!(duty.is_taken(true) && duty.is_receivers());
        assert!(duty.is_taken(true), "and keeps it");
    }

    #[test]
    fn a_receiver_with_more_to_do_calls_the_sender_back_once() {
        let duty = Duty::new().unwrap();
        duty.sender_rests(true);
        assert!(duty.is_taken(true) && !is_recalled(&duty));
        assert!(!duty.is_taken(false) && !duty.is_receivers());
        assert!(is_recalled(&duty));
        duty.recalled();
        assert!(!duty.is_taken(true) && !is_recalled(&duty));
        duty.sender_rests(true);
        assert!(duty.is_taken(true));
    }

    #[test]
    fn a_recall_that_comes_before_the_sender_waits_is_not_lost() {
        let duty = Duty::new().unwrap();
        duty.sender_rests(true);
        assert!(duty.is_taken(true));
        duty.recalled();
        duty.give_back();
        assert!(is_recalled(&duty));
    }
}
