//! Packets on their way into DATAGRAM frames (RFC 9221).
//!
//! quinn has a queue of its own, which drops without telling. So it is given only as much as it takes
//! ([`SEND_BUFFER`]); what is behind that waits here, the oldest goes first when it becomes too much,
//! and every loss is counted. A probe does not wait behind packets, because it measures the path and
//! not our queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Connection, SendDatagramError};
use shadowmesh_wire::fragment::{FRAGMENT_HEADER_LEN, FragmentHeader, PIECE_LEN_MIN};
use shadowmesh_wire::inner::InnerType;

use crate::drops::{DropCounters, DropReason};
use crate::fragments::{Reassembled, Reassembler, pieces};
use crate::memory::Memory;

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
    /// Names the next packet that is cut.
    next_id: u32,
    /// What came in pieces. Apart from those of sealed frames, whose names are drawn elsewhere.
    reassembler: Reassembler,
    /// The longest frame that fits a packet now. `None`: the peer takes no DATAGRAM frames.
    pub(crate) len_max: Option<usize>,
}

impl DatagramQueue {
    /// Nothing waits; what will come in pieces counts in `memory`.
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Self {
            reassembler: Reassembler::new(memory),
            ..Self::default()
        }
    }

    /// Gives up packets whose rest has not come in time.
    pub(crate) fn expire(&mut self, drops: &DropCounters, now: Instant) {
        self.reassembler.expire(now, |reason| drops.count(reason));
    }

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
            if let Some(max) = quic.datagrams().max_size()
                && frame.len() > max
            {
                self.bytes -= frame.len() + FRAME_COST;
                self.cut(&frame, max, drops);
                continue;
            }
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

    /// Puts a packet that is too long for the path back in pieces of `len_max`, type bytes included;
    /// they go before all that wait, in their order.
    // PROTOCOL SM-QD-5
    fn cut(&mut self, frame: &Bytes, len_max: usize, drops: &DropCounters) {
        let inner_len_max = len_max.saturating_sub(1);
        let is_packet = frame.first() == Some(&InnerType::IpPacket.into());
        let packet = frame.get(1..).unwrap_or_default();
        // A peer may say that it takes next to nothing.
        let has_room = inner_len_max >= FRAGMENT_HEADER_LEN + PIECE_LEN_MIN;
        let (true, true, Ok(total)) = (is_packet, has_room, u16::try_from(packet.len())) else {
            return drops.count(DropReason::TooBig);
        };
        self.next_id = self.next_id.wrapping_add(1);
        let all: Vec<(usize, usize)> = pieces(packet.len(), inner_len_max).collect();
        for &(offset, len) in all.iter().rev() {
            let header = FragmentHeader {
                id: self.next_id,
                total,
                // Within a packet shorter than 64 KB.
                offset: offset as u16,
            };
            let mut piece = Vec::with_capacity(1 + FRAGMENT_HEADER_LEN + len);
            piece.push(InnerType::Fragment.into());
            piece.extend_from_slice(&header.encode());
            piece.extend_from_slice(&packet[offset..offset + len]);
            self.push_urgent(piece.into());
        }
    }

    /// Takes the body of a fragment: the packet behind its type byte, if this was the last piece.
    pub(crate) fn reassemble(
        &mut self,
        body: &[u8],
        drops: &DropCounters,
        now: Instant,
    ) -> Option<Bytes> {
        let pushed = self
            .reassembler
            .push(body, now, |reason| drops.count(reason));
        match pushed {
            Reassembled::Waiting => None,
            Reassembled::Refused(reason) => {
                drops.count(reason);
                None
            }
            Reassembled::Whole(mut packet) => {
                packet.insert(0, InnerType::IpPacket.into());
                Some(packet.into())
            }
        }
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
    use crate::tests::harness::start;

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

    // PROTOCOL SM-QD-5
    #[test]
    fn pieces_keep_their_order_fit_the_path_and_make_the_packet_again() {
        let drops = DropCounters::default();
        let mut queue = DatagramQueue::default();
        let frame: Vec<u8> = std::iter::once(InnerType::IpPacket.into())
            .chain((0..9000u32).map(|n| n as u8))
            .collect();
        queue.push(Bytes::from_static(b"behind"), &drops);
        queue.cut(&Bytes::from(frame.clone()), 1162, &drops);
        let mut receiver = DatagramQueue::default();
        let mut whole = None;
        while queue.waiting.len() > 1 {
            let piece = queue.waiting.pop_front().unwrap();
            assert!(piece.len() <= 1162 && whole.is_none());
            assert_eq!(piece[0], u8::from(InnerType::Fragment));
            whole = receiver.reassemble(&piece[1..], &drops, start());
        }
        assert_eq!(whole.as_deref(), Some(&frame[..]));
        assert_eq!(queue.waiting[0], b"behind"[..]);
    }

    #[test]
    fn what_cannot_be_cut_is_counted() {
        let drops = DropCounters::default();
        let mut queue = DatagramQueue::default();
        let packet = Bytes::from(vec![InnerType::IpPacket.into(); 1400]);
        let least = 1 + FRAGMENT_HEADER_LEN + PIECE_LEN_MIN;
        queue.cut(&packet, least - 1, &drops);
        queue.cut(
            &Bytes::from(vec![InnerType::Probe.into(); 1400]),
            1162,
            &drops,
        );
        queue.cut(
            &Bytes::from(vec![InnerType::IpPacket.into(); 70_000]),
            1162,
            &drops,
        );
        assert_eq!((drops.get(DropReason::TooBig), queue.waiting.len()), (3, 0));
        queue.cut(&packet, least, &drops);
        assert_eq!((drops.get(DropReason::TooBig), queue.waiting.len()), (3, 6));
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
