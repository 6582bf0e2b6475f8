//! The content of a sealed frame that is not a packet: probes.
//!
//! A probe request is answered where it came from. It also is what proves and moves paths: a
//! request from a new address makes us challenge that address, and the answer to the challenge
//! makes it the path.

use std::time::Instant;

use rand::Rng;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::probe::{Probe, ProbeKind};

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
        match probe.kind {
            ProbeKind::Request => {
                self.answer(way, key, path, probe, now);
                self.challenge(key, path, way, now);
            }
            ProbeKind::Reply => {
                self.on_probe_reply(key, path, probe.token, now);
                if way == Way::Sealed {
                    self.on_sealed_answer(key, now);
                }
            }
        }
    }

    fn on_probe_reply(&mut self, key: ConnKey, path: Path, token: u64, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let proven = connection.paths.is_proof(token, path);
        let on_path = path.remote == connection.paths.current().remote;
        let Some(session) = connection.session_mut() else {
            return;
        };
        let peer = session.peer;
        if let Some((rtt, asked)) = session.ping_answered(token, now)
            && asked
        {
            self.output.event(NetEvent::PingReply {
                peer,
                token,
                rtt,
                path: self.relays.info(path.remote),
            });
        }
        if on_path {
            self.on_mtu_reply(key, token, now);
        }
        if proven {
            self.move_path(key, path, now);
        }
    }

    /// An authentic probe came from an address that is not the path: ask it for proof.
    fn challenge(&mut self, key: ConnKey, path: Path, way: Way, now: Instant) {
        let token = self.rng.random();
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        if !connection.paths.challenge(path, token, now) {
            return;
        }
        self.ask(way, key, path, (token, false), now);
    }

    fn move_path(&mut self, key: ConnKey, path: Path, now: Instant) {
        self.control.move_path(key, path, now);
        if let Some(session) = self.control.session_mut(key) {
            session.plane.path_changed(now);
        }
        self.output.forwarding_stale = true;
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let Some(id) = connection.peer else { return };
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.last_seen = Some(path.remote);
        }
        self.output.event(NetEvent::PathChanged {
            peer: id,
            path: self.relays.info(path.remote),
        });
        self.tell_address(key, path.remote, now);
        self.start_mtu(key, None, now);
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

    fn ask(
        &mut self,
        way: Way,
        key: ConnKey,
        path: Path,
        (token, asked): (u64, bool),
        now: Instant,
    ) {
        let Some(session) = self.control.session_mut(key) else {
            return;
        };
        match way {
            Way::Sealed => {
                let request = session.ask(token, asked, now);
                self.send_sealed(path, request);
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
                self.send_sealed(path, answer);
            }
            Way::Quic => self.send_probe_by_quic(key, path, request.reply(), now),
        }
    }

    pub(super) fn send_sealed(&mut self, path: Path, sealed: Option<Vec<u8>>) {
        match sealed {
            Some(datagram) => self.send_frame(path, datagram),
            None => self.drops.count(DropReason::SealExhausted),
        }
    }
}
