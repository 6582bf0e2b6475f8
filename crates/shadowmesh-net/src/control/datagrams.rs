//! Packets on their way into DATAGRAM frames (RFC 9221).
//!
//! quinn has a queue of its own, which drops without telling. So it is given only as much as it takes
//! ([`SEND_BUFFER`]); what is behind that waits here, the oldest goes first when it becomes too much,
//! and every loss is counted. A probe does not wait behind packets, because it measures the path and
//! not our queue.

use std::collections::VecDeque;

use bytes::Bytes;
use quinn_proto::{Connection, SendDatagramError};

use crate::drops::{DropCounters, DropReason};

/// quinn's own queue: one turn of the control thread at several Gbit/s.
pub(super) const SEND_BUFFER: usize = 256 * 1024;
/// What quinn keeps of datagrams: they are taken out with the packet that brought them.
pub(super) const RECEIVE_BUFFER: usize = 256 * 1024;
/// Limit: bytes that wait for a connection. About 10 ms at 1 Gbit/s: a longer queue is only delay,
/// which no inner sender can see.
const WAITING_MAX: usize = 1280 * 1024;
/// Counted against [`WAITING_MAX`] for each frame, so that many small ones are bounded too.
const FRAME_COST: usize = 64;

/// The frames of one connection that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct DatagramQueue {
    /// Limit: [`WAITING_MAX`].
    waiting: VecDeque<Bytes>,
    bytes: usize,
    /// Frames that quinn took.
    taken: u64,
    /// Of these, the ones it dropped when the path's MTU shrank, as far as counted.
    lost: u64,
    /// The longest frame that fits a packet now. `None`: the peer takes no DATAGRAM frames.
    pub(crate) len_max: Option<usize>,
}

impl DatagramQueue {
    /// Appends a frame; the oldest make room for it.
    pub(crate) fn push(&mut self, frame: Bytes, drops: &DropCounters) {
        self.bytes += frame.len() + FRAME_COST;
        self.waiting.push_back(frame);
        while self.bytes > WAITING_MAX
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.bytes -= oldest.len() + FRAME_COST;
            drops.count(DropReason::QuicQueueFull);
        }
    }

    /// Puts a frame before all that wait.
    pub(crate) fn push_urgent(&mut self, frame: Bytes) {
        self.bytes += frame.len() + FRAME_COST;
        self.waiting.push_front(frame);
    }

    /// Gives quinn what it takes. False: nothing was there, or nothing was taken.
    pub(crate) fn fill(&mut self, quic: &mut Connection, drops: &DropCounters) -> bool {
        let mut given = false;
        while let Some(frame) = self.waiting.pop_front() {
            let len = frame.len() + FRAME_COST;
            match quic.datagrams().send(frame, false) {
                Ok(()) => {
                    self.taken += 1;
                    given = true;
                }
                Err(SendDatagramError::Blocked(frame)) => {
                    self.waiting.push_front(frame);
                    return given;
                }
                Err(SendDatagramError::TooLarge) => drops.count(DropReason::TooBig),
                Err(_) => drops.count(DropReason::NoSession),
            }
            self.bytes -= len;
        }
        given
    }

    /// Counts what quinn dropped on its own: what it took and neither sent nor holds. To be called
    /// when there is nothing left to send. True: the longest frame that fits changed.
    pub(crate) fn settle(&mut self, quic: &mut Connection, drops: &DropCounters) -> bool {
        if self.waiting.is_empty() && is_empty(quic) {
            let gone = self.taken.saturating_sub(quic.stats().frame_tx.datagram);
            drops.add(DropReason::TooBig, gone.saturating_sub(self.lost));
            self.lost = gone;
        }
        let len_max = quic.datagrams().max_size();
        std::mem::replace(&mut self.len_max, len_max) != len_max
    }
}

fn is_empty(quic: &mut Connection) -> bool {
    let space = quic.datagrams().send_buffer_space();
    space + size_of::<Bytes>() >= SEND_BUFFER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room_and_each_is_counted() {
        let drops = DropCounters::default();
        let mut queue = DatagramQueue::default();
        let fits = WAITING_MAX / (1000 + FRAME_COST);
        for n in 0..fits + 5 {
            queue.push(Bytes::from(vec![n as u8; 1000]), &drops);
        }
        assert_eq!(drops.get(DropReason::QuicQueueFull), 5);
        assert_eq!(queue.waiting.len(), fits);
        assert_eq!(queue.waiting[0][0], 5);
        queue.push_urgent(Bytes::from_static(b"probe"));
        assert_eq!(queue.waiting[0], b"probe"[..]);
    }

    #[test]
    fn many_empty_frames_are_bounded_too() {
        let drops = DropCounters::default();
        let mut queue = DatagramQueue::default();
        for _ in 0..100_000 {
            queue.push(Bytes::new(), &drops);
        }
        assert!(queue.waiting.len() * FRAME_COST <= WAITING_MAX);
    }
}
