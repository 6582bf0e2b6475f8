//! A datagram for somebody else, inside a frame to or from a relay.
//!
//! It travels as the body of an inner frame of type [`RelayEnvelope`](crate::inner::InnerType::RelayEnvelope):
//!
//! ```text
//! 0        8..
//! label    datagram
//! ```
//!
//! Towards a relay the label names who is to get the datagram; from it, who sent it. A relay puts one
//! in the place of the other, and changes nothing besides.

use crate::inner::InnerType;
use crate::sealed::OVERHEAD;
use crate::way::Label;

/// Bytes of the label.
pub const LABEL_LEN: usize = 8;
/// Bytes that a relay's frame puts around a datagram: header, tag and type of the frame, and the label.
// PROTOCOL SM-RL-1
pub const ENVELOPE_OVERHEAD: usize = OVERHEAD + LABEL_LEN;

/// The type byte and the label; the datagram follows them.
// PROTOCOL SM-RL-1
pub fn encode(label: Label) -> [u8; 1 + LABEL_LEN] {
    let [a, b, c, d, e, f, g, h] = label.0.to_be_bytes();
    [InnerType::RelayEnvelope as u8, a, b, c, d, e, f, g, h]
}

/// Reads the body of an inner frame, without the inner type byte: label and datagram. `None`: too short.
// PROTOCOL SM-RL-1
pub fn decode(body: &[u8]) -> Option<(Label, &[u8])> {
    let (label, datagram) = body.split_first_chunk::<LABEL_LEN>()?;
    Some((Label(u64::from_be_bytes(*label)), datagram))
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-RL-1
    #[test]
    fn an_envelope_is_a_type_a_label_and_the_datagram() {
        let label = Label(0x0102_0304_0506_0708);
        let inner = [&encode(label)[..], b"datagram"].concat();
        assert_eq!(inner[..9], [4, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(decode(&inner[1..]), Some((label, &b"datagram"[..])));
        assert_eq!(decode(&inner[1..8]), None);
    }
}
