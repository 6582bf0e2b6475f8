//! The identity file: four lines of text.
//!
//! ```text
//! shadowmesh identity v1
//! peer id sm1...
//! ml-dsa-87 seed 64 hexadecimal digits
//! ed25519 seed 64 hexadecimal digits
//! ```
//!
//! Text, so that a person can see what it is and whose; the PeerId doubles as its checksum. Seeds
//! and not expanded keys, because a seed is 32 bytes, has one encoding, and cannot disagree with
//! its public key.

use shadowmesh_wire::PeerId;
use zeroize::Zeroizing;

use super::{SEED_LEN, Seed, blank_seed};

const MAGIC: &str = "shadowmesh identity v1";
const PEER_ID: &str = "peer id ";
const ML_DSA: &str = "ml-dsa-87 seed ";
const ED25519: &str = "ed25519 seed ";

/// Longer than any identity file: magic, a 61-character PeerId, two seeds and their keys.
const FILE_LEN_MAX: usize = 512;

/// Why bytes are not an identity file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityFileError {
    /// The first line is not ours.
    #[error("not an identity file: it does not start with the line \"{MAGIC}\"")]
    NotAnIdentity,
    /// A line is missing or starts otherwise.
    #[error("line {line}: expected \"{expected}...\"")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// What the line must start with.
        expected: &'static str,
    },
    /// A value is no PeerId or not 64 hexadecimal digits.
    #[error("line {line}: \"{expected}\" is followed by a value that cannot be read")]
    Value {
        /// Line number, from 1.
        line: usize,
        /// What the line starts with.
        expected: &'static str,
    },
    /// The keys do not make the PeerId that the file names.
    #[error("the keys do not belong to the peer id in the file: the file is damaged")]
    WrongPeerId,
}

pub(super) struct Contents {
    pub(super) peer_id: PeerId,
    pub(super) ml_dsa_seed: Seed,
    pub(super) ed25519_seed: Seed,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Contents, IdentityFileError> {
    if bytes.len() > FILE_LEN_MAX {
        return Err(IdentityFileError::NotAnIdentity);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| IdentityFileError::NotAnIdentity)?;
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err(IdentityFileError::NotAnIdentity);
    }
    let mut value = |line, expected: &'static str| {
        lines
            .next()
            .and_then(|found| found.strip_prefix(expected))
            .ok_or(IdentityFileError::Line { line, expected })
    };
    let peer_id = value(2, PEER_ID)?
        .parse()
        .map_err(|_| IdentityFileError::Value {
            line: 2,
            expected: PEER_ID,
        })?;
    let mut seed = |line, expected| {
        decode_hex(value(line, expected)?).ok_or(IdentityFileError::Value { line, expected })
    };
    Ok(Contents {
        peer_id,
        ml_dsa_seed: seed(3, ML_DSA)?,
        ed25519_seed: seed(4, ED25519)?,
    })
}

pub(super) fn write(peer_id: &PeerId, ml_dsa: &Seed, ed25519: &Seed) -> Zeroizing<Vec<u8>> {
    // Reserved in one go, so no reallocation leaves half a seed behind in freed memory.
    let mut out = Zeroizing::new(Vec::with_capacity(FILE_LEN_MAX));
    out.extend_from_slice(format!("{MAGIC}\n{PEER_ID}{peer_id}\n").as_bytes());
    for (key, seed) in [(ML_DSA, ml_dsa), (ED25519, ed25519)] {
        out.extend_from_slice(key.as_bytes());
        for byte in seed.iter() {
            out.push(hex_digit(byte >> 4));
            out.push(hex_digit(byte & 15));
        }
        out.push(b'\n');
    }
    debug_assert!(out.len() <= FILE_LEN_MAX);
    out
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 {
        b'0' + nibble
    } else {
        b'a' + nibble - 10
    }
}

fn decode_hex(text: &str) -> Option<Seed> {
    let digits = text.as_bytes();
    if digits.len() != 2 * SEED_LEN {
        return None;
    }
    let mut seed = blank_seed();
    for (byte, pair) in seed.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    fn file() -> String {
        String::from_utf8(Identity::generate().to_file_bytes().to_vec()).unwrap()
    }

    fn read(text: &str) -> IdentityFileError {
        Identity::from_file_bytes(text.as_bytes()).unwrap_err()
    }

    // PROTOCOL SM-ID-3
    #[test]
    fn a_damaged_identity_file_says_which_line_is_wrong() {
        let file = file();
        assert_eq!(read(""), IdentityFileError::NotAnIdentity);
        assert_eq!(
            read("-----BEGIN KEY-----"),
            IdentityFileError::NotAnIdentity
        );
        assert_eq!(read(&"x".repeat(10_000)), IdentityFileError::NotAnIdentity);

        let lines: Vec<&str> = file.lines().collect();
        let without_seed = lines[..3].join("\n");
        assert_eq!(
            read(&without_seed),
            IdentityFileError::Line {
                line: 4,
                expected: ED25519
            }
        );
        let bad_name = file.replacen("peer id sm1", "peer id sm2", 1);
        assert_eq!(
            read(&bad_name),
            IdentityFileError::Value {
                line: 2,
                expected: PEER_ID
            }
        );
        let short_seed = file.trim_end().strip_suffix(|_| true).unwrap();
        assert_eq!(
            read(short_seed),
            IdentityFileError::Value {
                line: 4,
                expected: ED25519
            }
        );
        let not_hex = file.replacen("ml-dsa-87 seed ", "ml-dsa-87 seed zz", 1);
        assert_eq!(
            read(&not_hex),
            IdentityFileError::Value {
                line: 3,
                expected: ML_DSA
            }
        );
    }

    // PROTOCOL SM-ID-3
    #[test]
    fn an_identity_file_with_one_changed_digit_is_refused() {
        let file = file();
        let last = file.trim_end().len() - 1;
        let changed = if file.as_bytes()[last] == b'0' {
            "1"
        } else {
            "0"
        };
        let text = format!("{}{changed}\n", &file[..last]);
        assert_eq!(read(&text), IdentityFileError::WrongPeerId);
    }
}
