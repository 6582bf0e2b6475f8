//! Whether two machines use one identity: a copied state directory, a cloned virtual machine.
//!
//! Each process draws a number at its start and says it in Hello. When another number comes, the process before is
//! over; so one that was replaced and comes back is not: two take the session in turns. The two themselves learn it
//! from the peer, which closes their session for another one that they know nothing of. Once may be chance (a snapshot
//! that was restored); more often in a short time is not. Nothing here decides who is admitted: both have the key.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Limit: replaced lives of a peer that are remembered; more machines with one key are noticed as two are.
const REPLACED_MAX: usize = 4;
/// So many turns, none longer after the last than this, are no chance.
// PROTOCOL SM-HS-14
const TURNS_MIN: u32 = 3;
const TURN_WITHIN: Duration = Duration::from_secs(600);
/// For how long people are told of it after the last turn; also how often the log says so.
const TOLD: Duration = Duration::from_secs(3600);

/// Whose identity two machines use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The peer's.
    Theirs,
    /// Ours: the peer closed our session for another of ours that we do not have.
    Ours,
}

/// What is known of the lives of a peer, and what it says of ours.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    /// The number that it drew at its start.
    current: Option<u64>,
    /// Those of lives that others took over from, the latest last. Limit: [`REPLACED_MAX`].
    replaced: VecDeque<u64>,
    theirs: Turns,
    ours: Turns,
    said_at: Option<Instant>,
}

/// How often a session was taken by who should not be there any more.
#[derive(Debug, Default)]
struct Turns {
    count: u32,
    last: Option<Instant>,
}

impl Turns {
    fn add(&mut self, now: Instant) {
        if self.last.is_none_or(|last| now > last + TURN_WITHIN) {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
    }

    fn are_told(&self, now: Instant) -> bool {
        self.count >= TURNS_MIN && self.last.is_some_and(|last| now < last + TOLD)
    }
}

impl Lives {
    /// A session is up with the peer in this life of it.
    // PROTOCOL SM-HS-14
    pub(crate) fn met(&mut self, boot: u64, now: Instant) {
        let Some(before) = self.current.replace(boot).filter(|&before| before != boot) else {
            return;
        };
        if self.replaced.contains(&boot) {
            self.theirs.add(now);
            self.replaced.retain(|replaced| *replaced != boot);
        }
        if self.replaced.len() == REPLACED_MAX {
            self.replaced.pop_front();
        }
        self.replaced.push_back(before);
    }

    /// The peer ended our session for another that is not ours. Returns how often in a row, once that is no chance.
    // PROTOCOL SM-HS-14
    pub(crate) fn taken_over(&mut self, now: Instant) -> Option<u32> {
        self.ours.add(now);
        self.ours.count.checked_sub(TURNS_MIN)
    }

    /// Whose identity two machines use, as far as it looks now.
    pub(crate) fn copied(&self, now: Instant) -> Option<Copied> {
        match (self.theirs.are_told(now), self.ours.are_told(now)) {
            (true, _) => Some(Copied::Theirs),
            (_, true) => Some(Copied::Ours),
            _ => None,
        }
    }

    /// The same, if it is time to say it in the log.
    pub(crate) fn take_warning(&mut self, now: Instant) -> Option<Copied> {
        let copied = self.copied(now)?;
        if self.said_at.is_some_and(|at| now < at + TOLD) {
            return None;
        }
        self.said_at = Some(now);
        Some(copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;

    const SECOND: Duration = Duration::from_secs(1);

    // PROTOCOL SM-HS-14
    #[test]
    fn two_lives_that_take_turns_are_noticed_and_said_once_an_hour() {
        let mut lives = Lives::default();
        let mut now = start();
        let mut said = 0;
        for turn in 0..7200 {
            lives.met(turn % 2, now);
            said += u32::from(lives.take_warning(now).is_some());
            assert_eq!(lives.copied(now).is_some(), turn >= 4, "turn {turn}");
            now += SECOND;
        }
        assert_eq!(said, 2);
        assert_eq!(lives.copied(now), Some(Copied::Theirs));
        assert_eq!(lives.copied(now + TOLD), None);
    }

    // PROTOCOL SM-HS-14
    #[test]
    fn neither_restarts_nor_sessions_of_one_life_nor_a_restored_snapshot_raise_an_alarm() {
        let mut lives = Lives::default();
        let mut now = start();
        for boot in 1..1000 {
            lives.met(boot, now);
            lives.met(boot, now);
            now += SECOND;
        }
        lives.met(998, now);
        lives.met(1001, now);
        lives.met(998, now + SECOND);
        assert_eq!(lives.copied(now + SECOND), None);
        assert!(lives.replaced.len() <= REPLACED_MAX);
    }

    // PROTOCOL SM-HS-14
    #[test]
    fn a_session_that_is_taken_over_once_in_a_while_is_no_sign() {
        let mut lives = Lives::default();
        for hour in 0..100 {
            let now = start() + hour * TOLD;
            assert_eq!(lives.taken_over(now), None);
            assert_eq!(lives.copied(now), None);
        }
        let now = start() + 200 * TOLD;
        let counts: Vec<_> = (0..4).map(|_| lives.taken_over(now)).collect();
        assert_eq!(counts, [None, None, Some(0), Some(1)]);
        assert_eq!(lives.copied(now), Some(Copied::Ours));
    }
}
