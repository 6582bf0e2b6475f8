//! What a client of a relay may have relayed, and how much was.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shadowmesh_wire::way::Label;

use crate::bucket::Bucket;

/// What may come at once: the rate of this time. TCP sends in bursts of a round trip.
const DEPTH: Duration = Duration::from_millis(20);
/// But not less than two full batches of a sender, however low the rate is.
const DEPTH_BYTES_MIN: u64 = 128 * 1024;
/// Who sent to a client within this time has a share of what that may be sent. Longer than a pause in a
/// call or between two probes of a busy way; what somebody does not use goes to others at once anyway.
const SENDING: Duration = Duration::from_secs(1);
/// Limit: senders with a share in one client; who comes later takes the place of another. Each that an
/// attacker adds makes all shares smaller, so this is also how small they get.
const SENDERS_MAX: usize = 256;

/// What one client may have relayed, each way. Shared by the threads that relay; a lock is held for a few
/// instructions.
// PROTOCOL SM-RL-7
#[derive(Debug)]
pub(crate) struct Credit {
    /// Bytes a second.
    rate: u64,
    sending: Mutex<Bucket>,
    receiving: Mutex<Receiving>,
    /// For telling it that somebody is not here.
    refusals: Mutex<Bucket>,
}

/// What one client is sent, by whom.
#[derive(Debug)]
struct Receiving {
    /// By all together.
    whole: Bucket,
    /// By whoever sent to it not long ago. Limit: [`SENDERS_MAX`].
    senders: BTreeMap<Label, Sender>,
    /// When those who are silent are forgotten.
    sweep_at: Instant,
}

#[derive(Debug)]
struct Sender {
    /// What it sent of its share.
    share: Bucket,
    /// When something of it was last let through. What is refused costs its sender nothing and holds no
    /// share.
    sent_at: Instant,
}

impl Receiving {
    fn new(now: Instant) -> Self {
        Self {
            whole: Bucket::full(now),
            senders: BTreeMap::new(),
            sweep_at: now,
        }
    }

    /// Whether what costs so much may be sent by `from`: as its share, or of what all shares leave. So
    /// nobody can take from another what is that one's share, and nothing is left unused.
    fn spend(&mut self, from: Label, cost: Duration, depth: Duration, now: Instant) -> bool {
        if now >= self.sweep_at {
            self.senders
                .retain(|_, sender| now < sender.share.whole_at().max(sender.sent_at + SENDING));
            self.sweep_at = now + SENDING / 10;
        }
        if !self.senders.contains_key(&from) {
            let sender = self.make_room().unwrap_or(Sender {
                share: Bucket::full(now),
                sent_at: now,
            });
            self.senders.insert(from, sender);
        }
        // In an equal share everything costs as many times as much as there are shares; one frame at once
        // is always allowed.
        let cost_of_share = cost * self.senders.len() as u32;
        let Some(sender) = self.senders.get_mut(&from) else {
            return false;
        };
        let depth_of_share = depth.max(cost_of_share);
        let passes = if sender.share.spend(cost_of_share, depth_of_share, now) {
            self.whole.owe(cost, 2 * depth, now);
            true
        } else {
            self.whole.spend(cost, depth, now)
        };
        if passes {
            sender.sent_at = now;
        }
        passes
    }

    /// When all shares are taken: takes out whoever sent least lately, with what it left of its share. A
    /// newcomer goes on with that and not with a whole share, or many who take turns would have more than
    /// there is.
    fn make_room(&mut self) -> Option<Sender> {
        if self.senders.len() < SENDERS_MAX {
            return None;
        }
        let senders = self.senders.iter();
        let (&from, _) = senders.min_by_key(|(_, sender)| sender.sent_at)?;
        self.senders.remove(&from)
    }
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
            receiving: Mutex::new(Receiving::new(now)),
            refusals: bucket(),
        }
    }

    /// Whether the client may send so many bytes more.
    pub(crate) fn send(&self, bytes: usize, now: Instant) -> bool {
        let (cost, depth) = self.price(bytes);
        lock(&self.sending).spend(cost, depth, now)
    }

    /// Whether the client may be sent so many bytes more by `from`.
    pub(crate) fn receive(&self, from: Label, bytes: usize, now: Instant) -> bool {
        let (cost, depth) = self.price(bytes);
        lock(&self.receiving).spend(from, cost, depth, now)
    }

    /// Whether the client is to be told that somebody is not here.
    pub(crate) fn refuse(&self, now: Instant) -> bool {
        lock(&self.refusals).take(REFUSALS_BURST, REFUSALS_INTERVAL, now)
    }

    /// So many bytes, and what may come at once, in time.
    fn price(&self, bytes: usize) -> (Duration, Duration) {
        let depth = DEPTH.max(self.time_for(DEPTH_BYTES_MIN));
        (self.time_for(bytes as u64), depth)
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(nanos as u64)
    }
}

