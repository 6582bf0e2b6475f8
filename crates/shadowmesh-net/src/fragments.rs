//! Inner packets too long for the path: cut by the sender, put together by the receiver.
//!
//! To this crate they are opaque bytes. A peer is authenticated and may still be hostile: what it
//! leaves unfinished is bounded in packets, bytes and time, a piece that overlaps another or
//! contradicts it takes its whole packet away (as RFC 5722 has it for IPv6), and pieces have a
//! smallest size, so that one packet is at most some hundred of them. Nothing is kept of a packet
//! that was finished or given up: the replay window already drops a piece that comes twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shadowmesh_wire::fragment::{FRAGMENT_HEADER_LEN, FragmentHeader, PIECE_LEN_MIN};

use crate::drops::DropReason;
use crate::memory::{Hold, Memory};

/// Limit: packets of one session that are not complete. A path reorders over a few packets; more are
/// losses, which the next ones push out.
const PACKETS_MAX: usize = 32;
/// Limit: their bytes. Two of the longest packets there are.
const BYTES_MAX: usize = 128 * 1024;
/// How long a packet may stay incomplete: longer than any queue on the path.
const AGE_MAX: Duration = Duration::from_secs(2);

/// The pieces of a packet of `len` bytes on a path whose frames hold `inner_len_max`: offset and
/// length of each, all but the last equally long.
///
/// # Panics
/// When the path is shorter than any path can be.
// PROTOCOL SM-MT-3
pub fn pieces(len: usize, inner_len_max: usize) -> Pieces {
    let piece = inner_len_max.saturating_sub(FRAGMENT_HEADER_LEN);
    assert!(piece >= PIECE_LEN_MIN, "every path holds a whole piece");
    Pieces { at: 0, len, piece }
}

/// Offset and length of each piece of a packet, see [`pieces`].
#[derive(Debug, Clone)]
pub struct Pieces {
    at: usize,
    len: usize,
    piece: usize,
}

impl Iterator for Pieces {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let at = self.at;
        let len = self.piece.min(self.len - at);
        self.at += len;
        (len > 0).then_some((at, len))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.len - self.at).div_ceil(self.piece);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Pieces {}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Reassembled {
    /// Kept until the others come.
    Waiting,
    /// The last missing one: the inner packet.
    Whole(Vec<u8>),
    /// Not taken.
    Refused(DropReason),
}

/// The unfinished packets of one session.
#[derive(Debug, Default)]
pub struct Reassembler {
    /// Oldest first. Limits: [`PACKETS_MAX`], [`BYTES_MAX`].
    packets: VecDeque<Unfinished>,
    /// The buffers, of what the node holds in all.
    hold: Hold,
}

#[derive(Debug)]
struct Unfinished {
    id: u32,
    began: Instant,
    buffer: Vec<u8>,
    missing: usize,
    /// Offset and end of every piece, ascending. Limit: the length by [`PIECE_LEN_MIN`].
    pieces: Vec<(usize, usize)>,
}

impl Reassembler {
    /// None yet; what it will hold counts in `memory`.
    pub(crate) fn new(memory: &Arc<Memory>) -> Self {
        Self {
            packets: VecDeque::new(),
            hold: Hold::new(memory),
        }
    }

    /// Takes the body of a fragment. `dropped` hears of packets given up for it.
    // PROTOCOL SM-MT-3
    // PROTOCOL SM-MT-4
    pub fn push(
        &mut self,
        body: &[u8],
        now: Instant,
        mut dropped: impl FnMut(DropReason),
    ) -> Reassembled {
        self.expire(now, &mut dropped);
        let Ok((header, piece)) = FragmentHeader::decode(body) else {
            return Reassembled::Refused(DropReason::FragmentInvalid);
        };
        let total = usize::from(header.total);
        let known = self.packets.iter().position(|p| p.id == header.id);
        let begun = known.or_else(|| self.begin(header.id, total, now, &mut dropped));
        let Some(at) = begun else {
            return Reassembled::Refused(DropReason::FragmentOverflow);
        };
        let packet = &mut self.packets[at];
        if packet.buffer.len() != total || !packet.add(usize::from(header.offset), piece) {
            self.remove(at);
            return Reassembled::Refused(DropReason::FragmentInvalid);
        }
        if packet.missing > 0 {
            return Reassembled::Waiting;
        }
        Reassembled::Whole(self.remove(at))
    }

