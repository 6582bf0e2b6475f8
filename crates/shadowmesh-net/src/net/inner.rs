//! The content of a sealed frame that is not a packet: probes.
//!
//! A probe request is answered where it came from. What requests and answers say of the ways to the
//! peer is for `paths` to judge.

use std::net::SocketAddr;
use std::time::Instant;

use rand::Rng;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::probe::{Probe, ProbeKind};
use shadowmesh_wire::way;

use super::Net;
use crate::control::ConnKey;
use crate::drops::DropReason;
use crate::event::{NetEvent, Received};
use crate::paths::Path;

/// How an inner frame travels.
pub(super) type Way = crate::plane::Plane;

impl Net {
    /// The data plane opened a frame of `peer` whose content (type byte first) is not a packet.
    // PROTOCOL SM-SF-7
    pub fn handle_inner(&mut self, peer: &PeerId, received: Received, inner: &[u8], now: Instant) {
        let received = received.canonical();
        let Some(key) = self.peers.get(peer).and_then(|peer| peer.primary) else {
            return self.drops.count(DropReason::StaleSnapshot);
        };
        let session = self.control.session_mut(key);
        if session.is_some_and(|session| session.counts().received > 0) {
            self.peer_has_session(key);
        }
        let Some((&kind, body)) = inner.split_first() else {
            return self.drops.count(DropReason::InnerMalformed);
        };
        match InnerType::try_from(kind) {
            Ok(InnerType::Probe) => self.on_probe(key, received, body, Way::Sealed, now),
            Ok(InnerType::Padding) => {}
            Ok(InnerType::RelayEnvelope) => self.pass_on(peer, received, inner, now),
            _ => self.drops.count(DropReason::InnerUnknown),
        }
        self.settle(now);
    }

    /// A probe is answered in the way it came: the answer is to prove that way.
    pub(super) fn on_probe(
        &mut self,
        key: ConnKey,
        received: Received,
        body: &[u8],
        way: Way,
        now: Instant,
    ) {
        let Ok(probe) = Probe::decode(body) else {
            return self.drops.count(DropReason::InnerMalformed);
        };
        // A session that moved into the tunnel would carry itself.
        // PROTOCOL SM-PA-6
        if self.came_inside(received.remote, received.local_ip) {
            return self.drops.count(DropReason::InnerUnknown);
        }
        let path = Path {
            remote: received.remote,
            local_ip: received.local_ip,
            socket: received.socket,
        };
        let connection = self.control.connections.get_mut(&key);
        let Some(session) = connection.and_then(|connection| connection.session_mut()) else {
            return;
        };
        session.liveness.heard(now);
        if way == Way::Quic && matches!(way::Way::of(received.remote), way::Way::Stream(_)) {
            let address = received.remote;
            self.tell(NetEvent::StreamCarries { address });
        }
        if self.is_second(received.socket) {
            return self.on_asked_at_second(key, path.remote, probe.kind, now);
        }
        match probe.kind {
            ProbeKind::Request => {
                self.answer(way, key, path, probe, now);
                if let Some(connection) = self.control.connections.get_mut(&key) {
                    connection.paths.heard_request(path, now);
                }
            }
            ProbeKind::Reply => {
                self.on_probe_reply(key, path, probe.token, now);
                if way == Way::Sealed {
                    self.on_sealed_answer(key, now);
                }
            }
        }
        self.drive_paths(key, now);
    }

    fn on_probe_reply(&mut self, key: ConnKey, path: Path, token: u64, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let on_path = path.remote == connection.paths.current().remote;
        if connection.paths.handle_reply(token, path, now) {
            self.on_answered(path.remote, now);
        }
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let Some(session) = connection.session_mut() else {
            return;
        };
        let peer = session.peer;
        if let Some((rtt, asked)) = session.ping_answered(token, now)
            && asked
        {
            let path = self.relays.info(path.remote);
            self.tell(NetEvent::PingReply {
                peer,
                token,
                rtt,
                path,
            });
        }
        if on_path {
            self.on_mtu_reply(key, token, now);
        }
    }

    /// Somebody whom we know is there.
    // PROTOCOL SM-PA-9
    pub(super) fn on_answered(&mut self, from: SocketAddr, now: Instant) {
        if shadowmesh_wire::way::Way::of(from).is_udp() {
            self.spending.answered(from, now);
        }
    }

    pub(super) fn random_token(&mut self) -> u64 {
        self.rng.random()
    }

    /// Sends a probe request along the path. `asked`: the parent wants to hear of the answer.
    pub(super) fn send_probe(&mut self, key: ConnKey, token: u64, asked: bool, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let path = connection.paths.current();
        let Some(session) = connection.session_mut() else {
            return;
        };
        let way = session.plane.plane();
        self.ask(way, key, path, (token, asked), now);
    }

    pub(super) fn ask(
        &mut self,
        way: Way,
        key: ConnKey,
        path: Path,
        (token, asked): (u64, bool),
        now: Instant,
    ) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        connection.paths.sent(path, token, now);
        let Some(session) = connection.session_mut() else {
            return;
        };
        match way {
            Way::Sealed => {
                let request = session.ask(token, asked, now);
                self.send_sealed(key, path, request, now);
            }
            Way::Quic => {
                let request = session.ask_openly(token, asked, now);
                self.send_probe_by_quic(key, path, request, now);
            }
        }
    }

    fn answer(&mut self, way: Way, key: ConnKey, path: Path, request: Probe, now: Instant) {
        let Some(session) = self.control.session_mut(key) else {
            return;
        };
        match way {
            Way::Sealed => {
                let answer = session.answer(request);
                self.send_sealed(key, path, answer, now);
            }
            Way::Quic => self.send_probe_by_quic(key, path, request.reply(), now),
        }
    }

    pub(super) fn send_sealed(
        &mut self,
        key: ConnKey,
        path: Path,
        sealed: Option<Vec<u8>>,
        now: Instant,
    ) {
        match sealed {
            Some(datagram) if self.may_send(key, path, datagram.len(), now) => {
                self.send_frame(path, datagram);
            }
            Some(_) => {}
            None => self.drops.count(DropReason::SealExhausted),
        }
    }
}
