//! Packets as QUIC datagrams, and the way between the two data planes.
//!
//! A DATAGRAM frame holds what a sealed frame holds: one inner frame, its type byte first. Packets of
//! the device come in batches from the data plane and go into the queue of the peer's connection;
//! what arrives is given back in the order it came, for the parent to judge. When sealed frames do not
//! get through although QUIC does, the session moves here and back ([`crate::plane`] decides).

use std::time::Instant;

use bytes::Bytes;
use rand::Rng;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::ControlMessage;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::probe::Probe;

use super::Net;
use super::inner::Way;
use super::lifecycle::REKEY_DEADLINE;
use super::paths::PROBE_LEN;
use crate::control::{ConnKey, Phase};
use crate::drops::DropReason;
use crate::event::{NetEvent, Received};
use crate::paths::Path;
use crate::plane::{Plane, PlaneStatus, Word};
use crate::timers::Timer;

impl Net {
    /// Inner frames (type byte first) for a peer whose packets go by QUIC. HOT PATH, once for each
    /// batch of the device.
    // PROTOCOL SM-QD-5
    pub fn send_frames(
        &mut self,
        peer: &PeerId,
        frames: impl IntoIterator<Item = Bytes>,
        now: Instant,
    ) {
        let key = self.peers.get(peer).and_then(|peer| peer.primary);
        let connection = key.and_then(|key| self.control.connections.get_mut(&key));
        let (Some(key), Some(connection)) = (key, connection) else {
            let lost = frames.into_iter().count() as u64;
            return self.drops.add(DropReason::NoSession, lost);
        };
        let (mut count, mut bytes) = (0, 0);
        for frame in frames {
            count += 1;
            bytes += frame.len().saturating_sub(1) as u64;
            connection.datagrams.push(frame, &self.drops);
        }
        if let Some(session) = connection.session() {
            session.traffic.sent(count, bytes);
        }
        self.control.touched.insert(key);
        self.settle(now);
    }

    /// The next inner frame (type byte first) that came by QUIC and is not `Net`'s own business, with
    /// who sent it.
    pub fn poll_frame(&mut self) -> Option<(PeerId, Bytes)> {
        self.output.pop_frame()
    }

    /// Takes in what DATAGRAM frames a connection has received. Between authentication and session a
    /// few wait: the peer may be ahead of us by the packet that holds its Hello. Before that nobody
    /// honest sends any, and what was early data must never become a packet.
    // PROTOCOL SM-QD-5
    // PROTOCOL SM-HS-11
    pub(super) fn take_frames(&mut self, key: ConnKey, received: Received, now: Instant) {
        let of_member = self.is_of_member(key);
        loop {
            let Some(connection) = self.control.connections.get_mut(&key) else {
                return;
            };
            let Some(frame) = connection.quic.datagrams().recv() else {
                return;
            };
            let refused = match connection.phase {
                Phase::Up(_) => {
                    self.take_frame(key, received, frame, now);
                    continue;
                }
                // PROTOCOL SM-RL-9
                Phase::Hello if !of_member => Some(DropReason::RoleRefused),
                Phase::Hello => {
                    let waits = connection.early_datagrams.push(received, &frame);
                    (!waits).then_some(DropReason::StaleSnapshot)
                }
                Phase::Handshake | Phase::Closed => Some(DropReason::StaleSnapshot),
            };
            if let Some(reason) = refused {
                self.drops.count(reason);
            }
        }
    }

    /// The session is up: what waited for it comes first, then what lies with QUIC.
    pub(super) fn take_early_frames(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let path = connection.paths.current();
        for (received, frame) in connection.early_datagrams.take() {
            self.take_frame(key, received, frame.freeze(), now);
        }
        self.take_frames(key, Received::from_remote(path.remote), now);
    }

    fn deliver_frame(&mut self, peer: PeerId, frame: Bytes) {
        if !self.output.frame(peer, frame) {
            self.drops.count(DropReason::DeviceFull);
        }
    }

    fn take_frame(&mut self, key: ConnKey, received: Received, frame: Bytes, now: Instant) {
        let Some(session) = self.control.session_mut(key) else {
            return self.drops.count(DropReason::StaleSnapshot);
        };
        let peer = session.peer;
        session
            .traffic
            .received(1, frame.len().saturating_sub(1) as u64);
        let kind = frame.first().map(|&kind| InnerType::try_from(kind));
        let is_packet = matches!(kind, Some(Ok(InnerType::IpPacket | InnerType::Fragment)));
        // PROTOCOL SM-RL-9
        if is_packet && !self.is_member(&peer) {
            return self.drops.count(DropReason::RoleRefused);
        }
        match kind {
            Some(Ok(InnerType::IpPacket)) => self.deliver_frame(peer, frame),
            Some(Ok(InnerType::Fragment)) => {
                let connection = self.control.connections.get_mut(&key);
                let datagrams = connection.map(|connection| &mut connection.datagrams);
                let whole = datagrams
                    .and_then(|datagrams| datagrams.reassemble(&frame[1..], &self.drops, now));
                if let Some(whole) = whole {
                    self.deliver_frame(peer, whole);
                }
            }
            Some(Ok(InnerType::Probe)) => {
                self.on_probe(key, received, &frame[1..], Way::Quic, now);
            }
            Some(Ok(InnerType::Padding)) => {}
            Some(_) => self.drops.count(DropReason::InnerUnknown),
            None => self.drops.count(DropReason::InnerMalformed),
        }
    }

