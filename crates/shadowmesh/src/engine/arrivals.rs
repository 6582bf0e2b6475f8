//! When packets come so fast one by one that it is not worth waking for each.
//!
//! A wake-up costs more than sealing a small packet does, on both machines: what leaves alone is also
//! received alone. So a sender that was woken many times in a row after next to no sleep, each time for
//! little, waits a moment longer and takes what came meanwhile together, as network cards do with
//! their interrupts. The first packets of a row wait for nothing, and so does everything that comes
//! more slowly than [`SLEEP_SHORT`]: pings, calls, requests and their answers.

use std::time::Duration;

/// A sleep shorter than this was hardly one. 20,000 wake-ups in a second are worth avoiding.
const SLEEP_SHORT: Duration = Duration::from_micros(50);
/// So many in a row are a stream of packets and no exchange.
const ROW_MIN: u32 = 16;
/// A wake-up for more than this was worth it.
const SERVED_MAX: usize = 16 * 1024;
/// How long to wait for company. Short beside the millisecond that a call notices; long enough for
/// half a dozen packets at the rates in question.
const PAUSE: Duration = Duration::from_micros(50);

/// What the sender remembers of its last wake-ups.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Bytes served since the last wait.
    served: usize,
    /// Wake-ups in a row after a short sleep and for little.
    row: u32,
}

impl Arrivals {
    /// So many bytes were there to be served.
    pub fn served(&mut self, bytes: usize) {
        self.served += bytes;
    }

    /// A wait ended after `slept`; how long to wait for more, if at all.
    pub fn woken_after(&mut self, slept: Duration) -> Option<Duration> {
        let served = std::mem::take(&mut self.served);
        if slept >= SLEEP_SHORT || served > SERVED_MAX {
            self.row = 0;
            return None;
        }
        self.row = self.row.saturating_add(1);
        (self.row >= ROW_MIN).then_some(PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(5);

    #[test]
    fn an_exchange_of_packets_never_waits_for_company() {
        let mut arrivals = Arrivals::default();
        for _ in 0..1000 {
            arrivals.served(100);
            assert_eq!(arrivals.woken_after(SLEEP_SHORT), None);
        }
    }

    #[test]
    fn a_stream_of_small_packets_does_after_its_first_few_until_there_is_a_gap() {
        let mut arrivals = Arrivals::default();
        for number in 1..100 {
            arrivals.served(100);
            let pause = arrivals.woken_after(SHORT);
            assert_eq!(pause.is_some(), number >= ROW_MIN, "{number}");
        }
        arrivals.served(100);
        assert_eq!(arrivals.woken_after(SLEEP_SHORT), None);
        assert_eq!(arrivals.woken_after(SHORT), None);
    }

    #[test]
    fn a_bulk_transfer_does_not() {
        let mut arrivals = Arrivals::default();
        for _ in 0..1000 {
            arrivals.served(64_000);
            assert_eq!(arrivals.woken_after(SHORT), None);
        }
    }
}
