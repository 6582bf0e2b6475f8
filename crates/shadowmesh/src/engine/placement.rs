//! Where a data thread runs: on one core with the others while there is little to do, wherever the kernel
//! likes when there is more, and in a flood on two cores apart from those of the other direction.
//!
//! A lone packet passes from the application to a data thread, and its answer from one to the application.
//! The kernel likes to wake each of these on a core that is idle, and on a machine that sleeps that
//! costs 20 to 30 us each, more than all the work on the packet. So the data threads of a calm node stay
//! on the first core that they may use, where a wake-up is a change of threads; at the first sign of
//! real work each leaves it, within a millisecond, and comes back when it has been calm for a while.
//!
//! In a flood, of UDP mostly, nothing slows the source when we are behind: it takes a whole core. A kernel
//! that finds no core idle wakes a receiver where the packet was sent from, so that of two cores senders and
//! receivers share the other, in turn, and the flood is lost in front of them. Apart, each has the better
//! part of a core, and the source what is left. TCP slows down by itself, and pings beside it wait less where
//! the kernel chooses. With more cores there is one for each.
//!
//! Only where the threads were given their priority: on one core they must not wait for a program that
//! uses it.

use std::time::{Duration, Instant};

use shadowmesh_io::sched::Cores;
use shadowmesh_wire::ip::{IpPacket, PROTOCOL_TCP};

/// One unit of work is forgotten in this time. A ping in a millisecond leaves nothing behind.
const FORGET_UNIT: Duration = Duration::from_micros(100);
/// So much unforgotten work, and the thread may go anywhere.
const UNITS_MAX: u32 = 32;
/// How long a thread stays away at least: moving a thread is not free either.
const AWAY_MIN: Duration = Duration::from_millis(100);
/// Bytes that count as another unit.
const UNIT_BYTES: usize = 16 * 1024;

/// A flood is looked for so often. Its end is looked for as often as [`AWAY_MIN`]: a thread that is held up
/// handles little of it.
const FLOOD_WINDOW: Duration = Duration::from_millis(20);
/// So many packets of unresponsive flows in a second are a flood, for each thread; half as many still are.
const FLOOD_MIN: f64 = 50_000.0;

/// Decides for one data thread, and tells the kernel.
pub struct Placement {
    /// `None` where there is nothing to choose.
    cores: Option<Choice>,
    flood: Flood,
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
    /// Packets whose source may not slow down when they are lost ([`is_unresponsive`]). A receiver counts
    /// those that come in sealed frames by its sockets.
    pub unresponsive: u64,
}

/// Whether a packet is no TCP, as far as the IP header tells. What slows down by itself in UDP, such as QUIC,
/// cannot be told from what does not.
pub fn is_unresponsive(packet: &IpPacket<'_>) -> bool {
    packet.protocol() != PROTOCOL_TCP
}

/// Where a thread may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Home,
    Anywhere,
    Apart,
}

struct Choice {
    all: Cores,
    home: Cores,
    /// In a flood: of two cores one, where no thread of the other direction is kept then.
    apart: Cores,
}

impl Placement {
    /// For the calling thread, a sender or a receiver; it is calm. `is_preferred`: it has its priority.
    pub fn new(is_preferred: bool, direction: Direction) -> Self {
        let choice = || Choice::of_thread(direction);
        let now = Instant::now();
        let placement = Self {
            cores: is_preferred.then(choice).flatten(),
            flood: Flood::new(now),
            loads: [(); 2].map(|()| Load::new(now)),
        };
        placement.apply();
        placement
    }

    /// The thread was woken, or found more to do. HOT PATH, once for each batch.
    pub fn worked(&mut self, turn: Turn) {
        let before = self.place();
        let now = Instant::now();
        self.flood.add(turn.unresponsive, now);
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
        if self.place() != before {
            self.apply();
        }
    }

    /// Whether there is little to do. Small packets are soon handled, but a flood of them is no calm.
    pub fn is_calm(&self) -> bool {
        !self.flood.is_on && self.loads.iter().all(|load| !load.is_busy)
    }

    fn place(&self) -> Place {
        match (self.flood.is_on, self.is_calm()) {
            (true, _) => Place::Apart,
            (false, true) => Place::Home,
            (false, false) => Place::Anywhere,
        }
    }

