//! What QUIC says of a connection.

use std::net::SocketAddr;
use std::time::Instant;

use quinn_proto::{
    ConnectionError, EcnCodepoint, EndpointEvent, Event, StreamEvent, TransportErrorCode,
};
use shadowmesh_crypto::authenticated_peer;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::sealed::is_initial;
use shadowmesh_wire::way::Way;

use super::Net;
use crate::control::{Close, ConnKey, Phase, StreamError};
use crate::drops::DropReason;
use crate::event::{DownReason, NOT_LISTED, NetEvent, STOPPED_THERE, Transmit};
use crate::paths::{Origin, Path};
use crate::session::{Session, no_common_cipher};
use crate::spending::Purpose;
use crate::timers::Timer;

impl Net {
    /// Lets a connection say and send all it has, and sets its timer.
    pub(super) fn drive(&mut self, key: ConnKey, now: Instant) {
        loop {
            if self.exchange_endpoint_events(key, now) {
                return;
            }
            let Some(connection) = self.control.connections.get_mut(&key) else {
                return;
            };
            let Some(event) = connection.quic.poll() else {
                break;
            };
            self.on_quic_event(key, event, now);
        }
        self.flush_stream(key, now);
        self.transmit(key, now);
        if self.exchange_endpoint_events(key, now) {
            return;
        }
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        match connection.quic.poll_timeout() {
            Some(at) => self.timers.set(Timer::Quic(key), at),
            None => self.timers.stop(Timer::Quic(key)),
        }
    }

    /// True: the connection has drained and is gone.
    fn exchange_endpoint_events(&mut self, key: ConnKey, now: Instant) -> bool {
        while let Some(connection) = self.control.connections.get_mut(&key)
            && let Some(event) = connection.quic.poll_endpoint_events()
        {
            if event.is_drained() {
                self.on_drained(key, event, now);
                return true;
            }
            let reply = self.control.endpoint.handle_event(key.into(), event);
            if let Some(reply) = reply {
                connection.quic.handle_event(reply);
                self.control.claim_fresh_cids(key);
            }
        }
        false
    }

    /// The connection is gone for good. The endpoint hears of it last, because from then on its key
    /// may name another connection.
    pub(super) fn on_drained(&mut self, key: ConnKey, drained: EndpointEvent, now: Instant) {
        // QUIC tells the endpoint of a reset before it tells us.
        while let Some(connection) = self.control.connections.get_mut(&key)
            && let Some(event) = connection.quic.poll()
        {
            if let Event::ConnectionLost { reason } = event {
                self.on_lost(key, &reason, now);
            }
        }
        // Usually closed before; if not, this is how we learn of it.
        self.end(key, DownReason::ConnectionLost, now);
        self.timers.stop_connection(key);
        self.control.remove(key);
        self.control.endpoint.handle_event(key.into(), drained);
    }

    fn on_quic_event(&mut self, key: ConnKey, event: Event, now: Instant) {
        match event {
            // Nothing can be decided before the other side is authenticated.
            Event::HandshakeDataReady => {}
            Event::Connected => self.on_connected(key, now),
            Event::ConnectionLost { reason } => self.on_lost(key, &reason, now),
            Event::Stream(event) => self.on_stream_event(key, event, now),
            // Taken out with the packet that brought them, and filled in before each transmit.
            Event::DatagramReceived | Event::DatagramsUnblocked => {}
        }
    }

    /// TLS is complete. Resumption skips the certificate verifiers, so pin and membership are
    /// checked here on every connection.
    // PROTOCOL SM-HS-5
    // PROTOCOL SM-OV-4
    fn on_connected(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let authenticated = authenticated_peer(connection.quic.crypto_session());
        let expected = connection.peer;
        let called_us = !connection.is_client();
        let from = connection.paths.current().remote;
        let pinned = authenticated.filter(|id| expected.is_none_or(|expected| expected == *id));
        let admitted = match pinned {
            Some(id) if self.roster.lists(&id) && self.peers.contains_key(&id) => Ok(id),
            Some(id) if called_us => self.admit_client(id, from, now).map(|()| id),
            _ => Err(Close::NotMember),
        };
        let id = match admitted {
            Ok(id) => id,
            Err(why) => {
                tracing::debug!("connection of somebody who is not a member");
                if let Some(id) = authenticated.filter(|_| called_us) {
                    self.note_refused(id, from, now);
                }
                self.drops.count(DropReason::NotMember);
                return self.close(key, why, DownReason::ConnectionLost, now);
            }
        };
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        connection.peer = Some(id);
        connection.phase = Phase::Hello;
        if connection.is_client() {
            self.on_connected_as_client(key, now);
        } else {
            self.control.draw_index(key);
            self.read_stream(key, now);
        }
    }

