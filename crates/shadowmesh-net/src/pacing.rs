//! Whose turn it is to be called: a budget for the whole node, of what goes to peers that have not answered.
//!
//! A call to a peer that is away costs some 15 KB and, for two seconds, a QUIC connection. A node may list thousands
//! of peers, most of them away, and one network change makes all calls due at once. So calls take from one budget,
//! which gets back what peers that answer have cost; those for whom nothing is left wait in a queue. First go those
//! that have shown a sign of life, then those somebody wants, then the others, each in the order in which they came.
//!
//! A sign of life is asked for by a *knock*: a short datagram of no session, which every node answers with a stateless
//! reset (SM-SF-6). So a handful of peers that are there need not wait for thousands that are not. Anybody can forge
//! such an answer; all it brings is a better place in the queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shadowmesh_wire::PeerId;
use shadowmesh_wire::way::Way;

use crate::bucket::Bucket;

/// What an unanswered call costs for each address: a first flight of two datagrams of 1200 bytes, repeated twice in
/// two seconds, and on first contact each of them sent twice. In bytes, headers included.
const CALL_COST: u32 = 15_000;
/// What a knock costs, with its headers, in bytes.
const KNOCK_COST: u32 = 100;
/// Length of a knock. A reset is shorter than what it answers and has at least 21 bytes (RFC 9000 §10.3).
pub(crate) const KNOCK_LEN: usize = 64;
/// So much may go out at once, and how fast it is regained, in bytes and bytes a second: within 5 s and with what
/// knocks cost less than 2 MB, and then less than the slowest uplinks of today.
// PROTOCOL SM-PA-13
const BURST: u32 = 1024 * 1024;
const RATE: u32 = 64 * 1024;
/// What those may owe beyond that who have shown a sign of life.
// PROTOCOL SM-PA-13
const ANSWERED_OWE: u32 = 256 * 1024;
/// Limit: calls under way that nobody has answered with proof of who it is; each holds a QUIC connection, some
/// 80 KB. And so many more to those who have shown a sign of life.
// PROTOCOL SM-PA-13
pub(crate) const CALLS_MAX: usize = 64;
const ANSWERED_MAX: usize = 32;
/// Knocks go out in so small groups, so long apart, as not to fill any queue on their way.
const KNOCK_GROUP: usize = 64;
const KNOCK_EVERY: Duration = Duration::from_millis(10);

/// Who waits is not asked for again sooner: never at once, for then nothing has changed.
const TURN_EVERY: Duration = Duration::from_millis(1);

/// Why a peer has its place in the queue. The first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Answered,
    Wanted,
    Other,
}

#[derive(Debug)]
struct Waiting {
    place: (Class, u64),
    /// What it needs of the budget.
    cost: Duration,
    /// Where it was or will be knocked.
    knocks: Vec<SocketAddr>,
}

/// The budget, and who waits for a part of it.
#[derive(Debug)]
pub(crate) struct Pacing {
    bucket: Bucket,
    /// What the calls under way have taken. Limit: [`CALLS_MAX`] and [`ANSWERED_MAX`], and one for each relay.
    calls: BTreeMap<PeerId, Duration>,
    /// Limit: one for each peer.
    waiting: BTreeMap<PeerId, Waiting>,
    queue: BTreeSet<((Class, u64), PeerId)>,
    /// Those to be knocked at. Limit: one for each peer.
    to_knock: VecDeque<PeerId>,
    /// Who is knocked at where. Limit: the addresses of those that wait.
    doors: BTreeMap<SocketAddr, PeerId>,
    next_knock: Option<Instant>,
    places: u64,
}

