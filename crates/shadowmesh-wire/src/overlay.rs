//! Overlay addresses derived from a [`PeerId`].
//!
//! The IPv6 address is the true one: 80 bits of the id under one unique local prefix (RFC 4193), so
//! two nodes never meet in practice and nobody can look for an id that takes another's address in
//! less than 2^80 tries. The prefix is one constant for all of ShadowMesh, against the RFC's advice
//! to draw it at random: a node must know the address of a peer from its id alone.
//!
//! The IPv4 address has only 16 bits of the id. Two among 302 nodes share one in half of all cases,
//! so it is a claim: whoever sets up routes must check for a collision and let the user override.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::PeerId;

/// Bits of the IPv4 overlay network, 10.100.0.0/16.
const IPV4_PREFIX_LEN: u8 = 16;
/// Bits of the IPv6 overlay network, fd53:4d65:7368::/48.
const IPV6_PREFIX_LEN: u8 = 48;

/// `fd`, then "SMesh".
const IPV6_PREFIX: [u8; 6] = [0xfd, 0x53, 0x4d, 0x65, 0x73, 0x68];

/// 10.100.b7.b15, with bytes 7 and 15 of the id. The network's own address and its broadcast
/// address belong to no host and become their neighbours.
// PROTOCOL SM-OV-1
pub fn derived_ipv4(peer: &PeerId) -> Ipv4Addr {
    let id = peer.as_bytes();
    let (third, fourth) = match (id[7], id[15]) {
        (0, 0) => (0, 1),
        (255, 255) => (255, 254),
        other => other,
    };
    Ipv4Addr::new(10, 100, third, fourth)
}

/// fd53:4d65:7368, then bytes 0 to 9 of the id.
// PROTOCOL SM-OV-2
pub fn derived_ipv6(peer: &PeerId) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..6].copy_from_slice(&IPV6_PREFIX);
    octets[6..].copy_from_slice(&peer.as_bytes()[..10]);
    Ipv6Addr::from(octets)
}

/// Both derived addresses, each with the length of the network that all of its kind are in.
pub fn derived(peer: &PeerId) -> [(IpAddr, u8); 2] {
    [
        (derived_ipv4(peer).into(), IPV4_PREFIX_LEN),
        (derived_ipv6(peer).into(), IPV6_PREFIX_LEN),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prefix::IpPrefix;
    use proptest::prelude::*;

    fn id(b7: u8, b15: u8) -> PeerId {
        let mut bytes = [0x11; 32];
        (bytes[7], bytes[15]) = (b7, b15);
        PeerId::from_bytes(bytes)
    }

    // PROTOCOL SM-OV-1
    #[test]
    fn ipv4_takes_bytes_7_and_15_and_avoids_the_two_addresses_of_no_host() {
        assert_eq!(derived_ipv4(&id(1, 5)), Ipv4Addr::new(10, 100, 1, 5));
        assert_eq!(derived_ipv4(&id(0, 0)), Ipv4Addr::new(10, 100, 0, 1));
        assert_eq!(
            derived_ipv4(&id(255, 255)),
            Ipv4Addr::new(10, 100, 255, 254)
        );
        assert_eq!(derived_ipv4(&id(3, 0)), Ipv4Addr::new(10, 100, 3, 0));
    }

    // PROTOCOL SM-OV-2
    #[test]
    fn ipv6_is_the_prefix_and_ten_bytes_of_the_id() {
        let mut bytes = [0; 32];
        bytes[..11].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
        let expected: Ipv6Addr = "fd53:4d65:7368:0102:0304:0506:0708:090a".parse().unwrap();
        assert_eq!(derived_ipv6(&PeerId::from_bytes(bytes)), expected);
    }

    proptest! {
        // PROTOCOL SM-OV-1
        // PROTOCOL SM-OV-2
        #[test]
        fn derived_addresses_lie_in_the_overlay_networks(bytes: [u8; 32]) {
            let peer = PeerId::from_bytes(bytes);
            let ipv4: IpPrefix = "10.100.0.0/16".parse().unwrap();
            let ipv6: IpPrefix = "fd53:4d65:7368::/48".parse().unwrap();
            for (network, (address, len)) in [ipv4, ipv6].into_iter().zip(derived(&peer)) {
                prop_assert_eq!(IpPrefix::containing(address, len), network);
            }
        }
    }
}
