//! One super-packet into the segments that go over the wire.
//!
//! HOT PATH. All that is the same in every segment is summed once; for a segment remain its copy
//! and the sum of its payload.

use super::{
    GsoType, PACKET_LEN_MAX, TCP_CHECKSUM_AT, TCP_HEADER_LEN_MIN, UDP_CHECKSUM_AT, UDP_HEADER_LEN,
    VnetHdr, checksum, get_u16, get_u32, put_u16, tcp_flag,
};
use crate::ip::{IPV4_HEADER_LEN_MIN, IPV6_HEADER_LEN, IpVersion, PROTOCOL_TCP, PROTOCOL_UDP};

/// The segments of one packet read from the device.
///
/// ```
/// use shadowmesh_wire::offload::{Split, VNET_HDR_LEN, VnetHdr};
///
/// fn each_segment(read: &mut [u8], mut send: impl FnMut(&[u8])) {
///     let Some(header) = VnetHdr::parse(read) else { return };
///     let Ok(mut split) = Split::new(header, &mut read[VNET_HDR_LEN..]) else { return };
///     let mut out = vec![0; split.segment_len_max()];
///     while let Some(len) = split.write_next(&mut out) {
///         send(&out[..len]);
///     }
/// }
/// # each_segment(&mut [0; 10], |_| ());
/// ```
#[derive(Debug)]
pub struct Split<'a> {
    packet: &'a [u8],
    /// How to cut; `None` for a packet that is one segment as it stands.
    cut: Option<Cut>,
    count: usize,
    next: usize,
}

/// What [`Split`] knows about a super-packet.
#[derive(Debug)]
struct Cut {
    version: IpVersion,
    transport: Transport,
    /// Where the transport header starts.
    transport_at: usize,
    /// Bytes of all headers.
    header_len: usize,
    /// Payload bytes of every segment but the last.
    gso_size: usize,
    /// Sum of the IPv4 header without total length, id and checksum.
    ip_sum: u64,
    /// Sum of pseudo-header and transport header without all that changes.
    transport_sum: u64,
}

#[derive(Debug)]
enum Transport {
    Tcp { sequence: u32, flags: u8 },
    Udp,
}

impl<'a> Split<'a> {
    /// Judges a packet and the virtio header it came with. An unfinished checksum of a packet that
    /// is not to be cut is finished in place, hence the `mut`.
    // PROTOCOL SM-DV-1
    #[inline]
    pub fn new(header: VnetHdr, packet: &'a mut [u8]) -> Result<Self, SplitError> {
        let cut = match header.gso() {
            GsoType::None => {
                if header.needs_csum() {
                    finish_checksum(&header, packet)?;
                }
                None
            }
            gso => Some(Cut::new(gso, &header, packet)?),
        };
        let packet: &'a [u8] = packet;
        let count = match &cut {
            None => 1,
            Some(cut) => (packet.len() - cut.header_len)
                .div_ceil(cut.gso_size)
                .max(1),
        };
        Ok(Self {
            packet,
            cut,
            count,
            next: 0,
        })
    }

    /// The packet as a whole. Its addresses are those of every segment.
    pub fn packet(&self) -> &[u8] {
        self.packet
    }

    /// Bytes of the longest segment.
    pub fn segment_len_max(&self) -> usize {
        match &self.cut {
            None => self.packet.len(),
            Some(cut) => self.packet.len().min(cut.header_len + cut.gso_size),
        }
    }

    /// Segments in all, at least one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Segments that [`Self::write_next`] has yet to write.
    pub fn remaining(&self) -> usize {
        self.count - self.next
    }

    /// Leaves the next segment out, as if it were lost on the way.
    pub fn skip_next(&mut self) {
        self.next = self.count.min(self.next + 1);
    }

    /// Writes the next segment to the front of `out` and returns its length; `None` when all were
    /// written.
    ///
    /// # Panics
    /// When `out` is shorter than [`Self::segment_len_max`]: that is the caller's to check, once
    /// for all segments.
    // PROTOCOL SM-DV-1
    #[inline]
    pub fn write_next(&mut self, out: &mut [u8]) -> Option<usize> {
        if self.next == self.count {
            return None;
        }
        let number = self.next;
        self.next += 1;
        let Some(cut) = &self.cut else {
            out[..self.packet.len()].copy_from_slice(self.packet);
            return Some(self.packet.len());
        };
        let start = cut.header_len + number * cut.gso_size;
        let end = self.packet.len().min(start + cut.gso_size);
        let out = &mut out[..cut.header_len + end - start];
        out[..cut.header_len].copy_from_slice(&self.packet[..cut.header_len]);
        out[cut.header_len..].copy_from_slice(&self.packet[start..end]);
        cut.finish_ip(out, number);
        cut.finish_transport(out, number, self.next == self.count);
        Some(out.len())
    }
}

