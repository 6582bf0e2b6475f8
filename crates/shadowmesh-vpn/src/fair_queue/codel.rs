//! CoDel (RFC 8289): when a flow has to be told that its packets wait too long.
//!
//! A queue that empties now and then is a good one, whatever its length: it takes up bursts. One in
//! which every packet has waited longer than [`TARGET`] for a whole [`INTERVAL`] only stands there, and
//! is told so; again after `INTERVAL / sqrt(n)`, until the wait falls below the target.
//!
//! The RFC's 5 ms and 100 ms are for a link to the internet. This queue is in front of our own core:
//!
//! - **Target 1 ms.** It must exceed the wait of a good queue: one turn of the scheduler (0.7 to 4 ms
//!   without a priority, a few hundred us with one) and one batch. At 10 Gbit/s it is 1.2 MB, which
//!   keeps both cores busy and fits their cache.
//! - **Interval 20 ms.** It should exceed the round trip of those who fill the queue, for a sender needs
//!   that long to answer. Only senders that outrun our core fill it, at gigabits, and with the usual
//!   socket buffers of 4 to 6 MB nobody outruns it over more than a few milliseconds. A longer round
//!   trip makes CoDel speak a little too often; that costs throughput only to flows that meet their
//!   limit here and not on their path.

use std::time::{Duration, Instant};

/// How long a packet of a good queue waits at most.
pub const TARGET: Duration = Duration::from_millis(1);
/// How long the wait may be above the target before anything is said.
pub const INTERVAL: Duration = Duration::from_millis(20);

/// What CoDel remembers of one flow.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Codel {
    /// When the wait will have been above the target for a whole interval.
    above_until: Option<Instant>,
    /// While dropping: when to speak next. Afterwards: when it would have been.
    next: Option<Instant>,
    dropping: bool,
    /// Signals since dropping began.
    count: u32,
    /// `count` when dropping began.
    count_start: u32,
}

impl Codel {
    /// The flow has nothing waiting.
    pub(super) fn ran_empty(&mut self) {
        self.above_until = None;
        self.dropping = false;
    }

    /// Whether the flow is to be told with this packet, which waited so long and leaves `backlog`
    /// bytes behind it. HOT PATH.
    pub(super) fn must_signal(
        &mut self,
        waited: Duration,
        backlog: u32,
        packet: u32,
        now: Instant,
    ) -> bool {
        if !self.is_standing(waited, backlog, packet, now) {
            self.dropping = false;
            return false;
        }
        if !self.dropping {
            self.begin(now);
            return true;
        }
        let next = self.next.expect("set when dropping began");
        if now < next {
            return false;
        }
        self.count = self.count.saturating_add(1);
        self.next = Some(next + pause(self.count));
        true
    }

    /// Whether the wait has been above the target for an interval.
    fn is_standing(&mut self, waited: Duration, backlog: u32, packet: u32, now: Instant) -> bool {
        // With no more than one packet of its own size behind it, this is no queue (RFC 8289 §4.4).
        if waited < TARGET || backlog <= packet {
            self.above_until = None;
            return false;
        }
        match self.above_until {
            Some(until) => now >= until,
            None => {
                self.above_until = Some(now + INTERVAL);
                false
            }
        }
    }

    /// The first signal of a row. A row that begins soon after the last goes on at the pace which was
    /// found then (RFC 8289 §5.4).
    fn begin(&mut self, now: Instant) {
        self.dropping = true;
        let recent = self
            .next
            .is_some_and(|next| now.saturating_duration_since(next) < 16 * INTERVAL);
        let learnt = self.count - self.count_start;
        self.count = if recent && learnt > 1 { learnt } else { 1 };
        self.count_start = self.count;
        self.next = Some(now + pause(self.count));
    }
}

/// The control law: signals come faster with the square root of their number, under which the rate of
/// a TCP falls linearly.
fn pause(count: u32) -> Duration {
    INTERVAL.div_f64(f64::from(count).sqrt())
}
