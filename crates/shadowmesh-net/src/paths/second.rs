//! What the second port of a relay says of us, and what we say by ours.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::bucket::Bucket;

/// Limit: times that one relay is asked; the first may be lost, and a port that is shut answers never.
// PROTOCOL SM-RL-10
const ASKED_MAX: u8 = 3;
/// Limit: answers to one client: so many at once, and one more in each interval.
// PROTOCOL SM-RL-10
const ANSWERS_BURST: u32 = 4;
const ANSWERS_INTERVAL: Duration = Duration::from_secs(1);

/// Both sides of it, for one session.
#[derive(Debug, Default)]
pub(crate) struct Second {
    /// The relay's second port.
    port: Option<u16>,
    asked: u8,
    /// Where it saw us from there.
    word: Option<SocketAddr>,
    answers: Option<Bucket>,
}

impl Second {
    /// The relay can be asked there.
    pub(crate) fn offered(&mut self, port: u16) {
        if self.port != Some(port) {
            self.port = Some(port).filter(|port| *port != 0);
            self.begin_anew();
        }
    }

    /// We look otherwise than before from the first port.
    pub(crate) fn begin_anew(&mut self) {
        self.asked = 0;
        self.word = None;
    }

    /// The port to ask at, while there is something to ask.
    pub(crate) fn to_ask(&self) -> Option<u16> {
        let is_due = self.word.is_none() && self.asked < ASKED_MAX;
        self.port.filter(|_| is_due)
    }

    pub(crate) fn asked(&mut self) {
        self.asked += 1;
    }

    /// It was asked once, and its answer is on the way, if there is one.
    pub(crate) fn is_awaited(&self) -> bool {
        self.word.is_none() && self.asked == 1
    }

    /// An answer. True: it was asked for, and says something new.
    pub(crate) fn heard(&mut self, address: SocketAddr) -> bool {
        let is_new = self.asked > 0 && self.word != Some(address);
        if is_new {
            self.word = Some(address);
        }
        is_new
    }

    /// Where the relay saw us from its second port.
    pub(crate) fn word(&self) -> Option<SocketAddr> {
        self.word
    }

    /// Whether one more question of the client is answered now.
    pub(crate) fn may_answer(&mut self, now: Instant) -> bool {
        let answers = self.answers.get_or_insert_with(|| Bucket::full(now));
        answers.take(ANSWERS_BURST, ANSWERS_INTERVAL, now)
    }

    /// Takes over what an earlier session knows.
    pub(super) fn inherit(&mut self, earlier: Self) {
        if self.port.is_none() {
            *self = earlier;
        }
    }
}