    fn apply(&self) {
        if let Some(choice) = &self.cores {
            let cores = match self.place() {
                Place::Home => &choice.home,
                Place::Anywhere => &choice.all,
                Place::Apart => &choice.apart,
            };
            // The administrator may have taken some away: better anywhere than where it was.
            if let Err(error) = cores.apply().or_else(|_| choice.all.apply()) {
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
    fn of_thread(direction: Direction) -> Option<Self> {
        let all = Cores::of_thread().ok()?;
        let (home, second) = (all.nth(0)?, all.nth(1)?);
        let apart = match direction {
            _ if all.iter().count() > 2 => all,
            Direction::Out => home,
            Direction::In => second,
        };
        Some(Self { all, home, apart })
    }
}

/// How many packets of unresponsive flows there were of late.
struct Flood {
    packets: u64,
    since: Instant,
    is_on: bool,
}

impl Flood {
    fn new(now: Instant) -> Self {
        Self {
            packets: 0,
            since: now,
            is_on: false,
        }
    }

    fn add(&mut self, packets: u64, now: Instant) {
        self.packets += packets;
        let passed = now.saturating_duration_since(self.since);
        let (window, least) = match self.is_on {
            true => (AWAY_MIN, FLOOD_MIN / 2.0),
            false => (FLOOD_WINDOW, FLOOD_MIN),
        };
        if passed >= window {
            self.is_on = self.packets as f64 >= least * passed.as_secs_f64();
            (self.packets, self.since) = (0, now);
        }
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
        unresponsive: 0,
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
        let mut placement = Placement::new(false, Direction::In);
        placement.worked(BEHIND);
        assert!(!placement.is_calm());
        std::thread::sleep(AWAY_MIN + Duration::from_millis(10));
        placement.worked(Turn {
            direction: Direction::In,
            bytes: 100,
            has_more: false,
            unresponsive: 0,
        });
        assert!(placement.is_calm());
    }

    #[test]
    fn a_flood_is_told_from_a_call_by_its_packets_in_a_second() {
        let start = Instant::now();
        for (packets, is_flood) in [(5, false), (45, false), (55, true), (500, true)] {
            let mut flood = Flood::new(start);
            for ms in 1..100 {
                flood.add(packets, start + ms * Duration::from_millis(1));
            }
            assert_eq!(flood.is_on, is_flood, "{packets} in a millisecond");
        }
    }

    #[test]
    fn a_flood_that_hovers_about_the_limit_stays_one_and_one_that_stops_does_not() {
        let start = Instant::now();
        let mut flood = Flood::new(start);
        let mut now = start;
        // The fourth finds a thread that was held up.
        for packets in [1500, 900, 600, 0, 1500, 1100] {
            now += FLOOD_WINDOW;
            flood.add(packets, now);
            assert!(flood.is_on, "{packets} packets at {:?}", now - start);
        }
        flood.add(1, now + Duration::from_secs(10));
        assert!(!flood.is_on);
    }

    #[test]
    fn a_flood_of_packets_that_are_soon_handled_is_no_calm_and_keeps_a_thread_apart() {
        let mut placement = Placement::new(false, Direction::In);
        let start = Instant::now();
        assert_eq!(placement.place(), Place::Home);
        placement.flood.add(10_000, start + 2 * FLOOD_WINDOW);
        assert_eq!(placement.place(), Place::Apart);
        assert!(!placement.is_calm());
    }

    #[test]
    fn on_two_cores_threads_that_are_apart_meet_on_none_and_on_more_they_are_free() {
        let [out, back] = [Direction::Out, Direction::In].map(Choice::of_thread);
        let (Some(out), Some(back)) = (out, back) else {
            return assert_eq!(
                Cores::of_thread().map_or(1, |cores| cores.iter().count()),
                1
            );
        };
        let [out, back, all]: [Vec<usize>; 3] =
            [out.apart, back.apart, out.all].map(|cores| cores.iter().collect());
        match &all[..] {
            [first, second] => assert_eq!((out, back), (vec![*first], vec![*second])),
            all => assert_eq!((&out[..], &back[..]), (all, all)),
        }
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
