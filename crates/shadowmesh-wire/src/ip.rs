//! A checked view of an IP packet.
//!
//! [`IpPacket::parse`] checks version, header length and total length once; after that the
//! accessors cannot fail. Transport headers are not judged here: the router needs addresses and the
//! filter will bring its own view. IPv6 extension headers count as payload, so
//! [`IpPacket::protocol`] is the first next-header value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER_LEN_MIN: usize = 20;
/// Bytes of the fixed IPv6 header.
pub const IPV6_HEADER_LEN: usize = 40;

/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// IPv6 extension headers that are walked past (RFC 8200 §4; §4.4 for the fragment header).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// Limit: more than anybody sends.
const EXTENSION_HEADERS_MAX: usize = 8;

/// IP version of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// An IP packet whose version and lengths were checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// Exactly the packet: what the total length says, link padding cut off.
    bytes: &'a [u8],
    version: IpVersion,
    header_len: usize,
}

impl<'a> IpPacket<'a> {
    /// Checks and wraps. Bytes behind the packet's own total length are left out of the view.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, IpError> {
        let first = *bytes.first().ok_or(IpError::TooShort)?;
        let (version, header_len, total_len) = match first >> 4 {
            4 => Self::lengths_v4(first, bytes)?,
            6 => Self::lengths_v6(bytes)?,
            other => return Err(IpError::Version(other)),
        };
        if total_len < header_len {
            return Err(IpError::Length);
        }
        let bytes = bytes.get(..total_len).ok_or(IpError::Length)?;
        Ok(Self {
            bytes,
            version,
            header_len,
        })
    }

    fn lengths_v4(first: u8, bytes: &[u8]) -> Result<(IpVersion, usize, usize), IpError> {
        let header_len = usize::from(first & 0x0f) * 4;
        if header_len < IPV4_HEADER_LEN_MIN {
            return Err(IpError::Length);
        }
        if bytes.len() < header_len {
            return Err(IpError::TooShort);
        }
        let total_len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        Ok((IpVersion::V4, header_len, total_len))
    }

    fn lengths_v6(bytes: &[u8]) -> Result<(IpVersion, usize, usize), IpError> {
        if bytes.len() < IPV6_HEADER_LEN {
            return Err(IpError::TooShort);
        }
        let payload_len = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
        Ok((
            IpVersion::V6,
            IPV6_HEADER_LEN,
            IPV6_HEADER_LEN + payload_len,
        ))
    }

    /// Version 4 or 6.
    pub fn version(&self) -> IpVersion {
        self.version
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> IpAddr {
        match self.version {
            IpVersion::V4 => self.address_v4(12),
            IpVersion::V6 => self.address_v6(8),
        }
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> IpAddr {
        match self.version {
            IpVersion::V4 => self.address_v4(16),
            IpVersion::V6 => self.address_v6(24),
        }
    }

    /// IPv4 protocol, or the first IPv6 next-header value.
    #[inline]
    pub fn protocol(&self) -> u8 {
        match self.version {
            IpVersion::V4 => self.bytes[9],
            IpVersion::V6 => self.bytes[6],
        }
    }

    /// Bytes of the IP header, IPv4 options included.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// What follows the IP header.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    /// Bytes of the whole packet.
    pub fn total_len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole packet.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Where the transport header is, behind IPv6 extension headers; `None` in all fragments but the
    /// first, which have none, and where the headers are cut off or too many.
    pub fn transport(&self) -> Option<Transport> {
        match self.version {
            IpVersion::V4 => {
                let offset = u16::from_be_bytes([self.bytes[6], self.bytes[7]]) & 0x1fff;
                (offset == 0).then_some(Transport {
                    protocol: self.bytes[9],
                    at: self.header_len,
                })
            }
            IpVersion::V6 => self.transport_v6(),
        }
    }

    fn transport_v6(&self) -> Option<Transport> {
        let (mut protocol, mut at) = (self.bytes[6], IPV6_HEADER_LEN);
        for _ in 0..EXTENSION_HEADERS_MAX {
            let (step, head) = match protocol {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    let head = self.bytes.get(at..at + 2)?;
                    (8 * (usize::from(head[1]) + 1), head)
                }
                FRAGMENT => {
                    let head = self.bytes.get(at..at + 8)?;
                    if u16::from_be_bytes([head[2], head[3]]) & 0xfff8 != 0 {
                        return None;
                    }
                    (8, head)
                }
                _ => return Some(Transport { protocol, at }),
            };
            (protocol, at) = (head[0], at + step);
        }
        None
    }

    fn address_v4(&self, at: usize) -> IpAddr {
        let octets: [u8; 4] = self.bytes[at..at + 4].try_into().expect("slice of four");
        IpAddr::V4(Ipv4Addr::from(octets))
    }

    fn address_v6(&self, at: usize) -> IpAddr {
        let octets: [u8; 16] = self.bytes[at..at + 16]
            .try_into()
            .expect("slice of sixteen");
        IpAddr::V6(Ipv6Addr::from(octets))
    }
}

