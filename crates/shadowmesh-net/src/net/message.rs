//! A control message came.

use std::time::{Duration, Instant};

use shadowmesh_crypto::PeerBook;
use shadowmesh_wire::control::{ControlMessage, Hello};
use shadowmesh_wire::sealed::ReceiverIndex;

use super::Net;
use super::lifecycle::{OVERLAP, REKEY_DEADLINE};
use crate::control::{Close, ConnKey, Phase};
use crate::drops::DropReason;
use crate::event::{DownReason, NetEvent, canonical};
use crate::peer::Role;
use crate::session::{EpochError, PROTOCOL_VERSION, Step};
use crate::timers::Timer;

/// A peer that asks for new keys sooner than this after the last change wastes our time: a tenth
/// of the shortest interval.
const REKEY_SPACING: Duration = Duration::from_secs(1);

impl Net {
    pub(super) fn on_message(&mut self, key: ConnKey, message: ControlMessage, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        match (&connection.phase, message) {
            (Phase::Hello, ControlMessage::Hello(hello)) => self.on_hello(key, &hello, now),
            // PROTOCOL SM-CT-3
            (_, ControlMessage::Unknown(kind)) => {
                tracing::debug!("control message of unknown kind {kind} ignored");
                self.drops.count(DropReason::MessageUnknown);
                self.peer_has_session(key);
            }
            (Phase::Up(_), message) => self.on_session_message(key, message, now),
            _ => self.protocol_error(key, "message before Hello", now),
        }
    }

    fn on_session_message(&mut self, key: ConnKey, message: ControlMessage, now: Instant) {
        self.peer_has_session(key);
        if !self.is_of_use(key, &message) {
            return self.drops.count(DropReason::RoleRefused);
        }
        match message {
            ControlMessage::RekeyRequest { epoch, share } => {
                self.on_rekey_request(key, epoch, &share, now);
            }
            ControlMessage::RekeyResponse { epoch, share } => {
                self.on_rekey(key, now, |session| {
                    session.epochs.on_response(epoch, &share, now)
                });
            }
            ControlMessage::RekeyConfirm { epoch } => {
                self.on_rekey(key, now, |session| session.epochs.on_confirm(epoch, now));
            }
            ControlMessage::ObservedAddress(address) => {
                self.on_observed(key, canonical(address), now);
            }
            ControlMessage::SecondPort { port } => self.on_second_port(key, port, now),
            ControlMessage::SecondObserved(address) => {
                self.on_second_word(key, canonical(address), now);
            }
            ControlMessage::Candidates(theirs) => self.on_candidates(key, theirs, now),
            ControlMessage::DataPlane { turn, plane } => {
                self.on_plane_message(key, turn, plane, now);
            }
            ControlMessage::RelayRefused { label, .. } => self.on_relay_refused(key, label, now),
            ControlMessage::Bye { .. } => {
                self.close(key, Close::Leaving, DownReason::PeerLeft, now);
            }
            ControlMessage::Hello(_) => self.protocol_error(key, "second Hello", now),
            ControlMessage::BenchRequest { .. } | ControlMessage::BenchReply { .. } => {
                self.pass_to_parent(key, message, now);
            }
            // Told apart before.
            ControlMessage::Unknown(_) => {}
        }
    }

    /// Whether whoever is at the other end may say this, by what it is to us.
    // PROTOCOL SM-CT-5
    fn is_of_use(&self, key: ConnKey, message: &ControlMessage) -> bool {
        let id = self.control.connections.get(&key).and_then(|c| c.peer);
        let Some((id, peer)) = id.and_then(|id| Some((id, self.peers.get(&id)?))) else {
            return false;
        };
        match message {
            // Of the session itself.
            ControlMessage::Hello(_)
            | ControlMessage::RekeyRequest { .. }
            | ControlMessage::RekeyResponse { .. }
            | ControlMessage::RekeyConfirm { .. }
            | ControlMessage::ObservedAddress(_)
            | ControlMessage::Bye { .. }
            | ControlMessage::Unknown(_) => true,
            // Of packets, which only members have.
            ControlMessage::BenchRequest { .. }
            | ControlMessage::BenchReply { .. }
            | ControlMessage::DataPlane { .. }
            | ControlMessage::Candidates(_) => peer.role == Role::Member,
            ControlMessage::RelayRefused { .. } => self.relays.contains(&id),
            // A member that relays says it to all; `ask_second` asks those that we use.
            ControlMessage::SecondPort { .. } | ControlMessage::SecondObserved(_) => {
                peer.role != Role::Client
            }
        }
    }

    /// A message that is the parent's business, of which a session may bring so many and no more.
    // PROTOCOL SM-CT-5
    fn pass_to_parent(&mut self, key: ConnKey, message: ControlMessage, now: Instant) {
        let Some(session) = self.control.session_mut(key) else {
            return;
        };
        let peer = session.peer;
        if !session.may_tell_parent(now) {
            return self.drops.count(DropReason::MessageRate);
        }
        self.tell(NetEvent::Control { peer, message });
    }

    /// The peer said something by this session, or after its Hello: it has it.
    // PROTOCOL SM-HS-13
    pub(super) fn peer_has_session(&mut self, key: ConnKey) {
        let session = self.control.session_mut(key);
        if session.is_some_and(|session| session.beside.take().is_some()) {
            self.stale(key);
        }
    }

