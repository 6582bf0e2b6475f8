//! Noticing that a peer has gone silent, by its traffic where there is some.
//!
//! Looked at once a second. Whoever sends and hears nothing back probes, and after three probes in
//! vain takes the peer for dead: four to five seconds, not thirty. Whoever is idle sends a probe
//! every ten seconds (or a third of the health interval), which also keeps NAT mappings alive, and waits
//! for two and a half of these: so a relay that stood by and died is missed within the health interval.

use std::time::{Duration, Instant};

use crate::forwarding::TrafficTotals;

/// How often a session is looked at.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// An idle peer that was not heard of for so many halves of the interval of keep-alives is dead: two of these
/// were lost, and all that was sent to find another way since the first.
const SILENT_HALVES_MAX: u32 = 5;
/// But not before a look that sends a probe and three more, however short the interval is.
const SILENCE_MIN: Duration = Duration::from_secs(4);
/// An answer to a probe that takes longer is missed.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Probes without an answer, while there is traffic, until the peer is dead.
const UNANSWERED_MAX: u32 = 3;

/// What the look says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// Nothing to do.
    Fine,
    /// Send a probe.
    Probe,
    /// The peer is gone.
    Dead,
}

/// When the peer was last heard, and what was tried since.
#[derive(Debug)]
pub(crate) struct Liveness {
    heard_at: Instant,
    probed_at: Instant,
    sent: u64,
    received: u64,
    /// Probes since traffic got no answer.
    unanswered: u32,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            heard_at: now,
            probed_at: now,
            sent: 0,
            received: 0,
            unanswered: 0,
        }
    }

    /// Probes in a row, each a second apart, that got no answer.
    pub(crate) fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// An authentic frame came.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.unanswered = 0;
    }

    /// When the peer was last heard, with what was counted since the last look.
    pub(crate) fn heard_at(&self, totals: TrafficTotals, now: Instant) -> Instant {
        match totals.received_frames != self.received {
            true => now,
            false => self.heard_at,
        }
    }

    /// Whether nothing comes back although something was asked: two probes beside traffic, or one of an idle
    /// session with time for its answer.
    // PROTOCOL SM-PA-3
    pub(crate) fn is_silent(&self, totals: TrafficTotals, now: Instant) -> bool {
        if totals.received_frames != self.received {
            return false;
        }
        let asked_in_vain = self.probed_at > self.heard_at && now >= self.probed_at + ANSWER_MAX;
        self.unanswered >= 2 || asked_in_vain
    }

    /// We sent a probe, which is no traffic that asks for an answer.
    pub(crate) fn probe_sent(&mut self) {
        self.sent += 1;
    }

    /// Judges by what the data plane counted. An idle session is probed at intervals of `keep_alive`.
    // PROTOCOL SM-PA-3
    pub(crate) fn look(
        &mut self,
        totals: TrafficTotals,
        keep_alive: Duration,
        now: Instant,
    ) -> Pulse {
        let spoke = totals.sent_frames != self.sent;
        if totals.received_frames != self.received {
            self.heard(now);
        }
        self.sent = totals.sent_frames;
        self.received = totals.received_frames;

        let silence = now.saturating_duration_since(self.heard_at);
        let silence_max = (keep_alive * SILENT_HALVES_MAX / 2).max(SILENCE_MIN);
        if silence >= silence_max || self.unanswered >= UNANSWERED_MAX {
            return Pulse::Dead;
        }
        let answer_missing = self.unanswered > 0 || (spoke && silence >= TICK);
        if answer_missing {
            self.unanswered += 1;
        }
        let idle = now.saturating_duration_since(self.heard_at.max(self.probed_at)) >= keep_alive;
        if !answer_missing && !idle {
            return Pulse::Fine;
        }
        self.probed_at = now;
        Pulse::Probe
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;

    struct World {
        liveness: Liveness,
        now: Instant,
        totals: TrafficTotals,
    }

    impl World {
        fn new() -> Self {
            let now = start();
            Self {
                liveness: Liveness::new(now),
                now,
                totals: TrafficTotals::default(),
            }
        }

        fn is_silent(&self) -> bool {
            self.liveness.is_silent(self.totals, self.now)
        }

        fn tick(&mut self, sent: u64, received: u64) -> Pulse {
            self.now += TICK;
            self.totals.sent_frames += sent;
            self.totals.received_frames += received;
            self.liveness
                .look(self.totals, Duration::from_secs(10), self.now)
        }
    }

    // PROTOCOL SM-PA-3
    #[test]
    fn a_session_is_silent_while_what_was_asked_in_it_is_not_answered() {
        let mut world = World::new();
        for _ in 0..9 {
            assert_eq!(world.tick(0, 0), Pulse::Fine);
        }
        assert!(!world.is_silent(), "nothing was asked");
        assert_eq!(world.tick(0, 0), Pulse::Probe);
        assert!(!world.is_silent(), "it has some time");
        world.tick(1, 0);
        world.tick(0, 0);
        assert!(world.is_silent());
        world.totals.received_frames += 1;
        assert!(!world.is_silent(), "also before the next look");
        world.tick(0, 0);
        assert!(!world.is_silent());
    }

    // PROTOCOL SM-PA-3
    #[test]
    fn traffic_without_an_answer_finds_a_dead_peer_in_five_seconds() {
        let mut world = World::new();
        assert_eq!(world.tick(100, 100), Pulse::Fine);
        for _ in 0..3 {
            assert_eq!(world.tick(100, 0), Pulse::Probe);
        }
        assert_eq!(world.tick(100, 0), Pulse::Dead);
    }

    #[test]
    fn one_answer_to_a_probe_is_enough_for_traffic_in_one_direction() {
        let mut world = World::new();
        for _ in 0..100 {
            if world.tick(1, 0) == Pulse::Probe {
                world.liveness.heard(world.now);
            }
        }
        assert_ne!(world.tick(1, 0), Pulse::Dead);
    }

    // PROTOCOL SM-PA-3
    #[test]
    fn a_probe_of_ours_that_nobody_answers_yet_is_no_traffic() {
        let mut world = World::new();
        for _ in 0..9 {
            assert_eq!(world.tick(0, 0), Pulse::Fine);
        }
        assert_eq!(world.tick(0, 0), Pulse::Probe);
        world.liveness.probe_sent();
        assert_eq!(world.tick(1, 0), Pulse::Fine);
    }

    // PROTOCOL SM-PA-3
    #[test]
    fn an_idle_session_is_probed_every_ten_seconds_and_dead_after_twenty_five() {
        let mut world = World::new();
        let pulses: Vec<_> = (0..25).map(|_| world.tick(0, 0)).collect();
        let probes = pulses.iter().filter(|p| **p == Pulse::Probe).count();
        assert_eq!(
            (probes, pulses[9], pulses[24]),
            (2, Pulse::Probe, Pulse::Dead)
        );
    }

    // PROTOCOL SM-PA-3
    #[test]
    fn however_often_an_idle_session_is_probed_it_has_time_to_answer() {
        let mut world = World::new();
        let often = Duration::from_millis(333);
        let mut look = || {
            world.now += TICK;
            world.liveness.look(world.totals, often, world.now)
        };
        let pulses: Vec<_> = (0..4).map(|_| look()).collect();
        assert!(pulses[..3].iter().all(|pulse| *pulse == Pulse::Probe));
        assert_eq!(pulses[3], Pulse::Dead);
    }
}