    /// Gives up what has waited too long. To be called now and then, too: perhaps no other piece comes.
    // PROTOCOL SM-MT-4
    pub(crate) fn expire(&mut self, now: Instant, mut dropped: impl FnMut(DropReason)) {
        while let Some(oldest) = self.packets.front()
            && now.saturating_duration_since(oldest.began) > AGE_MAX
        {
            self.remove(0);
            dropped(DropReason::FragmentExpired);
        }
    }

    /// Makes room for another packet, and a place. `None`: others hold what there is.
    fn begin(
        &mut self,
        id: u32,
        total: usize,
        now: Instant,
        dropped: &mut impl FnMut(DropReason),
    ) -> Option<usize> {
        while self.packets.len() >= PACKETS_MAX || !self.hold.take(total, BYTES_MAX) {
            if self.packets.is_empty() {
                return None;
            }
            self.remove(0);
            dropped(DropReason::FragmentOverflow);
        }
        self.packets.push_back(Unfinished {
            id,
            began: now,
            buffer: vec![0; total],
            missing: total,
            pieces: Vec::new(),
        });
        Some(self.packets.len() - 1)
    }

    fn remove(&mut self, at: usize) -> Vec<u8> {
        let packet = self.packets.remove(at).map(|packet| packet.buffer);
        let buffer = packet.unwrap_or_default();
        self.hold.give_back(buffer.len());
        buffer
    }
}

