//! Which AEAD seals the frames of a session: by measurement, not by guess.
//!
//! At start a node times both ciphers at the size of a full frame; peers exchange the figures and
//! each computes the same choice: the cipher whose slower side is fastest. So a node without AES
//! instructions gets ChaCha20-Poly1305 from everybody. Both ciphers have 256-bit keys; there is
//! nothing below to be talked down to.

use std::time::Duration;

use aws_lc_rs::aead::{self, quic};

use crate::session::FrameCipher;

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

/// A full frame at the default MTU: what bulk traffic looks like.
const FRAME_LEN: usize = 1420;
/// Long enough to be steady on a busy machine, short enough not to be felt at start.
const MEASURE_FOR: Duration = Duration::from_millis(2);
/// Frames between two looks at the clock.
const FRAMES_PER_LOOK: u64 = 32;
/// The best of several rounds: whatever disturbs a measurement only ever makes it slower.
const ROUNDS: u32 = 3;

/// Times both ciphers with the clock `now` and returns MB/s in the order of [`Cipher::ALL`], at
/// least 1. Takes about 12 ms.
// PROTOCOL SM-SF-8
pub fn measure_speeds(mut now: impl FnMut() -> Duration) -> [u32; 2] {
    Cipher::ALL.map(|cipher| {
        (0..ROUNDS)
            .map(|_| measure(cipher, &mut now))
            .max()
            .unwrap_or(1)
    })
}

fn measure(cipher: Cipher, now: &mut impl FnMut() -> Duration) -> u32 {
    let key = FrameCipher::new(cipher, &[7; 32], &[7; 12]);
    let mut frame = [0; FRAME_LEN];
    let mut counter = 0;
    key.seal(counter, &mut frame);
    let start = now();
    loop {
        for _ in 0..FRAMES_PER_LOOK {
            counter += 1;
            key.seal(counter, &mut frame);
        }
        let took = now().saturating_sub(start);
        // The second bound ends the measurement under a clock that stands still.
        if took >= MEASURE_FOR || counter >= 1 << 16 {
            let megabytes = (counter * FRAME_LEN as u64) as f64 / 1e6;
            let speed = megabytes / took.as_secs_f64().max(1e-9);
            return (speed as u32).max(1);
        }
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

    // PROTOCOL SM-SF-8
    #[test]
    fn a_measurement_ends_under_any_clock_and_refuses_no_cipher() {
        let mut clock = Duration::ZERO;
        let ticking = measure_speeds(|| {
            clock += Duration::from_micros(500);
            clock
        });
        assert!(ticking.iter().all(|&speed| speed > 0), "{ticking:?}");
        let frozen = measure_speeds(|| Duration::ZERO);
        assert!(frozen.iter().all(|&speed| speed > 0), "{frozen:?}");
    }
}