    fn on_connected_as_client(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let Some(peer) = connection.peer else { return };
        if self.pacing.proven(&peer) {
            self.timers.set(Timer::Calls, now);
        }
        let early_data = connection.quic.accepted_0rtt();
        connection.resumed |= early_data;
        let event = NetEvent::Handshaken {
            peer,
            took: now.saturating_duration_since(connection.started_at),
            resumed: connection.resumed,
            early_data,
        };
        // PROTOCOL SM-HS-11
        if connection.stream.is_open() && !early_data {
            connection.stream.restart();
        }
        if !connection.stream.is_open() {
            self.open_stream(key, now);
        }
        self.tell(event);
    }

    /// Opens the control stream and says Hello, as the side that connects.
    pub(super) fn open_stream(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        if connection.stream.open(&mut connection.quic) {
            self.send_hello(key, now);
        }
    }

    fn on_lost(&mut self, key: ConnKey, reason: &ConnectionError, now: Instant) {
        tracing::debug!("control connection lost: {:?}", reason.to_string());
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        // An error of our own finding, as a client: whoever answered is not the peer we called.
        let ours = matches!(reason, ConnectionError::TransportError(_));
        let handshaking = matches!(connection.phase, Phase::Handshake);
        if handshaking && (ours || !connection.is_client()) {
            // PROTOCOL SM-OV-4
            // PROTOCOL SM-OV-5
            self.drops.count(DropReason::HandshakeFailed);
        }
        let from = connection.paths.current().remote;
        if handshaking
            && !connection.is_client()
            && let Some(id) = self.roster.take_refused()
        {
            self.note_refused(id, from, now);
        }
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        // Until it has shown who it is, whatever ended it may come from anybody who saw the first packet.
        // PROTOCOL SM-PA-12
        let proven = !handshaking;
        let refused = connection.is_client() && connection.session().is_none() && proven;
        let way = from;
        let Some(id) = connection.peer else {
            return self.end(key, DownReason::ConnectionLost, now);
        };
        let words = in_words(reason, self.config.cipher_speeds);
        match proven || ours {
            true => self.note_call_error(id, way, words),
            false => self.note_call_error(id, way, format!("ended by somebody unproven: {words}")),
        }
        if let Some(peer) = self.peers.get_mut(&id).filter(|_| refused) {
            if is_refusal(reason) {
                // PROTOCOL SM-PA-4
                peer.retry.refused();
                let peer = crate::callers::short(&id);
                tracing::info!(peer, "refused; `shadowmesh doctor` says why");
            }
            if std::mem::take(&mut peer.holds_our_key) {
                // Perhaps it has forgotten our full key: say it all next time, and soon.
                // PROTOCOL SM-HS-6
                peer.begin_anew();
            }
        }
        let reason = match proven {
            true => down_reason(reason),
            false => DownReason::ConnectionLost,
        };
        self.end(key, reason, now);
    }

    /// A caller that is no peer of ours: remembered for those who ask, and told to the log once in a while.
    // PROTOCOL SM-OV-7
    fn note_refused(&mut self, id: PeerId, from: SocketAddr, now: Instant) {
        if self.callers.refuse(id, from, now) {
            let caller = crate::callers::short(&id);
            tracing::info!(%caller, "a caller is refused, for no [[peer]] here has its PeerId; `shadowmesh doctor` prints the block");
        }
    }

    fn on_stream_event(&mut self, key: ConnKey, event: StreamEvent, now: Instant) {
        match event {
            StreamEvent::Opened { .. } | StreamEvent::Readable { .. } => self.read_stream(key, now),
            StreamEvent::Writable { .. } => self.flush_stream(key, now),
            StreamEvent::Available { .. } => {
                if let Some(connection) = self.control.connections.get(&key)
                    && connection.is_client()
                    && matches!(connection.phase, Phase::Hello)
                    && !connection.stream.is_open()
                {
                    self.open_stream(key, now);
                }
            }
            StreamEvent::Finished { .. } | StreamEvent::Stopped { .. } => {
                self.on_stream_error(key, StreamError::Ended, now);
            }
        }
    }

