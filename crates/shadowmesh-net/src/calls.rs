//! Our calls to one peer: a control connection of its own for each way.
//!
//! The keys of Initial packets are public: who sees a copy of a first packet can answer it before the peer
//! does, and end that connection. So each way (an address, a stream, a relay) is called by a connection with
//! ids and keys of its own, and who sits on one way ends the calls by that way and no others. A way that
//! fails waits, and is called again, by itself; what happens on another way neither delays nor ends that.
//!
//! Not all ways are called at the same moment, because each call that is answered costs both sides a
//! handshake: the likeliest way goes first, and one more of each kind follows after [`STAGGER`]
//! (RFC 8305 does the same with addresses). The first that leads to a session ends the others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shadowmesh_wire::way::Way;

use crate::control::ConnKey;

/// From one call of a peer to the next by another way of the same kind, as long as there is no session. Longer
/// than most round trips, so that the other ways cost nothing where the first leads to the peer; several of
/// these are short beside what people notice.
// PROTOCOL SM-PA-1
pub(crate) const STAGGER: Duration = Duration::from_millis(50);
/// So many of those after the first call by an address of its own, a peer is also called by other kinds of ways.
const LEAD: u32 = 2;

/// How we know of a way that is to be called, the likeliest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The peer was there last, with a session.
    Proven,
    /// The configuration names it.
    Configured,
    /// Over a relay of ours.
    Relay,
    /// A stream that the host has opened to it.
    Stream,
    /// Somebody on the local network says so, and that may be anybody.
    Hearsay,
}

impl Class {
    const COUNT: usize = 4;

    /// Ways of one kind are called one after the other, those of kind 0 first.
    fn kind(self) -> usize {
        match self {
            Class::Proven | Class::Configured => 0,
            Class::Relay => 1,
            Class::Stream => 2,
            Class::Hearsay => 3,
        }
    }
}

/// The calls of one peer.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Limit: the ways that there are to a peer: one where it was last, those configured, found and heard of, and
    /// one for each relay of ours.
    ways: Vec<Call>,
    /// They are to replace a session that there is.
    pub(crate) beside: bool,
}

/// What is to be done about one way.
#[derive(Debug)]
struct Call {
    way: SocketAddr,
    state: State,
    /// A call that was answered, but by nobody who has shown to be the peer since: it goes on beside the next.
    /// Limit: one.
    doubtful: Option<ConnKey>,
    /// Calls by this way in a row that led to nothing.
    failures: u32,
    /// Until then it is not called, however much the peer is wanted.
    rests_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Due(Instant),
    /// The node's budget has no room for it now.
    AwaitsTurn,
    UnderWay(ConnKey),
}

impl Calls {
    /// Calls are to be made by these ways, the likeliest of which is called at `at`. `anew`: also by those that wait
    /// after a failure. What is under way goes on.
    // PROTOCOL SM-PA-1
    pub(crate) fn plan(&mut self, ways: &[(Class, SocketAddr)], anew: bool, at: Instant) {
        self.know(ways);
        let mut order: Vec<_> = ways.to_vec();
        order.sort_by_key(|(_, way)| self.failures(*way) > 0);
        // Who sits on one kind of way holds up no other: each kind counts for itself.
        let mut before = [0; Class::COUNT];
        let mut planned = Vec::new();
        for (class, way) in order {
            let is_due = match self.entry(way).state {
                State::Idle => true,
                State::Due(_) => anew,
                State::UnderWay(_) | State::AwaitsTurn => false,
            };
            if is_due {
                let slot = &mut before[class.kind()];
                let lead = if class.kind() == 0 { 0 } else { LEAD };
                planned.push((way, *slot + lead));
                *slot += 1;
            }
        }
        let first = planned.iter().map(|(_, slot)| *slot).min();
        for (way, slot) in planned {
            let due = at + STAGGER * (slot - first.unwrap_or_default());
            let call = self.entry(way);
            let due = match call.state {
                State::Due(known) => known.min(due),
                State::Idle | State::UnderWay(_) | State::AwaitsTurn => due,
            };
            call.state = State::Due(call.rested(due));
        }
    }

    /// These are all ways that there are. What is under way by others goes on.
    pub(crate) fn know(&mut self, ways: &[(Class, SocketAddr)]) {
        self.ways.retain(|call| {
            let is_known = ways.iter().any(|(_, way)| *way == call.way);
            is_known || call.under_way().next().is_some()
        });
        for (_, way) in ways {
            self.entry(*way);
        }
    }

    fn entry(&mut self, way: SocketAddr) -> &mut Call {
        let at = self.ways.iter().position(|call| call.way == way);
        let at = at.unwrap_or_else(|| {
            self.ways.push(Call {
                way,
                state: State::Idle,
                doubtful: None,
                failures: 0,
                rests_until: None,
            });
            self.ways.len() - 1
        });
        &mut self.ways[at]
    }

    fn failures(&self, way: SocketAddr) -> u32 {
        let call = self.ways.iter().find(|call| call.way == way);
        call.map_or(0, |call| call.failures)
    }

    /// This way is to be called at `at`, unless it is being called.
    pub(crate) fn call_at(&mut self, way: SocketAddr, at: Instant) {
        let call = self.entry(way);
        if !matches!(call.state, State::UnderWay(_)) {
            call.state = State::Due(at);
        }
    }

    /// This way is to be called at `at`, and not sooner, whoever wants the peer.
    pub(crate) fn rest_until(&mut self, way: SocketAddr, at: Instant) {
        self.call_at(way, at);
        self.entry(way).rests_until = Some(at);
    }

