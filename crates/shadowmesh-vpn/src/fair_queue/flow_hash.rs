//! Which flow a packet belongs to.

use shadowmesh_wire::ip::{IPV6_HEADER_LEN, IpPacket, IpVersion, PROTOCOL_TCP, PROTOCOL_UDP};

/// A keyed hash of the 5-tuple. The key is drawn at start, so that nobody can choose ports to land in
/// the queue of another flow.
///
/// Ports count where the first header behind the IP header is TCP or UDP. For everything else a flow
/// is source, destination and protocol; so it is for IPv4 fragments, of which only the first has
/// ports, and which must not overtake each other. The IPv6 flow label is not looked at: the sender
/// may write there what it likes, and would be a thousand flows.
#[derive(Debug, Clone, Copy)]
pub struct FlowHasher {
    key: [u64; 2],
}

/// "More fragments" and the offset, of bytes 6 and 7 of an IPv4 header.
const IPV4_FRAGMENT_MASK: u16 = 0x3fff;

impl FlowHasher {
    /// Hashes under this key.
    pub fn new(key: [u64; 2]) -> Self {
        Self { key }
    }

    /// The flow's number; the caller cuts it down to what it needs. HOT PATH.
    #[inline]
    pub fn hash(&self, packet: &IpPacket<'_>) -> u64 {
        let bytes = packet.as_bytes();
        let start = self.key[0];
        let addresses = match packet.version() {
            IpVersion::V4 => self.mix(start, word(bytes, 12)),
            IpVersion::V6 => (8..IPV6_HEADER_LEN)
                .step_by(8)
                .fold(start, |hash, at| self.mix(hash, word(bytes, at))),
        };
        let protocol = packet.protocol();
        let ports = match packet.payload().first_chunk::<4>() {
            Some(ports) if has_ports(packet, protocol) => u32::from_ne_bytes(*ports),
            _ => 0,
        };
        self.mix(addresses, u64::from(ports) << 8 | u64::from(protocol))
    }

    /// A multiplication to 128 bits whose halves are folded: every bit of the input reaches every bit
    /// of the result, at the price of one instruction.
    #[inline]
    fn mix(&self, hash: u64, word: u64) -> u64 {
        let product = u128::from(hash ^ word) * u128::from(self.key[1] | 1);
        product as u64 ^ (product >> 64) as u64
    }
}

#[inline]
fn has_ports(packet: &IpPacket<'_>, protocol: u8) -> bool {
    let is_fragment = || {
        let bytes = packet.as_bytes();
        packet.version() == IpVersion::V4
            && u16::from_be_bytes([bytes[6], bytes[7]]) & IPV4_FRAGMENT_MASK != 0
    };
    matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP) && !is_fragment()
}

/// Eight bytes of a header, which [`IpPacket`] says are there.
#[inline]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("slice of eight"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As random as a key that was drawn.
    const KEY: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03];

    fn v4(protocol: u8, fragment: u16, source: u8, ports: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, protocol, 0, 0];
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet.extend([10, 0, 0, source, 10, 0, 0, 99]);
        packet.extend(ports);
        packet.extend([0; 4]);
        packet
    }

    fn v6(label: u8, source: u8, ports: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, label, 0, 8, PROTOCOL_UDP, 64];
        packet.extend([[0; 15].as_slice(), &[source], &[0; 15], &[99]].concat());
        packet.extend(ports);
        packet.extend([0; 4]);
        packet
    }

    fn hash(packet: &[u8]) -> u64 {
        FlowHasher::new(KEY).hash(&IpPacket::parse(packet).unwrap())
    }

    #[test]
    fn flows_differ_in_addresses_ports_and_protocol() {
        let ports = [1, 2, 3, 4];
        let one = hash(&v4(PROTOCOL_UDP, 0, 1, ports));
        assert_eq!(one, hash(&v4(PROTOCOL_UDP, 0, 1, ports)));
        assert_ne!(one, hash(&v4(PROTOCOL_UDP, 0, 2, ports)));
        assert_ne!(one, hash(&v4(PROTOCOL_UDP, 0, 1, [1, 2, 3, 5])));
        assert_ne!(one, hash(&v4(PROTOCOL_TCP, 0, 1, ports)));
        assert_ne!(hash(&v6(0, 1, ports)), hash(&v6(0, 2, ports)));
        assert_ne!(hash(&v6(0, 1, ports)), hash(&v6(0, 1, [9; 4])));
    }

    #[test]
    fn what_has_no_ports_is_one_flow_for_each_pair_and_protocol() {
        const ICMP: u8 = 1;
        assert_eq!(hash(&v4(ICMP, 0, 1, [1; 4])), hash(&v4(ICMP, 0, 1, [2; 4])));
        // The first fragment and a later one.
        let (first, later) = (
            v4(PROTOCOL_UDP, 0x2000, 1, [1; 4]),
            v4(PROTOCOL_UDP, 3, 1, [9; 4]),
        );
        assert_eq!(hash(&first), hash(&later));
    }

    #[test]
    fn a_flow_label_makes_no_flow() {
        assert_eq!(hash(&v6(1, 1, [5; 4])), hash(&v6(2, 1, [5; 4])));
    }

    #[test]
    fn another_key_puts_flows_elsewhere() {
        let packets: Vec<_> = (0..=255)
            .map(|port| v4(PROTOCOL_UDP, 0, 1, [port; 4]))
            .collect();
        let places = |key| -> Vec<u64> {
            let hasher = FlowHasher::new(key);
            let place = |packet: &Vec<u8>| hasher.hash(&IpPacket::parse(packet).unwrap()) % 1024;
            packets.iter().map(place).collect()
        };
        assert_ne!(places(KEY), places([KEY[1], KEY[0]]));
        // 256 flows over 1024 places: about 227 places are taken when the spread is even.
        let taken: std::collections::BTreeSet<_> = places(KEY).into_iter().collect();
        assert!(taken.len() > 190, "{}", taken.len());
    }
}
