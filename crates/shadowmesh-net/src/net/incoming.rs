//! The first packet of somebody who wants to connect.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use quinn_proto::Incoming;
use shadowmesh_crypto::FirstContact;

use super::Net;
use super::lifecycle::HANDSHAKE_MAX;
use crate::control::{Close, ConnKey, Connection};
use crate::drops::DropReason;
use crate::event::DownReason;
use crate::gate::Verdict;
use crate::paths::{Path, Paths};
use crate::timers::Timer;

/// A handshake has this long for itself even when the table is full: several round trips of any
/// path, with losses.
const UNFINISHED_MIN: Duration = Duration::from_secs(2);

/// How long the first packet of an unproven address waits before it costs us anything: the first
/// packets of a flood are told from those of honest callers only by what follows them. Far below any
/// round trip that matters, and enough for four packets of a flood of 2,000 a second.
pub(crate) const STRANGER_WAIT: Duration = Duration::from_millis(2);

impl Net {
    // PROTOCOL SM-HS-9
    // PROTOCOL SM-HS-10
    pub(super) fn on_incoming(&mut self, incoming: Incoming, now: Instant) {
        let proven = incoming.remote_address_validated();
        // A made-up token got this Initial past the check of the tag.
        if !proven && !FirstContact::verify(&self.peer_id(), incoming.orig_dst_cid()) {
            self.control.endpoint.ignore(incoming);
            return self.drops.count(DropReason::FirstContactTag);
        }
        // PROTOCOL SM-PA-6
        if self.came_inside(incoming.remote_address(), incoming.local_ip()) {
            return self.ignore(incoming, DropReason::HandshakeSource);
        }
        if !self.relays.may_bring_caller(incoming.remote_address(), now) {
            return self.ignore(incoming, DropReason::HandshakeSource);
        }
        let source = incoming.remote_address().ip();
        let mut verdict = self.judge(source, proven, now);
        if verdict == Verdict::TableFull && self.make_room(now) {
            verdict = self.judge(source, proven, now);
        }
        match verdict {
            Verdict::Accept if proven => self.accept(incoming, now),
            Verdict::Accept => self.let_wait(incoming, now),
            Verdict::Retry => self.retry(incoming),
            Verdict::SourceLimit => self.ignore(incoming, DropReason::HandshakeSource),
            Verdict::TableFull => self.ignore(incoming, DropReason::HandshakeTable),
        }
    }

    /// Limit: the gate lets through no more than its burst and what it regains in the time.
    fn let_wait(&mut self, incoming: Incoming, now: Instant) {
        if self.control.waiting.is_empty() {
            self.timers.set(Timer::Strangers, now + STRANGER_WAIT);
        }
        self.control.waiting.push(incoming);
    }

    /// Those who waited have company of a flood by now, or they have not.
    // PROTOCOL SM-HS-9
    pub(super) fn on_strangers_waited(&mut self, now: Instant) {
        let flooded = self.gate.is_closed(now);
        for incoming in std::mem::take(&mut self.control.waiting) {
            if flooded {
                self.retry(incoming);
            } else {
                self.accept(incoming, now);
            }
        }
    }

    /// We leave: nobody who waits is answered.
    pub(super) fn forget_waiting(&mut self) {
        for incoming in self.control.waiting.drain(..) {
            self.control.endpoint.ignore(incoming);
        }
    }

    fn judge(&mut self, source: IpAddr, proven: bool, now: Instant) -> Verdict {
        let unfinished = self.control.unfinished.len();
        self.gate.judge(source, proven, unfinished, now)
    }

    /// Ends the oldest unfinished handshake if it had its time: else a few proven addresses that
    /// never finish could keep everybody out. False: all are young.
    // PROTOCOL SM-HS-10
    fn make_room(&mut self, now: Instant) -> bool {
        let started_at = |key: &ConnKey| Some(self.control.connections.get(key)?.started_at);
        let oldest = self
            .control
            .unfinished
            .iter()
            .min_by_key(|key| started_at(key))
            .copied();
        let Some(key) = oldest else { return false };
        if started_at(&key).is_none_or(|at| now < at + UNFINISHED_MIN) {
            return false;
        }
        self.drops.count(DropReason::HandshakeTable);
        self.close(key, Close::Dead, DownReason::Silent, now);
        true
    }

    fn accept(&mut self, incoming: Incoming, now: Instant) {
        let path = Path {
            remote: incoming.remote_address(),
            local_ip: incoming.local_ip(),
            socket: 0,
        };
        let mut answer = Vec::new();
        // Who calls is not known yet; if any peer's packets go by QUIC, this may be it.
        let for_data = !self.used_quic.is_empty();
        let server = for_data.then(|| self.control.data_server(path.remote));
        let accepted = self
            .control
            .endpoint
            .accept(incoming, now, &mut answer, server);
        match accepted {
            Ok((handle, quic)) => {
                let key = ConnKey(handle.0);
                let paths = Paths::new(path, self.config.paths, now);
                let connection = Connection::new(quic, paths, &self.control.memory, now);
                self.control.insert(key, connection);
                self.control.unfinished.insert(key);
                self.timers.set(Timer::Handshake(key), now + HANDSHAKE_MAX);
            }
            Err(error) => {
                tracing::debug!("first packet refused: {:?}", error.cause.to_string());
                // PROTOCOL SM-OV-5
                self.drops.count(DropReason::HandshakeFailed);
                self.control.cids.discard_fresh();
                if error.response.is_some() {
                    self.send_raw(path, None, answer);
                }
            }
        }
    }

    fn retry(&mut self, incoming: Incoming) {
        self.drops.count(DropReason::HandshakeGate);
        let path = Path {
            remote: incoming.remote_address(),
            local_ip: incoming.local_ip(),
            socket: 0,
        };
        let mut answer = Vec::new();
        match self.control.endpoint.retry(incoming, &mut answer) {
            Ok(_) => self.send_raw(path, None, answer),
            Err(error) => self.control.endpoint.ignore(error.into_incoming()),
        }
        self.control.cids.discard_fresh();
    }

    fn ignore(&mut self, incoming: Incoming, reason: DropReason) {
        self.control.endpoint.ignore(incoming);
        self.drops.count(reason);
    }
}
