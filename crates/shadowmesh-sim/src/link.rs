//! One direction of a link between two nodes: what happens to a datagram on the way.
//!
//! The order is that of a real path: a router queue (rate, queue limit), then the medium (loss,
//! corruption), then the distance (delay, reordering, duplication). All chance comes from the
//! world's generator, so a seed decides every fate.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

/// What a link does to datagrams. The default is perfect: no delay, no limit, no loss.
#[derive(Clone, Copy, Debug)]
pub struct LinkProfile {
    /// One-way delay.
    pub delay: Duration,
    /// Bits each second; `None` is no limit.
    pub rate: Option<u64>,
    /// How long a datagram may wait in the queue of a limited link before it is dropped.
    pub queue: Duration,
    /// How datagrams are lost.
    pub loss: Loss,
    /// How often a datagram is held back by up to [`reorder_delay`](Self::reorder_delay), 0 to 1.
    pub reorder: f64,
    /// The longest a held-back datagram is late.
    pub reorder_delay: Duration,
    /// How often a datagram arrives twice, 0 to 1.
    pub duplicate: f64,
    /// How often one bit of a datagram is flipped, 0 to 1.
    pub corrupt: f64,
    /// Largest UDP payload, bytes; anything longer vanishes.
    pub mtu: usize,
}

/// How datagrams are lost.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// Each with the same probability, 0 to 1.
    Uniform(f64),
    /// Gilbert-Elliott: two states with a loss probability each; real losses come in bursts.
    Bursts {
        /// Chance, at each datagram, to go from good to bad.
        enter: f64,
        /// Chance, at each datagram, to go from bad to good; the mean burst is 1/`leave` datagrams.
        leave: f64,
        /// Loss in the good state.
        good: f64,
        /// Loss in the bad state.
        bad: f64,
    },
}

impl Default for LinkProfile {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            rate: None,
            queue: Duration::from_millis(100),
            loss: Loss::Uniform(0.0),
            reorder: 0.0,
            reorder_delay: Duration::ZERO,
            duplicate: 0.0,
            corrupt: 0.0,
            mtu: 65_507,
        }
    }
}

impl LinkProfile {
    /// A link without faults and with this round trip, half of it each way.
    pub fn round_trip(rtt: Duration) -> Self {
        Self {
            delay: rtt / 2,
            ..Self::default()
        }
    }

    /// The same link with uniform loss.
    pub fn losing(self, probability: f64) -> Self {
        Self {
            loss: Loss::Uniform(probability),
            ..self
        }
    }

    /// The same link with a share of the datagrams late by up to `delay`.
    pub fn reordering(self, share: f64, delay: Duration) -> Self {
        Self {
            reorder: share,
            reorder_delay: delay,
            ..self
        }
    }
}

/// After so many losses of the same bytes a connection of TCP is as good as dead (Linux: `tcp_retries2`).
const TCP_TRIES: u32 = 15;
/// Between two of these tries, at least.
const TCP_PAUSE_MIN: Duration = Duration::from_millis(10);

/// A link in use: its profile and what it remembers.
#[derive(Clone, Debug)]
pub struct Link {
    /// What it does; may be changed at any time.
    pub profile: LinkProfile,
    /// World time at which the last datagram has left the queue.
    free_at: Duration,
    in_burst: bool,
}

/// One arrival of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// World time.
    pub at: Duration,
    /// The bit that was flipped on the way, counted from the first.
    pub flipped_bit: Option<usize>,
}

impl Link {
    /// An idle link.
    pub fn new(profile: LinkProfile) -> Self {
        Self {
            profile,
            free_at: Duration::ZERO,
            in_burst: false,
        }
    }

    /// The fate of a datagram of `len` bytes handed over at `now`: whether it arrives, and whether it does so
    /// a second time.
    pub fn send(
        &mut self,
        len: usize,
        now: Duration,
        rng: &mut StdRng,
    ) -> (Option<Arrival>, Option<Arrival>) {
        let Some(left) = self.leave_queue(len, now) else {
            return (None, None);
        };
        if len > self.profile.mtu || self.loses(rng) {
            return (None, None);
        }
        let doubled = chance(rng, self.profile.duplicate);
        let first = self.arrival(len, left, rng);
        let second = doubled.then(|| self.arrival(len, left, rng));
        (Some(first), second)
    }

    /// When `len` bytes arrive that are sent again, after a round trip, as often as they are lost: what TCP
    /// makes of the link. `None`: the queue is full, or nothing gets through.
    pub fn send_until_it_arrives(
        &mut self,
        len: usize,
        now: Duration,
        rng: &mut StdRng,
    ) -> Option<Duration> {
        let mut left = self.leave_queue(len, now)?;
        for _ in 0..TCP_TRIES {
            if !self.loses(rng) {
                return Some(left + self.profile.delay);
            }
            left += (2 * self.profile.delay).max(TCP_PAUSE_MIN);
        }
        None
    }

    /// When the datagram's last bit is on the wire; `None` if the queue is too long.
    fn leave_queue(&mut self, len: usize, now: Duration) -> Option<Duration> {
        let Some(rate) = self.profile.rate else {
            return Some(now);
        };
        let start = self.free_at.max(now);
        if start - now > self.profile.queue {
            return None;
        }
        self.free_at = start + Duration::from_nanos(len as u64 * 8 * 1_000_000_000 / rate);
        Some(self.free_at)
    }

    fn loses(&mut self, rng: &mut StdRng) -> bool {
        match self.profile.loss {
            Loss::Uniform(probability) => chance(rng, probability),
            Loss::Bursts {
                enter,
                leave,
                good,
                bad,
            } => {
                let change = if self.in_burst { leave } else { enter };
                self.in_burst ^= chance(rng, change);
                chance(rng, if self.in_burst { bad } else { good })
            }
        }
    }

