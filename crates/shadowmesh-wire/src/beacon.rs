//! The datagram with which a node says on its local network that it is there.
//!
//! ```text
//! nonce (16) ‖ port, masked (2) ‖ tag (16)
//! ```
//!
//! Without the sender's PeerId all of it is random bytes (`shadowmesh-crypto`, `LanBeacon`). The
//! address is that of the datagram.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Where beacons go over IPv4: administratively scoped, and free for local use (RFC 2365 §6.2).
// PROTOCOL SM-LD-1
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 83, 77);
/// Where they go over IPv6: link-local scope, a group that nobody assigned (RFC 4291 §2.7).
// PROTOCOL SM-LD-1
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x5368, 0x4d65);
/// The UDP port of both groups.
// PROTOCOL SM-LD-1
pub const PORT: u16 = 21_077;

/// Bytes of the random part.
pub const NONCE_LEN: usize = 16;
/// Bytes of the tag.
pub const TAG_LEN: usize = 16;
/// Bytes of a beacon, always.
pub const LEN: usize = NONCE_LEN + 2 + TAG_LEN;

/// The parts of a beacon, none of them checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    /// Fresh and random in each beacon.
    pub nonce: [u8; NONCE_LEN],
    /// The port at which the sender listens, masked.
    pub port: [u8; 2],
    /// Tells who knows the sender that it is the sender's.
    pub tag: [u8; TAG_LEN],
}

impl Beacon {
    /// The parts of a datagram; `None` if it has another length.
    // PROTOCOL SM-LD-2
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let (nonce, rest) = datagram.split_first_chunk()?;
        let (port, tag) = rest.split_first_chunk()?;
        Some(Self {
            nonce: *nonce,
            port: *port,
            tag: tag.try_into().ok()?,
        })
    }

    /// The datagram.
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[..NONCE_LEN].copy_from_slice(&self.nonce);
        bytes[NONCE_LEN..NONCE_LEN + 2].copy_from_slice(&self.port);
        bytes[NONCE_LEN + 2..].copy_from_slice(&self.tag);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // PROTOCOL SM-LD-1
    #[test]
    fn both_groups_stay_on_the_local_network() {
        assert!(GROUP_V4.is_multicast() && GROUP_V4.octets()[..2] == [239, 255]);
        // Not permanently assigned, link-local scope.
        assert_eq!(GROUP_V6.segments()[0], 0xff12);
    }

    proptest! {
        // PROTOCOL SM-LD-2
        #[test]
        fn only_datagrams_of_the_one_length_are_beacons_and_each_comes_back(
            bytes in proptest::collection::vec(any::<u8>(), 0..2 * LEN),
        ) {
            match Beacon::parse(&bytes) {
                Some(beacon) => prop_assert_eq!(&beacon.to_bytes()[..], &bytes[..]),
                None => prop_assert_ne!(bytes.len(), LEN),
            }
        }

        // PROTOCOL SM-LD-2
        #[test]
        fn a_beacon_comes_back_from_its_bytes(nonce: [u8; 16], port: [u8; 2], tag: [u8; 16]) {
            let beacon = Beacon { nonce, port, tag };
            prop_assert_eq!(Beacon::parse(&beacon.to_bytes()), Some(beacon));
        }
    }
}
