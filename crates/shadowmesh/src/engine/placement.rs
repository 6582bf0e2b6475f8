//! Where a data thread runs: on one core with the others while there is little to do, and wherever the
//! kernel likes when there is more.
//!
//! A lone packet passes from the application to a data thread, and its answer from one to the application.
//! The kernel likes to wake each of these on a core that is idle, and on a machine that sleeps that
//! costs 20 to 30 us each, more than all the work on the packet. So the data threads of a calm node stay
//! on the first core that they may use, where a wake-up is a change of threads; at the first sign of
//! real work each leaves it, within a millisecond, and comes back when it has been calm for a while.
//!
//! Only where the threads were given their priority: on one core they must not wait for a program that
//! uses it.

use std::time::{Duration, Instant};

use shadowmesh_io::sched::Cores;

/// One unit of work is forgotten in this time. A ping in a millisecond leaves nothing behind.
const FORGET_UNIT: Duration = Duration::from_micros(100);
/// So much unforgotten work, and the thread may go anywhere.
const UNITS_MAX: u32 = 32;
/// How long a thread stays away at least: moving a thread is not free either.
const AWAY_MIN: Duration = Duration::from_millis(100);
/// Bytes that count as another unit.
const UNIT_BYTES: usize = 16 * 1024;

/// Decides for one data thread, and tells the kernel.
pub struct Placement {
    /// `None` where there is nothing to choose.
    cores: Option<Choice>,
    /// One for each [`Direction`]: who answers does as much in both as others in one.
    loads: [Load; 2],
}

/// Which way packets were moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the device to the network.
    Out,
    /// From the network to the device.
    In,
}

/// What a data thread did in one go.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Which way.
    pub direction: Direction,
    /// What it moved.
    pub bytes: usize,
    /// It knows that it has more to do than it can, however much that was.
    pub has_more: bool,
}

struct Choice {
    all: Cores,
    home: Cores,
}

impl Placement {
    /// For the calling thread; it is calm. `is_preferred`: it has its priority.
    pub fn new(is_preferred: bool) -> Self {
        let placement = Self {
            cores: is_preferred.then(Choice::of_thread).flatten(),
            loads: [(); 2].map(|()| Load::new(Instant::now())),
        };
        placement.apply();
        placement
    }

    /// The thread was woken, or found more to do. HOT PATH, once for each batch.
    pub fn worked(&mut self, turn: Turn) {
        let before = self.is_calm();
        let now = Instant::now();
        for (load, direction) in self.loads.iter_mut().zip([Direction::Out, Direction::In]) {
            // The other one is told as well that time has passed.
            load.add(
                if direction == turn.direction {
                    turn.units()
                } else {
                    0
                },
                now,
            );
        }
        if self.is_calm() != before {
            self.apply();
        }
    }

    /// Whether there is little to do.
    pub fn is_calm(&self) -> bool {
        self.loads.iter().all(|load| !load.is_busy)
    }

    fn apply(&self) {
        if let Some(Choice { all, home }) = &self.cores {
            let cores = if self.is_calm() { home } else { all };
            if let Err(error) = cores.apply() {
                tracing::debug!(%error, "a data thread stays on its cores");
            }
        }
    }
}

impl Turn {
    fn units(self) -> usize {
        let least = if self.has_more { UNITS_MAX as usize } else { 0 };
        1 + least.max(self.bytes / UNIT_BYTES)
    }
}

impl Choice {
    fn of_thread() -> Option<Self> {
        let all = Cores::of_thread().ok()?;
        let home = all.first()?;
        (all.count() > 1).then_some(Self { all, home })
    }
}

/// How much was done of late.
struct Load {
    units: u32,
    /// Up to when `units` has been forgotten.
    at: Instant,
    is_busy: bool,
    changed_at: Instant,
}

impl Load {
    fn new(now: Instant) -> Self {
        Self {
            units: 0,
            at: now,
            is_busy: false,
            changed_at: now,
        }
    }

    /// Counts work; true when that changes the verdict. So much at once as would make a calm thread busy keeps
    /// a busy one so, however long it took.
    fn add(&mut self, units: usize, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_micros();
        let forgotten = u32::try_from(passed / FORGET_UNIT.as_micros()).unwrap_or(u32::MAX);
        if forgotten > 0 {
            self.at = now;
        }
        let rest = self.units.saturating_sub(forgotten);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        self.units = rest.saturating_add(units);
        let stayed = now.saturating_duration_since(self.changed_at);
        let is_busy = if self.is_busy {
            rest > 0 || stayed < AWAY_MIN || units > UNITS_MAX
        } else {
            self.units > UNITS_MAX
        };
        let changed = is_busy != self.is_busy;
        if changed {
            self.is_busy = is_busy;
            self.changed_at = now;
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_and_calls_leave_a_thread_where_it_is() {
        let start = Instant::now();
        let mut load = Load::new(start);
        for n in 0..10_000 {
            assert!(!load.add(1, start + n * Duration::from_micros(500)));
        }
    }

    #[test]
    fn a_bulk_transfer_is_noticed_at_once_and_its_end_after_a_while() {
        let start = Instant::now();
        let mut load = Load::new(start);
        let noticed = (0..).position(|n| load.add(5, start + n * Duration::from_micros(40)));
        assert!(noticed.expect("it is noticed") < 10);
        let later = start + AWAY_MIN + Duration::from_millis(10);
        assert!(load.add(1, later), "it is calm again");
        assert!(!load.is_busy);
    }

    const BEHIND: Turn = Turn {
        direction: Direction::Out,
        bytes: 0,
        has_more: true,
    };

    #[test]
    fn a_thread_that_is_always_behind_is_never_calm_however_slow_it_is() {
        for turn in [1, 5, 50, 500].map(Duration::from_millis) {
            let start = Instant::now();
            let mut load = Load::new(start);
            for n in 0..100 {
                load.add(BEHIND.units(), start + n * turn);
                assert!(load.is_busy, "turn {n} of {turn:?}");
            }
        }
    }

    #[test]
    fn work_one_way_makes_a_thread_busy_and_a_calm_time_of_the_other_calms_it() {
        let mut placement = Placement::new(false);
        placement.worked(BEHIND);
        assert!(!placement.is_calm());
        std::thread::sleep(AWAY_MIN + Duration::from_millis(10));
        placement.worked(Turn {
            direction: Direction::In,
            bytes: 100,
            has_more: false,
        });
        assert!(placement.is_calm());
    }

    #[test]
    fn a_pause_in_a_transfer_moves_nothing() {
        let start = Instant::now();
        let mut load = Load::new(start);
        assert!(load.add(100, start));
        for n in 1..20 {
            assert!(!load.add(1, start + n * Duration::from_millis(5)));
        }
    }
}
