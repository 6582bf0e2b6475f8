//! What a client of a relay may have relayed, and how much was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bucket::Bucket;

/// What may come at once: the rate of this time. TCP sends in bursts of a round trip.
const DEPTH: Duration = Duration::from_millis(20);
/// But not less than two full batches of a sender, however low the rate is.
const DEPTH_BYTES_MIN: u64 = 128 * 1024;

/// What one client may have relayed, each way. Shared by the threads that relay; a lock is held for a few
/// instructions.
// PROTOCOL SM-RL-7
#[derive(Debug)]
pub(crate) struct Credit {
    /// Bytes a second.
    rate: u64,
    sending: Mutex<Bucket>,
    receiving: Mutex<Bucket>,
    /// For telling it that somebody is not here.
    refusals: Mutex<Bucket>,
}

/// Refusals told to one client at once, and how fast that is regained: one for each peer that it may look
/// for at the same time, and few enough to be worth nothing to who wants to make us write.
const REFUSALS_BURST: u32 = 16;
const REFUSALS_INTERVAL: Duration = Duration::from_millis(50);

impl Credit {
    /// Nothing was relayed yet. `rate` in bytes a second.
    pub(crate) fn new(rate: u64, now: Instant) -> Self {
        let bucket = || Mutex::new(Bucket::full(now));
        Self {
            rate: rate.max(1),
            sending: bucket(),
            receiving: bucket(),
            refusals: bucket(),
        }
    }

    /// Whether the client may send so many bytes more.
    pub(crate) fn send(&self, bytes: usize, now: Instant) -> bool {
        self.spend(&self.sending, bytes, now)
    }

    /// Whether the client may be sent so many bytes more.
    pub(crate) fn receive(&self, bytes: usize, now: Instant) -> bool {
        self.spend(&self.receiving, bytes, now)
    }

    /// Whether the client is to be told that somebody is not here.
    pub(crate) fn refuse(&self, now: Instant) -> bool {
        let mut bucket = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(REFUSALS_BURST, REFUSALS_INTERVAL, now)
    }

    fn spend(&self, bucket: &Mutex<Bucket>, bytes: usize, now: Instant) -> bool {
        let cost = self.time_for(bytes as u64);
        let depth = DEPTH.max(self.time_for(DEPTH_BYTES_MIN));
        // Half a bucket cannot be left behind by a panic.
        let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.spend(cost, depth, now)
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(nanos as u64)
    }
}

/// What was passed on for all clients together; who talks to whom is nowhere.
#[derive(Debug, Default)]
pub(crate) struct RelayCounters {
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

impl RelayCounters {
    pub(crate) fn passed_on(&self, bytes: usize) {
        self.datagrams.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Datagrams, and bytes of them.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.datagrams), load(&self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;

    // PROTOCOL SM-RL-7
    #[test]
    fn a_client_gets_its_rate_each_way_and_a_burst_and_no_more() {
        let now = start();
        let rate = 10_000_000;
        let credit = Credit::new(rate, now);
        let mut sent = 0;
        for ms in 0..1000 {
            let now = now + Duration::from_millis(ms);
            sent += (0..100).filter(|_| credit.send(1000, now)).count() as u64 * 1000;
        }
        let burst = DEPTH_BYTES_MIN.max(rate / 50);
        assert!((rate * 99 / 100..=rate + burst).contains(&sent), "{sent}");
        assert!(credit.receive(1000, now), "the other direction has its own");
    }

    #[test]
    fn a_client_of_the_lowest_rate_may_still_send_a_batch() {
        let now = start();
        let credit = Credit::new(1, now);
        assert!(credit.send(65_507, now));
        assert!(!credit.send(65_507 * 2, now));
    }
}
