//! The length of datagrams on each path: sends the probes of the search, and publishes what it finds.
//!
//! The search itself is `paths::mtu`. Only the session in use is searched for; one that takes its
//! place on the same path goes on with what was found.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use shadowmesh_wire::envelope::ENVELOPE_OVERHEAD;
use shadowmesh_wire::sealed::OVERHEAD;

use super::Net;
use crate::control::{ConnKey, Connection, Phase};
use crate::drops::DropReason;
use crate::event::canonical;
use crate::paths::{MtuSearch, View};
use crate::session::Session;
use crate::timers::Timer;

/// Assumed where nothing was measured yet.
const RTT_UNKNOWN: Duration = Duration::from_millis(100);
/// A device takes at least this (RFC 8200 §5), whatever the peer says.
const DEVICE_MTU_MIN: u16 = 1280;
/// And at most this is looked for on behalf of others: the longest that Ethernet devices commonly take, and
/// the most that a node may be configured to. A client may say any number, and probes of that length cost us.
const DEVICE_MTU_MAX: u16 = 9000;

impl Net {
    /// The host refused to send a datagram of `len` bytes to `remote`, because an interface is
    /// smaller than that: a fact, and not a rumour as ICMP is.
    // PROTOCOL SM-MT-2
    pub fn handle_too_long(&mut self, remote: SocketAddr, len: usize, now: Instant) {
        let keys: Vec<ConnKey> = self.control.at_address(canonical(remote)).collect();
        for key in keys {
            if let Some(connection) = self.control.connections.get_mut(&key) {
                let rtt = rtt(connection);
                if let Some(search) = &mut connection.paths.mtu {
                    search.handle_refused(len, rtt, now);
                }
            }
            self.drive_mtu(key, now);
        }
        self.settle(now);
    }

    /// The session of `key` is used for sending from now on; it may take the place of `earlier`.
    pub(super) fn start_mtu(&mut self, key: ConnKey, earlier: Option<ConnKey>, now: Instant) {
        let earlier = earlier
            .and_then(|key| self.control.connections.get(&key))
            .map(|connection| {
                (
                    connection.paths.current().remote,
                    connection.paths.mtu.clone(),
                )
            });
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        let rtt = rtt(connection);
        let remote = connection.paths.current().remote;
        let carries = self.relay_carries(remote).unwrap_or(usize::MAX);
        let Some(session) = connection.session().filter(|session| !session.uses_quic()) else {
            return;
        };
        let target = self.target(session, remote).min(carries);
        let search = match earlier {
            Some((at, Some(search))) if at == remote => search.carried_over(target, rtt, now),
            _ => MtuSearch::new(remote, target, rtt, now),
        };
        if let Some(connection) = self.control.connections.get_mut(&key) {
            connection.paths.mtu = Some(search);
        }
        self.drive_mtu(key, now);
    }

    /// The longest datagram that is of use to a session on a way there.
    fn target(&self, session: &Session, remote: SocketAddr) -> usize {
        let (ours, theirs) = (self.config.mtu, session.theirs.mtu);
        let frame = |mtu: u16| usize::from(mtu.max(DEVICE_MTU_MIN)) + OVERHEAD;
        let between_us = frame(ours.min(theirs));
        let (passed_on, to_ethernet) = if self.relays.contains(&session.peer) {
            (frame(ours), MtuSearch::of_ethernet(remote))
        } else if self.config.relay.enabled {
            let theirs = theirs.min(ours.max(DEVICE_MTU_MAX));
            (frame(theirs), MtuSearch::of_ethernet(remote))
        } else {
            return between_us;
        };
        // Between a client and its relay frames of others are of use too, with what is around them. Where
        // they would be longer than Ethernet takes, to ask for that is what most paths answer at once.
        // PROTOCOL SM-RL-3
        let wrapped = match passed_on + ENVELOPE_OVERHEAD {
            longer if longer > to_ethernet => to_ethernet.max(passed_on),
            wrapped => wrapped,
        };
        wrapped.max(between_us)
    }

    pub(super) fn on_mtu_timeout(&mut self, key: ConnKey, now: Instant) {
        self.with_mtu(key, now, MtuSearch::handle_timeout);
    }

    /// To be called now and then: long frames may have begun to flow, or packets to go by QUIC, which
    /// has a search of its own, or no longer.
    pub(super) fn look_at_mtu(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let by_quic = connection.session().is_some_and(Session::uses_quic);
        if by_quic && connection.paths.mtu.take().is_some() {
            self.stale(key);
            return self.timers.stop(Timer::Mtu(key));
        }
        let peer = connection.peer.and_then(|id| self.peers.get(&id));
        let in_use = peer.is_some_and(|peer| peer.primary == Some(key));
        if !by_quic && in_use && connection.paths.mtu.is_none() {
            return self.start_mtu(key, None, now);
        }
        self.with_mtu(key, now, MtuSearch::look);
    }

    fn with_mtu(
        &mut self,
        key: ConnKey,
        now: Instant,
        act: impl FnOnce(&mut MtuSearch, View, Instant),
    ) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let Some(session) = connection.session() else {
            return;
        };
        let view = View {
            rtt: rtt(connection),
            long_frames: session.traffic.long_frames(),
        };
        if let Some(search) = &mut connection.paths.mtu {
            act(search, view, now);
        }
        self.drive_mtu(key, now);
    }

    /// A probe reply came: it may prove a length.
    pub(super) fn on_mtu_reply(&mut self, key: ConnKey, token: u64, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let search = connection.paths.mtu.as_mut();
        let Some(rtt) = search.and_then(|search| search.handle_reply(token, now)) else {
            return;
        };
        if let Some(session) = connection.session_mut() {
            session.rtt = Some(rtt);
        }
        self.drive_mtu(key, now);
    }

    /// Sends what the search asks for, sets its timer, and notes what changed.
    fn drive_mtu(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let path = connection.paths.current();
        let mut datagrams = Vec::new();
        let Connection { phase, paths, .. } = connection;
        if let (Phase::Up(session), Some(search)) = (phase, &mut paths.mtu) {
            while let Some(len) = search.poll_probe() {
                let token = self.rng.random();
                search.sent(token, len, now);
                // PROTOCOL SM-MT-1
                datagrams.push(session.seal_request(token, len));
            }
            if search.take_news() {
                self.output.published.stale(session.peer);
                let (datagram, settled) = (search.datagram_len_max(), search.is_settled());
                tracing::debug!(datagram, settled, "path MTU");
            }
        }
        match paths.mtu.as_ref().and_then(MtuSearch::poll_timeout) {
            Some(at) => self.timers.set(Timer::Mtu(key), at),
            None => self.timers.stop(Timer::Mtu(key)),
        }
        for datagram in datagrams {
            match datagram {
                Some(datagram) => self.send_frame(path, datagram),
                None => self.drops.count(DropReason::SealExhausted),
            }
        }
    }
}

fn rtt(connection: &Connection) -> Duration {
    let measured = connection.session().and_then(|session| session.rtt);
    measured.unwrap_or_else(|| connection.quic.rtt().min(RTT_UNKNOWN))
}
