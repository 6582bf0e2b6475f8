//! Whose turn it is to be called, and the end of calls that nobody answered.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Instant;

use quinn_proto::EndpointEvent;
use rand::Rng;
use shadowmesh_wire::PeerId;

use super::Net;
use crate::control::ConnKey;
use crate::pacing::KNOCK_LEN;
use crate::paths::Path;
use crate::timers::Timer;

/// Limit: local ports opened for calls that did not get through from where we listen. Their numbers follow those that
/// a search opens.
// PROTOCOL SM-PA-14
pub(super) const FRESH_MAX: u16 = 8;
const FRESH_FIRST: u16 = 1_000;

impl Net {
    /// Somebody waits for its turn to be called: when to look again.
    pub(super) fn await_turn(&mut self, now: Instant) {
        match self.pacing.next_at(now) {
            Some(at) => self.timers.set(Timer::Calls, at),
            None => self.timers.stop(Timer::Calls),
        }
    }

    /// A call to this peer is over, or none is needed: somebody else's turn may have come.
    pub(super) fn call_over(&mut self, id: &PeerId, now: Instant) {
        if self.pacing.over(id) {
            self.timers.set(Timer::Calls, now);
        }
    }

    /// Calls those for whom the budget has room, and knocks where it has none.
    // PROTOCOL SM-PA-13
    pub(super) fn call_the_next(&mut self, now: Instant) {
        while let Some(id) = self.pacing.next() {
            self.call_in_turn(id, now);
            if self.pacing.next() != Some(id) {
                continue;
            }
            let called = self
                .peers
                .get(&id)
                .is_some_and(|peer| peer.calls.is_under_way());
            if called || self.ways(&id).is_empty() {
                // It has a call already, or nowhere is left to call it: it waits for nothing.
                self.pacing.over(&id);
                continue;
            }
            break;
        }
        for door in self.pacing.knock(now) {
            self.knock(door);
        }
        self.await_turn(now);
    }

    /// Asks for a sign of life.
    // PROTOCOL SM-PA-13
    fn knock(&mut self, door: SocketAddr) {
        let mut datagram: [u8; KNOCK_LEN] = [0; KNOCK_LEN];
        self.rng.fill(&mut datagram[..]);
        // A short header with the fixed bit (RFC 9000 §17.3.1).
        datagram[0] = datagram[0] & 0x3f | 0x40;
        self.send_raw(Path::to(door), None, datagram.to_vec());
    }

    /// Gives a call up that nobody answered, without a word: who did not hear the call will not hear its end, and a
    /// connection that only says goodbye would be kept for as long as one that carries something.
    // PROTOCOL SM-PA-13
    pub(super) fn abandon(&mut self, key: ConnKey, now: Instant) {
        let connection = self.control.connections.get(&key);
        let socket = connection.map_or(0, |connection| connection.paths.socket());
        self.on_drained(key, EndpointEvent::drained(), now);
        if socket != 0 {
            self.close_sockets();
        }
    }

    /// Lets a call leave from another local port than where we listen, if that did not help so far; or from that of
    /// the session that it is made beside.
    // PROTOCOL SM-PA-14
    pub(super) fn choose_port(&mut self, key: ConnKey, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let session = peer
            .primary
            .and_then(|key| self.control.connections.get(&key));
        let socket = match session {
            Some(session) => session.paths.current().socket,
            None if peer.wants_fresh_port() => self.fresh_socket(),
            None => 0,
        };
        if let Some(connection) = self.control.connections.get_mut(&key) {
            connection.paths.send_from(socket);
        }
    }

    /// The number of a local port that nothing goes by: one after the other, so that what a NAT remembers of the last
    /// one is of no matter. Where all are taken, one that others use too.
    fn fresh_socket(&mut self) -> u16 {
        let used = self.sockets_used();
        let ring = || (1..=FRESH_MAX).map(|step| (self.fresh + step) % FRESH_MAX);
        let free = ring().find(|at| !used.contains(&(FRESH_FIRST + at)));
        self.fresh = free.or_else(|| ring().next()).unwrap_or(0);
        FRESH_FIRST + self.fresh
    }

    /// Numbers of the local ports by which sessions and calls go, beside where we listen.
    pub(super) fn sockets_used(&self) -> BTreeSet<u16> {
        let keys = self
            .peers
            .values()
            .flat_map(|peer| peer.sessions().chain(peer.calls.under_way()));
        let connections = keys.filter_map(|key| self.control.connections.get(&key));
        let sockets = connections.map(|connection| connection.paths.socket());
        sockets.filter(|socket| *socket != 0).collect()
    }
}