    fn arrival(&self, len: usize, left: Duration, rng: &mut StdRng) -> Arrival {
        let late = if chance(rng, self.profile.reorder) {
            self.profile.reorder_delay.mul_f64(rng.random())
        } else {
            Duration::ZERO
        };
        let flipped_bit = chance(rng, self.profile.corrupt).then(|| rng.random_range(0..len * 8));
        Arrival {
            at: left + self.profile.delay + late,
            flipped_bit,
        }
    }
}

/// True with that probability. Draws nothing when the answer is certain, so that a fault that is
/// switched off does not disturb the others' dice.
fn chance(rng: &mut StdRng, probability: f64) -> bool {
    probability > 0.0 && rng.random_bool(probability.min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    const COUNT: usize = 20_000;

    fn arrivals(profile: LinkProfile, len: usize) -> Vec<Vec<Arrival>> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut link = Link::new(profile);
        (0..COUNT)
            .map(|n| fate(&mut link, len, Duration::from_millis(n as u64), &mut rng))
            .collect()
    }

    fn fate(link: &mut Link, len: usize, now: Duration, rng: &mut StdRng) -> Vec<Arrival> {
        let (first, second) = link.send(len, now, rng);
        first.into_iter().chain(second).collect()
    }

    fn lost(fates: &[Vec<Arrival>]) -> usize {
        fates.iter().filter(|f| f.is_empty()).count()
    }

    #[test]
    fn uniform_loss_loses_its_share() {
        let lost = lost(&arrivals(LinkProfile::default().losing(0.2), 100));
        assert!(
            (COUNT * 19 / 100..COUNT * 21 / 100).contains(&lost),
            "{lost}"
        );
    }

    #[test]
    fn bursts_lose_neighbours() {
        let loss = Loss::Bursts {
            enter: 0.01,
            leave: 0.1,
            good: 0.0,
            bad: 1.0,
        };
        let fates = arrivals(
            LinkProfile {
                loss,
                ..LinkProfile::default()
            },
            100,
        );
        let lost = lost(&fates);
        let bursts = fates
            .windows(2)
            .filter(|w| !w[0].is_empty() && w[1].is_empty())
            .count();
        assert!(lost > COUNT / 20 && lost < COUNT / 6, "{lost}");
        let mean = lost as f64 / bursts as f64;
        assert!((8.0..12.0).contains(&mean), "mean burst {mean}");
    }

    #[test]
    fn a_limited_link_spaces_datagrams_by_their_size_and_drops_what_waits_too_long() {
        let profile = LinkProfile {
            rate: Some(8_000_000),
            queue: Duration::from_millis(3),
            ..LinkProfile::default()
        };
        let mut rng = StdRng::seed_from_u64(7);
        let mut link = Link::new(profile);
        // 1000 bytes take 1 ms.
        let fates: Vec<_> = (0..6)
            .map(|_| fate(&mut link, 1000, Duration::ZERO, &mut rng))
            .collect();
        let at: Vec<_> = fates
            .iter()
            .map(|f| f.first().map(|a| a.at.as_millis()))
            .collect();
        assert_eq!(at, [Some(1), Some(2), Some(3), Some(4), None, None]);
    }

    #[test]
    fn too_long_datagrams_vanish_and_others_arrive_after_the_delay() {
        let profile = LinkProfile {
            mtu: 1280,
            ..LinkProfile::round_trip(Duration::from_millis(50))
        };
        let mut rng = StdRng::seed_from_u64(7);
        let mut link = Link::new(profile);
        assert_eq!(fate(&mut link, 1281, Duration::ZERO, &mut rng), []);
        let arrival = Arrival {
            at: Duration::from_millis(25),
            flipped_bit: None,
        };
        assert_eq!(fate(&mut link, 1280, Duration::ZERO, &mut rng), [arrival]);
    }

    #[test]
    fn what_is_sent_again_arrives_a_round_trip_later_for_each_loss_or_never() {
        let mut rng = StdRng::seed_from_u64(7);
        let sound = LinkProfile::round_trip(Duration::from_millis(40));
        let mut send = |profile: LinkProfile| {
            Link::new(profile).send_until_it_arrives(100, Duration::ZERO, &mut rng)
        };
        assert_eq!(send(sound), Some(Duration::from_millis(20)));
        assert_eq!(send(sound.losing(1.0)), None);
        let times: Vec<_> = (0..1000)
            .filter_map(|_| send(sound.losing(0.5)))
            .map(|at| (at.as_millis() - 20) / 40)
            .collect();
        let once = times.iter().filter(|again| **again == 1).count();
        assert!((200..300).contains(&once), "{once}");
        assert!(times.len() > 990);
    }

    #[test]
    fn reordering_duplication_and_corruption_happen_in_their_share() {
        let profile = LinkProfile {
            duplicate: 0.1,
            corrupt: 0.1,
            ..LinkProfile::default()
        };
        let fates = arrivals(profile.reordering(0.1, Duration::from_millis(10)), 100);
        let twice = fates.iter().filter(|f| f.len() == 2).count();
        let flipped = fates.iter().filter(|f| f[0].flipped_bit.is_some()).count();
        let overtaken = fates.windows(2).filter(|w| w[0][0].at > w[1][0].at).count();
        for (what, n) in [("twice", twice), ("flipped", flipped)] {
            assert!(
                (COUNT * 9 / 100..COUNT * 11 / 100).contains(&n),
                "{what} {n}"
            );
        }
        assert!(overtaken > COUNT / 20, "{overtaken}");
    }
}
