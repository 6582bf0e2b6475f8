//! The IP packets of the simulated world: UDP with a number inside, so that an observer can tell
//! each one apart and count its deliveries.

use std::net::IpAddr;

use shadowmesh_wire::ip::{IpPacket, PROTOCOL_UDP};

/// ICMPv6 and its message "packet too big" (RFC 4443 §3.2), whose header comes before the quote. There
/// is no IPv4 counterpart here: [`numbered`] sets no DF.
const ICMPV6: u8 = 58;
const PACKET_TOO_BIG: u8 = 2;
const ICMP_HEADER_LEN: usize = 8;

/// UDP header and the number.
const UDP_LEN_MIN: usize = 8 + 8;

/// Length of the shortest packet of that IP version that still carries its number, bytes.
pub fn len_min(version: &IpAddr) -> usize {
    UDP_LEN_MIN + if version.is_ipv4() { 20 } else { 40 }
}

/// A packet of `len` bytes in all (at least [`len_min`]) that carries `number`.
///
/// # Panics
/// When source and destination are of different IP versions or `len` is too small.
pub fn numbered(source: IpAddr, destination: IpAddr, number: u64, len: usize) -> Vec<u8> {
    assert!(
        len >= len_min(&source),
        "{len} bytes hold no numbered packet"
    );
    let mut packet = vec![0; len];
    let header = match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            packet[8] = 64;
            packet[9] = PROTOCOL_UDP;
            packet[12..16].copy_from_slice(&s.octets());
            packet[16..20].copy_from_slice(&d.octets());
            let sum = !ones_complement_sum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            20
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            packet[6] = PROTOCOL_UDP;
            packet[7] = 64;
            packet[8..24].copy_from_slice(&s.octets());
            packet[24..40].copy_from_slice(&d.octets());
            40
        }
        _ => panic!("{source} and {destination} are of different IP versions"),
    };
    let udp_len = ((len - header) as u16).to_be_bytes();
    // Ports 9 (discard); no UDP checksum, which nobody on the way looks at.
    packet[header..header + 8].copy_from_slice(&[0, 9, 0, 9, udp_len[0], udp_len[1], 0, 0]);
    packet[header + 8..header + 16].copy_from_slice(&number.to_be_bytes());
    packet
}

/// The number of the packet that a message "packet too big" is about, if this is one: it came from
/// where that packet was going and goes to where it came from.
pub fn too_big(packet: &[u8]) -> Option<u64> {
    let outer = IpPacket::parse(packet).ok()?;
    let (message, quote) = outer.payload().split_at_checked(ICMP_HEADER_LEN)?;
    if outer.protocol() != ICMPV6 || message[0] != PACKET_TOO_BIG {
        return None;
    }
    // The quote is cut short, and so does not parse; its addresses stand where those of `outer` do.
    let turned = quote.get(8..24)? == &packet[24..40] && quote.get(24..40)? == &packet[8..24];
    number(quote).filter(|_| turned)
}

/// The number of a packet made by [`numbered`].
pub fn number(packet: &[u8]) -> Option<u64> {
    let header = match packet.first()? >> 4 {
        4 => 20,
        6 => 40,
        _ => return None,
    };
    let number = packet.get(header + 8..header + 16)?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

fn ones_complement_sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_wire::icmp;

    #[test]
    fn a_message_about_a_packet_is_told_from_it_and_from_one_about_another() {
        let (source, destination) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let packet = numbered(source, destination, 77, 1400);
        let mut message = icmp::too_big(&packet, 1300).unwrap();
        assert_eq!(too_big(&message), Some(77));
        assert_eq!(too_big(&packet), None);
        message[39] ^= 1;
        assert_eq!(too_big(&message), None, "told to somebody else");
    }

    #[test]
    fn packets_parse_and_keep_their_number() {
        for (source, destination) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            let bytes = numbered(source, destination, 0x0102_0304_0506_0708, 200);
            let packet = IpPacket::parse(&bytes).unwrap();
            assert_eq!(
                (packet.source(), packet.destination()),
                (source, destination)
            );
            assert_eq!(packet.total_len(), 200);
            assert_eq!(number(&bytes), Some(0x0102_0304_0506_0708));
        }
        let v4 = numbered(
            "10.0.0.1".parse().unwrap(),
            "10.0.0.2".parse().unwrap(),
            1,
            36,
        );
        assert_eq!(ones_complement_sum(&v4[..20]), 0xffff);
    }
}
