//! The Internet checksum (RFC 1071).
//!
//! HOT PATH: every byte that passes the tunnel passes here once on each side. Sixteen-bit words may be
//! added in either byte order and in any width, as long as carries come back in (RFC 1071 §2); so long
//! sums add the halves of 32-bit words in the machine's order, with the vector instructions that this
//! processor has, and only the result is swapped.

use fearless_simd::{Level, Simd, dispatch, prelude::*};

use crate::ip::IpVersion;

/// Shorter than this, as headers are, the call and the sum over the lanes cost more than they save.
const WIDE_LEN_MIN: usize = 128;
/// So many words of 16 bits can be added to one 32-bit lane before it may overflow. Bytes.
const LANE_LEN_MAX: usize = 2 * (1 << 16);

/// The sum of `bytes` as big endian 16-bit words, folded to 16 bits, not inverted. An odd byte at
/// the end counts as the high half of a word.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let total = match bytes.len() < WIDE_LEN_MIN {
        true => sum_words(bytes),
        false => bytes.chunks(LANE_LEN_MAX).map(sum_wide).sum(),
    };
    u16::from_be(fold(total))
}

/// The sum of no more than [`LANE_LEN_MAX`] bytes as words in the machine's order, not folded.
#[inline]
fn sum_wide(bytes: &[u8]) -> u64 {
    dispatch!(Level::new(), simd => sum_lanes(simd, bytes))
}

#[inline(always)] // Or it would not be compiled for the instructions that `simd` stands for.
fn sum_lanes<S: Simd>(simd: S, bytes: &[u8]) -> u64 {
    let mut low = S::u32s::splat(simd, 0);
    let mut high = low;
    let blocks = bytes.chunks_exact(S::u8s::LEN);
    let rest = sum_words(blocks.remainder());
    for block in blocks {
        let words: S::u32s = S::u8s::from_slice(simd, block).bitcast();
        low += words & 0xffff;
        high += words >> 16;
    }
    let lanes = low + high;
    rest + lanes
        .as_slice()
        .iter()
        .map(|lane| u64::from(*lane))
        .sum::<u64>()
}

/// The same, word by word.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let (pairs, odd) = rest.as_chunks::<2>();
    let words = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)));
    let pairs = pairs
        .iter()
        .map(|pair| u64::from(u16::from_ne_bytes(*pair)));
    let odd = odd
        .iter()
        .map(|odd| u64::from(u16::from_ne_bytes([*odd, 0])));
    words.chain(pairs).chain(odd).sum()
}

/// Adds the halves until 16 bits are left.
#[inline]
pub(crate) fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of the addresses and the protocol of a pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1); the
/// length is left to the caller, because it differs from segment to segment.
#[inline]
pub(crate) fn pseudo_header(version: IpVersion, ip_header: &[u8], protocol: u8) -> u64 {
    let addresses = match version {
        IpVersion::V4 => &ip_header[12..20],
        IpVersion::V6 => &ip_header[8..40],
    };
    u64::from(sum(addresses)) + u64::from(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    /// RFC 1071 §4.1, word by word.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    proptest! {
        #[test]
        fn the_fast_sum_equals_the_plain_one(bytes in vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(sum(&bytes), plain(&bytes));
        }

        #[test]
        fn every_kind_of_instructions_gives_the_same(bytes in vec(any::<u8>(), 0..3000)) {
            for level in levels() {
                let total = dispatch!(level, simd => sum_lanes(simd, &bytes));
                prop_assert_eq!(u16::from_be(fold(total)), plain(&bytes), "{:?}", level);
            }
        }
    }

    /// What this processor has, and what a lesser one would have.
    fn levels() -> Vec<Level> {
        let best = Level::new();
        let mut levels = vec![best, Level::baseline()];
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        levels.extend(
            [
                best.as_avx2().map(Level::Avx2),
                best.as_sse4_2().map(Level::Sse4_2),
            ]
            .into_iter()
            .flatten(),
        );
        levels
    }

    #[test]
    fn extremes_do_not_overflow() {
        for len in [
            0,
            1,
            WIDE_LEN_MIN - 1,
            WIDE_LEN_MIN,
            WIDE_LEN_MIN + 1,
            usize::from(u16::MAX),
            LANE_LEN_MAX - 1,
            LANE_LEN_MAX,
            LANE_LEN_MAX + 1,
            // Overflows every lane of 512 bits, if added up at once.
            (1 << 22) + 1025,
        ] {
            assert_eq!(sum(&vec![0xff; len]), plain(&vec![0xff; len]));
            assert_eq!(sum(&vec![0; len]), 0);
        }
        assert_eq!(fold(u64::MAX), 0xffff);
    }
}