impl Cut {
    fn new(gso: GsoType, header: &VnetHdr, packet: &[u8]) -> Result<Self, SplitError> {
        let (version, protocol) = match gso {
            GsoType::Tcp4 => (IpVersion::V4, PROTOCOL_TCP),
            GsoType::Tcp6 => (IpVersion::V6, PROTOCOL_TCP),
            GsoType::UdpL4 => (version_of(packet)?, PROTOCOL_UDP),
            GsoType::Other(other) => return Err(SplitError::GsoType(other)),
            GsoType::None => return Err(SplitError::GsoType(0)),
        };
        let transport_at = usize::from(header.csum_start);
        check_ip_header(version, protocol, transport_at, packet)?;
        let csum_offset = usize::from(header.csum_offset);
        let (transport, header_len) = read_transport(protocol, csum_offset, transport_at, packet)?;
        let gso_size = usize::from(header.gso_size);
        // Every GSO packet leaves its checksum to be finished (virtio 1.2 §5.1.6.2.1).
        if gso_size == 0 || !header.needs_csum() {
            return Err(SplitError::Header);
        }
        if packet.len().min(header_len + gso_size) > PACKET_LEN_MAX {
            return Err(SplitError::TooLong);
        }
        let mut constant = [0; PACKET_HEADER_LEN_MAX];
        let constant = constant.get_mut(..header_len).ok_or(SplitError::Header)?;
        constant.copy_from_slice(&packet[..header_len]);
        Ok(Self {
            ip_sum: ip_sum(version, constant, transport_at),
            transport_sum: pseudo_sum(packet, transport_at, csum_offset)
                + transport_sum(&transport, &mut constant[transport_at..]),
            version,
            transport,
            transport_at,
            header_len,
            gso_size,
        })
    }

    #[inline]
    fn finish_ip(&self, segment: &mut [u8], number: usize) {
        match self.version {
            IpVersion::V4 => {
                let total_len = segment.len() as u16;
                let id = get_u16(segment, 4).wrapping_add(number as u16);
                let sum = self.ip_sum + u64::from(total_len) + u64::from(id);
                put_u16(segment, 2, total_len);
                put_u16(segment, 4, id);
                put_u16(segment, 10, !checksum::fold(sum));
            }
            IpVersion::V6 => {
                put_u16(segment, 4, (segment.len() - IPV6_HEADER_LEN) as u16);
            }
        }
    }

    #[inline]
    fn finish_transport(&self, segment: &mut [u8], number: usize, last: bool) {
        let payload_sum = u64::from(checksum::sum(&segment[self.header_len..]));
        let segment = &mut segment[self.transport_at..];
        // The length counts in the pseudo-header; UDP writes it in its own header too.
        let len = segment.len() as u16;
        let sum = self.transport_sum + payload_sum + u64::from(len);
        match self.transport {
            Transport::Tcp { sequence, flags } => {
                let sequence = sequence.wrapping_add((number * self.gso_size) as u32);
                let flags = segment_flags(flags, number == 0, last);
                segment[4..8].copy_from_slice(&sequence.to_be_bytes());
                segment[13] = flags;
                let sum = sum + u64::from(sequence) + u64::from(flags);
                put_u16(segment, TCP_CHECKSUM_AT, !checksum::fold(sum));
            }
            Transport::Udp => {
                put_u16(segment, 4, len);
                put_u16(
                    segment,
                    UDP_CHECKSUM_AT,
                    never_zero(!checksum::fold(sum + u64::from(len))),
                );
            }
        }
    }
}

/// Longest IPv4 header and longest TCP header; an IPv6 packet whose extension headers need more
/// is no case that the kernel makes super-packets of.
const PACKET_HEADER_LEN_MAX: usize = 128;

fn version_of(packet: &[u8]) -> Result<IpVersion, SplitError> {
    match packet.first().ok_or(SplitError::Header)? >> 4 {
        4 => Ok(IpVersion::V4),
        6 => Ok(IpVersion::V6),
        _ => Err(SplitError::Header),
    }
}

