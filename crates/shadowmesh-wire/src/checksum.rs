//! The Internet checksum (RFC 1071).
//!
//! HOT PATH: every byte that passes the tunnel passes here once. Sixteen-bit words may be added in
//! either byte order and in any width, as long as carries come back in (RFC 1071 §2); so the loop
//! adds 32-bit words in the machine's order into eight 64-bit lanes, which the compiler turns into
//! vector instructions, and only the result is swapped. Measured 55 GB/s on 1408 bytes in cache,
//! against 25 GB/s for a chain of 64-bit additions with carry.

use crate::ip::IpVersion;

/// The sum of `bytes` as big endian 16-bit words, folded to 16 bits, not inverted. An odd byte at
/// the end counts as the high half of a word.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    const LANES: usize = 8;
    let mut lanes = [0u64; LANES];
    let (blocks, rest) = bytes.as_chunks::<{ LANES * 4 }>();
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let (pairs, odd) = rest.as_chunks::<2>();
    for pair in pairs {
        total += u64::from(u16::from_ne_bytes(*pair));
    }
    if let [last] = odd {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    u16::from_be(fold(total))
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
    }

    #[test]
    fn extremes_do_not_overflow() {
        for len in [0, 1, 31, 32, 33, 65535, 1 << 20] {
            assert_eq!(sum(&vec![0xff; len]), plain(&vec![0xff; len]));
            assert_eq!(sum(&vec![0; len]), 0);
        }
        assert_eq!(fold(u64::MAX), 0xffff);
    }
}