/// Half a bucket cannot be left behind by a panic.
fn lock<T>(bucket: &Mutex<T>) -> MutexGuard<'_, T> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert!(
            credit.receive(Label(1), 1000, now),
            "the other direction has its own"
        );
    }

    /// What arrives of what each of these sends to one client in two seconds, in parts of what that may be
    /// sent: what each offers, in the same parts.
    fn arrived(offered: &[f64]) -> Vec<f64> {
        const LEN: usize = 1472;
        let (now, rate) = (start(), 12_500_000);
        let credit = Credit::new(rate, now);
        let mut arrived = vec![0; offered.len()];
        let mut sent = vec![0.0; offered.len()];
        for step in 0..20_000_u32 {
            let now = now + Duration::from_micros(100) * step;
            let budget = f64::from(step + 1) * 1e-4 * rate as f64;
            for (from, part) in offered.iter().enumerate() {
                while sent[from] + LEN as f64 <= budget * part {
                    sent[from] += LEN as f64;
                    arrived[from] += usize::from(credit.receive(Label(from as u64), LEN, now));
                }
            }
        }
        let whole = 2.0 * rate as f64;
        arrived
            .iter()
            .map(|frames| (frames * LEN) as f64 / whole)
            .collect()
    }

    // PROTOCOL SM-RL-7
    #[test]
    fn a_greedy_sender_takes_nothing_of_anothers_share_and_has_what_is_left() {
        let [greedy, modest] = arrived(&[4.0, 0.3])[..] else {
            unreachable!("there are two")
        };
        assert!(
            (0.298..=0.3).contains(&modest),
            "nothing of it is lost: {modest}"
        );
        assert!((0.68..=0.72).contains(&greedy), "{greedy}");
    }

    // PROTOCOL SM-RL-7
    #[test]
    fn of_many_greedy_senders_each_has_as_much_and_together_no_more_than_there_is() {
        let mut offered = vec![1.0; 40];
        offered.push(0.02);
        let arrived = arrived(&offered);
        let (modest, greedy) = arrived.split_last().unwrap();
        assert!(
            (0.019..=0.02).contains(modest),
            "nothing of it is lost: {modest}"
        );
        assert!(
            greedy.iter().all(|part| (0.02..0.03).contains(part)),
            "{greedy:?}"
        );
        let whole: f64 = arrived.iter().sum();
        assert!((0.95..=1.04).contains(&whole), "{whole}");
    }

    // PROTOCOL SM-RL-7
    #[test]
    fn who_comes_when_all_shares_are_taken_has_that_of_whoever_sent_least_lately() {
        let start = start();
        let credit = Credit::new(12_500_000, start);
        let (greedy, newcomer) = (Label(0), Label(SENDERS_MAX as u64));
        let mut refused = [0, 0];
        for ms in 0..3000 {
            let now = start + Duration::from_millis(ms);
            // Each share is held by a short frame now and then; one takes all that others leave.
            credit.receive(Label(ms % SENDERS_MAX as u64), 60, now);
            let frames = (0..40).filter(|_| !credit.receive(greedy, 1472, now));
            refused[0] += frames.count();
            if ms >= 1000 && ms % 100 == 0 {
                refused[1] += usize::from(!credit.receive(newcomer, 1472, now));
            }
        }
        assert!(refused[0] > 10_000, "{refused:?}");
        assert_eq!(refused[1], 0);
    }

    // PROTOCOL SM-RL-7
    #[test]
    fn what_is_refused_holds_no_share() {
        let now = start();
        let credit = Credit::new(12_500_000, now);
        let from = Label(7);
        while credit.receive(from, 1472, now) {}
        let later = now + Duration::from_micros(1);
        assert!(!credit.receive(from, 1472, later));
        assert_eq!(credit.receiving.lock().unwrap().senders[&from].sent_at, now);
    }

    // PROTOCOL SM-RL-7
    #[test]
    fn more_greedy_senders_than_there_are_shares_have_no_more_than_there_is() {
        let arrived = arrived(&[0.02; SENDERS_MAX + 50]);
        let whole: f64 = arrived.iter().sum();
        assert!((0.95..=1.06).contains(&whole), "{whole}");
    }

    #[test]
    fn more_senders_than_may_have_a_share_take_turns() {
        let now = start();
        let credit = Credit::new(12_500_000, now);
        let all = 0..2 * SENDERS_MAX as u64;
        assert_eq!(
            all.filter(|n| credit.receive(Label(*n), 60, now)).count(),
            2 * SENDERS_MAX
        );
        assert_eq!(credit.receiving.lock().unwrap().senders.len(), SENDERS_MAX);
        let later = now + 2 * SENDING;
        assert!(credit.receive(Label(7), 60, later));
        assert_eq!(credit.receiving.lock().unwrap().senders.len(), 1);
    }

    #[test]
    fn a_client_of_the_lowest_rate_may_still_send_a_batch() {
        let now = start();
        let credit = Credit::new(1, now);
        assert!(credit.send(65_507, now));
        assert!(!credit.send(65_507 * 2, now));
    }
}