    /// Both sides have said Hello: the session is made. The side that was connected to answers.
    // PROTOCOL SM-CT-2
    fn on_hello(&mut self, key: ConnKey, hello: &Hello, now: Instant) {
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        let Some(id) = connection.peer else { return };
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.holds_our_key = hello.holds_your_key;
        }
        if !connection.is_client() {
            self.send_hello(key, now);
        }
        self.establish(key, hello, now);
    }

    /// Says Hello on an open control stream. In early data this is the one message that may be
    /// repeated: it changes nothing before the handshake is confirmed.
    pub(super) fn send_hello(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        let (Some(peer), Some(index)) = (connection.peer, connection.index) else {
            return;
        };
        // PROTOCOL SM-HS-13
        let in_use = self.peers.get(&peer).and_then(|peer| peer.primary);
        let in_use = in_use.filter(|_| connection.is_client());
        let beside = in_use.and_then(|key| self.control.connections.get(&key)?.index);
        let hello = ControlMessage::Hello(Hello {
            version: PROTOCOL_VERSION,
            boot: self.config.boot,
            index,
            reset_token: self.reset_token(index),
            cipher_speeds: self.config.cipher_speeds,
            mtu: self.config.mtu,
            holds_your_key: self.roster.public_identity(&peer).is_some(),
            data_plane: self.peers.get(&peer).map(|peer| peer.data_plane.to_wire()),
            beside,
            call: connection.number,
        });
        self.send_message(key, &hello, now);
    }

    /// The token QUIC would put at the end of a stateless reset for this id.
    // PROTOCOL SM-SF-6
    fn reset_token(&self, index: ReceiverIndex) -> [u8; 16] {
        let reset_key = self.config.identity.reset_key();
        let mut signature = vec![0; reset_key.signature_len()];
        reset_key.sign(&index.to_bytes(), &mut signature);
        let mut token = [0; 16];
        token.copy_from_slice(&signature[..16]);
        token
    }

    pub(super) fn send_message(&mut self, key: ConnKey, message: &ControlMessage, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        self.control.touched.insert(key);
        if let Err(error) = connection.stream.send(message, &mut connection.quic) {
            self.on_stream_error(key, error, now);
        }
    }

    /// The keys are old enough.
    // PROTOCOL SM-EP-4
    pub(super) fn ask_rekey(&mut self, key: ConnKey, now: Instant) {
        if self.renew_connection(key, now) {
            return;
        }
        let connection = self.control.connections.get_mut(&key);
        let Some(session) = connection.and_then(|connection| connection.session_mut()) else {
            return;
        };
        match session.epochs.ask() {
            Ok(Some(request)) => {
                self.timers
                    .set(Timer::RekeyStuck(key), now + REKEY_DEADLINE);
                self.send_message(key, &request, now);
            }
            // The last exchange is still in its overlap.
            Ok(None) => self.timers.set(Timer::Rekey(key), now + OVERLAP),
            Err(error) => {
                tracing::warn!("no keys for a rekey: {error}");
                self.timers.set(Timer::Rekey(key), now + OVERLAP);
            }
        }
    }

    // PROTOCOL SM-EP-5
    fn on_rekey_request(&mut self, key: ConnKey, epoch: u32, share: &[u8], now: Instant) {
        let us = self.peer_id();
        self.on_rekey(key, now, |session| {
            if now < session.epochs.changed_at + REKEY_SPACING {
                return Err(EpochError::OutOfTurn);
            }
            session.epochs.on_request(epoch, share, us < session.peer)
        });
    }

    fn on_rekey(
        &mut self,
        key: ConnKey,
        now: Instant,
        step: impl FnOnce(&mut crate::session::Session) -> Result<Step, EpochError>,
    ) {
        let connection = self.control.connections.get_mut(&key);
        let Some(session) = connection.and_then(|connection| connection.session_mut()) else {
            return;
        };
        let peer = session.peer;
        match step(session) {
            Ok(step) => {
                let under_way = session.epochs.is_under_way();
                self.follow(key, peer, step, under_way, now);
            }
            Err(error) => self.protocol_error(key, &error.to_string(), now),
        }
    }

    fn follow(
        &mut self,
        key: ConnKey,
        peer: shadowmesh_wire::PeerId,
        step: Step,
        under_way: bool,
        now: Instant,
    ) {
        if step.keys_changed {
            self.output.published.stale(peer);
        }
        if let Some(epoch) = step.moved_to {
            self.tell(NetEvent::Rekeyed { peer, epoch });
            self.set_rekey_timer(key, now);
        }
        if step.overlap_begins {
            self.timers.set(Timer::Retire(key), now + OVERLAP);
        }
        if under_way {
            self.timers
                .set(Timer::RekeyStuck(key), now + REKEY_DEADLINE);
        } else {
            self.timers.stop(Timer::RekeyStuck(key));
        }
        if let Some(reply) = step.reply {
            self.send_message(key, &reply, now);
        }
    }

    fn protocol_error(&mut self, key: ConnKey, what: &str, now: Instant) {
        tracing::debug!("peer broke the protocol: {what}");
        if let Some(connection) = self.control.connections.get(&key)
            && let Some(peer) = connection.peer.and_then(|id| self.peers.get_mut(&id))
        {
            peer.last_error = Some(what.to_owned());
        }
        self.close(key, Close::Protocol, DownReason::ConnectionLost, now);
    }
}
