//! Which data plane carries a peer's packets: sealed frames, or DATAGRAM frames of the control
//! connection (RFC 9221).
//!
//! Sealed frames are several times as fast and are what everybody uses who can. QUIC datagrams are
//! for networks that let only true QUIC through, and to compare. Two things stand here, both pure:
//! the rule by which two settings become one agreement ([`agree`]), and the machine that leaves
//! sealed frames when they do not get through and comes back to them ([`Choice`]). What goes over
//! the wire is `net`'s; which connection carries it, `control`'s.
//!
//! Whatever plane is in use for sending, both are always received. So a switch loses nothing, and
//! two sides that for a moment are of different opinion still hear each other.

use std::time::{Duration, Instant};

use crate::bucket::Bucket;

/// What a node wants for a peer.
// PROTOCOL SM-QD-1
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataPlane {
    /// Sealed frames; QUIC datagrams only if the peer insists.
    Sealed,
    /// Sealed frames, and QUIC datagrams while these do not get through.
    #[default]
    Auto,
    /// QUIC datagrams.
    Quic,
}

impl DataPlane {
    /// As Hello says it.
    pub(crate) fn to_wire(self) -> u8 {
        match self {
            DataPlane::Sealed => 0,
            DataPlane::Auto => 1,
            DataPlane::Quic => 2,
        }
    }

    /// From Hello. A wish that a later version invents is none that we can follow.
    pub(crate) fn from_wire(wish: u8) -> Self {
        match wish {
            1 => DataPlane::Auto,
            2 => DataPlane::Quic,
            _ => DataPlane::Sealed,
        }
    }
}

/// What carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// Sealed frames beside the control connection.
    Sealed,
    /// DATAGRAM frames of the control connection.
    Quic,
}

/// What carries packets and why, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaneStatus {
    /// Sealed frames.
    Sealed,
    /// QUIC datagrams, as one side demands.
    Quic,
    /// QUIC datagrams, because sealed frames do not get through.
    Fallback,
}

impl PlaneStatus {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            PlaneStatus::Sealed => "sealed",
            PlaneStatus::Quic => "quic",
            PlaneStatus::Fallback => "quic (sealed frames do not pass)",
        }
    }
}

/// What two sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agreed {
    /// Sealed frames, always.
    Sealed,
    /// QUIC datagrams, always.
    Quic,
    /// Sealed frames while they get through.
    Auto,
}

/// The rule. `theirs`: what the peer's Hello says, if it says anything; `datagrams`: whether its
/// connection takes DATAGRAM frames. Both sides come to the same result.
// PROTOCOL SM-QD-1
pub(crate) fn agree(ours: DataPlane, theirs: Option<DataPlane>, datagrams: bool) -> Agreed {
    match (ours, theirs) {
        (_, None) => Agreed::Sealed,
        _ if !datagrams => Agreed::Sealed,
        (DataPlane::Quic, _) | (_, Some(DataPlane::Quic)) => Agreed::Quic,
        (DataPlane::Auto, Some(DataPlane::Auto)) => Agreed::Auto,
        _ => Agreed::Sealed,
    }
}

/// How long a peer's packets travel by QUIC before sealed frames are tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5 * 60);
/// Sealed probes of one such try, a second apart.
const RETRY_PROBES: u32 = 3;
/// Sealed probes in a row that went unanswered, each for a second, until QUIC's answers count
/// against sealed frames. A single lost probe is an ordinary loss.
const UNANSWERED_MIN: u32 = 2;

/// Changes that we follow: as many at once, and one more in each such time. Each is a new snapshot and
/// a line of our log, and no honest peer needs more: it takes seconds to find out that a plane fails.
// PROTOCOL SM-QD-4
const FOLLOW_BURST: u32 = 8;
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// A word to the peer: the number of the change, and what to use from now on.
pub(crate) type Word = (u32, Plane);

