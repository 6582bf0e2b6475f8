//! The first byte inside a sealed frame: what the rest is.
//!
//! The list is closed on purpose: a type we do not know is dropped and counted, never guessed at.

/// What an inner frame carries behind its type byte.
// PROTOCOL SM-SF-7
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum InnerType {
    /// One IPv4 or IPv6 packet.
    IpPacket = 1,
    /// One Ethernet frame.
    EthernetFrame = 2,
    /// A sealed ping or its answer, see [`crate::probe`].
    Probe = 3,
    /// A datagram for somebody else, to be passed on by a relay, see [`crate::envelope`].
    RelayEnvelope = 4,
    /// A fixed-size cell of an onion circuit.
    Cell = 5,
    /// Nothing; the bytes are cover traffic.
    Padding = 6,
    /// A piece of an inner frame too long for the path.
    Fragment = 7,
    /// A datagram from somebody else that a relay passed on, see [`crate::envelope`].
    Relayed = 8,
}

impl TryFrom<u8> for InnerType {
    type Error = UnknownInnerType;

    #[inline]
    fn try_from(byte: u8) -> Result<Self, UnknownInnerType> {
        Ok(match byte {
            1 => Self::IpPacket,
            2 => Self::EthernetFrame,
            3 => Self::Probe,
            4 => Self::RelayEnvelope,
            5 => Self::Cell,
            6 => Self::Padding,
            7 => Self::Fragment,
            8 => Self::Relayed,
            other => return Err(UnknownInnerType(other)),
        })
    }
}

impl From<InnerType> for u8 {
    fn from(inner: InnerType) -> u8 {
        inner as u8
    }
}

/// A type byte this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("inner frame type {0} is not known")]
pub struct UnknownInnerType(pub u8);

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-SF-7
    #[test]
    fn exactly_the_types_one_to_eight_are_known() {
        for byte in 0..=u8::MAX {
            match InnerType::try_from(byte) {
                Ok(inner) => assert_eq!(u8::from(inner), byte),
                Err(error) => assert_eq!(error, UnknownInnerType(byte)),
            }
            assert_eq!(InnerType::try_from(byte).is_ok(), (1..=8).contains(&byte));
        }
    }
}