impl Pacing {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            bucket: Bucket::full(now),
            calls: BTreeMap::new(),
            waiting: BTreeMap::new(),
            queue: BTreeSet::new(),
            to_knock: VecDeque::new(),
            doors: BTreeMap::new(),
            next_knock: None,
            places: 0,
        }
    }

    /// A peer is to be called at these addresses. True: now. False: it waits for its turn, see [`next`](Self::next).
    /// Who waits already goes before all who may come now.
    pub(crate) fn ask(
        &mut self,
        id: PeerId,
        targets: &[SocketAddr],
        wanted: bool,
        now: Instant,
    ) -> bool {
        let class = match self.waiting.get(&id).map(|waiting| waiting.place.0) {
            Some(Class::Answered) => Class::Answered,
            Some(Class::Wanted) => Class::Wanted,
            _ if wanted => Class::Wanted,
            _ => Class::Other,
        };
        let others_first = self
            .queue
            .first()
            .is_some_and(|((first, _), of)| *first <= class && *of != id);
        if !others_first && self.begin(id, class, targets.len(), now) {
            return true;
        }
        self.wait(id, class, targets);
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.cost = call_cost(targets.len());
        }
        false
    }

    /// A call that waits for nobody: of a relay, or beside a session.
    pub(crate) fn take(&mut self, id: PeerId, targets: usize, now: Instant) {
        self.forget_waiting(&id);
        let cost = call_cost(targets);
        self.bucket.owe(cost, time_of(BURST), now);
        self.calls.insert(id, cost);
    }

    fn begin(&mut self, id: PeerId, class: Class, targets: usize, now: Instant) -> bool {
        let (more, owe) = match class {
            Class::Answered => (ANSWERED_MAX, ANSWERED_OWE),
            Class::Wanted | Class::Other => (0, 0),
        };
        let cost = call_cost(targets);
        let may = self.calls.len() < CALLS_MAX + more
            && self.bucket.spend(cost, time_of(BURST + owe), now);
        if may {
            self.forget_waiting(&id);
            self.calls.insert(id, cost);
        }
        may
    }

    fn wait(&mut self, id: PeerId, class: Class, targets: &[SocketAddr]) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            return Self::move_to(&mut self.queue, waiting, id, class);
        }
        let knocks: Vec<SocketAddr> = targets
            .iter()
            .copied()
            .filter(|target| matches!(Way::of(*target), Way::Udp(_)))
            .collect();
        if !knocks.is_empty() {
            self.to_knock.push_back(id);
        }
        let place = (class, self.places);
        self.places += 1;
        self.queue.insert((place, id));
        let cost = call_cost(targets.len());
        let waiting = Waiting {
            place,
            cost,
            knocks,
        };
        self.waiting.insert(id, waiting);
    }

    fn move_to(
        queue: &mut BTreeSet<((Class, u64), PeerId)>,
        waiting: &mut Waiting,
        id: PeerId,
        class: Class,
    ) {
        queue.remove(&(waiting.place, id));
        waiting.place.0 = waiting.place.0.min(class);
        queue.insert((waiting.place, id));
    }

    /// Whose turn it is to be asked for again, if the budget may have room.
    pub(crate) fn next(&self) -> Option<PeerId> {
        self.queue.first().map(|(_, id)| *id)
    }

    /// When something is to be done again: a turn may have come, or knocks are due. A call that ends may bring a
    /// turn sooner.
    pub(crate) fn next_at(&self, now: Instant) -> Option<Instant> {
        let ((class, _), id) = self.queue.first()?;
        let cost = self.waiting.get(id)?.cost;
        let (more, owe) = match class {
            Class::Answered => (ANSWERED_MAX, ANSWERED_OWE),
            Class::Wanted | Class::Other => (0, 0),
        };
        let turn = (self.calls.len() < CALLS_MAX + more).then(|| {
            let at = self.bucket.whole_at() + cost;
            let at = at.checked_sub(time_of(BURST + owe)).unwrap_or(now);
            at.max(now + TURN_EVERY)
        });
        let knock = self.next_knock.filter(|_| !self.to_knock.is_empty());
        let knock = knock.or_else(|| (!self.to_knock.is_empty()).then_some(now));
        [turn, knock].into_iter().flatten().min()
    }

    /// Where to knock now.
    pub(crate) fn knock(&mut self, now: Instant) -> Vec<SocketAddr> {
        if self.to_knock.is_empty() || self.next_knock.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.next_knock = Some(now + KNOCK_EVERY);
        let mut doors = Vec::new();
        while doors.len() < KNOCK_GROUP
            && let Some(id) = self.to_knock.pop_front()
        {
            let Some(waiting) = self.waiting.get(&id) else {
                continue;
            };
            for door in &waiting.knocks {
                self.doors.insert(*door, id);
                doors.push(*door);
            }
        }
        let cost = time_of(KNOCK_COST * doors.len() as u32);
        self.bucket.owe(cost, time_of(2 * BURST), now);
        doors
    }

    /// Something came from this address that belongs to no session. True: it was knocked at, and who lives there goes
    /// first now.
    pub(crate) fn answered_knock(&mut self, from: SocketAddr) -> bool {
        let Some(id) = self.doors.remove(&from) else {
            return false;
        };
        if let Some(waiting) = self.waiting.get_mut(&id) {
            Self::move_to(&mut self.queue, waiting, id, Class::Answered);
        }
        true
    }

    /// A called peer has proved who it is: it has cost nothing.
    pub(crate) fn proven(&mut self, id: &PeerId) -> bool {
        let call = self.calls.remove(id);
        if let Some(cost) = call {
            self.bucket.give_back(cost);
        }
        call.is_some()
    }

    /// A call is over, or need not be made any more. True: somebody else's turn may have come.
    pub(crate) fn over(&mut self, id: &PeerId) -> bool {
        self.forget_waiting(id);
        self.calls.remove(id).is_some()
    }

    /// Whether a peer waits for its turn.
    pub(crate) fn waits(&self, id: &PeerId) -> bool {
        self.waiting.contains_key(id)
    }

    fn forget_waiting(&mut self, id: &PeerId) {
        if let Some(waiting) = self.waiting.remove(id) {
            self.queue.remove(&(waiting.place, *id));
            for door in waiting.knocks {
                self.doors.remove(&door);
            }
        }
    }
}