impl Unfinished {
    /// False when the piece overlaps another. It lies within the packet: the header was checked.
    fn add(&mut self, offset: usize, piece: &[u8]) -> bool {
        let end = offset + piece.len();
        let at = self.pieces.partition_point(|(start, _)| *start < offset);
        let after_previous = at == 0 || self.pieces[at - 1].1 <= offset;
        let before_next = self.pieces.get(at).is_none_or(|(start, _)| end <= *start);
        if !after_previous || !before_next {
            return false;
        }
        self.pieces.insert(at, (offset, end));
        self.buffer[offset..end].copy_from_slice(piece);
        self.missing -= piece.len();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;
    use proptest::prelude::*;

    fn body(id: u32, packet: &[u8], offset: usize, len: usize) -> Vec<u8> {
        let header = FragmentHeader {
            id,
            total: packet.len() as u16,
            offset: offset as u16,
        };
        let mut body = header.encode().to_vec();
        body.extend_from_slice(&packet[offset..offset + len]);
        body
    }

    fn bodies(id: u32, packet: &[u8], inner_len_max: usize) -> Vec<Vec<u8>> {
        pieces(packet.len(), inner_len_max)
            .map(|(offset, len)| body(id, packet, offset, len))
            .collect()
    }

    fn none(reason: DropReason) {
        panic!("dropped: {reason:?}");
    }

    proptest! {
        // PROTOCOL SM-MT-3
        #[test]
        fn pieces_in_any_order_make_the_packet_again(
            packet in proptest::collection::vec(any::<u8>(), 600..5000),
            inner_len_max in 518usize..1500,
            order: u64,
        ) {
            use rand::seq::SliceRandom;
            use rand::{SeedableRng, rngs::StdRng};
            let mut bodies = bodies(9, &packet, inner_len_max);
            prop_assert!(bodies.iter().all(|b| b.len() <= inner_len_max));
            bodies.shuffle(&mut StdRng::seed_from_u64(order));
            let mut reassembler = Reassembler::default();
            let last = bodies.pop().unwrap();
            for body in &bodies {
                prop_assert_eq!(reassembler.push(body, start(), none), Reassembled::Waiting);
            }
            prop_assert_eq!(reassembler.push(&last, start(), none), Reassembled::Whole(packet));
            prop_assert_eq!((reassembler.hold.bytes(), reassembler.packets.len()), (0, 0));
        }

        // PROTOCOL SM-MT-4
        #[test]
        fn whatever_an_authenticated_peer_sends_memory_stays_within_its_limits(
            fragments in proptest::collection::vec(
                (0u32..40, 1u16.., any::<u16>(), 0usize..1500, 0u64..300), 0..300),
        ) {
            let mut reassembler = Reassembler::default();
            let mut now = start();
            for (id, total, offset, len, ms) in fragments {
                now += Duration::from_millis(ms);
                let mut body = FragmentHeader { id, total, offset }.encode().to_vec();
                body.resize(body.len() + len, 0);
                let _ = reassembler.push(&body, now, |_| ());
                prop_assert!(reassembler.hold.bytes() <= BYTES_MAX);
                prop_assert!(reassembler.packets.len() <= PACKETS_MAX);
                let sum: usize = reassembler.packets.iter().map(|p| p.buffer.len()).sum();
                prop_assert_eq!(sum, reassembler.hold.bytes());
                let most = |p: &Unfinished| p.pieces.len() <= p.buffer.len().div_ceil(PIECE_LEN_MIN);
                prop_assert!(reassembler.packets.iter().all(most));
            }
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bodies: Vec<Vec<u8>>) {
            let mut reassembler = Reassembler::default();
            for body in bodies {
                let _ = reassembler.push(&body, start(), |_| ());
            }
        }
    }

    // PROTOCOL SM-MT-4
    #[test]
    fn a_piece_that_overlaps_or_contradicts_takes_its_packet_away() {
        let packet = vec![7; 3000];
        let overlapping = body(1, &packet, 900, 1000);
        let other_total = body(1, &packet[..2500], 1000, 1000);
        let again = body(1, &packet, 0, 1000);
        for second in [overlapping, other_total, again] {
            let mut reassembler = Reassembler::default();
            assert_eq!(
                reassembler.push(&body(1, &packet, 0, 1000), start(), none),
                Reassembled::Waiting
            );
            let refused = Reassembled::Refused(DropReason::FragmentInvalid);
            assert_eq!(reassembler.push(&second, start(), none), refused);
            assert_eq!(
                (reassembler.hold.bytes(), reassembler.packets.len()),
                (0, 0)
            );
        }
    }

    // PROTOCOL SM-MT-4
    #[test]
    fn what_is_never_finished_goes_by_age_and_by_number() {
        let packet = vec![7; 1400];
        let mut reassembler = Reassembler::default();
        let mut dropped = Vec::new();
        for id in 0..PACKETS_MAX as u32 + 3 {
            let first = body(id, &packet, 0, 700);
            reassembler.push(&first, start(), |reason| dropped.push(reason));
        }
        assert_eq!(dropped, [DropReason::FragmentOverflow; 3]);
        dropped.clear();
        let late = start() + AGE_MAX + Duration::from_millis(1);
        let rest = body(20, &packet, 700, 700);
        let waits = reassembler.push(&rest, late, |reason| dropped.push(reason));
        assert_eq!(waits, Reassembled::Waiting);
        assert_eq!(dropped, [DropReason::FragmentExpired; PACKETS_MAX]);
    }

    // PROTOCOL SM-MT-4
    #[test]
    fn what_is_never_finished_goes_without_another_piece_and_what_ends_gives_back_all() {
        let packet = vec![7; 60_000];
        let memory = Arc::new(Memory::default());
        let mut reassembler = Reassembler::new(&memory);
        let mut dropped = Vec::new();
        for id in 0..2 {
            let _ = reassembler.push(&body(id, &packet, 0, 300), start(), none);
        }
        assert_eq!(memory.held(), 120_000);
        reassembler.expire(start() + AGE_MAX, none);
        let late = start() + AGE_MAX + Duration::from_millis(1);
        reassembler.expire(late, |reason| dropped.push(reason));
        assert_eq!(dropped, [DropReason::FragmentExpired; 2]);
        assert_eq!(memory.held(), 0);
        let _ = reassembler.push(&body(3, &packet, 0, 300), late, none);
        drop(reassembler);
        assert_eq!(memory.held(), 0);
    }

    // PROTOCOL SM-MT-4
    #[test]
    fn sessions_that_hold_what_they_can_leave_room_for_the_packets_of_another() {
        let memory = Arc::new(Memory::default());
        let long = vec![7; 65_535];
        let mut greedy: Vec<_> = (0..120).map(|_| Reassembler::new(&memory)).collect();
        for (n, reassembler) in greedy.iter_mut().enumerate() {
            for len in [65_535, 30_000, 9000, 1500] {
                let first = body(n as u32 * 4 + len as u32, &long[..len], 0, 300);
                let _ = reassembler.push(&first, start(), |_| ());
            }
        }
        assert!(memory.held() <= crate::memory::HELD_MAX);
        let mut honest = Reassembler::new(&memory);
        let packet = vec![9; 1500];
        let bodies = bodies(1, &packet, 1162);
        assert_eq!(honest.push(&bodies[0], start(), none), Reassembled::Waiting);
        assert_eq!(
            honest.push(&bodies[1], start(), none),
            Reassembled::Whole(packet)
        );
    }

    #[test]
    fn an_inner_packet_of_1280_needs_three_pieces_on_the_smallest_path() {
        assert_eq!(pieces(1280, 518).len(), 3);
        assert_eq!(pieces(65_535, 518).len(), 129);
    }
}
