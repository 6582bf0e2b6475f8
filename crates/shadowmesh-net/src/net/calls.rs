//! Calling a peer: a connection of its own by each way, until one of them leads to a session.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::way::Way;

use super::Net;
use super::lifecycle::HANDSHAKE_MAX;
use super::paths::STREAM_AFTER;
use crate::calls::Class;
use crate::control::{Close, ConnKey, Connection, Phase};
use crate::event::DownReason;
use crate::peer::Role;
use crate::timers::Timer;

/// A call without any answer ends after this, so that a fresh one, and not one in deep backoff, meets a
/// peer that comes back. Must exceed the longest round trip we mean to serve.
// PROTOCOL SM-PA-4
pub(super) const UNANSWERED_MAX: Duration = Duration::from_secs(2);
/// Who answers a call has so long to show that it is the peer, then another call is made beside the first.
/// Longer than the flights of a handshake take on most paths; what an honest peer behind a slower one then gets
/// is a second handshake.
// PROTOCOL SM-PA-12
const DOUBT_AFTER: Duration = Duration::from_millis(500);
/// Where somebody says that a peer is, and does not show it, it is called no more often than this, however much it
/// is wanted: a call that nobody answers is some 15 KB.
// PROTOCOL SM-PA-12
const HEARSAY_WAIT_MIN: Duration = Duration::from_secs(10);
/// A way that failed is called again beside other ways of its peer after this, while somebody waits for a turn.
const REPEATED_BEHIND_OTHERS: Duration = Duration::from_millis(500);
/// A relay that will not serve us is asked again after this: a thousand that it has no room for may ask.
// PROTOCOL SM-RL-6
const RELAY_REFUSED_WAIT: Duration = Duration::from_secs(45);

impl Net {
    /// By which ways a peer is called: its own addresses and streams, and every relay that we have a session
    /// with. A relay is called straight, a client not at all.
    // PROTOCOL SM-PA-1
    pub(super) fn ways(&self, id: &PeerId) -> Vec<(Class, SocketAddr)> {
        let Some(peer) = self.peers.get(id).filter(|peer| peer.role != Role::Client) else {
            return Vec::new();
        };
        let relays = self.relays.ids().filter(|_| !self.relays.contains(id));
        let relayed: Vec<SocketAddr> = relays
            .filter_map(|relay| self.way_over(&relay, id))
            .collect();
        peer.ways(&relayed)
    }

    /// Calls a peer by every way that it is not being called by, waits or not.
    pub(super) fn call(&mut self, id: PeerId, now: Instant) {
        self.call_from(id, now, now);
    }

    /// As [`Self::call`], but not before `at`.
    pub(super) fn call_from(&mut self, id: PeerId, at: Instant, now: Instant) {
        self.plan_calls(id, true, at);
        self.call_due(id, now);
    }

    /// Calls a peer by the ways by which it is neither being called nor about to be.
    pub(super) fn call_by_idle_ways(&mut self, id: PeerId, now: Instant) {
        self.plan_calls(id, false, now);
        self.call_due(id, now);
    }

    fn plan_calls(&mut self, id: PeerId, anew: bool, at: Instant) {
        let ways = self.ways(&id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.calls.plan(&ways, anew, at);
        }
    }

    /// There is a way to a peer that nobody wants now: who wants it later has it called by that, too.
    pub(super) fn know_ways(&mut self, id: PeerId) {
        let ways = self.ways(&id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.calls.know(&ways);
        }
    }

    /// Calls a peer by one way, whatever is done about the others.
    pub(super) fn call_by(&mut self, id: PeerId, way: SocketAddr, now: Instant) {
        let ways = self.ways(&id);
        if let Some(peer) = self.peers.get_mut(&id) {
            // What waits for nobody's word is not forgotten over this one.
            peer.calls.know(&ways);
            peer.calls.call_at(way, now);
            self.call_due(id, now);
        }
    }

