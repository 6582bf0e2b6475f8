//! Whether what we send is answered at all: the reason to look at the way in use.

use std::time::{Duration, Instant};

/// Silence under traffic is suspicious after two round trips and this, and never before [`MIN`].
const MARGIN: Duration = Duration::from_millis(100);
const MIN: Duration = Duration::from_millis(150);
/// Without traffic for so long there is nothing to watch.
const CALM: Duration = Duration::from_secs(3);

/// Frames of a session as the data plane counts them, without our own probes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Looks, twice in each time of patience, whether anything came while something was sent.
// PROTOCOL SM-PA-5
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Counts,
    sent_at: Option<Instant>,
    /// Looks in a row that found frames sent and none received.
    silent: u32,
    next_at: Option<Instant>,
}

impl Watch {
    /// Looks. True: it is time to look at the way in use.
    pub(super) fn look(&mut self, counts: Counts, rtt: Duration, now: Instant) -> bool {
        let spoke = counts.sent != self.seen.sent;
        let heard = counts.received != self.seen.received;
        self.seen = counts;
        if spoke {
            self.sent_at = Some(now);
        }
        if heard {
            self.silent = 0;
        } else if spoke || self.silent > 0 {
            self.silent += 1;
        }
        let half = (2 * rtt + MARGIN).max(MIN) / 2;
        let calm = self.sent_at.is_none_or(|at| now >= at + CALM);
        self.next_at = (!calm).then_some(now + half);
        if calm {
            self.silent = 0;
        }
        self.silent >= 2
    }

    /// A session came into use: whoever made it has something to send.
    pub(super) fn begin(&mut self, now: Instant) {
        self.sent_at = Some(now);
        self.next_at = Some(now + MIN / 2);
    }

    /// Whether the last look found nothing received although something was sent.
    pub(super) fn is_silent(&self) -> bool {
        self.silent > 0
    }

    /// The way in use answered.
    pub(super) fn answered(&mut self) {
        self.silent = 0;
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::{ms, start};

    // PROTOCOL SM-PA-5
    #[test]
    fn silence_under_traffic_is_noticed_after_two_round_trips_and_a_margin() {
        for (rtt, at_most) in [(ms(5), ms(150)), (ms(100), ms(300))] {
            let mut watch = Watch::default();
            let mut now = start();
            let mut counts = Counts {
                sent: 5,
                received: 5,
            };
            assert!(!watch.look(counts, rtt, now));
            let cut = now;
            loop {
                now = watch.poll_timeout().expect("there is traffic");
                counts.sent += 5;
                if watch.look(counts, rtt, now) {
                    break;
                }
            }
            assert_eq!(now - cut, at_most);
        }
    }

    #[test]
    fn who_is_answered_or_says_nothing_is_not_suspected() {
        let mut watch = Watch::default();
        let mut now = start();
        let mut counts = Counts::default();
        for _ in 0..50 {
            counts.sent += 1;
            counts.received += 1;
            assert!(!watch.look(counts, ms(20), now));
            now += ms(75);
        }
        for _ in 0..50 {
            counts.received += 1;
            assert!(!watch.look(counts, ms(20), now));
            now += ms(75);
        }
        assert_eq!(watch.poll_timeout(), None, "nothing to watch");
    }
}
