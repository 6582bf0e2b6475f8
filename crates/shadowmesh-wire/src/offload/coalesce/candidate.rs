//! Which packets may be merged at all, judged one by one.

use crate::{
    ip::{IPV4_HEADER_LEN_MIN, IPV6_HEADER_LEN, IpVersion, PROTOCOL_TCP, PROTOCOL_UDP},
    offload::{
        TCP_CHECKSUM_AT, TCP_HEADER_LEN_MIN, UDP_CHECKSUM_AT, UDP_HEADER_LEN, checksum, get_u16,
        get_u32, get_u128, tcp_flag,
    },
};

/// More fragments, or an offset.
const IPV4_FRAGMENT_BITS: u16 = 0x3fff;

/// IPv6 extension headers behind which a transport header may hide (RFC 8200 §4): hop-by-hop
/// options, routing, fragment, destination options.
const IPV6_EXTENSIONS: [u8; 4] = [0, 43, 44, 60];

/// What a packet means to the runs that are open.
pub(super) enum Judged<'a> {
    /// May open or extend a run.
    Mergeable(Candidate<'a>),
    /// Stands alone, and later packets of its flow must not overtake it.
    InFlow(FlowKey),
    /// Stands alone and belongs to no flow that could be merged.
    NoFlow,
    /// Stands alone, and its flow can not be told: nothing may overtake it.
    Barrier,
}

/// Whose order must be kept. Of numbers and not of bytes, as it is copied and compared for every packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowKey {
    protocol: u8,
    version: IpVersion,
    ports: u32,
    /// Addresses; of IPv4 in the low bits.
    source: u128,
    destination: u128,
}

/// A packet that is whole, has data, and carries no sign that must arrive alone. Its checksums are
/// not verified yet: see [`Candidate::checksums_hold`].
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    key: FlowKey,
    packet: &'a [u8],
    transport_at: usize,
    header_len: usize,
}

#[inline]
pub(super) fn judge(packet: &[u8], merge_udp: bool) -> Judged<'_> {
    let (version, protocol, transport_at) = match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= IPV4_HEADER_LEN_MIN => {
            if get_u16(packet, 6) & IPV4_FRAGMENT_BITS != 0 {
                return Judged::Barrier;
            }
            (IpVersion::V4, packet[9], IPV4_HEADER_LEN_MIN)
        }
        Some(6) if packet.len() >= IPV6_HEADER_LEN => (IpVersion::V6, packet[6], IPV6_HEADER_LEN),
        _ => return Judged::NoFlow,
    };
    match protocol {
        PROTOCOL_TCP => {}
        PROTOCOL_UDP if merge_udp => {}
        // Unmerged UDP keeps the order of the writes.
        PROTOCOL_UDP => return Judged::NoFlow,
        extension if version == IpVersion::V6 && IPV6_EXTENSIONS.contains(&extension) => {
            return Judged::Barrier;
        }
        _ => return Judged::NoFlow,
    }
    if !is_plain(version, packet) || packet.len() < transport_at + UDP_HEADER_LEN {
        return Judged::Barrier;
    }
    let key = FlowKey::read(version, protocol, packet, transport_at);
    let header_len = match protocol {
        PROTOCOL_TCP => tcp_header_len(&packet[transport_at..]),
        _ => udp_header_len(&packet[transport_at..]),
    };
    match header_len {
        Some(len) => Judged::Mergeable(Candidate {
            key,
            packet,
            transport_at,
            header_len: transport_at + len,
        }),
        None => Judged::InFlow(key),
    }
}

/// The packet is as long as its header says, and has no IPv4 options.
fn is_plain(version: IpVersion, packet: &[u8]) -> bool {
    match version {
        IpVersion::V4 => packet[0] == 0x45 && usize::from(get_u16(packet, 2)) == packet.len(),
        IpVersion::V6 => usize::from(get_u16(packet, 4)) + IPV6_HEADER_LEN == packet.len(),
    }
}

