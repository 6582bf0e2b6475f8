//! When packets come so fast one by one that it is not worth waking for each.
//!
//! A wake-up costs more than sealing a small packet does, here and on the other machine (what leaves
//! alone is also received alone), and it costs whoever sent the packet too. So a sender that was woken
//! many times in a row after next to no sleep, each time for little, does not wait for the next packet
//! but for a moment, and takes together what came meanwhile, as network cards do with their interrupts;
//! and again, for as long as that brings company. The first packets of a row wait for nothing, and so
//! does everything that comes more slowly than [`SLEEP_SHORT`] or one at a time: pings, calls, requests
//! and their answers.

use std::ops::AddAssign;
use std::time::Duration;

use super::runs::SEGMENTS_MAX;

/// A sleep shorter than this was hardly one. 20,000 wake-ups in a second are worth avoiding.
const SLEEP_SHORT: Duration = Duration::from_micros(50);
/// So many in a row are a stream of packets and no exchange.
const ROW_MIN: u32 = 16;
/// Of this mean length what came is super-packets, each worth a wake-up: no usual MTU is as large.
const SUPER_LEN_MIN: usize = 2048;
/// How long to wait for company. Short beside the millisecond that a call notices; long enough for
/// half a dozen packets at the rates in question.
const PAUSE: Duration = Duration::from_micros(50);
/// The same for packets that come so fast that [`COMPANY_MANY`] were there: a send's worth of them at
/// 400,000 in a second, and an eighth of what the device holds of them.
const PAUSE_LONG: Duration = Duration::from_micros(150);
/// A quarter of a send.
const COMPANY_MANY: usize = SEGMENTS_MAX / 4;
/// A pause that brought fewer was in vain.
const COMPANY_MIN: usize = 2;

/// What a sender took from the device and sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Packets and super-packets.
    pub items: usize,
    /// Bytes of these.
    pub bytes: usize,
    /// Packets of unresponsive flows, as [`Turn`](super::placement::Turn) counts them.
    pub unresponsive: u64,
}

impl AddAssign for Served {
    fn add_assign(&mut self, other: Self) {
        self.items += other.items;
        self.bytes += other.bytes;
        self.unresponsive += other.unresponsive;
    }
}

impl Served {
    /// Whether it was worth a wake-up however little there was of it.
    fn is_bulk(self) -> bool {
        self.bytes > self.items * SUPER_LEN_MIN
    }
}

/// What the sender remembers of its last waits.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Since the last wait.
    served: Served,
    /// Waits in a row that were short and brought little.
    row: u32,
    /// The last wait was a pause.
    paused: bool,
}

impl Arrivals {
    /// So much was there to be served.
    pub fn served(&mut self, served: Served) {
        self.served += served;
    }

    /// There is no more: how long to pause instead of waiting for the next packet, if at all.
    pub fn pause(&mut self) -> Option<Duration> {
        let served = std::mem::take(&mut self.served);
        if served.is_bulk() || self.paused && served.items < COMPANY_MIN {
            self.row = 0;
        }
        self.paused = self.row >= ROW_MIN;
        let long = served.items >= COMPANY_MANY;
        self.paused.then_some(if long { PAUSE_LONG } else { PAUSE })
    }

    /// A wait for the next packet ended after so long.
    pub fn woken_after(&mut self, slept: Duration) {
        self.row = match slept < SLEEP_SHORT {
            true => self.row.saturating_add(1),
            false => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(5);

    /// What follows a wait that brought so much: a pause, or a wait that ended after `slept`.
    fn next(
        arrivals: &mut Arrivals,
        items: usize,
        len: usize,
        slept: Duration,
    ) -> Option<Duration> {
        let bytes = items * len;
        arrivals.served(Served {
            items,
            bytes,
            unresponsive: 0,
        });
        let pause = arrivals.pause();
        if pause.is_none() {
            arrivals.woken_after(slept);
        }
        pause
    }

    #[test]
    fn an_exchange_of_packets_never_waits_for_company() {
        let mut arrivals = Arrivals::default();
        for _ in 0..1000 {
            assert_eq!(next(&mut arrivals, 1, 100, SLEEP_SHORT), None);
        }
    }

    #[test]
    fn a_fast_exchange_of_packets_waits_in_vain_once_in_a_row() {
        let mut arrivals = Arrivals::default();
        let pauses = (0..ROW_MIN * 10).filter(|_| next(&mut arrivals, 1, 100, SHORT).is_some());
        assert!(pauses.count() <= 10);
    }

    #[test]
    fn a_stream_of_small_packets_does_after_its_first_few_until_there_is_a_gap() {
        let mut arrivals = Arrivals::default();
        for number in 0..100 {
            let pause = next(&mut arrivals, COMPANY_MIN, 1300, SHORT);
            assert_eq!(pause, (number >= ROW_MIN).then_some(PAUSE), "{number}");
        }
        assert_eq!(
            next(&mut arrivals, COMPANY_MANY, 1300, SHORT),
            Some(PAUSE_LONG)
        );
        assert_eq!(next(&mut arrivals, 0, 0, SHORT), None);
        assert_eq!(next(&mut arrivals, 1, 1300, SHORT), None);
    }

    #[test]
    fn a_bulk_transfer_does_not() {
        let mut arrivals = Arrivals::default();
        for _ in 0..ROW_MIN {
            next(&mut arrivals, 2, 100, SHORT);
        }
        for _ in 0..1000 {
            assert_eq!(next(&mut arrivals, 1, 64_000, SHORT), None);
        }
    }
}
