//! A datagram for somebody else, inside a frame to or from a relay.
//!
//! An inner frame of type [`RelayEnvelope`](InnerType::RelayEnvelope) towards the relay, of type
//! [`Relayed`](InnerType::Relayed) from it:
//!
//! ```text
//! 0      1        9..
//! type   label    datagram
//! ```
//!
//! Towards a relay the label names who is to get the datagram; from it, who sent it. A relay puts one in
//! the place of the other, with the other type, and changes nothing besides. The types differ because
//! two nodes may be each other's relay.

use crate::inner::InnerType;
use crate::sealed::OVERHEAD;
use crate::way::Label;

/// Bytes of the label.
pub const LABEL_LEN: usize = 8;
/// Bytes of type and label, before the datagram.
pub const HEAD_LEN: usize = 1 + LABEL_LEN;
/// Bytes that a relay's frame puts around a datagram: header, tag and type of the frame, and the label.
// PROTOCOL SM-RL-1
pub const ENVELOPE_OVERHEAD: usize = OVERHEAD + LABEL_LEN;

/// The head of an envelope to a relay, for the peer with this label; the datagram follows it.
// PROTOCOL SM-RL-1
pub fn encode(to: Label) -> [u8; HEAD_LEN] {
    head(InnerType::RelayEnvelope, to)
}

/// Reads the body of an inner frame, without the inner type byte: label and datagram. `None`: too short.
// PROTOCOL SM-RL-1
pub fn decode(body: &[u8]) -> Option<(Label, &[u8])> {
    let (label, datagram) = body.split_first_chunk::<LABEL_LEN>()?;
    Some((Label(u64::from_be_bytes(*label)), datagram))
}

/// What a relay makes of an envelope (its type byte first) that came from the peer with the label
/// `from`, in place. False: too short.
// PROTOCOL SM-RL-2
pub fn readdress(inner: &mut [u8], from: Label) -> bool {
    let Some(place) = inner.first_chunk_mut() else {
        return false;
    };
    *place = head(InnerType::Relayed, from);
    true
}

fn head(kind: InnerType, label: Label) -> [u8; HEAD_LEN] {
    let [a, b, c, d, e, f, g, h] = label.0.to_be_bytes();
    [kind as u8, a, b, c, d, e, f, g, h]
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-RL-1
    // PROTOCOL SM-RL-2
    #[test]
    fn an_envelope_is_a_type_a_label_and_the_datagram_and_a_relay_changes_the_first_two() {
        let label = Label(0x0102_0304_0506_0708);
        let mut inner = [&encode(label)[..], b"datagram"].concat();
        assert_eq!(inner[..9], [4, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(decode(&inner[1..]), Some((label, &b"datagram"[..])));
        assert_eq!(decode(&inner[1..8]), None);
        assert!(readdress(&mut inner, Label(9)));
        assert_eq!(inner[..9], [8, 0, 0, 0, 0, 0, 0, 0, 9]);
        assert_eq!(decode(&inner[1..]), Some((Label(9), &b"datagram"[..])));
        assert!(!readdress(&mut inner[..8], label));
    }
}
