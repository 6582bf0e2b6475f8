//! The first packet of somebody who wants to connect.

use std::time::Instant;

use quinn_proto::Incoming;
use shadowmesh_crypto::FirstContact;

use super::Net;
use super::lifecycle::HANDSHAKE_MAX;
use crate::control::{ConnKey, Connection};
use crate::drops::DropReason;
use crate::gate::Verdict;
use crate::paths::{Path, Paths};
use crate::timers::Timer;

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
        let source = incoming.remote_address().ip();
        let unfinished = self.control.unfinished.len();
        match self.gate.judge(source, proven, unfinished, now) {
            Verdict::Accept => self.accept(incoming, now),
            Verdict::Retry => self.retry(incoming),
            Verdict::SourceLimit => self.ignore(incoming, DropReason::HandshakeSource),
            Verdict::TableFull => self.ignore(incoming, DropReason::HandshakeTable),
        }
    }

    fn accept(&mut self, incoming: Incoming, now: Instant) {
        let path = Path {
            remote: incoming.remote_address(),
            local_ip: incoming.local_ip(),
        };
        let mut answer = Vec::new();
        match self
            .control
            .endpoint
            .accept(incoming, now, &mut answer, None)
        {
            Ok((handle, quic)) => {
                let key = ConnKey(handle.0);
                let connection = Connection::new(quic, Paths::new(path, &[]), now);
                self.control.insert(key, connection);
                self.control.unfinished.insert(key);
                self.timers.set(Timer::Handshake(key), now + HANDSHAKE_MAX);
            }
            Err(error) => {
                tracing::debug!("first packet refused: {}", error.cause);
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
