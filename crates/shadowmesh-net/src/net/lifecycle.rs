//! What follows for the peer: connecting, session up, session down, connecting again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::{ControlMessage, Hello};
use shadowmesh_wire::way::Way;

use super::Net;
use super::relaying::CLIENT_MEMORY;
use crate::control::{Close, ConnKey, Connection, Phase};
use crate::drops::DropReason;
use crate::event::{DownReason, NetEvent};
use crate::peer::Role;
use crate::plane::{Choice, DataPlane, agree};
use crate::session::{Contender, EstablishError, LIVENESS_TICK, Session, newcomer_wins};
use crate::timers::Timer;

/// From the first Initial to the session. Ten tries of QUIC at ordinary round trips.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Who found a session dead calls again at once; who was told of it leaves the other this long, and
/// two round trips, to be first. Longer than a busy machine takes for its half of a handshake; short
/// beside what a user notices.
// PROTOCOL SM-PA-4
const SECOND_CALLER_WAIT: Duration = Duration::from_millis(200);
/// The round trips in that wait count for no more than this.
const SECOND_CALLER_RTT_MAX: Duration = Duration::from_millis(250);
/// How long a replaced session is still received on: what was under way when it was replaced, and what the
/// peer's side seals in it until it has heard us by the other.
const LINGER: Duration = Duration::from_secs(1);
/// How long a closed connection answers late packets, at most. QUIC means three retransmission
/// timeouts, which after a bad path can be minutes; and quinn has no end at all for a connection
/// whose very first packet already carries a close.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// How long the old epoch stays open after both sides left it: longer than any queue on the path.
pub(super) const OVERLAP: Duration = Duration::from_secs(3);
/// A rekey takes two round trips; after this a new connection is made instead.
pub(super) const REKEY_DEADLINE: Duration = Duration::from_secs(10);

