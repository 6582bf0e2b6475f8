//! The traffic class byte of an IP packet: six bits of DSCP (RFC 2474), two of ECN (RFC 3168), and how
//! a tunnel treats both.
//!
//! ECN crosses the tunnel by RFC 6040 in normal mode: the outer header of a sealed frame starts with
//! the ECN field of the packet inside ([`outer`]), and what routers on the way made of it is brought
//! back in at the far end ([`Ecn::decapsulate`]). So a router of the underlay can mark a flow inside
//! the tunnel instead of losing its packets, and a packet whose sender cannot understand a mark is
//! never delivered as if nothing had happened.
//!
//! The inner DSCP is the sender's and stays as it is. The outer one repeats it, so that a network
//! which serves calls first does so inside the tunnel as well; or it is zero, where the pattern of
//! DSCPs should not be seen from outside ([`OuterDscp`]). An outer DSCP that was changed on the way
//! means something to that network only and is not brought in (RFC 2983 §4, the pipe model).

use crate::ip::IpVersion;

/// The ECN field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not understand marks.
    NotEct = 0b00,
    /// It does, and says so with the 1 of the L4S experiment (RFC 9331) or for no reason.
    Ect1 = 0b01,
    /// It does.
    Ect0 = 0b10,
    /// A queue on the way was too long.
    Ce = 0b11,
}

/// What the outer header says of the inner DSCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OuterDscp {
    /// The same.
    #[default]
    Copy,
    /// Nothing: always zero.
    Hide,
}

/// A queue on the way marked a packet whose transport cannot understand marks: it stands for a loss
/// and must become one (RFC 6040 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("marked on the way, but its transport does not understand marks")]
pub struct MarkedNotEct;

/// Bits of the ECN field in the traffic class.
const ECN_MASK: u8 = 0b11;

impl Ecn {
    /// The ECN field of a traffic class.
    #[inline]
    pub fn of(traffic_class: u8) -> Self {
        match traffic_class & ECN_MASK {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// Whether a queue may mark the packet instead of losing it.
    #[inline]
    pub fn is_capable(self) -> bool {
        self != Self::NotEct
    }

    // PROTOCOL SM-TC-3
    /// What the inner field (`self`) becomes when the outer one arrived as `outer` (RFC 6040 §4.2).
    /// HOT PATH.
    #[inline]
    pub fn decapsulate(self, outer: Self) -> Result<Self, MarkedNotEct> {
        match (self, outer) {
            (Self::NotEct, Self::Ce) => Err(MarkedNotEct),
            (Self::NotEct, _) => Ok(Self::NotEct),
            (_, Self::Ce) => Ok(Self::Ce),
            (Self::Ect0, Self::Ect1) => Ok(Self::Ect1),
            (inner, _) => Ok(inner),
        }
    }
}

/// The traffic class of an IP packet; 0 for what is none. HOT PATH.
#[inline]
pub fn of(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] => match version(*first) {
            Some(IpVersion::V4) => *second,
            Some(IpVersion::V6) => (first & 0x0f) << 4 | second >> 4,
            None => 0,
        },
        _ => 0,
    }
}

/// The class of a datagram on which a mark could not be brought in.
pub fn not_ect(class: u8) -> u8 {
    class & !ECN_MASK
}

// PROTOCOL SM-TC-1
// PROTOCOL SM-TC-2
/// The traffic class of the outer header around a packet of class `inner`. HOT PATH.
#[inline]
pub fn outer(inner: u8, dscp: OuterDscp) -> u8 {
    match dscp {
        OuterDscp::Copy => inner,
        OuterDscp::Hide => inner & ECN_MASK,
    }
}

// PROTOCOL SM-TC-3
/// Brings what became of the outer header's ECN field into a packet. HOT PATH.
#[inline]
pub fn decapsulate(packet: &mut [u8], outer: u8) -> Result<(), MarkedNotEct> {
    let inner = Ecn::of(of(packet));
    let found = inner.decapsulate(Ecn::of(outer))?;
    if found != inner {
        set_ecn(packet, found);
    }
    Ok(())
}

/// Writes the ECN field and mends the IPv4 header checksum for it (RFC 1624). HOT PATH.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) {
    let Some(version) = packet.first().and_then(|first| version(*first)) else {
        return;
    };
    match version {
        IpVersion::V4 if packet.len() >= 12 => {
            let old = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] = packet[1] & !ECN_MASK | ecn as u8;
            let new = u16::from_be_bytes([packet[0], packet[1]]);
            let checksum = u16::from_be_bytes([packet[10], packet[11]]);
            packet[10..12].copy_from_slice(&mend(checksum, old, new).to_be_bytes());
        }
        IpVersion::V6 if packet.len() >= 2 => {
            packet[1] = packet[1] & !(ECN_MASK << 4) | (ecn as u8) << 4;
        }
        _ => {}
    }
}

/// RFC 1624, equation 3: the checksum after one 16-bit word changed.
#[inline]
fn mend(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

#[inline]
fn version(first: u8) -> Option<IpVersion> {
    match first >> 4 {
        4 => Some(IpVersion::V4),
        6 => Some(IpVersion::V6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];

    // PROTOCOL SM-TC-3
    #[test]
    fn decapsulation_is_the_table_of_rfc_6040() {
        // Figure 4 of the RFC: a row for each inner field, a column for each outer.
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        let table = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ];
        for (inner, row) in table {
            for (outer, result) in ALL.into_iter().zip(row) {
                assert_eq!(
                    inner.decapsulate(outer).ok(),
                    result,
                    "{inner:?} in {outer:?}"
                );
            }
        }
    }

    // PROTOCOL SM-TC-1
    // PROTOCOL SM-TC-2
    #[test]
    fn the_outer_class_repeats_the_inner_one_or_only_its_ecn_field() {
        for class in 0..=u8::MAX {
            assert_eq!(outer(class, OuterDscp::Copy), class);
            assert_eq!(outer(class, OuterDscp::Hide), class & 0b11);
        }
    }

    fn checksum_v4(header: &[u8]) -> u16 {
        let sum: u32 = header
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        !(((sum & 0xffff) + (sum >> 16)) as u16)
    }

    proptest! {
        #[test]
        fn a_mark_changes_the_field_and_nothing_else(mut packet in proptest::collection::vec(any::<u8>(), 20..60), to in 0usize..4) {
            for version in [4, 6] {
                packet[0] = version << 4 | if version == 4 { 5 } else { packet[0] & 0x0f };
                packet[10..12].fill(0);
                let sum = checksum_v4(&packet[..20]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                let before = packet.clone();
                set_ecn(&mut packet, ALL[to]);
                prop_assert_eq!(Ecn::of(of(&packet)), ALL[to]);
                prop_assert_eq!(of(&packet) >> 2, of(&before) >> 2);
                if version == 4 {
                    prop_assert_eq!(checksum_v4(&packet[..20]), 0);
                    packet[10..12].copy_from_slice(&before[10..12]);
                }
                packet[1] = before[1];
                prop_assert_eq!(&packet, &before);
            }
        }

        #[test]
        fn any_bytes_are_taken_without_panic(mut bytes: Vec<u8>) {
            let _ = of(&bytes);
            set_ecn(&mut bytes, Ecn::Ce);
        }
    }
}
