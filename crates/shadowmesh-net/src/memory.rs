//! Memory that others make a node keep: packets in pieces whose rest has not come, and frames that came
//! before their session.
//!
//! One budget for all sessions of a node, whatever carries them. What one may hold is a part of what is free
//! at that moment (a dynamic threshold, Choudhury and Hahne 1998): while there is much, nobody notices, no few
//! can take all, and what a crowd holds comes free within seconds, of which each then gets less. Atomics only,
//! because the data threads take from it too; of two that take at the same moment one may be refused in vain.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Limit: bytes held in all. A hundred and more sessions may have all that one may have.
// PROTOCOL SM-MT-4
pub(crate) const HELD_MAX: usize = 16 * 1024 * 1024;
/// One session may have no more than this part of what is free.
// PROTOCOL SM-MT-4
const PART_OF_FREE: usize = 8;

/// What a node holds.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    held: AtomicUsize,
}

/// What one holder has of it. Given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Hold {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    /// Bytes held now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Hold {
    /// Nothing yet.
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Self {
            memory: Arc::clone(memory),
            bytes: 0,
        }
    }

    /// Bytes of this holder.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes so many bytes more, unless it would then have more than `most` or its part of what is free.
    #[must_use]
    pub(crate) fn take(&mut self, bytes: usize, most: usize) -> bool {
        let before = self.memory.held.fetch_add(bytes, Ordering::Relaxed);
        let free = HELD_MAX.saturating_sub(before);
        let has_room = self.bytes + bytes <= most.min(free / PART_OF_FREE);
        if has_room {
            self.bytes += bytes;
        } else {
            self.memory.held.fetch_sub(bytes, Ordering::Relaxed);
        }
        has_room
    }

    /// Gives so many bytes back.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.memory.held.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 128 * 1024;

    // PROTOCOL SM-MT-4
    #[test]
    fn a_hundred_that_hold_what_they_can_leave_room_and_no_crowd_passes_the_limit() {
        let memory = Arc::new(Memory::default());
        let mut greedy: Vec<Hold> = (0..100).map(|_| Hold::new(&memory)).collect();
        for hold in &mut greedy {
            while hold.take(1024, MOST) {}
        }
        assert!(greedy.iter().all(|hold| hold.bytes() == MOST));
        let mut next = Hold::new(&memory);
        assert!(next.take(MOST, MOST), "as if nobody else were there");
        let mut crowd: Vec<Hold> = (0..2000).map(|_| Hold::new(&memory)).collect();
        for hold in &mut crowd {
            while hold.take(16, MOST) {}
        }
        assert!(memory.held() <= HELD_MAX);
        drop((next, greedy, crowd));
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn what_is_refused_is_not_held_and_what_is_given_back_can_be_taken_again() {
        let memory = Arc::new(Memory::default());
        let mut hold = Hold::new(&memory);
        assert!(hold.take(MOST, MOST) && !hold.take(1, MOST));
        assert_eq!((hold.bytes(), memory.held()), (MOST, MOST));
        hold.give_back(1000);
        assert!(!hold.take(1001, MOST) && hold.take(1000, MOST));
    }
}
