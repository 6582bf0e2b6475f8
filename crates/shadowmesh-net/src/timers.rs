//! All timers of the machine, in one table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use shadowmesh_wire::PeerId;

use crate::control::ConnKey;

/// What a timer is for. The order has no meaning but to make equal deadlines deterministic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// QUIC's own next deadline: loss detection, pacing, draining.
    Quic(ConnKey),
    /// A closed connection has answered late packets long enough.
    Drain(ConnKey),
    /// The connection must have become a session by now, else it is given up.
    Handshake(ConnKey),
    /// A session that lost against another is closed now; until then it still receives.
    Linger(ConnKey),
    /// Look whether the peer has gone silent; send a probe if so.
    Liveness(ConnKey),
    /// The keys are old enough: ask for new ones.
    Rekey(ConnKey),
    /// A rekey should be through by now, else a new connection is made.
    RekeyStuck(ConnKey),
    /// Frames of the epoch before have had their time: wipe its keys.
    Retire(ConnKey),
    /// The search for the path MTU has a probe to repeat, or a length to confirm.
    Mtu(ConnKey),
    /// A way to a peer is to be probed, judged or looked for.
    Paths(ConnKey),
    /// Try again to connect.
    Connect(PeerId),
    /// Somebody who waits for a part of the budget for calls may have it now, or is to be knocked at.
    Calls,
    /// Look whether enough of our relays answer, and whether some are not needed.
    Relays,
    /// A client of ours whose session ended may be forgotten.
    ForgetClient(PeerId),
    /// By UDP nobody has answered an attempt so far: a stream may be wanted.
    Stream(PeerId),
    /// First packets that waited to see whether a flood follows are judged.
    Strangers,
    /// The indices of a removed peer need not be remembered any longer.
    Forget,
}

impl Timer {
    /// Why we wake, for `poll_timeout`.
    pub(crate) fn why(&self) -> &'static str {
        match self {
            Timer::Quic(_) => "quic",
            Timer::Drain(_) => "drain",
            Timer::Handshake(_) => "handshake deadline",
            Timer::Linger(_) => "close replaced session",
            Timer::Liveness(_) => "liveness",
            Timer::Rekey(_) => "rekey",
            Timer::RekeyStuck(_) => "rekey deadline",
            Timer::Retire(_) => "wipe old epoch",
            Timer::Mtu(_) => "path MTU",
            Timer::Paths(_) => "paths",
            Timer::Connect(_) => "connect",
            Timer::Calls => "calls that wait for the budget",
            Timer::Relays => "relays",
            Timer::ForgetClient(_) => "forget client",
            Timer::Stream(_) => "stream wanted",
            Timer::Strangers => "first packets",
            Timer::Forget => "forget removed peer",
        }
    }

    /// The timers that end with a connection.
    fn of_connection(key: ConnKey) -> [Timer; 10] {
        [
            Timer::Quic(key),
            Timer::Drain(key),
            Timer::Handshake(key),
            Timer::Linger(key),
            Timer::Liveness(key),
            Timer::Rekey(key),
            Timer::RekeyStuck(key),
            Timer::Retire(key),
            Timer::Mtu(key),
            Timer::Paths(key),
        ]
    }
}

/// Deadlines, at most one for each timer.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    at: BTreeMap<Timer, Instant>,
    order: BTreeSet<(Instant, Timer)>,
}

impl Timers {
    /// Sets or moves a deadline.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(old) = self.at.insert(timer, at) {
            self.order.remove(&(old, timer));
        }
        self.order.insert((at, timer));
    }

    /// Takes a deadline away.
    pub(crate) fn stop(&mut self, timer: Timer) {
        if let Some(old) = self.at.remove(&timer) {
            self.order.remove(&(old, timer));
        }
    }

    /// Takes away all deadlines of a connection but those of its end.
    pub(crate) fn stop_session(&mut self, key: ConnKey) {
        for timer in Timer::of_connection(key) {
            if !matches!(timer, Timer::Quic(_) | Timer::Drain(_)) {
                self.stop(timer);
            }
        }
    }

    /// Takes away all deadlines of a connection.
    pub(crate) fn stop_connection(&mut self, key: ConnKey) {
        for timer in Timer::of_connection(key) {
            self.stop(timer);
        }
    }

    /// When this timer is due, if it is set.
    pub(crate) fn get(&self, timer: Timer) -> Option<Instant> {
        self.at.get(&timer).copied()
    }

    /// The next deadline.
    pub(crate) fn next(&self) -> Option<(Instant, Timer)> {
        self.order.first().copied()
    }

    /// Takes out the next timer that is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        let &(at, timer) = self.order.first()?;
        if at > now {
            return None;
        }
        self.stop(timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;
    use std::time::Duration;

    #[test]
    fn a_timer_has_one_deadline_and_fires_once_in_order() {
        let start = start();
        let at = |ms| start + Duration::from_millis(ms);
        let (a, b) = (Timer::Quic(ConnKey(1)), Timer::Rekey(ConnKey(1)));
        let mut timers = Timers::default();
        timers.set(a, at(5));
        timers.set(b, at(3));
        timers.set(a, at(1));
        assert_eq!(timers.next(), Some((at(1), a)));
        assert_eq!(timers.pop(at(0)), None);
        assert_eq!(timers.pop(at(9)), Some(a));
        assert_eq!(timers.pop(at(9)), Some(b));
        assert_eq!(timers.pop(at(9)), None);
    }

    #[test]
    fn the_session_timers_end_without_those_of_draining() {
        let now = start();
        let mut timers = Timers::default();
        for timer in Timer::of_connection(ConnKey(1)) {
            timers.set(timer, now);
        }
        timers.set(Timer::Rekey(ConnKey(2)), now);
        timers.stop_session(ConnKey(1));
        assert_eq!(timers.pop(now), Some(Timer::Quic(ConnKey(1))));
        assert_eq!(timers.pop(now), Some(Timer::Drain(ConnKey(1))));
        assert_eq!(timers.pop(now), Some(Timer::Rekey(ConnKey(2))));
        assert_eq!(timers.pop(now), None);
    }
}
