//! The datagrams with which nodes find each other on a local network.
//!
//! ```text
//! kind (1) ‖ nonce (16) ‖ port, masked (2) ‖ tag (16)
//! ```
//!
//! A node says by multicast that it is there (a beacon), everybody answers with a nonce (a question), and the
//! sender shows whom it knows that the word is its own (a proof). All three have one form and one length, so an
//! answer is never longer than what it answers. Without the PeerIds all but the kind is random bytes
//! (`shadowmesh-crypto`, `LanBeacon` and `LanPair`). The address is that of the datagram.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Where beacons go over IPv4: administratively scoped, and free for local use (RFC 2365 §6.2).
// PROTOCOL SM-LD-1
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(239, 255, 83, 77);
/// Where they go over IPv6: link-local scope, a group that nobody assigned (RFC 4291 §2.7).
// PROTOCOL SM-LD-1
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x5368, 0x4d65);
/// The UDP port of both groups, and of everything else here.
// PROTOCOL SM-LD-1
pub const PORT: u16 = 21_077;

/// Bytes of the random part.
pub const NONCE_LEN: usize = 16;
/// Bytes of the tag.
pub const TAG_LEN: usize = 16;
/// Bytes of a datagram, always.
pub const LEN: usize = 1 + NONCE_LEN + 2 + TAG_LEN;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By multicast: somebody is there.
    Beacon = 0x10,
    /// To the sender of a beacon: is it you?
    Question = 0x11,
    /// To who asked: it is.
    Proof = 0x12,
}

/// The parts of a datagram, none of them checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beacon {
    /// What it is.
    pub kind: Kind,
    /// Fresh and random in each beacon and question; in a proof that of the question.
    pub nonce: [u8; NONCE_LEN],
    /// The port at which the sender listens, masked.
    pub port: [u8; 2],
    /// Tells who knows the sender that it is the sender's.
    pub tag: [u8; TAG_LEN],
}

impl Beacon {
    /// The parts of a datagram; `None` if it has another length or kind.
    // PROTOCOL SM-LD-2
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let (kind, rest) = datagram.split_first()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (port, tag) = rest.split_first_chunk()?;
        let kinds = [Kind::Beacon, Kind::Question, Kind::Proof];
        Some(Self {
            kind: kinds.into_iter().find(|known| *known as u8 == *kind)?,
            nonce: *nonce,
            port: *port,
            tag: tag.try_into().ok()?,
        })
    }

    /// The datagram.
    pub fn to_bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        let (kind, rest) = bytes.split_at_mut(1);
        let (nonce, rest) = rest.split_at_mut(NONCE_LEN);
        let (port, tag) = rest.split_at_mut(2);
        kind[0] = self.kind as u8;
        nonce.copy_from_slice(&self.nonce);
        port.copy_from_slice(&self.port);
        tag.copy_from_slice(&self.tag);
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

    fn is_kind(byte: Option<&u8>) -> bool {
        byte.is_some_and(|kind| (0x10..=0x12).contains(kind))
    }

    proptest! {
        // PROTOCOL SM-LD-2
        #[test]
        fn only_datagrams_of_the_one_length_and_a_known_kind_are_ours_and_each_comes_back(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..2 * LEN),
            kind in 0x0fu8..0x14,
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            match Beacon::parse(&bytes) {
                Some(beacon) => prop_assert_eq!(&beacon.to_bytes()[..], &bytes[..]),
                None => prop_assert!(bytes.len() != LEN || !is_kind(bytes.first())),
            }
        }

        // PROTOCOL SM-LD-2
        #[test]
        fn a_datagram_comes_back_from_its_bytes(nonce: [u8; 16], port: [u8; 2], tag: [u8; 16]) {
            for kind in [Kind::Beacon, Kind::Question, Kind::Proof] {
                let beacon = Beacon { kind, nonce, port, tag };
                prop_assert_eq!(Beacon::parse(&beacon.to_bytes()), Some(beacon));
            }
        }
    }
}