/// What an IP packet carries, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// IP protocol number.
    pub protocol: u8,
    /// Offset of its header; may be the end of the packet.
    pub at: usize,
}

/// Why bytes are not an IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IpError {
    /// Shorter than the IP header.
    #[error("shorter than an IP header")]
    TooShort,
    /// Neither 4 nor 6.
    #[error("IP version {0}")]
    Version(u8),
    /// A header or total length that contradicts the bytes.
    #[error("IP length field contradicts the packet")]
    Length,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(options: usize, payload: &[u8]) -> Vec<u8> {
        let header_len = IPV4_HEADER_LEN_MIN + options * 4;
        let mut packet = vec![0; header_len];
        packet[0] = 0x40 | (header_len / 4) as u8;
        packet[2..4].copy_from_slice(&((header_len + payload.len()) as u16).to_be_bytes());
        packet[9] = PROTOCOL_UDP;
        packet[12..16].copy_from_slice(&[10, 100, 1, 2]);
        packet[16..20].copy_from_slice(&[10, 100, 3, 4]);
        packet.extend_from_slice(payload);
        packet
    }

    fn v6(payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; IPV6_HEADER_LEN];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet[6] = PROTOCOL_TCP;
        packet[8] = 0xfd;
        packet[39] = 1;
        packet.extend_from_slice(payload);
        packet
    }

    proptest! {
        #[test]
        fn fields_of_ipv4_are_read_and_padding_is_cut(
            options in 0usize..=10,
            payload in proptest::collection::vec(any::<u8>(), 0..100),
            padding in 0usize..20,
        ) {
            let mut bytes = v4(options, &payload);
            let total = bytes.len();
            bytes.extend(std::iter::repeat_n(0xee, padding));
            let packet = IpPacket::parse(&bytes).unwrap();
            prop_assert_eq!(packet.version(), IpVersion::V4);
            prop_assert_eq!(packet.source(), "10.100.1.2".parse::<IpAddr>().unwrap());
            prop_assert_eq!(packet.destination(), "10.100.3.4".parse::<IpAddr>().unwrap());
            prop_assert_eq!(packet.protocol(), PROTOCOL_UDP);
            prop_assert_eq!(packet.payload(), &payload[..]);
            prop_assert_eq!(packet.total_len(), total);
        }

        #[test]
        fn a_packet_cut_short_is_refused(payload in proptest::collection::vec(any::<u8>(), 0..50), cut in 1usize..20) {
            for bytes in [v4(0, &payload), v6(&payload)] {
                let kept = bytes.len() - cut.min(bytes.len());
                prop_assert!(IpPacket::parse(&bytes[..kept]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
            if let Ok(packet) = IpPacket::parse(&bytes) {
                let _ = (packet.source(), packet.destination(), packet.protocol(), packet.payload());
            }
        }
    }

    #[test]
    fn fields_of_ipv6_are_read() {
        let bytes = v6(b"hello");
        let packet = IpPacket::parse(&bytes).unwrap();
        assert_eq!(packet.version(), IpVersion::V6);
        assert_eq!(packet.source(), "fd00::".parse::<IpAddr>().unwrap());
        assert_eq!(packet.destination(), "::1".parse::<IpAddr>().unwrap());
        assert_eq!(packet.protocol(), PROTOCOL_TCP);
        assert_eq!(packet.payload(), b"hello");
    }

    #[test]
    fn other_versions_are_refused_by_number() {
        assert_eq!(IpPacket::parse(&[0x50; 60]), Err(IpError::Version(5)));
        assert_eq!(IpPacket::parse(&[]), Err(IpError::TooShort));
    }
}
