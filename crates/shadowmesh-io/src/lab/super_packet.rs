//! Many datagrams as one super-packet: sent with `UDP_SEGMENT`, received with `UDP_GRO`, as QUIC
//! libraries do. The kernel carries it in one piece for as long as nobody on the way needs it cut.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::poll::{self, Watch};
use crate::udp::{GSO_BYTES_MAX, RecvBatch, Transmit, UdpLink};

/// The kernel's `UDP_MAX_SEGMENTS` before Linux 6.9, and what GRO on the other side can undo.
pub(super) const SEGMENTS_MAX: usize = 64;

/// Datagrams of one length that differ in a number, back to back.
pub(super) struct SuperPacket {
    link: UdpLink,
    target: SocketAddr,
    contents: Vec<u8>,
    segment_len: usize,
    number_at: usize,
}

impl SuperPacket {
    /// Copies of `payload`, whose eight bytes at `number_at` take each datagram's number, from a
    /// socket of its own.
    pub(super) fn new(target: SocketAddr, payload: &[u8], number_at: usize) -> io::Result<Self> {
        assert!(number_at + 8 <= payload.len(), "no room for the number");
        let unspecified: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let link = UdpLink::bind_unmarked((unspecified, 0).into())?;
        let segments = SEGMENTS_MAX.min(GSO_BYTES_MAX / payload.len());
        Ok(Self {
            link,
            target,
            contents: payload.repeat(segments),
            segment_len: payload.len(),
            number_at,
        })
    }

    /// Datagrams of one full super-packet.
    pub(super) fn segments(&self) -> usize {
        self.contents.len() / self.segment_len
    }

    /// Sends `count` datagrams (at most [`segments`](Self::segments)) with the numbers from `first` on
    /// with one call. A kernel or a route that would have them one by one is an error: the measurement
    /// would not be what it is called.
    pub(super) fn send(&mut self, first: u64, count: usize) -> io::Result<usize> {
        let count = count.min(self.segments());
        let segments = self.contents.chunks_exact_mut(self.segment_len);
        for (number, segment) in (first..).zip(segments.take(count)) {
            segment[self.number_at..self.number_at + 8].copy_from_slice(&number.to_be_bytes());
        }
        let transmit = Transmit {
            remote: self.target,
            local_ip: None,
            traffic_class: 0,
            may_fragment: false,
            segment_size: (count > 1).then_some(self.segment_len),
            contents: &self.contents[..count * self.segment_len],
        };
        while let Err(error) = self.link.send(&transmit) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            poll::wait(&mut [Watch::writable(&self.link)], None)?;
        }
        if self.link.max_gso_segments() < SEGMENTS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel takes no UDP super-packets (UDP_SEGMENT) on this route",
            ));
        }
        Ok(count)
    }
}

/// Takes what is there, at most a batch, and shows the first `N` bytes of every datagram in it that is
/// at least that long; says how many buffers it took, and 0 means that nothing was there.
pub(super) fn receive<const N: usize>(
    link: &UdpLink,
    batch: &mut RecvBatch,
    mut each: impl FnMut(&[u8; N]),
) -> io::Result<usize> {
    let received = match link.recv_batch(batch) {
        Ok(received) => received,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
        Err(error) => return Err(error),
    };
    for (from, bytes) in batch.iter_mut() {
        let heads = bytes.chunks(from.stride);
        heads.filter_map(<[u8]>::first_chunk).for_each(&mut each);
    }
    Ok(received)
}