    /// Reads messages, once the other side is authenticated.
    // PROTOCOL SM-HS-11
    fn read_stream(&mut self, key: ConnKey, now: Instant) {
        loop {
            let Some(connection) = self.control.connections.get_mut(&key) else {
                return;
            };
            if !matches!(connection.phase, Phase::Hello | Phase::Up(_)) {
                return;
            }
            if !connection.is_client() {
                connection.stream.accept(&mut connection.quic);
            }
            match connection.stream.next(&mut connection.quic) {
                Ok(Some(message)) => self.on_message(key, message, now),
                Ok(None) => return,
                Err(error) => return self.on_stream_error(key, error, now),
            }
        }
    }

    fn flush_stream(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        if matches!(connection.phase, Phase::Closed) {
            return;
        }
        if let Err(error) = connection.stream.flush(&mut connection.quic) {
            self.on_stream_error(key, error, now);
        }
    }

    pub(super) fn on_stream_error(&mut self, key: ConnKey, error: StreamError, now: Instant) {
        tracing::debug!("control stream failed: {error}");
        self.close(key, Close::Protocol, DownReason::ConnectionLost, now);
    }

    fn transmit(&mut self, key: ConnKey, now: Instant) {
        self.transmit_towards(key, None, now);
    }

    /// Sends all that QUIC has to send, along `path` instead of the connection's if one is given.
    pub(super) fn transmit_towards(&mut self, key: ConnKey, path: Option<Path>, now: Instant) {
        loop {
            let Some(connection) = self.control.connections.get_mut(&key) else {
                return;
            };
            let runs = connection.session().is_some();
            connection.datagrams.fill(&mut connection.quic, &self.drops);
            let segments = if runs {
                segments_max(&connection.quic)
            } else {
                1
            };
            let mut datagram = Vec::new();
            let transmit = connection.quic.poll_transmit(now, segments, &mut datagram);
            let Some(transmit) = transmit else { break };
            let doubled = connection.double_initials && is_initial(&datagram);
            let way = path.unwrap_or_else(|| connection.paths.current());
            let copies = if doubled { 2 } else { 1 };
            // Whoever names a path has asked.
            if path.is_none() && !self.may_send(key, way, datagram.len() * copies, now) {
                continue;
            }
            datagram.shrink_to_fit();
            let len = transmit.segment_size.unwrap_or(datagram.len());
            // QUIC's own probes of longer datagrams mean something only with DF.
            let may_fragment = len <= QUIC_LEN_MIN;
            let mut run = to_transmit(way, transmit.ecn, may_fragment, datagram);
            run.segment_size = transmit.segment_size;
            // PROTOCOL SM-HS-8
            if doubled {
                self.queue(run.clone());
            }
            self.queue(run);
        }
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let len_changed = connection
            .datagrams
            .settle(&mut connection.quic, &self.drops);
        if len_changed && connection.session().is_some_and(Session::uses_quic) {
            self.stale(key);
        }
    }

    /// Whether a datagram of a connection may go that way: always where the peer is known to be, or was
    /// answered as a server answers (RFC 9000 §8.1); else as far as is allowed. What is not is counted.
    // PROTOCOL SM-PA-9
    pub(super) fn may_send(&mut self, key: ConnKey, way: Path, len: usize, now: Instant) -> bool {
        let Some(connection) = self.control.connections.get(&key) else {
            return false;
        };
        let known = matches!(connection.phase, Phase::Hello | Phase::Up(_));
        let in_use = known || !connection.is_client();
        if !Way::of(way.remote).is_udp() || in_use && way.is(connection.paths.current()) {
            return true;
        }
        let peer = connection.peer.and_then(|id| self.peers.get(&id));
        let purpose = match connection.paths.origin(way) {
            Some(Origin::Heard | Origin::Told | Origin::Predicted) => Purpose::Told,
            _ if connection.was_answered() => Purpose::Answered,
            _ if peer.is_some_and(|peer| !peer.names(way.remote)) => Purpose::Told,
            _ => Purpose::Call,
        };
        let may = self.spending.take(way.remote, len, purpose, now);
        if !may {
            self.drops.count(DropReason::UnansweredLimit);
        }
        may
    }

    /// Queues one datagram of QUIC that belongs to no connection.
    pub(super) fn send_raw(&mut self, path: Path, ecn: Option<EcnCodepoint>, datagram: Vec<u8>) {
        self.queue(to_transmit(path, ecn, true, datagram));
    }

    /// Queues one sealed frame.
    pub(super) fn send_frame(&mut self, path: Path, datagram: Vec<u8>) {
        self.queue(to_transmit(path, None, false, datagram));
    }