    /// Makes the calls that are due, and sets the timer for the others.
    pub(super) fn call_due(&mut self, id: PeerId, now: Instant) {
        while let Some(peer) = self.peers.get_mut(&id)
            && let Some(way) = peer.calls.take_due(now)
        {
            if !self.ways(&id).iter().any(|(_, known)| *known == way) {
                continue;
            }
            let at = self.may_call_at(way, now);
            if at > now {
                self.put_off(id, way, at);
            } else if self.has_turn(id, way, now) {
                self.make_call(id, way, now);
            } else {
                break;
            }
        }
        self.call_over_unless_called(id, now);
        self.set_call_timer(id);
    }

    /// Whether the budget of the node lets this way be called now; else it waits for its turn, or behind others.
    // PROTOCOL SM-PA-13
    fn has_turn(&mut self, id: PeerId, way: SocketAddr, now: Instant) -> bool {
        let ways: Vec<SocketAddr> = self.ways(&id).into_iter().map(|(_, way)| way).collect();
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        let is_repeated = *peer.calls.failures_mut(way) > 0;
        let is_called = peer.calls.is_under_way();
        if peer.primary.is_some() || self.relays.contains(&id) {
            self.pacing.take(id, 1, now);
        } else if is_called && is_repeated && self.pacing.next().is_some() {
            // Others wait who are not called at all.
            peer.calls.call_at(way, now + REPEATED_BEHIND_OTHERS);
            self.set_call_timer(id);
            return false;
        } else if is_called {
            if is_repeated {
                self.pacing.take(id, 1, now);
            }
        } else if !self.pacing.ask(id, &ways, peer.retry.is_wanted(now), now) {
            peer.calls.await_turn(way);
            self.await_turn(now);
            return false;
        }
        true
    }

