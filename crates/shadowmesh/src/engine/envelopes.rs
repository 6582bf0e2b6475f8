//! What a way over a relay adds to a datagram. HOT PATH.
//!
//! ```text
//! 0              13      14      22                              n-16
//! relay's header type 4  label   the peer's datagram, sealed     relay's tag
//! ```
//!
//! The peer's frame is written and sealed where it will lie, and the relay's frame closed around it:
//! no byte is moved.

use shadowmesh_net::{DropReason, Outbound, Via};
use shadowmesh_wire::envelope::{self, ENVELOPE_OVERHEAD, LABEL_LEN};
use shadowmesh_wire::sealed::{HEADER_LEN, TAG_LEN};

/// Where the peer's datagram begins.
pub const FRONT: usize = HEADER_LEN + 1 + LABEL_LEN;

/// The envelopes for a number of datagrams; nothing where the way is direct.
pub struct Envelopes<'o> {
    via: Option<&'o Via>,
    /// The next of the counters that were set aside.
    counter: u64,
    /// What was closed, to be counted at the end.
    frames: u64,
    bytes: u64,
}

impl<'o> Envelopes<'o> {
    /// Sets aside the relay's counters for `count` datagrams.
    pub fn reserve(to: &'o Outbound, count: u64) -> Result<Self, DropReason> {
        let via = to.via.as_ref();
        let counter = match via {
            Some(Via { relay, .. }) => relay.sealer.reserve(count),
            None => Some(0),
        };
        Ok(Self {
            via,
            counter: counter.ok_or(DropReason::SealExhausted)?,
            frames: 0,
            bytes: 0,
        })
    }

    /// Bytes that every datagram grows by.
    #[inline]
    pub fn overhead(&self) -> usize {
        self.via.map_or(0, |_| ENVELOPE_OVERHEAD)
    }

    /// Where in a slot the peer's datagram is to be written.
    #[inline]
    pub fn front(&self) -> usize {
        self.via.map_or(0, |_| FRONT)
    }

    /// The peer's datagram stands there, `len` bytes long; returns the length of what is sent. To be called
    /// as often as was reserved, at most.
    // PROTOCOL SM-RL-1
    #[inline]
    pub fn close(&mut self, slot: &mut [u8], len: usize) -> usize {
        let Some(via) = self.via else {
            return len;
        };
        let end = FRONT + len + TAG_LEN;
        slot[HEADER_LEN..FRONT].copy_from_slice(&envelope::encode(via.label));
        via.relay.sealer.seal(self.counter, &mut slot[..end]);
        self.counter += 1;
        self.frames += 1;
        self.bytes += (LABEL_LEN + len) as u64;
        end
    }
}

impl Drop for Envelopes<'_> {
    fn drop(&mut self) {
        if let Some(via) = self.via {
            via.relay.traffic.sent(self.frames, self.bytes);
        }
    }
}
