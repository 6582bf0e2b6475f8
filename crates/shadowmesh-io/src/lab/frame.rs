//! A captured frame and the UDP datagrams in it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const ETHERNET_HEADER_LEN: usize = 14;
const UDP_HEADER_LEN: usize = 8;
const UDP: u8 = 17;

/// One frame as an interface saw it: what the wire would carry, or a super-packet that is cut
/// into many such frames later (never, between two namespaces).
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// When, since 1970.
    pub time: Duration,
    /// Whether the interface sent it (else it received it).
    pub outgoing: bool,
    /// Whether `bytes` begins with an Ethernet header (else with the IP header, as on a TUN).
    pub ethernet: bool,
    /// Payload bytes of each segment, when this is a super-packet.
    pub segment_size: Option<u16>,
    /// The frame, whole.
    pub bytes: &'a [u8],
}

/// A UDP datagram as it would be on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpDatagram<'a> {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The UDP datagrams in this frame, super-packets cut as the wire would see them; none when
    /// it is something else (or an IP fragment).
    pub fn udp_datagrams(&self) -> impl Iterator<Item = UdpDatagram<'a>> {
        let (source, destination, payload) = match self.udp() {
            Some((source, destination, payload)) => (Some(source), Some(destination), payload),
            None => (None, None, &[][..]),
        };
        let size = self.segment_size.map_or(usize::MAX, usize::from).max(1);
        // An empty datagram is one too, but `chunks` would give none.
        let empty = source.is_some() && payload.is_empty();
        let pieces = payload.chunks(size).chain(empty.then_some(&[][..]));
        pieces.filter_map(move |payload| {
            Some(UdpDatagram {
                source: source?,
                destination: destination?,
                payload,
            })
        })
    }

    /// The IP packet in this frame, if it carries one.
    pub fn ip(&self) -> Option<&'a [u8]> {
        if !self.ethernet {
            return Some(self.bytes);
        }
        let (header, packet) = self.bytes.split_at_checked(ETHERNET_HEADER_LEN)?;
        matches!(header[12..14], [0x08, 0x00] | [0x86, 0xdd]).then_some(packet)
    }

    fn udp(&self) -> Option<(SocketAddr, SocketAddr, &'a [u8])> {
        let packet = self.ip()?;
        let (source, destination, datagram) = match packet.first()? >> 4 {
            4 => ipv4(packet)?,
            6 => ipv6(packet)?,
            _ => return None,
        };
        let (header, payload) = datagram.split_at_checked(UDP_HEADER_LEN)?;
        let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        Some((
            SocketAddr::new(source, port(0)),
            SocketAddr::new(destination, port(2)),
            payload,
        ))
    }
}

/// Addresses and transport part of an unfragmented IPv4 packet with UDP.
fn ipv4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header = packet.first_chunk::<20>()?;
    let more_or_offset = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
    if header[9] != UDP || more_or_offset != 0 {
        return None;
    }
    let start = usize::from(header[0] & 0xf) * 4;
    let end = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let address = |at: usize| Some(IpAddr::from(*header[at..].first_chunk::<4>()?));
    Some((address(12)?, address(16)?, packet.get(start..end)?))
}

/// Addresses and transport part of an IPv6 packet with UDP right after its header.
fn ipv6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header = packet.first_chunk::<40>()?;
    if header[6] != UDP {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let address = |at: usize| Some(IpAddr::from(*header[at..].first_chunk::<16>()?));
    Some((address(8)?, address(24)?, packet.get(40..40 + length)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![
            0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        bytes.extend_from_slice(&[0, 7, 0, 9, 0, 0, 0, 0]);
        bytes.extend_from_slice(payload);
        let length = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    fn frame(bytes: &[u8], segment_size: Option<u16>) -> Frame<'_> {
        Frame {
            time: Duration::ZERO,
            outgoing: true,
            ethernet: false,
            segment_size,
            bytes,
        }
    }

    #[test]
    fn a_super_packet_is_cut_as_the_wire_would_see_it() {
        let bytes = packet(b"aaaabbbbcc");
        let frame = frame(&bytes, Some(4));
        let payloads: Vec<_> = frame
            .udp_datagrams()
            .map(|datagram| datagram.payload)
            .collect();
        assert_eq!(payloads, [b"aaaa".as_slice(), b"bbbb", b"cc"]);
        let first = frame.udp_datagrams().next().unwrap();
        assert_eq!(first.source, "10.0.0.1:7".parse().unwrap());
        assert_eq!(first.destination, "10.0.0.2:9".parse().unwrap());
    }

    #[test]
    fn an_empty_datagram_counts_and_anything_else_does_not() {
        assert_eq!(frame(&packet(b""), None).udp_datagrams().count(), 1);
        let mut tcp = packet(b"data");
        tcp[9] = 6;
        assert_eq!(frame(&tcp, None).udp_datagrams().count(), 0);
        let mut fragment = packet(b"data");
        fragment[7] = 1;
        assert_eq!(frame(&fragment, None).udp_datagrams().count(), 0);
        for cut in 0..28 {
            assert_eq!(
                frame(&packet(b"data")[..cut], None).udp_datagrams().count(),
                0
            );
        }
    }
}