/// The data plane of one session, and the way back and forth.
#[derive(Debug)]
pub(crate) struct Choice {
    agreed: Agreed,
    plane: Plane,
    /// Number of the last change, by whichever side.
    turn: u32,
    /// While sealed frames do not get through: when to look again.
    retry_at: Instant,
    /// Probes of the present look.
    retried: u32,
    /// QUIC acknowledgements when sealed frames were last known to get through or QUIC was first
    /// asked to prove that it does.
    acks_seen: Option<u64>,
    /// Changes that may still be followed.
    followed: Bucket,
}

impl Choice {
    /// A session begins. `blocked_until`: an earlier session with this peer found that sealed frames
    /// do not get through, and wanted to look again then.
    pub(crate) fn new(agreed: Agreed, blocked_until: Option<Instant>, now: Instant) -> Self {
        let blocked = blocked_until.filter(|_| agreed == Agreed::Auto);
        let plane = match agreed {
            Agreed::Quic => Plane::Quic,
            _ if blocked.is_some() => Plane::Quic,
            _ => Plane::Sealed,
        };
        Self {
            agreed,
            plane,
            turn: u32::from(blocked.is_some()),
            retry_at: blocked.unwrap_or(now),
            retried: 0,
            acks_seen: None,
            followed: Bucket::full(now),
        }
    }

    /// What to send with.
    pub(crate) fn plane(&self) -> Plane {
        self.plane
    }

    pub(crate) fn status(&self) -> PlaneStatus {
        match (self.plane, self.agreed) {
            (Plane::Sealed, _) => PlaneStatus::Sealed,
            (Plane::Quic, Agreed::Auto) => PlaneStatus::Fallback,
            (Plane::Quic, _) => PlaneStatus::Quic,
        }
    }

    /// What is to be said at the start of the session, if it does not begin as the peer expects.
    pub(crate) fn greeting(&self) -> Option<Word> {
        (self.status() == PlaneStatus::Fallback).then_some((self.turn, self.plane))
    }

    /// Until when sealed frames are not tried, for the session that follows this one.
    pub(crate) fn blocked_until(&self) -> Option<Instant> {
        (self.status() == PlaneStatus::Fallback).then_some(self.retry_at)
    }

    /// Whether unanswered sealed probes are to be accompanied by a QUIC PING, so that its
    /// acknowledgement can tell a dead plane from a dead peer.
    pub(crate) fn watches_quic(&self) -> bool {
        self.agreed == Agreed::Auto && self.plane == Plane::Sealed
    }

    /// Sealed frames got through.
    pub(crate) fn sealed_heard(&mut self) {
        self.acks_seen = None;
    }

    /// `unanswered` sealed probes in a row got no answer, while QUIC has received `acks`
    /// acknowledgements in its life. Some: that is enough, tell the peer.
    // PROTOCOL SM-QD-2
    pub(crate) fn sealed_silent(
        &mut self,
        unanswered: u32,
        acks: u64,
        now: Instant,
    ) -> Option<Word> {
        if !self.watches_quic() {
            return None;
        }
        let before = *self.acks_seen.get_or_insert(acks);
        if unanswered < UNANSWERED_MIN || acks <= before {
            return None;
        }
        Some(self.change(Plane::Quic, now))
    }

    /// Whether a sealed probe is to be sent beside the QUIC datagrams, to look whether sealed frames
    /// get through again. Asked once a second, of the side that made the connection.
    // PROTOCOL SM-QD-3
    pub(crate) fn wants_retry(&mut self, now: Instant) -> bool {
        if self.status() != PlaneStatus::Fallback || now < self.retry_at {
            return false;
        }
        if self.retried >= RETRY_PROBES {
            self.retried = 0;
            self.retry_at = now + RETRY_AFTER;
            return false;
        }
        self.retried += 1;
        true
    }

    /// The path changed: what did not pass there may pass here.
    pub(crate) fn path_changed(&mut self, now: Instant) {
        self.retry_at = now;
        self.retried = 0;
        self.acks_seen = None;
    }