fn check_ip_header(
    version: IpVersion,
    protocol: u8,
    transport_at: usize,
    packet: &[u8],
) -> Result<(), SplitError> {
    if version_of(packet)? != version {
        return Err(SplitError::Header);
    }
    let fits = packet.len() > transport_at
        && match version {
            IpVersion::V4 => {
                transport_at >= IPV4_HEADER_LEN_MIN
                    && transport_at == usize::from(packet[0] & 0x0f) * 4
                    && packet[9] == protocol
            }
            // Extension headers may stand between; csum_start is the kernel's word for where the
            // transport header is.
            IpVersion::V6 => transport_at >= IPV6_HEADER_LEN,
        };
    if fits {
        Ok(())
    } else {
        Err(SplitError::Header)
    }
}

/// The transport header and the length of all headers, from csum_start and the TCP data offset:
/// `hdr_len` of the virtio header is only a hint.
fn read_transport(
    protocol: u8,
    csum_offset: usize,
    at: usize,
    packet: &[u8],
) -> Result<(Transport, usize), SplitError> {
    let header = &packet[at..];
    let (transport, checksum_at, len) = if protocol == PROTOCOL_TCP {
        if header.len() < TCP_HEADER_LEN_MIN {
            return Err(SplitError::Header);
        }
        let len = usize::from(header[12] >> 4) * 4;
        if len < TCP_HEADER_LEN_MIN {
            return Err(SplitError::Header);
        }
        let tcp = Transport::Tcp {
            sequence: get_u32(header, 4),
            flags: header[13],
        };
        (tcp, TCP_CHECKSUM_AT, len)
    } else {
        (Transport::Udp, UDP_CHECKSUM_AT, UDP_HEADER_LEN)
    };
    if header.len() < len || csum_offset != checksum_at {
        return Err(SplitError::Header);
    }
    Ok((transport, at + len))
}

/// Sum of the pseudo-header without the length, out of the checksum field, where the kernel left it with
/// the length of the whole. Not out of the addresses: behind a routing header or an IPv4 source route
/// the checksum is over the last stop, and the header names only the next.
fn pseudo_sum(packet: &[u8], transport_at: usize, csum_offset: usize) -> u64 {
    let whole = checksum::fold((packet.len() - transport_at) as u64);
    // To subtract in ones' complement is to add the inverse (RFC 1071 §2).
    u64::from(get_u16(packet, transport_at + csum_offset)) + u64::from(!whole)
}

/// Sum of an IPv4 header with total length, id and checksum taken as zero.
fn ip_sum(version: IpVersion, header: &mut [u8], transport_at: usize) -> u64 {
    match version {
        IpVersion::V4 => {
            header[2..6].fill(0);
            header[10..12].fill(0);
            u64::from(checksum::sum(&header[..transport_at]))
        }
        IpVersion::V6 => 0,
    }
}

/// Sum of a transport header with all that [`Cut::finish_transport`] writes taken as zero.
fn transport_sum(transport: &Transport, header: &mut [u8]) -> u64 {
    match transport {
        Transport::Tcp { .. } => {
            header[4..8].fill(0);
            header[13] = 0;
            header[TCP_CHECKSUM_AT..TCP_CHECKSUM_AT + 2].fill(0);
        }
        Transport::Udp => header[4..8].fill(0),
    }
    u64::from(checksum::sum(header))
}

/// FIN and PSH belong to the end of the data, CWR (RFC 3168 §6.1.2) to its beginning.
#[inline]
fn segment_flags(flags: u8, first: bool, last: bool) -> u8 {
    let mut flags = flags;
    if !last {
        flags &= !(tcp_flag::FIN | tcp_flag::PSH);
    }
    if !first {
        flags &= !tcp_flag::CWR;
    }
    flags
}

/// Zero in a UDP checksum field means that there is none (RFC 768), so a sum of zero is written as
/// its other form.
#[inline]
fn never_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Finishes the checksum of a packet that is not cut. The field holds the pseudo-header sum.
fn finish_checksum(header: &VnetHdr, packet: &mut [u8]) -> Result<(), SplitError> {
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    if packet.len() < at + 2 {
        return Err(SplitError::Header);
    }
    let checksum = never_zero(!checksum::sum(&packet[start..]));
    put_u16(packet, at, checksum);
    Ok(())
}

/// Why a packet and its virtio header do not go together. All are faults of this machine's kernel
/// or of ours, never of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// A kind of super-packet that was never asked for.
    #[error("GSO type {0} was not asked for")]
    GsoType(u8),
    /// The virtio header contradicts the packet.
    #[error("virtio header contradicts the packet")]
    Header,
    /// A segment would be longer than an IP packet can be.
    #[error("segment longer than 65535 bytes")]
    TooLong,
}
