//! A datagram from the link that the data plane did not open.
//!
//! It is told by its id, without any cryptography: one of our QUIC connections, a session that the
//! data plane does not know yet (its frames wait), or nobody's. Only a first Initial with the right tag
//! gets further without a known id; a short header with an unknown id may be the peer's word that
//! it lost our keys, and is else answered by ours.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{DatagramEvent, EcnCodepoint};
use shadowmesh_crypto::FirstContact;
use shadowmesh_wire::sealed;
use shadowmesh_wire::way::is_way;

use super::Net;
use crate::control::{CID_LEN, Close, ConnKey, Connection, LongHeader, Owner, Phase};
use crate::drops::DropReason;
use crate::event::{DownReason, Received};
use crate::paths::Path;
use crate::timers::Timer;

impl Net {
    /// A datagram came that is no frame of a session in [`Net::forwarding`].
    pub fn handle_datagram(&mut self, received: Received, data: BytesMut, now: Instant) {
        let received = received.canonical();
        if !self.takes_at(&received) {
            return self.drops.count(DropReason::UnknownIndex);
        }
        self.control.time.advance(now);
        if sealed::is_long_header(&data) {
            self.on_long_header(received, data, now);
        } else {
            self.on_short_header(received, data, now);
        }
        self.settle(now);
    }

    /// Datagrams of `stride` bytes each (the last may be shorter) came together from one place. HOT
    /// PATH for peers whose packets go by QUIC.
    pub fn handle_datagrams(
        &mut self,
        received: Received,
        mut data: BytesMut,
        stride: usize,
        now: Instant,
    ) {
        let received = received.canonical();
        if !self.takes_at(&received) {
            return self.drops.count(DropReason::UnknownIndex);
        }
        self.control.time.advance(now);
        while !data.is_empty() {
            let datagram = data.split_to(stride.clamp(1, data.len()));
            if sealed::is_long_header(&datagram) {
                self.on_long_header(received, datagram, now);
            } else {
                self.on_short_header(received, datagram, now);
            }
        }
        self.settle(now);
    }

    fn on_long_header(&mut self, received: Received, data: BytesMut, now: Instant) {
        let Some(header) = LongHeader::parse(&data) else {
            return self.drops.count(DropReason::MalformedDatagram);
        };
        let known = header
            .destination
            .try_into()
            .ok()
            .and_then(|id| self.control.cids.owner(u64::from_be_bytes(id)));
        match known {
            Some(Owner::Connection(key)) => self.on_quic(key, received, data, now),
            // PROTOCOL SM-HS-7
            _ if header.is_first()
                && !FirstContact::verify(&self.peer_id(), header.destination) =>
            {
                self.drops.count(DropReason::FirstContactTag);
            }
            // PROTOCOL SM-HS-9
            _ if header.is_first() && !self.gate.looks_at(now) => {
                self.drops.count(DropReason::HandshakeGate);
            }
            // PROTOCOL SM-HS-9
            _ if header.claims_proof() && !self.gate.looks_at_token(now) => {
                self.drops.count(DropReason::HandshakeGate);
            }
            _ if header.starts_connection() => self.feed(received, received.remote, data, now),
            _ => self.drops.count(DropReason::UnknownIndex),
        }
    }

    fn on_short_header(&mut self, received: Received, data: BytesMut, now: Instant) {
        let Some(id) = short_header_id(&data) else {
            return self.drops.count(DropReason::MalformedDatagram);
        };
        match self.control.cids.owner(id) {
            Some(Owner::Connection(key)) => self.on_quic(key, received, data, now),
            Some(Owner::Session(key)) => self.on_early_frame(key, received, data),
            Some(Owner::Removed(_)) => self.drops.count(DropReason::RemovedPeer),
            None => self.on_unknown_id(received, data, now),
        }
    }

    /// A packet of one of our connections. Until the other side has shown who it is, the connection belongs to one
    /// way: who saw its first packet on another can say nothing in it.
    // PROTOCOL SM-PA-1
    fn on_quic(&mut self, key: ConnKey, received: Received, data: BytesMut, now: Instant) {
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        let unproven = matches!(connection.phase, Phase::Handshake);
        let way = connection.paths.current().remote;
        if unproven && received.remote != way {
            self.drops.count(DropReason::HandshakeWay);
            return self.on_answer_from_elsewhere(key, way, received.remote, now);
        }
        let remote = connection.virtual_remote;
        let first_answer = connection.is_client() && unproven && !connection.was_answered();
        self.feed(received, remote, data, now);
        if unproven {
            // What follows must not be taken for a word of the peer because that came just before.
            self.drive(key, now);
        }
        if first_answer && self.is_unproven(key) {
            self.on_call_answered(key, now);
        }
    }

    fn is_unproven(&self, key: ConnKey) -> bool {
        let connection = self.control.connections.get(&key);
        connection.is_some_and(|connection| matches!(connection.phase, Phase::Handshake))
    }

    /// A frame of a session that the data plane did not know. Either we do not have it yet, because
    /// its sender has our Hello and we wait for its: then the frame waits. Or it has come up since:
    /// then the data plane judges the frame again, by what it knows now.
    // PROTOCOL SM-SF-9
    fn on_early_frame(&mut self, key: ConnKey, received: Received, data: BytesMut) {
        // What has not even the form of a frame would come back, and again.
        if self.is_received_on(key) && sealed::receiver_index(&data).is_some() {
            return self.output.release(vec![(received, data)]);
        }
        let connection = self.control.connections.get_mut(&key);
        let waits = connection
            .filter(|connection| connection.session().is_none())
            .is_some_and(|connection| connection.early.push(received, &data));
        if !waits {
            self.drops.count(DropReason::StaleSnapshot);
        }
    }

