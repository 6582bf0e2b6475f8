//! The name of a peer.
//!
//! A [`PeerId`] is the SHA-256 over both public keys of an identity (`shadowmesh-crypto` computes
//! it, because it needs keys). Here it is only 32 bytes and a text form: bech32m (BIP 350) with the
//! prefix `sm`. The checksum finds every error in up to four characters, so a mistyped id in a
//! configuration is refused and never becomes the name of somebody else.

use std::{fmt, str::FromStr};

use bech32::primitives::decode::{CheckedHrpstring, CheckedHrpstringError};
use bech32::{Bech32m, Fe32, Hrp};

const PREFIX: Hrp = Hrp::parse_unchecked("sm");

/// Characters of the text form: prefix and `1`, 52 for 32 bytes, 6 of checksum.
const TEXT_LEN: usize = 61;

/// Characters of the text form that [`fmt::Debug`] shows: enough to tell peers apart in a log.
const SHORT_LEN: usize = 11;

/// The 256-bit name of a node, bound to both of its public keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Wraps the 32 bytes of an id.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

// PROTOCOL SM-ID-2
impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, PREFIX, &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string();
        write!(f, "{}…", &text[..SHORT_LEN])
    }
}

impl FromStr for PeerId {
    type Err = PeerIdError;

    // PROTOCOL SM-ID-2
    fn from_str(text: &str) -> Result<Self, PeerIdError> {
        let parsed = CheckedHrpstring::new::<Bech32m>(text)
            .map_err(|error| PeerIdError::of(text, &error))?;
        if parsed.hrp() != PREFIX {
            return Err(PeerIdError::Prefix(parsed.hrp().to_string()));
        }
        let mut bytes = [0; 32];
        let mut len = 0;
        for byte in parsed.byte_iter() {
            *bytes.get_mut(len).ok_or(PeerIdError::Length)? = byte;
            len += 1;
        }
        if len != bytes.len() {
            return Err(PeerIdError::Length);
        }
        Ok(Self(bytes))
    }
}

/// Why a text is not a [`PeerId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerIdError {
    /// Longer or shorter than the text of any PeerId.
    #[error("a peer id has 61 characters, this text has {0}: was it cut when it was copied?")]
    TextLength(usize),
    /// A character bech32 does not use.
    #[error("{0:?} stands in no peer id")]
    Character(char),
    /// Every character could stand in a peer id, but not all of them together.
    #[error("its checksum does not fit: a character was changed on the way")]
    Checksum,
    /// Not bech32m for another reason.
    #[error("not a peer id: {0}")]
    Text(String),
    /// Valid bech32m, but the name of something else.
    #[error("a peer id starts with \"sm1\", this text starts with \"{0}1\"")]
    Prefix(String),
    /// Valid bech32m with our prefix, but not 32 bytes.
    #[error("a peer id holds 32 bytes, this text holds another number")]
    Length,
}

impl PeerIdError {
    /// What a person who copied `text` did wrong, where the decoder speaks of residues.
    fn of(text: &str, error: &CheckedHrpstringError) -> Self {
        let body = match text.get(..3) {
            Some(start) if start.eq_ignore_ascii_case("sm1") => &text[3..],
            _ => return Self::Text("it does not start with \"sm1\"".into()),
        };
        if let Some(strange) = body.chars().find(|&c| Fe32::from_char(c).is_err()) {
            return Self::Character(strange);
        }
        match error {
            _ if text.len() != TEXT_LEN => Self::TextLength(text.len()),
            CheckedHrpstringError::Checksum(_) => Self::Checksum,
            other => Self::Text(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // PROTOCOL SM-ID-2
        #[test]
        fn text_form_round_trips(bytes: [u8; 32]) {
            let id = PeerId::from_bytes(bytes);
            let text = id.to_string();
            prop_assert!(text.starts_with("sm1"));
            prop_assert_eq!(text.len(), 61);
            prop_assert_eq!(text.parse::<PeerId>().unwrap(), id);
            prop_assert_eq!(text.to_uppercase().parse::<PeerId>().unwrap(), id);
        }

        // PROTOCOL SM-ID-2
        #[test]
        fn one_changed_character_is_refused(bytes: [u8; 32], at in 3usize..61, to in "[02-9ac-hj-np-z]") {
            let mut text = PeerId::from_bytes(bytes).to_string();
            prop_assume!(text[at..=at] != to);
            text.replace_range(at..=at, &to);
            prop_assert!(text.parse::<PeerId>().is_err());
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = text.parse::<PeerId>();
        }
    }

    #[test]
    fn other_prefixes_and_lengths_are_refused_by_name() {
        let other = bech32::encode::<Bech32m>(Hrp::parse("bc").unwrap(), &[7; 32]).unwrap();
        assert_eq!(
            other.parse::<PeerId>(),
            Err(PeerIdError::Prefix("bc".into()))
        );
        for len in [0, 31, 33, 64] {
            let text = bech32::encode::<Bech32m>(PREFIX, &vec![7; len]).unwrap();
            assert_eq!(text.parse::<PeerId>(), Err(PeerIdError::Length));
        }
        let bech32_not_m = bech32::encode::<bech32::Bech32>(PREFIX, &[7; 32]).unwrap();
        assert_eq!(bech32_not_m.parse::<PeerId>(), Err(PeerIdError::Checksum));
    }

    #[test]
    fn what_goes_wrong_in_copying_is_named() {
        let text = PeerId::from_bytes([7; 32]).to_string();
        let wrong = |text: &str| text.parse::<PeerId>().unwrap_err();
        assert_eq!(text.len(), TEXT_LEN);
        assert_eq!(wrong(&text[..55]), PeerIdError::TextLength(55));
        assert_eq!(wrong("sm1"), PeerIdError::TextLength(3));
        assert_eq!(wrong("sm1..."), PeerIdError::Character('.'));
        assert_eq!(
            wrong(&text.replace('8', "\u{e9}")),
            PeerIdError::Character('\u{e9}')
        );
        assert_eq!(wrong(&text.replace('8', "9")), PeerIdError::Checksum);
        for text in ["", "vps", &text[1..]] {
            assert!(matches!(wrong(text), PeerIdError::Text(_)), "{text}");
        }
    }

    #[test]
    fn debug_is_the_short_form() {
        assert_eq!(format!("{:?}", PeerId::from_bytes([0; 32])), "sm1qqqqqqqq…");
    }
}
