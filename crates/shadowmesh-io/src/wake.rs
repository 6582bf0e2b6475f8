//! Noticing that the machine slept.
//!
//! While a machine is suspended `CLOCK_MONOTONIC` stands still and `CLOCK_BOOTTIME` goes on, so the
//! distance between both says how long it slept so far. Nobody has to look at it every second: the
//! kernel ends a timer of `CLOCK_REALTIME` made with `TFD_TIMER_CANCEL_ON_SET` when the machine wakes
//! (timerfd_create(2)). It also does so when somebody sets the clock, which the distance tells apart.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::sys;

/// A shorter distance is the time that reading two clocks takes.
const SLEEP_MIN: Duration = Duration::from_millis(100);

/// Readable after the machine has slept, and now and then for nothing.
pub struct WakeWatch {
    timer: OwnedFd,
    asleep: Duration,
}

impl WakeWatch {
    /// Starts watching.
    pub fn new() -> io::Result<Self> {
        let timer = sys::clock_watch()?;
        Ok(Self {
            timer,
            asleep: sys::time_asleep()?,
        })
    }

    /// How long the machine slept since the last call, if it did. To be called when readable, which
    /// it then is no more.
    pub fn slept(&mut self) -> io::Result<Option<Duration>> {
        sys::rearm_clock_watch(&self.timer)?;
        let before = std::mem::replace(&mut self.asleep, sys::time_asleep()?);
        Ok(sleep_between(before, self.asleep))
    }
}

impl AsFd for WakeWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

fn sleep_between(before: Duration, now: Duration) -> Option<Duration> {
    let slept = now.saturating_sub(before);
    (slept >= SLEEP_MIN).then_some(slept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll::{self, Watch};

    #[test]
    fn a_machine_that_stays_awake_is_not_said_to_have_slept() {
        let mut watch = WakeWatch::new().unwrap();
        let wait = Some(Duration::from_millis(20));
        assert_eq!(poll::wait(&mut [Watch::readable(&watch)], wait).unwrap(), 0);
        assert_eq!(watch.slept().unwrap(), None);
        assert_eq!(poll::wait(&mut [Watch::readable(&watch)], wait).unwrap(), 0);
    }

    #[test]
    fn the_distance_of_both_clocks_is_sleep_and_a_little_of_it_is_not() {
        let second = Duration::from_secs(1);
        assert_eq!(sleep_between(second, 3 * second), Some(2 * second));
        assert_eq!(
            sleep_between(second, second + Duration::from_micros(9)),
            None
        );
        assert_eq!(sleep_between(3 * second, second), None);
    }
}