    /// A sealed probe was answered by a sealed reply. Some: sealed frames pass again, tell the peer.
    // PROTOCOL SM-QD-3
    pub(crate) fn sealed_answered(&mut self, now: Instant) -> Option<Word> {
        (self.status() == PlaneStatus::Fallback).then(|| self.change(Plane::Sealed, now))
    }

    /// The peer changed its plane. True: ours changed with it.
    // PROTOCOL SM-QD-4
    pub(crate) fn follow(&mut self, (turn, plane): Word, now: Instant) -> bool {
        let newer = turn > self.turn || (turn == self.turn && plane == Plane::Quic);
        if self.agreed != Agreed::Auto || !newer {
            return false;
        }
        let changed = plane != self.plane;
        if changed {
            if !self.followed.take(FOLLOW_BURST, FOLLOW_INTERVAL, now) {
                return false;
            }
            self.enter(plane, now);
        }
        self.turn = turn;
        changed
    }

    fn change(&mut self, plane: Plane, now: Instant) -> Word {
        self.turn = self.turn.saturating_add(1);
        self.enter(plane, now);
        (self.turn, plane)
    }

    fn enter(&mut self, plane: Plane, now: Instant) {
        self.plane = plane;
        self.retry_at = now + RETRY_AFTER;
        self.retried = 0;
        self.acks_seen = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;
    use proptest::prelude::*;

    const WISHES: [DataPlane; 3] = [DataPlane::Sealed, DataPlane::Auto, DataPlane::Quic];

    // PROTOCOL SM-QD-1
    #[test]
    fn quic_wins_when_either_side_demands_it_and_both_sides_come_to_the_same() {
        use Agreed::{Auto, Quic, Sealed};
        let table = [
            [Sealed, Sealed, Quic],
            [Sealed, Auto, Quic],
            [Quic, Quic, Quic],
        ];
        for (ours, row) in WISHES.into_iter().zip(table) {
            for (theirs, agreed) in WISHES.into_iter().zip(row) {
                assert_eq!(agree(ours, Some(theirs), true), agreed);
                assert_eq!(agree(theirs, Some(ours), true), agreed);
                assert_eq!(agree(ours, Some(theirs), false), Sealed);
            }
            assert_eq!(agree(ours, None, true), Sealed);
            assert_eq!(DataPlane::from_wire(ours.to_wire()), ours);
        }
        assert_eq!(DataPlane::from_wire(9), DataPlane::Sealed);
    }

    // PROTOCOL SM-QD-4
    #[test]
    fn a_peer_that_changes_its_plane_endlessly_is_followed_a_few_times_and_then_once_a_second() {
        let now = start();
        let mut choice = Choice::new(Agreed::Auto, None, now);
        let plane = |turn: u32| match turn % 2 {
            0 => Plane::Sealed,
            _ => Plane::Quic,
        };
        let follow = |choice: &mut Choice, turns: std::ops::Range<u32>, now| {
            turns
                .filter(|turn| choice.follow((*turn, plane(*turn)), now))
                .count() as u32
        };
        assert_eq!(follow(&mut choice, 1..1000, now), FOLLOW_BURST);
        let later = now + 3 * FOLLOW_INTERVAL;
        assert_eq!(follow(&mut choice, 1000..2000, later), 3);
        // What was not followed was not taken note of either, so the next word counts.
        let later = later + FOLLOW_INTERVAL;
        assert_eq!(follow(&mut choice, 2000..2002, later), 1);
    }

    // PROTOCOL SM-QD-2
    #[test]
    fn sealed_frames_are_left_only_when_quic_answers_and_they_do_not() {
        let now = start();
        let mut choice = Choice::new(Agreed::Auto, None, now);
        assert_eq!(choice.sealed_silent(1, 7, now), None);
        assert_eq!(choice.sealed_silent(2, 7, now), None, "QUIC is silent too");
        assert_eq!(choice.sealed_silent(3, 8, now), Some((1, Plane::Quic)));
        assert_eq!(choice.status(), PlaneStatus::Fallback);
        for agreed in [Agreed::Sealed, Agreed::Quic] {
            let mut fixed = Choice::new(agreed, None, now);
            assert_eq!(fixed.sealed_silent(1, 1, now), None);
            assert_eq!(fixed.sealed_silent(9, 9, now), None);
        }
    }

    #[test]
    fn one_answer_forgets_what_was_held_against_sealed_frames() {
        let now = start();
        let mut choice = Choice::new(Agreed::Auto, None, now);
        assert_eq!(choice.sealed_silent(1, 1, now), None);
        choice.sealed_heard();
        assert_eq!(choice.sealed_silent(2, 5, now), None);
        assert_eq!(choice.plane(), Plane::Sealed);
    }

    // PROTOCOL SM-QD-3
    #[test]
    fn sealed_frames_are_tried_again_after_five_minutes_and_at_once_on_another_path() {
        let mut now = start();
        let mut choice = Choice::new(Agreed::Auto, None, now);
        choice.sealed_silent(1, 1, now);
        choice.sealed_silent(2, 2, now).expect("it is left");
        let mut tries = Vec::new();
        for second in 1..=901 {
            now += Duration::from_secs(1);
            if choice.wants_retry(now) {
                tries.push(second);
            }
        }
        assert_eq!(tries, [300, 301, 302, 603, 604, 605]);
        choice.path_changed(now);
        assert!(choice.wants_retry(now));
        assert_eq!(choice.sealed_answered(now), Some((2, Plane::Sealed)));
        assert_eq!(choice.sealed_answered(now), None);
    }

    // PROTOCOL SM-QD-4
    #[test]
    fn of_two_changes_that_cross_both_sides_keep_quic() {
        let now = start();
        let (mut a, mut b) = (
            Choice::new(Agreed::Auto, None, now),
            Choice::new(Agreed::Auto, Some(now), now),
        );
        assert!(a.follow(b.greeting().expect("b begins by QUIC"), now));
        // One finds that sealed frames pass again while the other is told from elsewhere to stay.
        let back = b.sealed_answered(now).expect("they pass");
        let stay = a.change(Plane::Quic, now);
        assert!(!a.follow(back, now));
        assert!(b.follow(stay, now));
        assert_eq!((a.plane(), b.plane()), (Plane::Quic, Plane::Quic));
    }

    proptest! {
        // PROTOCOL SM-QD-4
        #[test]
        fn whatever_is_said_and_in_whatever_order_both_end_on_the_same_plane(
            steps in proptest::collection::vec((any::<bool>(), 0..4u8), 0..40),
        ) {
            let now = start();
            let mut sides = [(); 2].map(|()| Choice::new(Agreed::Auto, None, now));
            // What each side was told and has not read yet; streams keep the order.
            let mut unread: [std::collections::VecDeque<Word>; 2] = Default::default();
            let read = |sides: &mut [Choice; 2], unread: &mut [_; 2], side: usize, now| {
                let queue: &mut std::collections::VecDeque<Word> = &mut unread[side];
                if let Some(word) = queue.pop_front() {
                    sides[side].follow(word, now);
                }
            };
            // It takes a second at least to find out that a plane fails.
            let times = (0..).map(|n| now + n * FOLLOW_INTERVAL);
            for ((side, what), now) in steps.into_iter().zip(times.clone()) {
                let side = usize::from(side);
                let word = match what {
                    0 => sides[side].sealed_answered(now),
                    1 => {
                        sides[side].sealed_silent(1, 0, now);
                        sides[side].sealed_silent(2, 1, now)
                    }
                    _ => {
                        read(&mut sides, &mut unread, side, now);
                        None
                    }
                };
                unread[1 - side].extend(word);
            }
            for now in times.skip(40) {
                if unread.iter().all(|queue| queue.is_empty()) {
                    break;
                }
                read(&mut sides, &mut unread, 0, now);
                read(&mut sides, &mut unread, 1, now);
            }
            prop_assert_eq!(sides[0].plane(), sides[1].plane());
        }
    }
}
