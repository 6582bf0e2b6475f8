//! The header of a sealed frame.
//!
//! ```text
//! byte 0          1..9             9..13             13..n              n..n+16
//! 0 1 S R R K P P receiver index   counter, low 32   sealed inner frame tag
//! ```
//!
//! It is a QUIC short header bit for bit (RFC 9000 §17.3.1): fixed bit 1, spin and reserved bits 0,
//! K the key phase, PP = 3 for a four byte packet number, and an 8-byte receiver index where QUIC
//! has the destination connection id. To an observer the flow is QUIC. Both kinds of id come from
//! the same drawing, so one table lookup tells a sealed frame from a QUIC packet; here only the
//! shape is judged.
//!
//! Everything here works on the header *without* header protection. Putting the protection on and
//! taking it off, and the sealing itself, need keys and are `shadowmesh-crypto`'s.

/// Bytes of the header.
pub const HEADER_LEN: usize = 13;
/// Bytes of the AEAD tag behind the inner frame.
pub const TAG_LEN: usize = 16;
/// Bytes a sealed frame adds to an IP packet: header, inner type byte, tag.
pub const OVERHEAD: usize = HEADER_LEN + 1 + TAG_LEN;
/// The shortest sealed frame: an inner frame of nothing but its type byte.
pub const FRAME_LEN_MIN: usize = OVERHEAD;

const LONG_HEADER_BIT: u8 = 0x80;
const FIXED_BIT: u8 = 0x40;
/// Type of a long header; Initial is zero.
const LONG_TYPE_BITS: u8 = 0x30;
const RESERVED_BITS: u8 = 0x18;
const KEY_PHASE_BIT: u8 = 0x04;
/// Length of the packet number minus one, as QUIC writes it: always four bytes here.
const COUNTER_LEN_BITS: u8 = 0x03;

/// The receiver's name for a session, chosen by the receiver; big endian on the wire.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, minicbor::Encode, minicbor::Decode,
)]
#[cbor(transparent)]
pub struct ReceiverIndex(#[n(0)] pub u64);

impl ReceiverIndex {
    /// The index as it stands on the wire, which is also the QUIC connection id of that value.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Reads the wire form.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }
}

/// Lowest bit of the epoch a frame is sealed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyPhase {
    /// Even epochs.
    Zero,
    /// Odd epochs.
    One,
}

impl KeyPhase {
    /// The phase of an epoch.
    pub const fn from_epoch(epoch: u32) -> Self {
        if epoch & 1 == 0 {
            Self::Zero
        } else {
            Self::One
        }
    }
}

/// Writes an unprotected header. Of `counter` only the low 32 bits go on the wire.
// PROTOCOL SM-SF-1
#[inline]
pub fn write_header(
    out: &mut [u8; HEADER_LEN],
    phase: KeyPhase,
    index: ReceiverIndex,
    counter: u64,
) {
    let phase_bit = match phase {
        KeyPhase::Zero => 0,
        KeyPhase::One => KEY_PHASE_BIT,
    };
    out[0] = FIXED_BIT | phase_bit | COUNTER_LEN_BITS;
    out[1..9].copy_from_slice(&index.to_bytes());
    out[9..13].copy_from_slice(&(counter as u32).to_be_bytes());
}

/// What an unprotected header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Lowest bit of the epoch.
    pub phase: KeyPhase,
    /// Whose session.
    pub index: ReceiverIndex,
    /// Low 32 bits of the counter; [`expand_counter`] gives the rest.
    pub counter_low: u32,
}

/// Reads a header whose protection was taken off. `None` when a bit that we always write one way
/// stands the other way: then the frame is not ours, or the protection key is wrong.
// PROTOCOL SM-SF-1
#[inline]
pub fn read_header(header: &[u8; HEADER_LEN]) -> Option<Header> {
    let first = header[0];
    let constant = LONG_HEADER_BIT | FIXED_BIT | RESERVED_BITS | COUNTER_LEN_BITS;
    if first & constant != FIXED_BIT | COUNTER_LEN_BITS {
        return None;
    }
    let phase = if first & KEY_PHASE_BIT == 0 {
        KeyPhase::Zero
    } else {
        KeyPhase::One
    };
    let [_, i0, i1, i2, i3, i4, i5, i6, i7, c0, c1, c2, c3] = *header;
    Some(Header {
        phase,
        index: ReceiverIndex::from_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
        counter_low: u32::from_be_bytes([c0, c1, c2, c3]),
    })
}

/// The receiver index of a datagram, if it has the shape of a sealed frame: short header, fixed
/// bit, long enough for type byte and tag. The index is outside header protection.
// PROTOCOL SM-SF-5
#[inline]
pub fn receiver_index(datagram: &[u8]) -> Option<ReceiverIndex> {
    if datagram.len() < FRAME_LEN_MIN || datagram[0] & (LONG_HEADER_BIT | FIXED_BIT) != FIXED_BIT {
        return None;
    }
    let bytes = datagram.get(1..9)?.try_into().ok()?;
    Some(ReceiverIndex::from_bytes(bytes))
}