    /// Whether the session of a connection is, or will be once we have settled, in
    /// [`Net::forwarding`].
    fn is_received_on(&self, key: ConnKey) -> bool {
        let connection = self.control.connections.get(&key);
        let session = connection.and_then(Connection::session);
        let peer = session.and_then(|session| self.peers.get(&session.peer));
        peer.is_some_and(|peer| peer.sessions().any(|received_on| received_on == key))
    }

    /// Nobody's id: the peer lost our keys, or we lost the sender's, or it is noise.
    // PROTOCOL SM-SF-6
    fn on_unknown_id(&mut self, received: Received, data: BytesMut, now: Instant) {
        let lost = self.control.at_address(received.remote).find(|key| {
            self.control.connections[key]
                .session()
                .is_some_and(|session| session.is_reset(&data))
        });
        if let Some(key) = lost {
            tracing::debug!("peer lost the keys of our session");
            return self.close(key, Close::Dead, DownReason::Reset, now);
        }
        if self.pacing.answered_knock(received.remote) {
            return self.timers.set(Timer::Calls, now);
        }
        self.drops.count(DropReason::UnknownIndex);
        if !self.resets.would_allow(received.remote, now) {
            return self.drops.count(DropReason::ResetLimit);
        }
        // QUIC looks for its own reset tokens by the address it knows the peer under.
        let first = self.control.at_address(received.remote).next();
        let remote = first.map_or(received.remote, |key| {
            self.virtual_remote(key, received.remote)
        });
        self.feed(received, remote, data, now);
    }

    /// Hands a datagram to QUIC as if it came from `remote`.
    fn feed(&mut self, received: Received, remote: SocketAddr, data: BytesMut, now: Instant) {
        let mut answer = Vec::new();
        let ecn = received.ecn.and_then(EcnCodepoint::from_bits);
        let local_ip = received.local_ip;
        let long_header = sealed::is_long_header(&data);
        let event = self
            .control
            .endpoint
            .handle(now, remote, local_ip, ecn, data, &mut answer);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let key = ConnKey(handle.0);
                if let Some(connection) = self.control.connections.get_mut(&key) {
                    connection.quic.handle_event(event);
                    self.control.touched.insert(key);
                    self.take_frames(key, received, now);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.on_incoming(incoming, now),
            // QUIC knows neither an unknown id nor one of a connection that it has retired, and answers
            // both alike.
            // PROTOCOL SM-SF-6
            Some(DatagramEvent::Response(_))
                if !long_header && !self.resets.allows(received.remote, now) =>
            {
                self.drops.count(DropReason::ResetLimit);
            }
            Some(DatagramEvent::Response(transmit)) => {
                // Answers go where the datagram really came from.
                self.send_raw(
                    Path {
                        remote: received.remote,
                        local_ip,
                        socket: received.socket,
                    },
                    transmit.ecn,
                    answer,
                );
                self.control.cids.discard_fresh();
            }
            None => {}
        }
    }

    fn virtual_remote(&self, key: ConnKey, real: SocketAddr) -> SocketAddr {
        self.control
            .connections
            .get(&key)
            .map_or(real, |connection| connection.virtual_remote)
    }
}

/// The id of a short header with the fixed bit set.
fn short_header_id(datagram: &[u8]) -> Option<u64> {
    let (first, rest) = datagram.split_first()?;
    let id = rest.first_chunk::<CID_LEN>()?;
    (first & 0x40 != 0).then(|| u64::from_be_bytes(*id))
}

/// Sources share this many slots; a collision only delays a reset.
const RESET_SLOTS: usize = 256;
/// One source gets at most one reset in this time: enough to tell a peer at once, too few to be
/// worth spoofing its address.
const RESET_INTERVAL: Duration = Duration::from_millis(20);

/// Limits stateless resets for each source, so that noise from one place does not keep us from
/// telling a peer elsewhere that we restarted.
#[derive(Debug)]
pub(super) struct ResetLimit {
    key: u64,
    sent_at: Vec<Option<Instant>>,
}

impl ResetLimit {
    pub(super) fn new(key: u64) -> Self {
        Self {
            key,
            sent_at: vec![None; RESET_SLOTS],
        }
    }

    /// Whether a reset would be sent; asked before anything is done for one.
    fn would_allow(&self, remote: SocketAddr, now: Instant) -> bool {
        let last = self.sent_at[self.slot(remote)];
        last.is_none_or(|at| now >= at + RESET_INTERVAL)
    }

    /// Whether a reset may be sent, which is then the last one for a while.
    fn allows(&mut self, remote: SocketAddr, now: Instant) -> bool {
        let allowed = self.would_allow(remote, now);
        if allowed {
            let slot = self.slot(remote);
            self.sent_at[slot] = Some(now);
        }
        allowed
    }

    fn slot(&self, remote: SocketAddr) -> usize {
        let address = match remote.ip() {
            std::net::IpAddr::V4(v4) => u128::from(v4.to_bits()),
            std::net::IpAddr::V6(v6) if is_way(v6.into()) => v6.to_bits(),
            std::net::IpAddr::V6(v6) => v6.to_bits() >> 64,
        };
        let mixed = (address as u64 ^ (address >> 64) as u64 ^ self.key)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as usize % RESET_SLOTS
    }
}
