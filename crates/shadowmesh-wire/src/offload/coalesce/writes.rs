//! The writes of a batch, in flat vectors that are filled anew for every batch.
//!
//! Runs of several flows grow at the same time, so the pieces of a write lie scattered over one
//! vector and are linked by number.

use std::{io::IoSlice, ops::Range};

use crate::offload::{VNET_HDR_LEN, VnetHdr};

/// Packets in one write. The kernel takes no more than 64 UDP segments out of one
/// (`UDP_MAX_SEGMENTS`, 128 since Linux 6.9), and 64 KB of TCP at the usual sizes are fewer.
pub(super) const PIECES_MAX: usize = 64;

/// Longest IP header without options or extensions (40), and longest TCP header (60), rounded up.
pub(super) const HEADER_LEN_MAX: usize = 128;

/// Most slices of one write: virtio header, packet header, payloads.
pub const IOV_LEN_MAX: usize = 2 + PIECES_MAX;

const NO_PIECE: u32 = u32::MAX;
const PLAIN: [u8; VNET_HDR_LEN] = [0; VNET_HDR_LEN];

/// Number of a write in its batch.
pub(super) type WriteId = usize;

#[derive(Debug, Default)]
pub(super) struct WriteList {
    writes: Vec<Record>,
    pieces: Vec<Piece>,
    /// Headers of merged packets.
    headers: Vec<[u8; HEADER_LEN_MAX]>,
}

#[derive(Debug)]
struct Record {
    vnet: [u8; VNET_HDR_LEN],
    /// Number in `headers`, if merged.
    header: u32,
    /// Zero if not merged.
    header_len: u8,
    first: u32,
    last: u32,
}

#[derive(Debug)]
struct Piece {
    at: usize,
    len: usize,
    next: u32,
}

impl WriteList {
    pub(super) fn clear(&mut self) {
        self.writes.clear();
        self.pieces.clear();
        self.headers.clear();
    }

    /// A write of one packet as it stands.
    #[inline]
    pub(super) fn push(&mut self, at: usize, len: usize) -> WriteId {
        let piece = self.push_piece(at, len);
        self.writes.push(Record {
            vnet: PLAIN,
            header: 0,
            header_len: 0,
            first: piece,
            last: piece,
        });
        self.writes.len() - 1
    }

    /// Adds a payload to a write.
    #[inline]
    pub(super) fn extend(&mut self, write: WriteId, at: usize, len: usize) {
        let piece = self.push_piece(at, len);
        let last = std::mem::replace(&mut self.writes[write].last, piece);
        self.pieces[last as usize].next = piece;
    }

    /// Makes a write of several pieces a merged packet: from here on the header of its first packet
    /// comes from us and no longer from the buffer.
    pub(super) fn set_header(
        &mut self,
        write: WriteId,
        vnet: VnetHdr,
        header: [u8; HEADER_LEN_MAX],
        header_len: usize,
    ) {
        let record = &mut self.writes[write];
        record.vnet = vnet.to_bytes();
        record.header = self.headers.len() as u32;
        record.header_len = header_len as u8;
        self.headers.push(header);
        let first = &mut self.pieces[record.first as usize];
        first.at += header_len;
        first.len -= header_len;
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Write<'_>> {
        self.writes.iter().map(|record| Write {
            vnet: &record.vnet,
            header: match record.header_len {
                0 => &[],
                len => &self.headers[record.header as usize][..usize::from(len)],
            },
            pieces: Pieces {
                list: &self.pieces,
                next: record.first,
            },
        })
    }

    fn push_piece(&mut self, at: usize, len: usize) -> u32 {
        self.pieces.push(Piece {
            at,
            len,
            next: NO_PIECE,
        });
        (self.pieces.len() - 1) as u32
    }
}

/// One write to the device: virtio header, packet header if the packet was merged, and ranges of
/// the receive buffer.
#[derive(Debug, Clone)]
pub struct Write<'a> {
    vnet: &'a [u8; VNET_HDR_LEN],
    header: &'a [u8],
    pieces: Pieces<'a>,
}

impl<'a> Write<'a> {
    /// The virtio header.
    pub fn vnet(&self) -> &'a [u8; VNET_HDR_LEN] {
        self.vnet
    }

    /// The rewritten packet header; empty when the write is one packet as it was received.
    pub fn header(&self) -> &'a [u8] {
        self.header
    }

    /// What follows, as ranges of the receive buffer.
    pub fn pieces(&self) -> Pieces<'a> {
        self.pieces.clone()
    }

    /// Fills `iov` for one vectored write and returns how many slices it takes. `buffer` is the
    /// receive buffer that the offsets given to [`Coalescer::push`](super::Coalescer::push) count
    /// from.
    ///
    /// # Panics
    /// When `buffer` is not that buffer but a shorter one.
    #[inline]
    pub fn gather(&self, buffer: &'a [u8], iov: &mut [IoSlice<'a>; IOV_LEN_MAX]) -> usize {
        iov[0] = IoSlice::new(self.vnet);
        let mut len = 1;
        if !self.header.is_empty() {
            iov[len] = IoSlice::new(self.header);
            len += 1;
        }
        for range in self.pieces() {
            iov[len] = IoSlice::new(&buffer[range]);
            len += 1;
        }
        len
    }
}

/// Ranges of the receive buffer, in order.
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    list: &'a [Piece],
    next: u32,
}

impl Iterator for Pieces<'_> {
    type Item = Range<usize>;

    #[inline]
    fn next(&mut self) -> Option<Range<usize>> {
        let piece = self.list.get(self.next as usize)?;
        self.next = piece.next;
        Some(piece.at..piece.at + piece.len)
    }
}
