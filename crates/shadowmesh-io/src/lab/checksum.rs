//! The internet checksum (RFC 1071).

/// Sum of big-endian 16-bit words with end-around carry, over several pieces; every piece but
/// the last must have an even length. Not inverted.
pub(super) fn sum(pieces: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for piece in pieces {
        // Four bytes at a time: 2^16 is 1 modulo 0xffff, so the halves may be added later.
        let (words, rest) = piece.as_chunks::<4>();
        let sum_of_words = words
            .iter()
            .map(|word| u64::from(u32::from_be_bytes(*word)));
        total += sum_of_words.sum::<u64>();
        for pair in rest.chunks(2) {
            total += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_and_an_odd_end() {
        assert_eq!(
            sum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]),
            0xddf2
        );
        assert_eq!(sum(&[&[0xff, 0xff], &[0x01]]), 0x0100);
        assert_eq!(sum(&[&[0xff; 6], &[0, 1, 0, 2, 0, 3, 4]]), 0x0406);
    }
}