    /// Sends a probe as a QUIC datagram, before the packets that wait, along `path` whatever path the
    /// connection has.
    pub(super) fn send_probe_by_quic(
        &mut self,
        key: ConnKey,
        path: Path,
        probe: Probe,
        now: Instant,
    ) {
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        let elsewhere = connection.paths.current().remote != path.remote;
        if elsewhere && !self.may_send(key, path, PROBE_LEN, now) {
            return;
        }
        if elsewhere {
            // What waits already belongs on the connection's own path.
            self.transmit_towards(key, None, now);
        }
        if let Some(connection) = self.control.connections.get_mut(&key) {
            let mut frame = vec![InnerType::Probe.into()];
            frame.extend_from_slice(&probe.encode());
            if let Some(session) = connection.phase.session_mut() {
                session.probe_leaves(frame.len() - 1);
            }
            connection.datagrams.push_urgent(frame.into());
        }
        self.transmit_towards(key, elsewhere.then_some(path), now);
        self.control.touched.insert(key);
    }

    /// Looks, once a second, whether the session is on the right plane. True: it changed.
    // PROTOCOL SM-QD-2
    // PROTOCOL SM-QD-3
    pub(super) fn look_at_plane(&mut self, key: ConnKey, now: Instant) -> bool {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return false;
        };
        let client = connection.is_client();
        let acks = connection.quic.stats().frame_rx.acks;
        let Some(session) = connection.phase.session_mut() else {
            return false;
        };
        let unanswered = session.liveness.unanswered();
        if unanswered == 0 {
            session.plane.sealed_heard();
        } else if session.plane.watches_quic() {
            connection.quic.ping();
            self.control.touched.insert(key);
            if let Some(word) = session.plane.sealed_silent(unanswered, acks, now) {
                session.liveness.heard(now);
                self.announce_plane(key, word, now);
                return true;
            }
        }
        let retries = client && session.plane.wants_retry(now);
        let (id, blocked_until) = (session.peer, session.plane.blocked_until());
        if let Some(peer) = self.peers.get_mut(&id) {
            // The session that takes over from this one goes on where it is.
            peer.sealed_blocked_until = blocked_until;
        }
        if retries {
            let token = self.rng.random();
            let request = session.ask(token, false, now);
            let path = connection.paths.current();
            self.send_sealed(key, path, request, now);
        }
        false
    }

    /// A sealed reply to a sealed probe came.
    // PROTOCOL SM-QD-3
    pub(super) fn on_sealed_answer(&mut self, key: ConnKey, now: Instant) {
        let session = self.control.session_mut(key);
        if let Some(word) = session.and_then(|session| session.plane.sealed_answered(now)) {
            self.announce_plane(key, word, now);
        }
    }

    /// The peer sends in another plane from now on.
    // PROTOCOL SM-QD-4
    pub(super) fn on_plane_message(&mut self, key: ConnKey, turn: u32, plane: u8, now: Instant) {
        let plane = match plane {
            0 => Plane::Sealed,
            1 => Plane::Quic,
            // A plane of a later version, which we did not offer.
            _ => return,
        };
        let session = self.control.session_mut(key);
        if session.is_some_and(|session| session.plane.follow((turn, plane), now)) {
            self.plane_changed(key);
        }
    }

    fn announce_plane(&mut self, key: ConnKey, (turn, plane): Word, now: Instant) {
        self.plane_changed(key);
        let plane = u8::from(plane == Plane::Quic);
        self.send_message(key, &ControlMessage::DataPlane { turn, plane }, now);
    }

    fn plane_changed(&mut self, key: ConnKey) {
        let Some(session) = self.control.session_mut(key) else {
            return;
        };
        let (id, plane) = (session.peer, session.plane.status());
        let blocked_until = session.plane.blocked_until();
        self.output.published.stale(id);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.sealed_blocked_until = blocked_until;
        }
        if plane != PlaneStatus::Sealed {
            self.used_quic.insert(id);
        }
        self.tell(NetEvent::PlaneChanged { peer: id, plane });
    }

    /// A session came into use: says how it begins, if the peer does not expect it so.
    pub(super) fn greet_with_plane(&mut self, key: ConnKey, now: Instant) {
        let Some(session) = self.control.session_mut(key) else {
            return;
        };
        let quic = session.uses_quic();
        let (id, greeting) = (session.peer, session.plane.greeting());
        if quic {
            self.used_quic.insert(id);
        }
        if let Some((turn, plane)) = greeting {
            let plane = u8::from(plane == Plane::Quic);
            self.send_message(key, &ControlMessage::DataPlane { turn, plane }, now);
        }
    }

    /// QUIC's own key update derives the next key from the last, so whoever has one has all that
    /// follow. What renews the keys of this plane is another connection beside the present one, with
    /// a key exchange of its own; its session takes over as after a lost one, and the old one is
    /// received on for a moment more. True: the session is on this plane, and that is under way.
    // PROTOCOL SM-QD-6
    pub(super) fn renew_connection(&mut self, key: ConnKey, now: Instant) -> bool {
        let session = self.control.session_mut(key);
        let Some(id) = session
            .filter(|session| session.uses_quic())
            .map(|s| s.peer)
        else {
            return false;
        };
        self.timers
            .set(Timer::RekeyStuck(key), now + REKEY_DEADLINE);
        self.call_beside(id, now);
        true
    }
}