    /// Queues a datagram, or a run of them: for the host, or in frames to the relay that passes it on.
    fn queue(&mut self, transmit: Transmit) {
        match Way::of(transmit.remote) {
            Way::Relayed { slot, label } => self.queue_relayed(slot, label, &transmit),
            Way::Udp(_) | Way::Stream(_) => self.hand_over(transmit),
        }
    }

    /// Queues what goes out as it is.
    pub(super) fn hand_over(&mut self, transmit: Transmit) {
        if !self.output.transmit(transmit) {
            self.drops.count(DropReason::TransmitBacklog);
        }
    }
}

/// What QUIC needs of every path (RFC 9000 §14.1).
const QUIC_LEN_MIN: usize = 1200;
/// Limit: datagrams of one run, and its bytes (Linux: `UDP_MAX_SEGMENTS` before 6.9, and the longest
/// payload over IPv4).
const RUN_SEGMENTS_MAX: usize = 64;
const RUN_BYTES_MAX: usize = 65_507;

fn segments_max(quic: &quinn_proto::Connection) -> usize {
    (RUN_BYTES_MAX / usize::from(quic.current_mtu())).clamp(1, RUN_SEGMENTS_MAX)
}

/// What people are told about a lost connection; `cipher_speeds` are ours.
fn in_words(reason: &ConnectionError, cipher_speeds: [u32; 2]) -> String {
    match reason {
        reason if wants_another_cipher(reason) => no_common_cipher(cipher_speeds),
        ConnectionError::ConnectionClosed(close) if is_access_denied(close.error_code) => {
            NOT_LISTED.into()
        }
        reason if down_reason(reason) == DownReason::Refused && !is_not_served(reason) => {
            NOT_LISTED.into()
        }
        reason if down_reason(reason) == DownReason::PeerLeft => STOPPED_THERE.into(),
        reason if is_not_served(reason) => {
            "refused: this relay is full, or does not serve us; its `[relay]` settings `allow`, \
             `clients_max` and `clients_per_source` decide"
                .into()
        }
        // A close carries text of the other side; a terminal must not obey it.
        other => other.to_string().escape_debug().to_string(),
    }
}

/// Whether the peer found no cipher that both sides allow.
fn wants_another_cipher(reason: &ConnectionError) -> bool {
    let code = Close::NoCipher.code();
    matches!(reason, ConnectionError::ApplicationClosed(close) if close.error_code == code)
}

/// Whether the peer is a relay that will not serve us.
fn is_not_served(reason: &ConnectionError) -> bool {
    let code = Close::NotServed.code();
    matches!(reason, ConnectionError::ApplicationClosed(close) if close.error_code == code)
}

/// Whether the peer knows who we are and will not have us as we are.
fn is_refusal(reason: &ConnectionError) -> bool {
    match reason {
        ConnectionError::ConnectionClosed(close) => is_access_denied(close.error_code),
        other if wants_another_cipher(other) || is_not_served(other) => true,
        other => down_reason(other) == DownReason::Refused,
    }
}

/// The alert of a peer whose verifier finds us in no `[[peer]]` (RFC 8446 §6.2, as RFC 9001 §4.8
/// carries it).
fn is_access_denied(code: TransportErrorCode) -> bool {
    const ACCESS_DENIED: u8 = 49;
    code == TransportErrorCode::crypto(ACCESS_DENIED)
}

// PROTOCOL SM-CT-4
fn down_reason(reason: &ConnectionError) -> DownReason {
    match reason {
        ConnectionError::Reset => DownReason::Reset,
        ConnectionError::ApplicationClosed(close) => match close.error_code {
            code if code == Close::Leaving.code() => DownReason::PeerLeft,
            code if code == Close::NotMember.code() => DownReason::Refused,
            code if code == Close::NotServed.code() => DownReason::Refused,
            code if code == Close::Dead.code() => DownReason::FoundDead,
            code if code == Close::Replaced.code() => DownReason::TakenOver,
            _ => DownReason::ConnectionLost,
        },
        _ => DownReason::ConnectionLost,
    }
}

fn to_transmit(
    path: Path,
    ecn: Option<EcnCodepoint>,
    may_fragment: bool,
    contents: Vec<u8>,
) -> Transmit {
    Transmit {
        remote: path.remote,
        local_ip: path.local_ip,
        socket: path.socket,
        ecn: ecn.map(|ecn| ecn as u8),
        may_fragment,
        segment_size: None,
        contents,
    }
}
