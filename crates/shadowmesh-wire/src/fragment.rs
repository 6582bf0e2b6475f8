//! A piece of an inner packet that is too long for one frame on the path.
//!
//! It travels as the body of an inner frame of type [`Fragment`](crate::inner::InnerType::Fragment):
//!
//! ```text
//! 0        1..5   5..7                 7..9     9..
//! type     id     length of the whole  offset   piece
//! ```
//!
//! The type is that of the inner frame that was cut; version 1 cuts IP packets only.

use crate::inner::InnerType;

/// Bytes in front of the piece.
pub const FRAGMENT_HEADER_LEN: usize = 9;
/// The shortest piece, the last one of a packet excepted: bounds how many there are.
pub const PIECE_LEN_MIN: usize = 256;

/// Where a piece belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Names the packet among those under way in its session: the low half of the counter of its
    /// first piece.
    pub id: u32,
    /// Bytes of the whole packet.
    pub total: u16,
    /// Where in it this piece begins.
    pub offset: u16,
}

impl FragmentHeader {
    /// The header; the piece follows it.
    // PROTOCOL SM-MT-3
    pub fn encode(&self) -> [u8; FRAGMENT_HEADER_LEN] {
        let [i0, i1, i2, i3] = self.id.to_be_bytes();
        let [t0, t1] = self.total.to_be_bytes();
        let [o0, o1] = self.offset.to_be_bytes();
        [InnerType::IpPacket as u8, i0, i1, i2, i3, t0, t1, o0, o1]
    }

    /// Reads the body of an inner frame, without the inner type byte: header and piece. The piece
    /// lies within the whole, and is no shorter than it may be.
    // PROTOCOL SM-MT-3
    pub fn decode(body: &[u8]) -> Result<(Self, &[u8]), FragmentError> {
        let (&[kind, i0, i1, i2, i3, t0, t1, o0, o1], piece) = body
            .split_first_chunk::<FRAGMENT_HEADER_LEN>()
            .ok_or(FragmentError::TooShort)?;
        if kind != InnerType::IpPacket as u8 {
            return Err(FragmentError::Type(kind));
        }
        let header = Self {
            id: u32::from_be_bytes([i0, i1, i2, i3]),
            total: u16::from_be_bytes([t0, t1]),
            offset: u16::from_be_bytes([o0, o1]),
        };
        let end = usize::from(header.offset) + piece.len();
        let total = usize::from(header.total);
        if end > total {
            return Err(FragmentError::Outside);
        }
        if piece.is_empty() || (piece.len() < PIECE_LEN_MIN && end != total) {
            return Err(FragmentError::TooShort);
        }
        Ok((header, piece))
    }
}

/// Why a body is not a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// Shorter than its header, or a piece shorter than [`PIECE_LEN_MIN`].
    #[error("fragment too short")]
    TooShort,
    /// A fragment of something that is not cut.
    #[error("fragment of an inner frame of type {0}")]
    Type(u8),
    /// The piece reaches beyond the whole.
    #[error("fragment reaches beyond its packet")]
    Outside,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // PROTOCOL SM-MT-3
        #[test]
        fn fragments_round_trip(id: u32, total in 1u16.., offset: u16, len in 1usize..1500) {
            let header = FragmentHeader { id, total, offset };
            let mut body = header.encode().to_vec();
            body.resize(body.len() + len, 0xaa);
            let end = usize::from(offset) + len;
            let fits = end <= usize::from(total);
            let long_enough = len >= PIECE_LEN_MIN || end == usize::from(total);
            match FragmentHeader::decode(&body) {
                Ok((read, piece)) => {
                    prop_assert!(fits && long_enough);
                    prop_assert_eq!((read, piece.len()), (header, len));
                }
                Err(FragmentError::Outside) => prop_assert!(!fits),
                Err(error) => prop_assert!(fits && !long_enough, "{error}"),
            }
        }

        #[test]
        fn any_bytes_are_judged_without_panic(body: Vec<u8>) {
            let _ = FragmentHeader::decode(&body);
        }
    }

    #[test]
    fn only_ip_packets_are_cut() {
        let mut body = FragmentHeader {
            id: 1,
            total: 300,
            offset: 0,
        }
        .encode()
        .to_vec();
        body.resize(FRAGMENT_HEADER_LEN + 300, 0);
        assert!(FragmentHeader::decode(&body).is_ok());
        body[0] = 2;
        assert_eq!(FragmentHeader::decode(&body), Err(FragmentError::Type(2)));
    }
}