    /// Its turn has come: calls a peer by the ways that waited for that.
    // PROTOCOL SM-PA-13
    pub(super) fn call_in_turn(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.calls.turn_came(now);
        }
        self.call_due(id, now);
    }

    fn call_over_unless_called(&mut self, id: PeerId, now: Instant) {
        let is_called = self
            .peers
            .get(&id)
            .is_some_and(|peer| peer.calls.is_under_way());
        if !is_called && !self.pacing.waits(&id) {
            self.call_over(&id, now);
        }
    }

    pub(super) fn set_call_timer(&mut self, id: PeerId) {
        let next = self.peers.get(&id).and_then(|peer| peer.calls.next_due());
        match next {
            Some(at) => self.timers.set(Timer::Connect(id), at),
            None => self.timers.stop(Timer::Connect(id)),
        }
    }

    fn put_off(&mut self, id: PeerId, way: SocketAddr, at: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.calls.rest_until(way, at);
        }
    }

    /// When this way takes the whole first flight of a call.
    // PROTOCOL SM-PA-9
    fn may_call_at(&mut self, way: SocketAddr, now: Instant) -> Instant {
        match Way::of(way) {
            Way::Udp(_) => self.spending.call_at(way, now),
            Way::Relayed { .. } | Way::Stream(_) => now,
        }
    }

    fn make_call(&mut self, id: PeerId, way: SocketAddr, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.retry.begun();
        let known = peer.primary.and_then(|key| self.control.data_mtu(key));
        // A connection that will carry packets searches for the path's MTU.
        let for_data = self.used_quic.contains(&id);
        let kind = (peer.holds_our_key, for_data.then_some(known));
        match self.control.connect(id, way, kind, now) {
            Ok(key) => {
                peer.calls.begun(way, key);
                self.choose_port(key, id);
                self.timers.set(Timer::Handshake(key), now + UNANSWERED_MAX);
                if self.timers.get(Timer::Stream(id)).is_none() {
                    self.timers.set(Timer::Stream(id), now + STREAM_AFTER);
                }
                self.begin_as_client(key, now);
            }
            Err(error) => {
                self.note_call_error(id, way, error.to_string());
                self.call_failed(id, way, now);
            }
        }
    }

    /// What people are told of a call that failed. Not of those to where somebody on the local network says that
    /// the peer is: it would hide what became of the others.
    pub(super) fn note_call_error(&mut self, id: PeerId, way: SocketAddr, error: String) {
        if let Some(peer) = self.peers.get_mut(&id)
            && !peer.is_hearsay(way)
        {
            peer.last_error = Some(error);
        }
    }

    /// With keys of an earlier connection, Hello goes out with the first flight.
    // PROTOCOL SM-HS-11
    fn begin_as_client(&mut self, key: ConnKey, now: Instant) {
        self.control.draw_index(key);
        let connection = self.control.connections.get(&key);
        if connection.is_some_and(|connection| connection.quic.has_0rtt()) {
            self.open_stream(key, now);
        }
    }

    /// A call came to nothing: when is the next one by the same way?
    // PROTOCOL SM-PA-4
    pub(super) fn call_failed(&mut self, id: PeerId, way: SocketAddr, now: Instant) {
        self.call_over_unless_called(id, now);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.primary.is_some() && !peer.calls.beside {
            return;
        }
        if peer.retry.was_refused() {
            return self.hold_calls(id, way, now);
        }
        // PROTOCOL SM-PA-12
        let is_hearsay = peer.is_hearsay(way);
        if peer.answers_from == Some(way) {
            peer.answers_from = None;
            return self.set_call_timer(id);
        }
        let failures = peer.calls.failures_mut(way);
        if let Some(wait) = peer.retry.failed(failures, now, &mut self.rng) {
            match is_hearsay {
                true => peer.calls.rest_until(way, now + wait.max(HEARSAY_WAIT_MIN)),
                false => peer.calls.call_at(way, now + wait),
            }
        }
        self.set_call_timer(id);
    }

    /// The peer itself said no, by whatever way: none leads to another answer.
    // PROTOCOL SM-PA-4
    fn hold_calls(&mut self, id: PeerId, way: SocketAddr, now: Instant) {
        let wait = self.wait_after_no(id, Some(way), now);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.calls.stop_waiting();
        }
        self.give_up_calls(id, now);
        match wait {
            Some(wait) => self.call_from(id, now + wait, now),
            None => self.set_call_timer(id),
        }
    }

    /// How long to wait after the call by this way, or a session, came to nothing. `None`: nobody wants another.
    fn wait_after_no(
        &mut self,
        id: PeerId,
        way: Option<SocketAddr>,
        now: Instant,
    ) -> Option<Duration> {
        let is_relay = self.relays.contains(&id);
        let peer = self.peers.get_mut(&id)?;
        if is_relay && peer.retry.was_refused() {
            // PROTOCOL SM-RL-6
            return Some(RELAY_REFUSED_WAIT.mul_f64(self.rng.random_range(0.75..1.25)));
        }
        let mut none = 0;
        let failures = way.map_or(&mut none, |way| peer.calls.failures_mut(way));
        peer.retry.failed(failures, now, &mut self.rng)
    }

    /// A session broke, or ended with a word: when is the next call?
    pub(super) fn call_later(&mut self, id: PeerId, now: Instant) {
        if let Some(wait) = self.wait_after_no(id, None, now) {
            self.call_from(id, now + wait, now);
        }
    }

    /// A session is up, so nobody has to be called. What is under way as a server of ours may know as a session
    /// goes on, and competes.
    // PROTOCOL SM-HS-13
    pub(super) fn on_reached(&mut self, up: ConnKey, id: PeerId, now: Instant) {
        let connection = self.control.connections.get(&up);
        let by = connection.map(|connection| connection.paths.current().remote);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.calls.succeeded(by);
        self.set_call_timer(id);
        let connection = self.control.connections.get(&up);
        let we_called = connection.is_some_and(Connection::is_client);
        if we_called || id < self.peer_id() {
            self.give_up_calls(id, now);
        }
    }

    /// Ends the calls on which the other side has not shown who it is. On those it can have no session, because
    /// that takes our answer.
    pub(super) fn give_up_calls(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let unproven = |key: &ConnKey| {
            let connection = self.control.connections.get(key);
            connection.is_some_and(|connection| matches!(connection.phase, Phase::Handshake))
        };
        let keys: Vec<ConnKey> = peer.calls.under_way().filter(unproven).collect();
        for key in keys {
            self.close(key, Close::Replaced, DownReason::Removed, now);
        }
    }

    /// Ends the calls that nobody has answered.
    pub(super) fn give_up_unanswered(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let unanswered = |key: &ConnKey| !self.was_answered(*key);
        let keys: Vec<ConnKey> = peer.calls.under_way().filter(unanswered).collect();
        for key in keys {
            self.abandon(key, now);
        }
    }

    fn was_answered(&self, key: ConnKey) -> bool {
        let connection = self.control.connections.get(&key);
        connection.is_some_and(Connection::was_answered)
    }

    /// Ends the call by a way that leads nowhere, unless somebody has answered by it.
    pub(super) fn give_up_way(&mut self, id: PeerId, way: SocketAddr, why: &str, now: Instant) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let unanswered = |key: &ConnKey| !self.was_answered(*key);
        let Some(key) = peer.calls.by(way).find(unanswered) else {
            return;
        };
        self.close(key, Close::Dead, DownReason::Silent, now);
        let peer = self.peers.get_mut(&id);
        if let Some(peer) = peer.filter(|peer| !peer.calls.is_under_way()) {
            peer.last_error = Some(why.to_owned());
        }
    }

    /// An address answers that was not called. Some routers lead to a peer beside us in this way. Whoever it is is
    /// called itself, but seldom: anybody who saw the call can name an address.
    // PROTOCOL SM-PA-12
    pub(super) fn on_answer_from_elsewhere(
        &mut self,
        key: ConnKey,
        way: SocketAddr,
        from: SocketAddr,
        now: Instant,
    ) {
        let connection = self.control.connections.get(&key);
        let called = connection.filter(|connection| connection.is_client());
        let udp = [way, from].map(|way| Way::of(way).is_udp());
        let Some(id) = called.and_then(|called| called.peer) else {
            return;
        };
        if udp != [true; 2] || !self.accepts(from) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.primary.is_none()
            && !peer.knows(from)
            && peer.may_follow(now)
        {
            peer.answers_from = Some(from);
            self.call_by(id, from, now);
        }
    }

    /// A packet of a call came. Everybody who saw the first packet of the call can have sent this.
    // PROTOCOL SM-PA-12
    pub(super) fn on_call_answered(&mut self, key: ConnKey, now: Instant) {
        let timer = Timer::Handshake(key);
        let at = self.timers.get(timer).unwrap_or(now + UNANSWERED_MAX);
        self.timers.set(timer, at.min(now + DOUBT_AFTER));
    }

    /// Nobody has shown in time to be the peer. True: the call was answered, and goes on beside another.
    // PROTOCOL SM-PA-12
    pub(super) fn doubt_call(&mut self, key: ConnKey, now: Instant) -> bool {
        let Some(connection) = self.control.connections.get(&key) else {
            return false;
        };
        let deadline = connection.started_at + HANDSHAKE_MAX;
        if now >= deadline || !connection.was_answered() {
            return false;
        }
        self.timers.set(Timer::Handshake(key), deadline);
        let id = connection.peer.filter(|_| connection.is_client());
        let proven = !matches!(connection.phase, Phase::Handshake);
        if let Some((id, peer)) = id.and_then(|id| Some((id, self.peers.get_mut(&id)?)))
            && !proven
            && peer.calls.doubt(key, now)
        {
            self.call_due(id, now);
        }
        true
    }

    /// By UDP nobody has shown to be the peer for a while.
    pub(super) fn on_stream_wanted(&mut self, id: PeerId, _now: Instant) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let is_proven = |key| {
            let connection: Option<&Connection> = self.control.connections.get(&key);
            connection.is_some_and(|connection| !matches!(connection.phase, Phase::Handshake))
        };
        let silent = !peer.calls.under_way().any(is_proven);
        if peer.calls.is_under_way() && silent {
            self.want_stream(id);
        }
    }
}