    /// This way waits until the node's budget has room.
    pub(crate) fn await_turn(&mut self, way: SocketAddr) {
        self.entry(way).state = State::AwaitsTurn;
    }

    /// What waited for the node's budget is to be called at `now`.
    pub(crate) fn turn_came(&mut self, now: Instant) {
        for call in &mut self.ways {
            if call.state == State::AwaitsTurn {
                call.state = State::Due(now);
            }
        }
    }

    /// A way that is to be called at `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<SocketAddr> {
        let is_due = |call: &&mut Call| matches!(call.state, State::Due(at) if at <= now);
        let due = self.ways.iter_mut().filter(is_due);
        let call = due.min_by_key(|call| call.state.due_at())?;
        call.state = State::Idle;
        Some(call.way)
    }

    /// When the next call is to be made.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let due = self.ways.iter().filter_map(|call| call.state.due_at());
        due.min()
    }

    /// This way is being called.
    pub(crate) fn begun(&mut self, way: SocketAddr, key: ConnKey) {
        self.entry(way).state = State::UnderWay(key);
    }

    /// Whoever answered this call may not be the peer: another by the same way is to be made at `at`. False: there
    /// was one like that already.
    // PROTOCOL SM-PA-12
    pub(crate) fn doubt(&mut self, key: ConnKey, at: Instant) -> bool {
        let mut all = self.ways.iter_mut();
        let call = all.find(|call| call.state == State::UnderWay(key) && call.doubtful.is_none());
        let Some(call) = call else { return false };
        call.doubtful = Some(key);
        call.state = State::Due(at);
        true
    }

    /// A call is over: the way it went, if it was one of these and no other has been begun in its place.
    pub(crate) fn ended(&mut self, key: ConnKey) -> Option<SocketAddr> {
        for call in &mut self.ways {
            call.doubtful = call.doubtful.filter(|doubtful| *doubtful != key);
        }
        let all = &mut self.ways.iter_mut();
        let call = all.find(|call| call.state == State::UnderWay(key))?;
        call.state = State::Idle;
        Some(call.way)
    }

    /// Calls by this way in a row that led to nothing, to be counted up.
    pub(crate) fn failures_mut(&mut self, way: SocketAddr) -> &mut u32 {
        &mut self.entry(way).failures
    }

    /// There is a session by this way: nothing is to be called any more. Where others failed is remembered, but
    /// not how often.
    pub(crate) fn succeeded(&mut self, by: Option<SocketAddr>) {
        self.beside = false;
        self.stop_waiting();
        for call in &mut self.ways {
            let most = u32::from(by.is_some_and(|by| by != call.way));
            call.failures = call.failures.min(most);
        }
    }

    /// Nothing that failed counts any more.
    pub(crate) fn begin_anew(&mut self) {
        for call in &mut self.ways {
            call.failures = 0;
            call.rests_until = None;
        }
    }

    /// Nothing is to be called that is not under way.
    pub(crate) fn stop_waiting(&mut self) {
        for call in &mut self.ways {
            if matches!(call.state, State::Due(_) | State::AwaitsTurn) {
                call.state = State::Idle;
            }
        }
    }

    /// No way waits longer than until what `cap` makes of the moment at which it is due.
    pub(crate) fn cap_waits(&mut self, cap: impl Fn(Instant) -> Instant) {
        for call in &mut self.ways {
            if let State::Due(at) = call.state {
                call.state = State::Due(call.rested(cap(at).min(at)));
            }
        }
    }

    /// Whether some way is neither being called nor waits for that; or no way is known yet.
    pub(crate) fn has_idle(&self) -> bool {
        self.ways.is_empty() || self.ways.iter().any(|call| call.state == State::Idle)
    }

    /// Whether calls are under way or to be made.
    pub(crate) fn is_wanted(&self) -> bool {
        let is_idle = |call: &Call| call.state == State::Idle && call.doubtful.is_none();
        !self.ways.iter().all(is_idle)
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way().next().is_some()
    }

    /// The connections of the calls under way.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = ConnKey> + '_ {
        self.ways.iter().flat_map(Call::under_way)
    }

    /// The calls under way by a way.
    pub(crate) fn by(&self, way: SocketAddr) -> impl Iterator<Item = ConnKey> + '_ {
        let calls = self.ways.iter().filter(move |call| call.way == way);
        calls.flat_map(Call::under_way)
    }
}

impl Call {
    fn rested(&self, at: Instant) -> Instant {
        self.rests_until.map_or(at, |until| at.max(until))
    }

    fn under_way(&self) -> impl Iterator<Item = ConnKey> + use<> {
        let newest = match self.state {
            State::UnderWay(key) => Some(key),
            State::Idle | State::Due(_) | State::AwaitsTurn => None,
        };
        newest.into_iter().chain(self.doubtful)
    }
}

impl State {
    fn due_at(self) -> Option<Instant> {
        match self {
            State::Due(at) => Some(at),
            State::Idle | State::UnderWay(_) | State::AwaitsTurn => None,
        }
    }
}

/// How we know of a way.
pub(crate) fn class_of(way: SocketAddr, is_proven: bool, is_hearsay: bool) -> Class {
    match Way::of(way) {
        _ if is_proven => Class::Proven,
        Way::Relayed { .. } => Class::Relay,
        Way::Stream(_) => Class::Stream,
        Way::Udp(_) if is_hearsay => Class::Hearsay,
        Way::Udp(_) => Class::Configured,
    }
}