/// Length of the TCP header, if the segment has data and nothing but ACK and PSH is set.
fn tcp_header_len(segment: &[u8]) -> Option<usize> {
    if segment.len() < TCP_HEADER_LEN_MIN {
        return None;
    }
    let len = usize::from(segment[12] >> 4) * 4;
    // The low bits of byte 12 are reserved, or AccECN's: a count that must not be merged away.
    let plain = segment[12] & 0x0f == 0 && segment[13] & !tcp_flag::PSH == tcp_flag::ACK;
    (plain && len >= TCP_HEADER_LEN_MIN && segment.len() > len).then_some(len)
}

/// Length of the UDP header, if the datagram has data, a checksum and a true length.
fn udp_header_len(datagram: &[u8]) -> Option<usize> {
    let true_len = usize::from(get_u16(datagram, 4)) == datagram.len();
    let has_checksum = get_u16(datagram, UDP_CHECKSUM_AT) != 0;
    (true_len && has_checksum && datagram.len() > UDP_HEADER_LEN).then_some(UDP_HEADER_LEN)
}

impl FlowKey {
    #[inline]
    fn read(version: IpVersion, protocol: u8, packet: &[u8], transport_at: usize) -> Self {
        let (source, destination) = match version {
            IpVersion::V4 => (get_u32(packet, 12).into(), get_u32(packet, 16).into()),
            IpVersion::V6 => (get_u128(packet, 8), get_u128(packet, 24)),
        };
        Self {
            protocol,
            version,
            ports: get_u32(packet, transport_at),
            source,
            destination,
        }
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.protocol == PROTOCOL_TCP
    }

    pub(super) fn version(&self) -> IpVersion {
        self.version
    }

    pub(super) fn protocol(&self) -> u8 {
        self.protocol
    }
}

impl<'a> Candidate<'a> {
    pub(super) fn key(&self) -> &FlowKey {
        &self.key
    }

    /// Bytes of the whole packet.
    pub(super) fn len(&self) -> usize {
        self.packet.len()
    }

    pub(super) fn header_len(&self) -> usize {
        self.header_len
    }

    pub(super) fn payload_len(&self) -> usize {
        self.packet.len() - self.header_len
    }

    pub(super) fn ip_header(&self) -> &'a [u8] {
        &self.packet[..self.transport_at]
    }

    pub(super) fn transport_header(&self) -> &'a [u8] {
        &self.packet[self.transport_at..self.header_len]
    }

    /// Of a TCP segment only.
    pub(super) fn sequence(&self) -> u32 {
        get_u32(self.transport_header(), 4)
    }

    /// PSH says that the application wants this now: no segment may follow in the run.
    pub(super) fn ends_run(&self) -> bool {
        self.key.is_tcp() && self.transport_header()[13] & tcp_flag::PSH != 0
    }

    /// Whether the IPv4 header and the transport checksum are right. A merged packet gets new ones,
    /// so a wrong one must never get so far: the kernel would take the damage for good. Nor must a right
    /// one that is written as all ones where segmentation writes zero, the other form of the same sum
    /// (RFC 1071 §2); of UDP all ones is the only form there is.
    // PROTOCOL SM-DV-1
    #[inline]
    pub(super) fn checksums_hold(&self) -> bool {
        const RIGHT: u16 = 0xffff;
        const OTHER_ZERO: u16 = 0xffff;
        let version = self.key.version;
        let ip_header = self.ip_header();
        if version == IpVersion::V4
            && (checksum::sum(ip_header) != RIGHT || get_u16(ip_header, 10) == OTHER_ZERO)
        {
            return false;
        }
        let segment = &self.packet[self.transport_at..];
        if self.key.is_tcp() && get_u16(segment, TCP_CHECKSUM_AT) == OTHER_ZERO {
            return false;
        }
        let sum = checksum::pseudo_header(version, ip_header, self.key.protocol)
            + segment.len() as u64
            + u64::from(checksum::sum(segment));
        checksum::fold(sum) == RIGHT
    }
}
