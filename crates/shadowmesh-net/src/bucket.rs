//! How often something may happen: so many times at once, and once more in each interval.
//!
//! A token bucket as one instant (the generic cell rate algorithm, ITU-T I.371): when it would be whole
//! again. Size and interval are the caller's constants and stand where they are argued.

use std::time::{Duration, Instant};

/// The allowance of one source, peer or kind.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    whole_at: Instant,
}

impl Bucket {
    /// Nothing was taken yet.
    pub fn full(now: Instant) -> Self {
        Self { whole_at: now }
    }

    /// Takes one, if there is one: of `size` at once, and one more in each `interval`.
    pub fn take(&mut self, size: u32, interval: Duration, now: Instant) -> bool {
        self.spend(interval, interval * size, now)
    }

    /// Takes what is regained in the time `cost`, if there is so much: of what is regained in the time
    /// `depth`. For what is counted in bytes.
    pub fn spend(&mut self, cost: Duration, depth: Duration, now: Instant) -> bool {
        let whole_at = self.whole_at.max(now) + cost;
        if whole_at > now + depth {
            return false;
        }
        self.whole_at = whole_at;
        true
    }

    /// Takes what is regained in the time `cost` although it is not there, and owes it: never more than
    /// what is regained in the time `most`.
    pub(crate) fn owe(&mut self, cost: Duration, most: Duration, now: Instant) {
        self.whole_at = (self.whole_at.max(now) + cost).min(now + most);
    }

    /// What was taken is there again.
    pub(crate) fn give_back(&mut self, cost: Duration) {
        self.whole_at = self.whole_at.checked_sub(cost).unwrap_or(self.whole_at);
    }

    /// When nothing of it will be missing; in the past for one that was not used lately.
    pub fn whole_at(&self) -> Instant {
        self.whole_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;

    #[test]
    fn a_burst_is_allowed_and_then_one_in_each_interval() {
        let (now, interval) = (start(), Duration::from_millis(10));
        let mut bucket = Bucket::full(now);
        assert_eq!((0..9).filter(|_| bucket.take(4, interval, now)).count(), 4);
        assert!(!bucket.take(4, interval, now + interval - Duration::from_nanos(1)));
        assert!(bucket.take(4, interval, now + interval));
        assert!(!bucket.take(4, interval, now + interval));
        let later = now + 100 * interval;
        assert_eq!(
            (0..9).filter(|_| bucket.take(4, interval, later)).count(),
            4
        );
    }
}