/// In how much time so many bytes are regained.
fn time_of(bytes: u32) -> Duration {
    Duration::from_secs(bytes.into()) / RATE
}

/// At most half of what there is, so that a call to many addresses has its turn too.
fn call_cost(targets: usize) -> Duration {
    let bytes = CALL_COST.saturating_mul(targets.try_into().unwrap_or(u32::MAX));
    time_of(bytes.min(BURST / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;

    fn id(n: u16) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    fn door(n: u16) -> [SocketAddr; 1] {
        let [high, low] = n.to_be_bytes();
        [([198, 51, high, low], 4433).into()]
    }

    fn turns(pacing: &mut Pacing, now: Instant) -> Vec<PeerId> {
        let mut turns = Vec::new();
        while let Some(next) = pacing.next() {
            if !pacing.ask(next, &door(0), false, now) {
                break;
            }
            turns.push(next);
        }
        turns
    }

    // PROTOCOL SM-PA-13
    #[test]
    fn first_go_the_living_then_the_wanted_then_the_others_in_the_order_they_came() {
        let now = start();
        let mut pacing = Pacing::new(now);
        for n in 0..1000 {
            let at_once = pacing.ask(id(n), &door(n), n >= 900, now);
            assert_eq!(at_once, usize::from(n) < CALLS_MAX, "{n}");
        }
        assert!(pacing.waits(&id(999)) && !pacing.waits(&id(1)));
        let mut at = now;
        while pacing.doors.len() < 1000 - CALLS_MAX {
            assert!(pacing.knock(at).len() <= KNOCK_GROUP);
            at += KNOCK_EVERY;
        }
        assert!(pacing.answered_knock(door(500)[0]) && !pacing.answered_knock(door(500)[0]));
        assert!(!pacing.answered_knock(door(3)[0]), "it does not wait");
        assert_eq!(turns(&mut pacing, at), [id(500)]);
        for n in 0..4 {
            assert!(pacing.over(&id(n)));
        }
        let later = at + time_of(2 * BURST);
        assert_eq!(turns(&mut pacing, later), [900, 901, 902].map(id));
        assert!(pacing.over(&id(900)) && !pacing.over(&id(900)));
        assert_eq!(turns(&mut pacing, later), [id(903)]);
    }

    // PROTOCOL SM-PA-13
    #[test]
    fn those_who_answer_cost_nothing_and_those_who_do_not_a_little_each_second() {
        let now = start();
        let mut pacing = Pacing::new(now);
        for n in 0..10_000 {
            assert!(pacing.ask(id(n), &door(n), false, now));
            assert!(pacing.proven(&id(n)));
        }
        let mut begun = 0;
        for second in 0..60u16 {
            for n in 0..1000 {
                let peer = id(second * 1000 + n);
                begun += u32::from(pacing.ask(
                    peer,
                    &door(n),
                    false,
                    now + Duration::from_secs(second.into()),
                ));
                pacing.over(&peer);
            }
        }
        let bytes = begun * CALL_COST;
        assert!(bytes <= BURST + 60 * RATE, "{bytes}");
        assert!(bytes >= BURST + 50 * RATE, "{bytes}");
        assert!(pacing.calls.is_empty() && pacing.waiting.is_empty() && pacing.queue.is_empty());
        assert!(pacing.doors.is_empty());
    }

    // PROTOCOL SM-PA-13
    #[test]
    fn whoever_waits_is_asked_again_when_there_is_enough_for_all_its_addresses_and_not_in_a_circle()
    {
        let mut now = start();
        let mut pacing = Pacing::new(now);
        let many: Vec<SocketAddr> = (0..4).flat_map(door).collect();
        for n in 0..40 {
            pacing.ask(id(n), &many, false, now);
            pacing.over(&id(n));
        }
        for n in 0..10 {
            let asked = now;
            while !pacing.ask(id(n), &many, false, now) {
                pacing.knock(now);
                let next = pacing.next_at(now).expect("it waits");
                assert!(next > now);
                now = next;
            }
            assert!(now - asked <= 2 * call_cost(4), "{:?}", now - asked);
            pacing.over(&id(n));
        }
    }
}
