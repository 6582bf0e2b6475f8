//! Frames that came before their session.
//!
//! A side seals as soon as it has both Hellos, and its first frames may overtake its own Hello: on
//! the way, between the threads of the sender, or because the Hello was lost and is sent again. The
//! other side cannot open them yet, but it drew their index and told it to nobody but the peer. So a
//! few of them wait here, and are judged again when the session is up. So do the DATAGRAM frames of a
//! connection whose other side is ahead of us in the same way.

use std::sync::Arc;

use bytes::BytesMut;

use crate::event::Received;
use crate::memory::{Hold, Memory};

/// Limit: frames that wait for one session; as many as the packets that wait to be sent in it.
pub(crate) const FRAMES_MAX: usize = 64;
/// Limit: bytes of them; as many full frames of a path of 1500 bytes, and one datagram of any size.
const BYTES_MAX: usize = FRAMES_MAX * 1500;
/// The longest datagram there is.
const FRAME_LEN_MAX: usize = 64 * 1024;

/// The frames that wait for one session, in the order they came.
#[derive(Debug, Default)]
pub(crate) struct EarlyFrames {
    frames: Vec<(Received, BytesMut)>,
    /// Their bytes, of what the node holds in all.
    hold: Hold,
}

impl EarlyFrames {
    /// None yet; what it will hold counts in `memory`.
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Self {
            frames: Vec::new(),
            hold: Hold::new(memory),
        }
    }

    /// Keeps a frame; false when there is no room for it. The first stay: what a program sent first
    /// is what it waits for.
    #[must_use]
    pub(crate) fn push(&mut self, received: Received, frame: &[u8]) -> bool {
        if self.frames.len() >= FRAMES_MAX || self.hold.bytes() >= BYTES_MAX {
            return false;
        }
        // PROTOCOL SM-MT-4
        if !self.hold.take(frame.len(), BYTES_MAX + FRAME_LEN_MAX) {
            return false;
        }
        // A copy: a frame is often a slice of a whole receive buffer, which would stay with it.
        self.frames.push((received, BytesMut::from(frame)));
        true
    }

    /// All of them, oldest first; none is left.
    pub(crate) fn take(&mut self) -> Vec<(Received, BytesMut)> {
        self.hold.give_back(self.hold.bytes());
        std::mem::take(&mut self.frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_has_a_limit_in_frames_and_in_bytes() {
        let from = Received::from_remote(([192, 0, 2, 1], 1).into());
        let count = |len: usize| {
            let mut early = EarlyFrames::default();
            while early.push(from, &vec![0; len]) {}
            (early.take().len(), early.take().len())
        };
        assert_eq!(count(30), (FRAMES_MAX, 0));
        assert_eq!(count(65_000), (2, 0));
    }

    #[test]
    fn what_waits_keeps_no_more_memory_than_itself() {
        let from = Received::from_remote(([192, 0, 2, 1], 1).into());
        let mut early = EarlyFrames::default();
        for _ in 0..FRAMES_MAX {
            let run = BytesMut::zeroed(64_000);
            assert!(early.push(from, &run[..30]));
        }
        let kept = early.take().into_iter().map(|(_, frame)| frame.capacity());
        assert!(kept.sum::<usize>() <= FRAMES_MAX * 64);
    }
}
