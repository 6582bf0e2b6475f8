//! A fingerprint of a run: the same seed on the same code must give the same one.
//!
//! Only what an observer of the network sees goes in (when, from whom to whom, how long), and no
//! content: keys and ciphertexts come from the operating system's randomness and differ each time.

use std::time::Duration;

/// Running hash over the events of a world: FNV-1a by words of 64 bits, each turned so that its upper half
/// counts too. It is to tell runs apart, not to resist anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    hash: u64,
    events: u64,
}

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceEvent {
    /// A node handed a datagram to its link.
    Sent = 1,
    /// A datagram reached a node.
    Arrived = 2,
    /// An IP packet reached a device.
    Delivered = 3,
    /// A middlebox refused a datagram; `to` is the number of the box.
    Refused = 4,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
        }
    }
}

impl Trace {
    /// Adds an event: `from` and `to` are node numbers, `len` is in bytes.
    pub fn add(&mut self, event: TraceEvent, at: Duration, from: usize, to: usize, len: usize) {
        self.events += 1;
        let at = at.as_nanos() as u64;
        for word in [event as u64, at, from as u64, to as u64, len as u64] {
            self.hash = (self.hash ^ word)
                .wrapping_mul(0x0100_0000_01b3)
                .rotate_left(23);
        }
    }

    /// The fingerprint so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events went in.
    pub fn events(&self) -> u64 {
        self.events
    }
}
