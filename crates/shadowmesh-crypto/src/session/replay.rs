//! The replay window: each counter is accepted once.
//!
//! A ring of one bit for each of the last [`ReplayWindow::LEN`] counters. One window serves all
//! epochs of a session, as the counter does.
//!
//! How wide: threads must never make a fresh frame too old. A receiving thread that is held up has
//! one batch in hand, at most 2048 frames (32 buffers of 64), and each of the 15 others can be at most
//! one batch ahead of it: 30720 counters. A sending thread that is held up between taking its counters
//! and sending them has until the others have sent 32768 frames: 39 ms at 10 Gbit/s of full ones,
//! longer than a scheduler lets a thread wait unless there are ten others for its core. Small enough,
//! 4 KiB, for ten thousand peers.

use super::OpenError;

/// Which counters of a session have been received. Starts empty.
#[derive(Clone)]
pub struct ReplayWindow {
    /// Bit `c % LEN` belongs to counter `c`, for `c` in `next - LEN .. next`.
    seen: [u64; Self::WORDS],
    /// One above the highest counter seen; 0 before the first.
    next: u64,
}

impl ReplayWindow {
    /// Counters this far below the highest are still told apart.
    // PROTOCOL SM-SF-4
    pub const LEN: u64 = 32_768;
    const WORDS: usize = Self::LEN as usize / u64::BITS as usize;

    /// An empty window.
    pub const fn new() -> Self {
        Self {
            seen: [0; Self::WORDS],
            next: 0,
        }
    }

    /// The highest counter seen, 0 before the first: what truncated counters are expanded against.
    pub fn highest(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// HOT PATH. Takes the counter of an authenticated frame; an error if it came before, or is so
    /// old that nobody knows.
    // PROTOCOL SM-SF-4
    #[inline]
    pub(super) fn accept(&mut self, counter: u64) -> Result<(), OpenError> {
        if counter >= self.next {
            self.advance(counter);
        } else if self.next - counter > Self::LEN {
            return Err(OpenError::TooOld);
        }
        let (word, bit) = Self::position(counter);
        if self.seen[word] & bit != 0 {
            return Err(OpenError::Replayed);
        }
        self.seen[word] |= bit;
        Ok(())
    }

    /// Moves the top of the window to `counter` and forgets what falls out below.
    #[inline]
    fn advance(&mut self, counter: u64) {
        if counter - self.next >= Self::LEN {
            self.seen = [0; Self::WORDS];
        } else {
            for skipped in self.next..=counter {
                let (word, bit) = Self::position(skipped);
                self.seen[word] &= !bit;
            }
        }
        // No overflow: `Opener` lets no counter of `COUNTER_END` or above get here.
        self.next = counter + 1;
    }

    #[inline]
    fn position(counter: u64) -> (usize, u64) {
        let position = counter % Self::LEN;
        ((position / 64) as usize, 1 << (position % 64))
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ReplayWindow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplayWindow")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    // PROTOCOL SM-SF-4
    #[test]
    fn the_window_is_32768_counters_wide_to_the_counter() {
        let mut window = ReplayWindow::new();
        window.accept(40_000).unwrap();
        assert_eq!(window.accept(40_000 - 32_767), Ok(()));
        assert_eq!(window.accept(40_000 - 32_767), Err(OpenError::Replayed));
        assert_eq!(window.accept(40_000 - 32_768), Err(OpenError::TooOld));
        assert_eq!(window.accept(0), Err(OpenError::TooOld));
    }

    #[test]
    fn the_first_frame_may_have_any_counter() {
        for first in [0, 1, 32_767, 32_768, 32_769, (1 << 62) - 1] {
            let mut window = ReplayWindow::new();
            assert_eq!(window.accept(first), Ok(()));
            assert_eq!(window.accept(first), Err(OpenError::Replayed));
            assert_eq!(window.highest(), first);
        }
    }

    /// The obvious implementation: remembers every counter for ever.
    #[derive(Default)]
    struct Model(BTreeSet<u64>);

    impl Model {
        fn accept(&mut self, counter: u64) -> Result<(), OpenError> {
            let highest = self.0.last().copied();
            if highest.is_some_and(|highest| counter + ReplayWindow::LEN <= highest) {
                return Err(OpenError::TooOld);
            }
            if self.0.insert(counter) {
                Ok(())
            } else {
                Err(OpenError::Replayed)
            }
        }
    }

    proptest! {
        // PROTOCOL SM-SF-4
        #[test]
        fn the_window_agrees_with_one_that_never_forgets(
            steps in prop::collection::vec((0_u64..3, 0_u64..80_000), 1..400),
        ) {
            let mut window = ReplayWindow::new();
            let mut model = Model::default();
            for (kind, distance) in steps {
                let counter = match kind {
                    0 => window.highest() + distance % 70,
                    1 => window.highest() + distance,
                    _ => window.highest().saturating_sub(distance),
                };
                prop_assert_eq!(window.accept(counter), model.accept(counter));
            }
        }
    }
}