/// Whether a datagram starts with a QUIC long header (RFC 9000 §17.2).
#[inline]
pub fn is_long_header(datagram: &[u8]) -> bool {
    datagram
        .first()
        .is_some_and(|first| first & LONG_HEADER_BIT != 0)
}

/// Whether a datagram starts with a QUIC Initial (RFC 9000 §17.2.2), whatever its version: the only kind
/// of packet that begins a connection without anything known before.
#[inline]
pub fn is_initial(datagram: &[u8]) -> bool {
    let initial = LONG_HEADER_BIT | FIXED_BIT;
    datagram
        .first()
        .is_some_and(|first| first & (initial | LONG_TYPE_BITS) == initial)
}

/// The full counter whose low half is `low` and which lies nearest to the one after `highest`, the
/// greatest counter authenticated so far (RFC 9000 appendix A.3, for four byte packet numbers).
// PROTOCOL SM-SF-3
#[inline]
pub fn expand_counter(low: u32, highest: u64) -> u64 {
    const WINDOW: u64 = 1 << 32;
    const HALF: u64 = WINDOW / 2;
    let expected = highest.saturating_add(1);
    let candidate = (expected & !(WINDOW - 1)) | u64::from(low);
    if candidate.saturating_add(HALF) <= expected {
        candidate.checked_add(WINDOW).unwrap_or(candidate)
    } else if candidate > expected.saturating_add(HALF) {
        candidate.checked_sub(WINDOW).unwrap_or(candidate)
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(phase: KeyPhase, index: u64, counter: u64) -> [u8; HEADER_LEN] {
        let mut out = [0xff; HEADER_LEN];
        write_header(&mut out, phase, ReceiverIndex(index), counter);
        out
    }

    // PROTOCOL SM-SF-1
    #[test]
    fn header_is_a_quic_short_header_bit_for_bit() {
        let out = header(KeyPhase::One, 0x0102_0304_0506_0708, 0xaabb_0a0b_0c0d);
        assert_eq!(
            out,
            [0b0100_0111, 1, 2, 3, 4, 5, 6, 7, 8, 0x0a, 0x0b, 0x0c, 0x0d]
        );
        assert_eq!(header(KeyPhase::Zero, 0, 0)[0], 0b0100_0011);
        assert_eq!(OVERHEAD, 30);
    }

    // PROTOCOL SM-SF-5
    #[test]
    fn only_short_headers_with_room_for_an_inner_frame_have_an_index() {
        let mut frame = vec![0; FRAME_LEN_MIN];
        frame[..HEADER_LEN].copy_from_slice(&header(KeyPhase::Zero, 77, 1));
        assert_eq!(receiver_index(&frame), Some(ReceiverIndex(77)));
        assert_eq!(receiver_index(&frame[..FRAME_LEN_MIN - 1]), None);
        frame[0] = 0x03; // no fixed bit
        assert_eq!(receiver_index(&frame), None);
        frame[0] = 0xc3; // long header
        assert_eq!(receiver_index(&frame), None);
        assert!(is_long_header(&frame) && is_initial(&frame));
        frame[0] = 0xe3; // a handshake packet
        assert!(is_long_header(&frame) && !is_initial(&frame));
        frame[0] = 0x83; // no fixed bit
        assert!(!is_initial(&frame) && !is_initial(&[]));
        assert!(!is_long_header(&[]));
    }

    // PROTOCOL SM-SF-3
    #[test]
    fn counters_expand_across_the_32_bit_border_both_ways() {
        assert_eq!(expand_counter(1, u64::from(u32::MAX)), (1 << 32) + 1);
        assert_eq!(expand_counter(u32::MAX, 1 << 32), u64::from(u32::MAX));
        assert_eq!(expand_counter(0, 0), 0);
        assert_eq!(expand_counter(u32::MAX, u64::MAX), u64::MAX);
    }

    proptest! {
        // PROTOCOL SM-SF-1
        #[test]
        fn headers_round_trip(epoch: u32, index: u64, counter: u64) {
            let phase = KeyPhase::from_epoch(epoch);
            let read = read_header(&header(phase, index, counter)).unwrap();
            prop_assert_eq!(read, Header { phase, index: ReceiverIndex(index), counter_low: counter as u32 });
        }

        // PROTOCOL SM-SF-3
        #[test]
        fn counters_near_the_highest_expand_to_themselves(highest in 0..u64::MAX - (1 << 33), ahead in 0u64..(1 << 31)) {
            let counter = highest + 1 + ahead;
            prop_assert_eq!(expand_counter(counter as u32, highest), counter);
            let late = (highest + 1).saturating_sub(ahead);
            prop_assert_eq!(expand_counter(late as u32, highest), late);
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>, low: u32, highest: u64) {
            let _ = receiver_index(&bytes);
            let _ = (is_long_header(&bytes), is_initial(&bytes));
            let expanded = expand_counter(low, highest);
            prop_assert_eq!(expanded as u32, low);
        }
    }
}
