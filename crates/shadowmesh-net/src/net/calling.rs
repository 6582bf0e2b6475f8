//! Whose turn it is to be called, and the end of calls that nobody answered.

use std::net::SocketAddr;
use std::time::Instant;

use quinn_proto::EndpointEvent;
use rand::Rng;
use shadowmesh_wire::PeerId;

use super::Net;
use crate::control::ConnKey;
use crate::pacing::KNOCK_LEN;
use crate::paths::Path;
use crate::timers::Timer;

impl Net {
    /// Somebody waits for its turn to be called: when to look again.
    pub(super) fn await_turn(&mut self, now: Instant) {
        match self.pacing.next_at(now) {
            Some(at) => self.timers.set(Timer::Calls, at),
            None => self.timers.stop(Timer::Calls),
        }
    }

    /// A call to this peer is over, or none is needed: somebody else's turn may have come.
    pub(super) fn call_over(&mut self, id: &PeerId, now: Instant) {
        if self.pacing.over(id) {
            self.timers.set(Timer::Calls, now);
        }
    }

    /// Calls those for whom the budget has room, and knocks where it has none.
    // PROTOCOL SM-PA-12
    pub(super) fn call_the_next(&mut self, now: Instant) {
        while let Some(id) = self.pacing.next() {
            self.start_attempt(id, now);
            if self.pacing.next() != Some(id) {
                continue;
            }
            let called = self
                .peers
                .get(&id)
                .is_some_and(|peer| peer.attempt.is_some());
            if called || self.targets(&id).is_empty() {
                // It has a call already, or nowhere is left to call it: it waits for nothing.
                self.pacing.over(&id);
                continue;
            }
            break;
        }
        for door in self.pacing.knock(now) {
            self.knock(door);
        }
        self.await_turn(now);
    }

    /// Asks for a sign of life.
    // PROTOCOL SM-PA-12
    fn knock(&mut self, door: SocketAddr) {
        let mut datagram: [u8; KNOCK_LEN] = [0; KNOCK_LEN];
        self.rng.fill(&mut datagram[..]);
        // A short header with the fixed bit (RFC 9000 §17.3.1).
        datagram[0] = datagram[0] & 0x3f | 0x40;
        self.send_raw(Path::to(door), None, datagram.to_vec());
    }

    /// Gives a call up that nobody answered, without a word: who did not hear the call will not hear its end, and a
    /// connection that only says goodbye would be kept for as long as one that carries something.
    // PROTOCOL SM-PA-12
    pub(super) fn abandon(&mut self, key: ConnKey, now: Instant) {
        self.on_drained(key, EndpointEvent::drained(), now);
    }
}
