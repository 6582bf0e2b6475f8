//! The second port of a relay: where one relay sees us from tells no more than an address, but from two of its
//! ports, how we are translated.
//!
//! A relay tells its clients the port; a client that has nobody else to learn it from writes there once or twice,
//! in a frame of the session, from where its session comes; and the relay says by the session where that came
//! from. Nobody without a session gets anything there, and nobody gets more than one short message for a frame. A
//! port that a firewall keeps shut leaves things as they were.

use std::net::SocketAddr;
use std::time::Instant;

use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::{ControlMessage, Mapping};
use shadowmesh_wire::probe::ProbeKind;
use shadowmesh_wire::way::Way;

use super::Net;
use crate::control::ConnKey;
use crate::event::{Received, SECOND_SOCKET};
use crate::paths::Path;

impl Net {
    /// The port of the further socket [`SECOND_SOCKET`], if this node relays and the host has opened it.
    pub fn set_second_port(&mut self, port: Option<u16>) {
        self.second_port = port.filter(|_| self.config.relay.enabled);
    }

    /// Whether something came to our second port.
    pub(super) fn is_second(&self, socket: u16) -> bool {
        socket == SECOND_SOCKET && self.second_port.is_some()
    }

    /// At the second port only frames of sessions are taken; whatever else comes there is not answered.
    // PROTOCOL SM-RL-10
    pub(super) fn takes_at(&self, received: &Received) -> bool {
        !self.is_second(received.socket)
    }

    /// Tells somebody whom we reach by IPv4 that there is another port.
    // PROTOCOL SM-RL-10
    pub(super) fn tell_second_port(&mut self, key: ConnKey, remote: SocketAddr, now: Instant) {
        if let Some(port) = self.second_port.filter(|_| remote.is_ipv4()) {
            self.send_message(key, &ControlMessage::SecondPort { port }, now);
        }
    }

    /// A probe of a session came to our second port: its sender is told where from. It is no way.
    // PROTOCOL SM-RL-10
    pub(super) fn on_asked_at_second(
        &mut self,
        key: ConnKey,
        from: SocketAddr,
        kind: ProbeKind,
        now: Instant,
    ) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        if kind == ProbeKind::Request && connection.paths.second.may_answer(now) {
            self.send_message(key, &ControlMessage::SecondObserved(from), now);
        }
    }

    /// A relay of ours has a second port.
    // PROTOCOL SM-RL-10
    pub(super) fn on_second_port(&mut self, key: ConnKey, port: u16, now: Instant) {
        if let Some(connection) = self.control.connections.get_mut(&key) {
            connection.paths.second.offered(port);
        }
        self.ask_second(key, false, now);
    }

    /// A relay says where it saw us from its second port: as good as the word of another observer, except
    /// that it is the same voice.
    // PROTOCOL SM-RL-10
    pub(super) fn on_second_word(&mut self, key: ConnKey, address: SocketAddr, now: Instant) {
        if !self.accepts(address) {
            return;
        }
        let unknown = self.our_mapping() == Mapping::Unknown;
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let is_new = connection.paths.second.heard(address);
        if is_new && unknown && connection.paths.admit_word(now) {
            self.on_word(now);
        }
    }

    /// Asks every relay that may still tell how we are translated. Once a second.
    // PROTOCOL SM-RL-10
    pub(super) fn ask_seconds(&mut self, now: Instant) {
        let keys = self
            .relays
            .ids()
            .filter_map(|id| self.peers.get(&id)?.primary);
        for key in keys.collect::<Vec<_>>() {
            self.ask_second(key, true, now);
        }
    }

    /// Writes to a relay's second port, if only that can tell how we are translated. `late`: another relay that
    /// has not said where it sees us has had its time.
    // PROTOCOL SM-RL-10
    pub(super) fn ask_second(&mut self, key: ConnKey, late: bool, now: Instant) {
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        let (Some(relay), at) = (connection.peer, connection.paths.current()) else {
            return;
        };
        let port = connection.paths.second.to_ask();
        let port = port.filter(|port| *port != at.remote.port());
        let is_seen = connection.paths.observed.is_some() && Way::of(at.remote).is_udp();
        let (Some(port), true) = (port, is_seen && at.remote.is_ipv4()) else {
            return;
        };
        let others_may_tell = |other: PeerId| other != relay && self.is_silent(&other);
        if !self.relays.contains(&relay)
            || self.our_mapping() != Mapping::Unknown
            || !late && self.relays.ids().any(others_may_tell)
        {
            return;
        }
        let token = self.random_token();
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        connection.paths.second.asked();
        let Some(session) = connection.session_mut() else {
            return;
        };
        let probe = session.seal_request(token, 0);
        let to = Path {
            remote: SocketAddr::new(at.remote.ip(), port),
            ..at
        };
        self.send_sealed(key, to, probe, now);
    }
}
