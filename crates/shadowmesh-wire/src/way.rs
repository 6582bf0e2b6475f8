//! Ways to a peer, written as socket addresses.
//!
//! Everything above the sockets names where a datagram goes by a [`SocketAddr`]. Two kinds of way are
//! no UDP address; they are written into the block 100::/64, which is for discarding only (RFC 6666)
//! and which no network routes. So handshakes, probes and the search for the path's MTU need not know
//! the difference. The form is our own affair: no such address goes over the wire, and what claims to
//! come from one is dropped where it is received.
//!
//! ```text
//! [100::LABEL]:SLOT    to the peer with that label over one of our relays, SLOT from 1 on
//! [100::ID]:0          over a stream that the host holds
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::PeerId;

/// Upper half of every address that is none of UDP.
const DISCARD_ONLY: u64 = 0x0100_0000_0000_0000;

/// How a relay is told for whom a datagram is: the first 8 bytes of the PeerId. Two peers with the
/// same label cannot use one relay at the same time; nothing else depends on its being unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(pub u64);

impl Label {
    /// The label of a peer.
    pub fn of(peer: &PeerId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *peer.as_bytes();
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// A way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// By UDP to this address.
    Udp(SocketAddr),
    /// Over a relay.
    Relayed {
        /// Which of our relays, from 1 on.
        slot: u16,
        /// To whom.
        label: Label,
    },
    /// Over a stream of the host's, by its number.
    Stream(u64),
}

impl Way {
    /// What an address stands for.
    pub fn of(address: SocketAddr) -> Self {
        let IpAddr::V6(ip) = address.ip() else {
            return Self::Udp(address);
        };
        let bits = ip.to_bits();
        if (bits >> 64) as u64 != DISCARD_ONLY {
            return Self::Udp(address);
        }
        match address.port() {
            0 => Self::Stream(bits as u64),
            slot => Self::Relayed {
                slot,
                label: Label(bits as u64),
            },
        }
    }

    /// The address that stands for it.
    pub fn address(self) -> SocketAddr {
        let (low, port) = match self {
            Self::Udp(address) => return address,
            Self::Relayed { slot, label } => (label.0, slot),
            Self::Stream(id) => (id, 0),
        };
        let bits = u128::from(DISCARD_ONLY) << 64 | u128::from(low);
        SocketAddr::new(Ipv6Addr::from_bits(bits).into(), port)
    }

    /// Whether a socket can send there.
    pub fn is_udp(self) -> bool {
        matches!(self, Self::Udp(_))
    }
}

/// Whether an IP address is part of a way that is none of UDP. Its lower half then names one peer or one
/// stream, while in others of IPv6 it names one host of many in the same place.
pub fn is_way(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if (ip.to_bits() >> 64) as u64 == DISCARD_ONLY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn real_addresses_stand_for_themselves() {
        for text in [
            "192.0.2.1:0",
            "[2001:db8::1]:1",
            "[100:0:0:1::1]:7",
            "[::ffff:1.2.3.4]:5",
        ] {
            let address = text.parse().unwrap();
            assert_eq!(Way::of(address), Way::Udp(address));
            assert!(!is_way(address.ip()));
        }
        let label = Label::of(&PeerId::from_bytes([7; 32]));
        assert_eq!(label, Label(0x0707_0707_0707_0707));
    }

    proptest! {
        #[test]
        fn a_way_comes_back_from_its_address(low: u64, slot in 1..=u16::MAX) {
            let relayed = Way::Relayed { slot, label: Label(low) };
            for way in [relayed, Way::Stream(low)] {
                prop_assert_eq!(Way::of(way.address()), way);
                prop_assert!(!way.is_udp() && is_way(way.address().ip()));
            }
        }
    }
}