impl Net {
    /// Both Hellos are exchanged on an authenticated connection.
    pub(super) fn establish(&mut self, key: ConnKey, hello: &Hello, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let (Some(id), Some(index)) = (connection.peer, connection.index) else {
            return;
        };
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let theirs = hello.data_plane.map(DataPlane::from_wire);
        let datagrams = connection.quic.datagrams().max_size();
        connection.datagrams.len_max = datagrams;
        let agreed = agree(peer.data_plane, theirs, datagrams.is_some());
        let session = Session::establish(
            id,
            connection.quic.crypto_session(),
            connection.quic.side(),
            (index, self.config.cipher_speeds),
            hello,
            (
                Choice::new(agreed, peer.sealed_blocked_until, now),
                &self.control.memory,
            ),
            now,
        );
        match session {
            Ok(session) => {
                connection.phase = Phase::Up(Box::new(session));
                self.output.release(connection.early.take());
                self.control.unfinished.remove(&key);
            }
            Err(error) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.last_error = Some(error.to_string());
                    // PROTOCOL SM-PA-4
                    peer.retry.refused();
                }
                let code = match error {
                    EstablishError::NoCipher(_) => Close::NoCipher,
                    _ => Close::Protocol,
                };
                return self.close(key, code, DownReason::ConnectionLost, now);
            }
        }
        self.timers.stop(Timer::Handshake(key));
        self.timers.set(Timer::Liveness(key), now + LIVENESS_TICK);
        self.set_rekey_timer(key, now);
        self.enter(key, id, now);
        self.take_early_frames(key, now);
    }

    /// A session is up: it becomes the one in use, or loses against the one that is.
    // PROTOCOL SM-HS-13
    fn enter(&mut self, key: ConnKey, id: PeerId, now: Instant) {
        let boot = self.boot_of(key);
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some(boot) = boot {
            peer.lives.met(boot, now);
            self.say_copied(id, now);
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.calls.ended(key);
        let incumbent = peer.primary;
        let wins = match incumbent {
            Some(old) => match (self.contender(key), self.contender(old)) {
                (Some(newcomer), Some(incumbent)) => newcomer_wins(newcomer, incumbent),
                _ => true,
            },
            None => true,
        };
        if !wins {
            self.linger(key, id, now);
            return self.on_reached(key, id, now);
        }
        self.use_session(key, id, now);
        if let Some(old) = incumbent {
            if self.boot_of(old) == self.boot_of(key) {
                self.hand_over_pings(old, key);
                self.linger(old, id, now);
            } else {
                self.close_replaced(old, id, now);
            }
        }
        self.check_beside(key, id);
        self.on_reached(key, id, now);
    }

    /// What the peer said of another session holds now or never: one that comes later is no reason to leave
    /// the one in use again.
    fn check_beside(&mut self, key: ConnKey, id: PeerId) {
        let session = self
            .control
            .connections
            .get(&key)
            .and_then(Connection::session);
        let beside = session.and_then(|session| session.beside);
        let beside = beside.filter(|&index| self.lingering_at(&id, index).is_some());
        if let Some(session) = self.control.session_mut(key) {
            session.beside = beside;
        }
    }

    /// The peer restarted: it has neither the session that was in use nor any before that.
    fn close_replaced(&mut self, in_use: ConnKey, id: PeerId, now: Instant) {
        let lingering = self.peers.get_mut(&id);
        let lingering = lingering.map(|peer| std::mem::take(&mut peer.lingering));
        for key in lingering.into_iter().flatten().chain([in_use]) {
            self.close(key, Close::Replaced, DownReason::Removed, now);
        }
    }

    /// The peer answers on the session that it uses, which from now on is the newer one.
    fn hand_over_pings(&mut self, from: ConnKey, to: ConnKey) {
        let connections = &mut self.control.connections;
        let earlier = connections.get_mut(&from).and_then(Connection::session_mut);
        let Some(pings) = earlier.map(Session::take_pings) else {
            return;
        };
        if let Some(session) = connections.get_mut(&to).and_then(Connection::session_mut) {
            session.adopt_pings(pings);
        }
    }

    fn use_session(&mut self, key: ConnKey, id: PeerId, now: Instant) {
        self.call_over(&id, now);
        self.timers.stop(Timer::Linger(key));
        let (Some(peer), Some(connection)) =
            (self.peers.get_mut(&id), self.control.connections.get(&key))
        else {
            return;
        };
        let Some(session) = connection.session() else {
            return;
        };
        let path = connection.paths.current();
        let earlier = peer.primary;
        if earlier.is_none() && peer.role == Role::Member {
            let relayed = matches!(Way::of(path.remote), Way::Relayed { .. });
            self.connectivity.connected(relayed);
        }
        peer.primary = Some(key);
        peer.last_seen = Some(path.remote);
        peer.last_error = None;
        peer.unanswered = 0;
        peer.handshaken_at = Some(session.established_at);
        peer.retry.succeeded(now);
        self.output.published.stale(id);
        let cipher = session.cipher;
        self.tell(NetEvent::PeerUp {
            peer: id,
            path: self.relays.info(path.remote),
            cipher,
        });
        self.on_answered(path.remote, now);
        self.tell_address(key, path.remote, now);
        self.greet_with_plane(key, now);
        self.start_mtu(key, earlier, now);
        self.grant_credit(id, now);
        self.activate_paths(key, earlier, now);
        if earlier.is_none() && self.relays.contains(&id) {
            self.on_relay_up(id, now);
            self.offer_relay(id, now);
        }
    }

    /// Tells the peer at which address it is seen; of no use where that is no UDP address.
    pub(super) fn tell_address(&mut self, key: ConnKey, remote: SocketAddr, now: Instant) {
        if Way::of(remote).is_udp() {
            self.send_message(key, &ControlMessage::ObservedAddress(remote), now);
            self.tell_second_port(key, remote, now);
        }
    }

    /// A session that lost is received on for a moment more, then closed.
    fn linger(&mut self, key: ConnKey, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let earlier = peer.linger(key);
        self.output.published.stale(id);
        self.timers.set(Timer::Linger(key), now + LINGER);
        if let Some(earlier) = earlier {
            self.close(earlier, Close::Replaced, DownReason::Removed, now);
        }
    }

    fn contender(&self, key: ConnKey) -> Option<Contender> {
        let connection = self.control.connections.get(&key)?;
        let session = connection.session()?;
        let we_are_lower = self.peer_id() < session.peer;
        Some(Contender {
            boot: session.theirs.boot,
            client_is_lower: connection.is_client() == we_are_lower,
            number: connection.number.or(session.theirs.call),
            started_at: connection.started_at,
            established_at: session.established_at,
        })
    }

    fn boot_of(&self, key: ConnKey) -> Option<u64> {
        let session = self.control.connections.get(&key)?.session()?;
        Some(session.theirs.boot)
    }

    /// The side that connected asks for new keys; the other asks a little later, in case it does
    /// not. So the shorter of both intervals holds, and requests rarely cross.
    // PROTOCOL SM-EP-4
    pub(super) fn set_rekey_timer(&mut self, key: ConnKey, now: Instant) {
        let interval = self.config.rekey_interval;
        let wait = match self.control.connections.get(&key) {
            Some(connection) if connection.is_client() => interval,
            _ => interval + interval / 4,
        };
        self.timers.set(Timer::Rekey(key), now + wait);
    }

    /// A rekey did not come through, so the control connection is of no use: make another beside
    /// it. It is keyed by a handshake of its own; the session goes on until it is up, but not for
    /// ever, or whoever stole its key had only to keep us from making a new one.
    // PROTOCOL SM-EP-6
    pub(super) fn on_rekey_stuck(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        let (Some(id), Some(session)) = (connection.peer, connection.session()) else {
            return;
        };
        let key_age = now.saturating_duration_since(session.epochs.changed_at);
        if key_age > 2 * self.config.rekey_interval + REKEY_DEADLINE {
            return self.close(key, Close::Dead, DownReason::KeyTooOld, now);
        }
        tracing::debug!("rekey stuck, connecting anew");
        self.timers
            .set(Timer::RekeyStuck(key), now + REKEY_DEADLINE);
        self.call_beside(id, now);
    }

    /// Calls the peer of a session for another one in its place.
    pub(super) fn call_beside(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.calls.beside = true;
            self.call(id, now);
        }
    }

    /// Closes a connection and what stands on it.
    pub(super) fn close(&mut self, key: ConnKey, why: Close, reason: DownReason, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        if !matches!(connection.phase, Phase::Closed) {
            connection.quic.close(now, why.code(), Bytes::new());
            self.control.touched.insert(key);
        }
        self.end(key, reason, now);
    }

    /// A connection is closed, by whomever: what that means for the peer.
    pub(super) fn end(&mut self, key: ConnKey, reason: DownReason, now: Instant) {
        self.control.unfinished.remove(&key);
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        self.timers.stop_session(key);
        let phase = std::mem::replace(&mut connection.phase, Phase::Closed);
        if !matches!(phase, Phase::Closed) {
            self.timers.set(Timer::Drain(key), now + DRAIN_MAX);
        }
        release_index(connection, &self.control.cids, key);
        let early = connection.early.take().len() + connection.early_datagrams.take().len();
        self.drops.add(DropReason::StaleSnapshot, early as u64);
        let Some(id) = connection.peer else { return };
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if reason == DownReason::Reset {
            // Who lost our session may have lost our full key too: to find that out costs a handshake.
            // PROTOCOL SM-HS-6
            peer.holds_our_key = false;
        }
        let mut rtt = None;
        if let Phase::Up(session) = phase {
            rtt = session.rtt;
            let totals = session.traffic.totals();
            peer.past_traffic = peer.past_traffic.plus(totals);
            peer.heard_at = peer
                .heard_at
                .max(Some(session.liveness.heard_at(totals, now)));
            self.output.published.stale(id);
        }
        peer.lingering.retain(|lingering| *lingering != key);
        if let Some(way) = peer.calls.ended(key) {
            self.call_failed(id, way, now);
        } else if peer.primary == Some(key) {
            peer.primary = None;
            self.on_session_lost(id, reason, rtt, now);
        }
    }

    /// The session in use is gone. One that lingers takes its place; else we connect again, unless
    /// that is not wanted.
    fn on_session_lost(
        &mut self,
        id: PeerId,
        reason: DownReason,
        rtt: Option<Duration>,
        now: Instant,
    ) {
        let is_relay = self.relays.contains(&id);
        // PROTOCOL SM-PA-4
        let (final_end, ours) = match reason {
            DownReason::Removed | DownReason::Shutdown => (true, true),
            // A relay that restarts is wanted as before.
            DownReason::PeerLeft => (!is_relay, false),
            DownReason::Refused => (true, false),
            _ => (false, false),
        };
        if is_relay {
            self.timers.set(Timer::Relays, now);
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if !final_end && !peer.lingering.is_empty() {
            let spare = peer.lingering.remove(0);
            return self.use_session(spare, id, now);
        }
        self.observers.remove(&id);
        self.on_relay_down(id, now);
        self.tell(NetEvent::PeerDown { peer: id, reason });
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.role == Role::Client {
            return self
                .timers
                .set(Timer::ForgetClient(id), now + CLIENT_MEMORY);
        }
        if ours {
            peer.retry.kept = false;
            peer.calls.stop_waiting();
            self.set_call_timer(id);
        } else if final_end {
            // It may be back, or think better of it, without being able to call us.
            peer.retry.left();
            if reason == DownReason::Refused {
                peer.retry.refused();
            }
            self.call_later(id, now);
        } else if reason == DownReason::TakenOver && self.is_not_ours(id, now) {
            self.call_later(id, now);
        } else if self
            .peers
            .get_mut(&id)
            .is_some_and(|peer| peer.retry.lost(now))
        {
            if reason != DownReason::FoundDead {
                return self.call(id, now);
            }
            let round_trips = 2 * rtt.unwrap_or_default().min(SECOND_CALLER_RTT_MAX);
            self.call_from(id, now + SECOND_CALLER_WAIT + round_trips, now);
        } else {
            self.call_later(id, now);
        }
    }
}

