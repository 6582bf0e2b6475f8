//! Which AEAD seals the frames of a session: by measurement, not by guess.
//!
//! At start a node times both ciphers (`measure`); peers exchange the figures and each computes the
//! same choice: the cipher whose slower side is fastest. So a node without AES
//! instructions gets ChaCha20-Poly1305 from everybody. Both ciphers have 256-bit keys; there is
//! nothing below to be talked down to.

use aws_lc_rs::aead::{self, quic};

/// The AEAD of sealed frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-256-GCM; header protection by AES-256 (RFC 9001 §5.4.3).
    Aes256Gcm,
    /// ChaCha20-Poly1305; header protection by ChaCha20 (RFC 9001 §5.4.4).
    ChaCha20Poly1305,
}

impl Cipher {
    /// Every cipher, in the order of the speed figures.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// The name as in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    pub(crate) fn aead(self) -> &'static aead::Algorithm {
        match self {
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        }
    }

    pub(crate) fn header_protection(self) -> &'static quic::Algorithm {
        match self {
            Self::Aes256Gcm => &quic::AES_256,
            Self::ChaCha20Poly1305 => &quic::CHACHA20,
        }
    }

    /// The byte that stands for the cipher in key derivation.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Aes256Gcm => 0,
            Self::ChaCha20Poly1305 => 1,
        }
    }
}

impl std::fmt::Display for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The cipher for a session between machines of these speeds (MB/s, order of [`Cipher::ALL`], 0 for
/// a cipher that a side refuses). Symmetric, so both sides choose alike; `None` when each side
/// refuses what the other takes.
// PROTOCOL SM-SF-8
pub fn choose(ours: [u32; 2], theirs: [u32; 2]) -> Option<Cipher> {
    let aes = ours[0].min(theirs[0]);
    let chacha = ours[1].min(theirs[1]);
    match (aes, chacha) {
        (0, 0) => None,
        _ if aes >= chacha => Some(Cipher::Aes256Gcm),
        _ => Some(Cipher::ChaCha20Poly1305),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-SF-8
    #[test]
    fn both_sides_choose_the_cipher_whose_slower_side_is_fastest() {
        for (ours, theirs, expected) in [
            ([7000, 2000], [7000, 2000], Some(Cipher::Aes256Gcm)),
            ([7000, 2000], [90, 300], Some(Cipher::ChaCha20Poly1305)),
            ([500, 500], [500, 500], Some(Cipher::Aes256Gcm)),
            ([7000, 0], [90, 300], Some(Cipher::Aes256Gcm)),
            ([0, 2000], [7000, 1], Some(Cipher::ChaCha20Poly1305)),
            ([0, 2000], [7000, 0], None),
            ([0, 0], [7000, 2000], None),
        ] {
            assert_eq!(choose(ours, theirs), expected, "{ours:?} {theirs:?}");
            assert_eq!(choose(theirs, ours), expected, "{theirs:?} {ours:?}");
        }
    }
}
