//! Datagrams in one message of a stream link.
//!
//! A WebSocket message costs a header, a TLS record and a system call, whatever its length, and data
//! comes in runs. So a message holds any number of datagrams, each behind its length:
//!
//! ```text
//! length (2) ‖ datagram ‖ length (2) ‖ datagram ‖ …
//! ```
//!
//! A message that does not end with its last datagram, or has an empty one, is not ours: whoever sent it
//! speaks something else, and the link ends. Nothing of a datagram is looked at here.

use thiserror::Error;

/// Bytes before each datagram.
pub const LENGTH_LEN: usize = 2;
/// The longest message: a GSO run of the longest datagrams a path has, with their lengths; and what one
/// member can make another buffer.
// PROTOCOL SM-WS-5
pub const MESSAGE_LEN_MAX: usize = 64 * 1024;
/// The longest datagram, which fills a message.
pub const DATAGRAM_LEN_MAX: usize = MESSAGE_LEN_MAX - LENGTH_LEN;

/// A message that is no bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BundleError {
    /// Longer than [`MESSAGE_LEN_MAX`].
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    /// A datagram of no bytes, or a message of none.
    #[error("an empty datagram")]
    Empty,
    /// The last length, or the datagram behind it, is cut off.
    #[error("a datagram is cut off")]
    Truncated,
}

/// How many more bytes a message becomes with this datagram.
pub const fn len_with(datagram_len: usize) -> usize {
    LENGTH_LEN + datagram_len
}

/// Whether a datagram fits behind `message_len` bytes. Empty ones never do.
pub const fn has_room(message_len: usize, datagram_len: usize) -> bool {
    datagram_len > 0
        && datagram_len <= DATAGRAM_LEN_MAX
        && message_len + len_with(datagram_len) <= MESSAGE_LEN_MAX
}

/// The length that stands before a datagram; [`has_room`] said that it fits.
pub fn length(datagram_len: usize) -> [u8; LENGTH_LEN] {
    u16::try_from(datagram_len)
        .expect("a datagram with room in a message is shorter than 64 KiB")
        .to_be_bytes()
}

/// A message that was looked through: every datagram is whole.
#[derive(Debug)]
pub struct Bundle<'m>(&'m mut [u8]);

impl<'m> Bundle<'m> {
    /// Checks all of a message before anything of it is used.
    // PROTOCOL SM-WS-5
    pub fn parse(message: &'m mut [u8]) -> Result<Self, BundleError> {
        if message.len() > MESSAGE_LEN_MAX {
            return Err(BundleError::TooLong(message.len()));
        }
        if message.is_empty() {
            return Err(BundleError::Empty);
        }
        let mut rest = &*message;
        while !rest.is_empty() {
            let (length, tail) = rest
                .split_first_chunk::<LENGTH_LEN>()
                .ok_or(BundleError::Truncated)?;
            let length = usize::from(u16::from_be_bytes(*length));
            if length == 0 {
                return Err(BundleError::Empty);
            }
            rest = tail.get(length..).ok_or(BundleError::Truncated)?;
        }
        Ok(Self(message))
    }
}

/// The datagrams, to be opened where they lie. The first starts at byte [`LENGTH_LEN`] of the message, each
/// further one [`LENGTH_LEN`] bytes behind the end of the one before.
impl<'m> IntoIterator for Bundle<'m> {
    type Item = &'m mut [u8];
    type IntoIter = Datagrams<'m>;

    fn into_iter(self) -> Self::IntoIter {
        Datagrams(self.0)
    }
}

/// See [`Bundle`].
#[derive(Debug)]
pub struct Datagrams<'m>(&'m mut [u8]);

impl<'m> Iterator for Datagrams<'m> {
    type Item = &'m mut [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = std::mem::take(&mut self.0).split_first_chunk_mut::<LENGTH_LEN>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (datagram, rest) = rest.split_at_mut_checked(length)?;
        self.0 = rest;
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bundle(datagrams: &[Vec<u8>]) -> Vec<u8> {
        let mut message = Vec::new();
        for datagram in datagrams {
            assert!(has_room(message.len(), datagram.len()));
            message.extend_from_slice(&length(datagram.len()));
            message.extend_from_slice(datagram);
        }
        message
    }

    // PROTOCOL SM-WS-5
    #[test]
    fn what_is_cut_off_empty_or_too_long_is_refused_as_a_whole() {
        let whole = bundle(&[vec![1; 30], vec![2; 5]]);
        for len in 1..whole.len() {
            let mut cut = whole[..len].to_vec();
            let parsed = Bundle::parse(&mut cut).map(|bundle| bundle.into_iter().count());
            // A cut between the two leaves a message of one.
            let expected = if len == 32 {
                Ok(1)
            } else {
                Err(BundleError::Truncated)
            };
            assert_eq!(parsed, expected, "{len} bytes");
        }
        let refused = |mut message: Vec<u8>| Bundle::parse(&mut message).unwrap_err();
        assert_eq!(refused(Vec::new()), BundleError::Empty);
        assert_eq!(refused(vec![0, 1, 7, 0, 0]), BundleError::Empty);
        let long = MESSAGE_LEN_MAX + 1;
        assert_eq!(refused(vec![1; long]), BundleError::TooLong(long));
    }

    #[test]
    fn there_is_room_for_what_fits_and_never_for_nothing() {
        assert!(has_room(0, DATAGRAM_LEN_MAX) && !has_room(0, DATAGRAM_LEN_MAX + 1));
        assert!(has_room(MESSAGE_LEN_MAX - 3, 1) && !has_room(MESSAGE_LEN_MAX - 2, 1));
        assert!(!has_room(0, 0));
    }

    proptest! {
        #[test]
        fn datagrams_come_out_as_they_went_in(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 1..30),
        ) {
            let mut message = bundle(&datagrams);
            let parsed = Bundle::parse(&mut message).unwrap();
            let back: Vec<Vec<u8>> = parsed.into_iter().map(|datagram| datagram.to_vec()).collect();
            prop_assert_eq!(back, datagrams);
        }

        #[test]
        fn random_bytes_are_refused_or_are_all_used(mut message in prop::collection::vec(0u8..4, 0..200)) {
            let len = message.len();
            if let Ok(bundle) = Bundle::parse(&mut message) {
                let used: usize = bundle.into_iter().map(|datagram| len_with(datagram.len())).sum();
                prop_assert_eq!(used, len);
            }
        }
    }
}