impl Net {
    /// The peer closed our session for another with our identity. Whether that seems to be another machine's: we have
    /// no connection that could be meant, and it is not the first time.
    // PROTOCOL SM-HS-14
    fn is_not_ours(&mut self, id: PeerId, now: Instant) -> bool {
        let connections = &self.control.connections;
        let mut all = connections
            .values()
            .filter(|connection| connection.peer == Some(id));
        if all.any(|connection| !matches!(connection.phase, Phase::Closed)) {
            return false;
        }
        let Some(peer) = self.peers.get_mut(&id) else {
            return false;
        };
        let turn = peer.lives.taken_over(now);
        if let Some(turn) = turn {
            peer.retry.taken_over(turn);
        }
        self.say_copied(id, now);
        turn.is_some()
    }

    /// Tells the parent when two machines use one identity.
    // PROTOCOL SM-HS-14
    fn say_copied(&mut self, id: PeerId, now: Instant) {
        let peer = self.peers.get_mut(&id);
        if let Some(copied) = peer.and_then(|peer| peer.lives.take_warning(now)) {
            self.tell(NetEvent::IdentityCopied { peer: id, copied });
        }
    }
}

fn release_index(connection: &mut Connection, cids: &crate::control::Cids, key: ConnKey) {
    if let Some(index) = connection.index.take() {
        cids.release(index.0, crate::control::Owner::Session(key));
    }
}
