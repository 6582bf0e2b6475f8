//! A run: consecutive packets of one flow that will be one write.

use super::{
    candidate::{Candidate, FlowKey},
    writes::{HEADER_LEN_MAX, PIECES_MAX, WriteId, WriteList},
};
use crate::{
    ip::{IPV6_HEADER_LEN, IpVersion},
    offload::{
        GsoType, PACKET_LEN_MAX, TCP_CHECKSUM_AT, UDP_CHECKSUM_AT, VnetHdr, checksum, get_u16,
        put_u16, tcp_flag,
    },
};

/// "Don't fragment" in the byte of the IPv4 flags.
const IPV4_DF: u8 = 0x40;

#[derive(Debug)]
pub(super) struct Run {
    write: WriteId,
    key: FlowKey,
    /// Headers of the first packet.
    header: [u8; HEADER_LEN_MAX],
    header_len: usize,
    transport_at: usize,
    /// Payload of the first packet, and so of all but the last.
    gso_size: usize,
    /// Bytes of the merged packet so far.
    len: usize,
    packets: usize,
    /// Where the next segment must begin (TCP).
    next_sequence: u32,
    /// IPv4 id the next packet must have, unless DF is set.
    next_id: u16,
    over: bool,
    /// The last packet carries PSH.
    push: bool,
}

impl Run {
    /// A run of one packet, which already is a write.
    #[inline]
    pub(super) fn new(write: WriteId, first: &Candidate<'_>) -> Self {
        let mut header = [0; HEADER_LEN_MAX];
        let ip_header = first.ip_header();
        let (ip, rest) = header.split_at_mut(ip_header.len());
        ip.copy_from_slice(ip_header);
        rest[..first.transport_header().len()].copy_from_slice(first.transport_header());
        Self {
            write,
            key: *first.key(),
            header,
            header_len: first.header_len(),
            transport_at: ip_header.len(),
            gso_size: first.payload_len(),
            len: first.len(),
            packets: 1,
            next_sequence: next_sequence(first),
            next_id: next_id(ip_header),
            over: false,
            push: false,
        }
    }

    pub(super) fn key(&self) -> &FlowKey {
        &self.key
    }

    pub(super) fn write(&self) -> WriteId {
        self.write
    }

    /// No further packet may join.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether the packet of the same flow may be the next of the run: then, and only then, the
    /// kernel's segmentation of the merged packet gives it back.
    // PROTOCOL SM-DV-1
    #[inline]
    pub(super) fn accepts(&self, candidate: &Candidate<'_>) -> bool {
        let payload_len = candidate.payload_len();
        payload_len <= self.gso_size
            && self.len + payload_len <= PACKET_LEN_MAX
            && candidate.header_len() == self.header_len
            && self.same_ip_header(candidate.ip_header())
            && (!self.key.is_tcp() || self.next_in_stream(candidate))
    }

    /// Adds a packet that was accepted. A shorter one is the last of its run.
    #[inline]
    pub(super) fn extend(&mut self, candidate: &Candidate<'_>) {
        self.len += candidate.payload_len();
        self.packets += 1;
        self.next_sequence = next_sequence(candidate);
        self.next_id = next_id(candidate.ip_header());
        self.push = candidate.ends_run();
        self.over =
            self.push || candidate.payload_len() < self.gso_size || self.packets == PIECES_MAX;
    }

    /// Gives the write its header, if it became more than the one packet it began as.
    pub(super) fn finish(mut self, writes: &mut WriteList) {
        if self.packets == 1 {
            return;
        }
        self.finish_ip();
        let gso = self.finish_transport();
        let vnet = VnetHdr::merged(gso, self.transport_at, self.header_len, self.gso_size);
        writes.set_header(self.write, vnet, self.header, self.header_len);
    }

    fn same_ip_header(&self, other: &[u8]) -> bool {
        let ours = &self.header[..self.transport_at];
        match self.key.version() {
            // TOS; flags; TTL. With DF set the id means nothing (RFC 6864 §4.1) and many hosts send
            // a constant; without it, ids must count up as segmentation would make them.
            IpVersion::V4 => {
                ours[1] == other[1]
                    && ours[6..9] == other[6..9]
                    && (other[6] & IPV4_DF != 0 || get_u16(other, 4) == self.next_id)
            }
            // Traffic class and flow label; hop limit.
            IpVersion::V6 => ours[..4] == other[..4] && ours[7] == other[7],
        }
    }

    /// Sequence, acknowledgement, data offset, window, urgent pointer and options. Flags were
    /// judged before: only ACK and PSH may be set.
    fn next_in_stream(&self, candidate: &Candidate<'_>) -> bool {
        let ours = &self.header[self.transport_at..self.header_len];
        let other = candidate.transport_header();
        candidate.sequence() == self.next_sequence
            && ours[8..13] == other[8..13]
            && ours[14..16] == other[14..16]
            && ours[18..] == other[18..]
    }

    fn finish_ip(&mut self) {
        match self.key.version() {
            IpVersion::V4 => {
                put_u16(&mut self.header, 2, self.len as u16);
                put_u16(&mut self.header, 10, 0);
                let sum = checksum::sum(&self.header[..self.transport_at]);
                put_u16(&mut self.header, 10, !sum);
            }
            IpVersion::V6 => {
                put_u16(&mut self.header, 4, (self.len - IPV6_HEADER_LEN) as u16);
            }
        }
    }

    /// The checksum field gets the sum of the pseudo-header, folded and not inverted; the kernel,
    /// or the hardware behind it, adds the rest.
    fn finish_transport(&mut self) -> GsoType {
        let len = self.len - self.transport_at;
        let pseudo = checksum::pseudo_header(self.key.version(), &self.header, self.key.protocol());
        let sum = checksum::fold(pseudo + len as u64);
        let transport = &mut self.header[self.transport_at..];
        if self.key.is_tcp() {
            if self.push {
                transport[13] |= tcp_flag::PSH;
            }
            put_u16(transport, TCP_CHECKSUM_AT, sum);
        } else {
            put_u16(transport, 4, len as u16);
            put_u16(transport, UDP_CHECKSUM_AT, sum);
        }
        match (self.key.is_tcp(), self.key.version()) {
            (true, IpVersion::V4) => GsoType::Tcp4,
            (true, IpVersion::V6) => GsoType::Tcp6,
            (false, _) => GsoType::UdpL4,
        }
    }
}

#[inline]
fn next_sequence(candidate: &Candidate<'_>) -> u32 {
    if candidate.key().is_tcp() {
        candidate
            .sequence()
            .wrapping_add(candidate.payload_len() as u32)
    } else {
        0
    }
}

#[inline]
fn next_id(ip_header: &[u8]) -> u16 {
    get_u16(ip_header, 4).wrapping_add(1)
}
