//! Time passed.

use std::time::Instant;

use quinn_proto::EndpointEvent;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::way::Way;

use super::Net;
use crate::control::{Close, ConnKey};
use crate::drops::DropReason;
use crate::event::{DownReason, NO_ANSWER};
use crate::session::{LIVENESS_TICK, Pulse};
use crate::timers::Timer;

impl Net {
    /// Does everything that is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.control.time.advance(now);
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Quic(key) => self.on_quic_timeout(key, now),
                Timer::Drain(key) => self.on_drained(key, EndpointEvent::drained(), now),
                Timer::Handshake(key) => self.on_handshake_timeout(key, now),
                Timer::Linger(key) => self.close(key, Close::Replaced, DownReason::Removed, now),
                Timer::Liveness(key) => self.on_liveness_tick(key, now),
                Timer::Rekey(key) => self.ask_rekey(key, now),
                Timer::RekeyStuck(key) => self.on_rekey_stuck(key, now),
                Timer::Retire(key) => self.on_retire(key),
                Timer::Mtu(key) => self.on_mtu_timeout(key, now),
                Timer::Paths(key) => self.on_paths_timeout(key, now),
                Timer::Stream(peer) => self.on_stream_wanted(peer, now),
                Timer::Connect(peer) => self.on_connect_timeout(peer, now),
                Timer::Calls => self.call_the_next(now),
                Timer::Relays => self.keep_relays(now),
                Timer::ForgetClient(peer) => self.forget_client(peer, now),
                Timer::Strangers => self.on_strangers_waited(now),
                Timer::Forget => {
                    if let Some(next) = self.removed.forget(&self.control.cids, now) {
                        self.timers.set(Timer::Forget, next);
                    }
                }
            }
            self.settle(now);
        }
    }

    fn on_quic_timeout(&mut self, key: ConnKey, now: Instant) {
        if let Some(connection) = self.control.connections.get_mut(&key) {
            connection.quic.handle_timeout(now);
            self.control.touched.insert(key);
        }
    }

    /// A call that nobody answered ends early, so that the next one finds a peer that just came back; one that
    /// was answered has its full time.
    fn on_handshake_timeout(&mut self, key: ConnKey, now: Instant) {
        if self.doubt_call(key, now) {
            return;
        }
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        let answered = connection.was_answered();
        let is_client = connection.is_client();
        if !is_client {
            // PROTOCOL SM-OV-5
            self.drops.count(DropReason::HandshakeFailed);
        }
        let error = match answered {
            true => "handshake timed out",
            false => NO_ANSWER,
        };
        let way = connection.paths.current().remote;
        let called = connection.peer;
        if let Some(id) = called {
            self.note_call_error(id, way, error.to_owned());
        }
        if answered || !is_client {
            return self.close(key, Close::Dead, DownReason::Silent, now);
        }
        // PROTOCOL SM-PA-14
        if let Some(peer) = called.and_then(|id| self.peers.get_mut(&id))
            && Way::of(way).is_udp()
            && !peer.is_hearsay(way)
        {
            peer.unanswered = peer.unanswered.saturating_add(1);
        }
        // PROTOCOL SM-PA-13
        self.abandon(key, now);
    }

    fn on_liveness_tick(&mut self, key: ConnKey, now: Instant) {
        let connection = self.control.connections.get_mut(&key);
        let Some(connection) = connection else { return };
        connection.datagrams.expire(&self.drops, now);
        let keep_alive = connection.paths.keep_alive();
        let Some(session) = connection.session_mut() else {
            return;
        };
        session.expire_fragments(&self.drops, now);
        let pulse = session
            .liveness
            .look(session.traffic.totals(), keep_alive, now);
        let wants_rekey = session.epochs.sealer().wants_rekey();
        let switched = self.look_at_plane(key, now);
        if pulse == Pulse::Dead && !switched {
            return self.close(key, Close::Dead, DownReason::Silent, now);
        }
        self.look_at_paths(key, pulse == Pulse::Probe, now);
        if wants_rekey {
            self.ask_rekey(key, now);
        }
        self.look_at_mtu(key, now);
        self.timers.set(Timer::Liveness(key), now + LIVENESS_TICK);
    }

    // PROTOCOL SM-EP-3
    fn on_retire(&mut self, key: ConnKey) {
        let connection = self.control.connections.get_mut(&key);
        if let Some(session) = connection.and_then(|connection| connection.session_mut())
            && session.epochs.retire()
        {
            self.stale(key);
        }
    }

    fn on_connect_timeout(&mut self, peer: PeerId, now: Instant) {
        let is_up = |peer: &crate::peer::Peer| peer.primary.is_some() && !peer.calls.beside;
        if self.peers.get(&peer).is_some_and(|peer| !is_up(peer)) {
            self.call_by_idle_ways(peer, now);
        }
    }
}
