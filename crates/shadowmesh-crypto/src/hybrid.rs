//! The one key exchange of ShadowMesh: ML-KEM-1024 (FIPS 203) beside X25519 (RFC 7748).
//!
//! Used twice: as the TLS group of every control connection and, fresh each time, for every rekey
//! of a session. A share is the ML-KEM part, then the X25519 part, and so is the secret (the order
//! of the IETF hybrids); the secret is safe while either part is. Who uses the secret must run it
//! through a key derivation that also binds the shares, as TLS and the epoch schedule do.

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, X25519, agree_ephemeral};
use aws_lc_rs::kem::{Ciphertext, DecapsulationKey, EncapsulationKey, ML_KEM_1024};
use aws_lc_rs::rand::SystemRandom;
use zeroize::Zeroizing;

/// Length of an ML-KEM-1024 encapsulation key and of its ciphertext, bytes (FIPS 203, table 3).
pub(crate) const KEM_LEN: usize = 1568;
/// Length of an X25519 public key, bytes.
const X25519_LEN: usize = 32;
/// Length of a share, either way.
pub(crate) const SHARE_LEN: usize = KEM_LEN + X25519_LEN;

/// The shared secret: 32 bytes of ML-KEM, 32 bytes of X25519. Boxed, so that it is wiped where it is
/// and never moves.
pub(crate) type HybridSecret = Box<Zeroizing<[u8; 64]>>;

/// Why a key exchange failed. All but the last are the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HybridError {
    /// The share has the wrong length.
    #[error("a key share is {SHARE_LEN} bytes long, not {found}")]
    Length {
        /// The length that came, bytes.
        found: usize,
    },
    /// The encapsulation key has a coefficient outside the field (FIPS 203 §7.2), or the
    /// ciphertext cannot be read.
    #[error("the ML-KEM part of the key share is invalid")]
    Kem,
    /// The X25519 secret is all zero (RFC 7748 §6.1): the peer's key lies in a small subgroup.
    #[error("the X25519 part of the key share is invalid")]
    X25519,
    /// The operating system gave no randomness.
    #[error("no randomness for a key")]
    Randomness,
}

/// The side that speaks first and keeps the decapsulation key until the answer is there.
pub(crate) struct Initiator {
    kem: DecapsulationKey,
    x25519: EphemeralPrivateKey,
    share: Vec<u8>,
}

impl Initiator {
    pub(crate) fn new() -> Result<Self, HybridError> {
        let kem = DecapsulationKey::generate(&ML_KEM_1024).map_err(|_| HybridError::Randomness)?;
        let encapsulation_key = kem
            .encapsulation_key()
            .and_then(|key| key.key_bytes())
            .expect("a generated key knows its public half");
        let (x25519, x25519_public) = x25519()?;
        let share = [encapsulation_key.as_ref(), x25519_public.as_ref()].concat();
        debug_assert_eq!(share.len(), SHARE_LEN);
        Ok(Self { kem, x25519, share })
    }

    /// What to send: encapsulation key, then X25519 key.
    pub(crate) fn share(&self) -> &[u8] {
        &self.share
    }

    /// Takes the responder's share. A changed ciphertext does not fail here: ML-KEM rejects
    /// implicitly, the secrets differ and the first use of a key shows it.
    pub(crate) fn finish(self, response: &[u8]) -> Result<HybridSecret, HybridError> {
        let (ciphertext, x25519_public) = split(response)?;
        let kem = self
            .kem
            .decapsulate(Ciphertext::from(ciphertext))
            .map_err(|_| HybridError::Kem)?;
        agree(kem.as_ref(), self.x25519, x25519_public)
    }
}

/// The side that answers: takes the initiator's share, gives its own and the secret.
pub(crate) fn respond(share: &[u8]) -> Result<(Vec<u8>, HybridSecret), HybridError> {
    let (encapsulation_key, x25519_public) = split(share)?;
    // PROTOCOL SM-HS-3
    let (ciphertext, kem) = EncapsulationKey::new(&ML_KEM_1024, encapsulation_key)
        .map_err(|_| HybridError::Kem)?
        .encapsulate()
        .map_err(|_| HybridError::Kem)?;
    let (x25519, ours) = x25519()?;
    let secret = agree(kem.as_ref(), x25519, x25519_public)?;
    Ok(([ciphertext.as_ref(), ours.as_ref()].concat(), secret))
}

fn x25519() -> Result<(EphemeralPrivateKey, agreement::PublicKey), HybridError> {
    let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new())
        .map_err(|_| HybridError::Randomness)?;
    let public = private
        .compute_public_key()
        .map_err(|_| HybridError::Randomness)?;
    Ok((private, public))
}

// PROTOCOL SM-HS-3
fn split(share: &[u8]) -> Result<(&[u8], &[u8]), HybridError> {
    if share.len() != SHARE_LEN {
        return Err(HybridError::Length { found: share.len() });
    }
    Ok(share.split_at(KEM_LEN))
}

fn agree(
    kem: &[u8],
    private: EphemeralPrivateKey,
    public: &[u8],
) -> Result<HybridSecret, HybridError> {
    let mut secret = Box::new(Zeroizing::new([0; 64]));
    secret[..32].copy_from_slice(kem);
    let public = agreement::UnparsedPublicKey::new(&X25519, public);
    // AWS-LC refuses an all-zero result, as RFC 7748 §6.1 wants it.
    // PROTOCOL SM-HS-2
    agree_ephemeral(private, public, HybridError::X25519, |x25519| {
        secret[32..].copy_from_slice(x25519);
        Ok(())
    })?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_on_a_fresh_secret() {
        let initiator = Initiator::new().unwrap();
        let (response, theirs) = respond(initiator.share()).unwrap();
        assert_eq!(response.len(), SHARE_LEN);
        let ours = initiator.finish(&response).unwrap();
        assert_eq!(*ours, *theirs);
        assert_ne!(ours[..32], [0; 32]);
        assert_ne!(ours[32..], [0; 32]);

        let again = Initiator::new().unwrap();
        let (response, _) = respond(again.share()).unwrap();
        assert_ne!(*again.finish(&response).unwrap(), *ours);
    }

    // PROTOCOL SM-HS-2
    #[test]
    fn an_all_zero_x25519_share_is_refused_by_both_sides() {
        let initiator = Initiator::new().unwrap();
        let mut share = initiator.share().to_vec();
        share[KEM_LEN..].fill(0);
        assert_eq!(respond(&share).unwrap_err(), HybridError::X25519);

        let (mut response, _) = respond(initiator.share()).unwrap();
        response[KEM_LEN..].fill(0);
        assert_eq!(
            initiator.finish(&response).unwrap_err(),
            HybridError::X25519
        );
    }

    // PROTOCOL SM-HS-2
    #[test]
    fn x25519_points_of_small_order_are_refused() {
        let initiator = Initiator::new().unwrap();
        let mut one = [0; 32];
        one[0] = 1;
        // p - 1, p and p + 1, little endian (RFC 7748 §5: p = 2^255 - 19).
        let mut near_p = [[0xff_u8; 32]; 3];
        for (point, low) in near_p.iter_mut().zip([0xec, 0xed, 0xee]) {
            (point[0], point[31]) = (low, 0x7f);
        }
        for point in near_p.iter().chain([&one]) {
            let mut share = initiator.share().to_vec();
            share[KEM_LEN..].copy_from_slice(point);
            assert_eq!(respond(&share).unwrap_err(), HybridError::X25519);
        }
    }

    // PROTOCOL SM-HS-3
    #[test]
    fn an_encapsulation_key_with_a_coefficient_outside_the_field_is_refused() {
        let initiator = Initiator::new().unwrap();
        // Two 12-bit coefficients in three bytes (FIPS 203, ByteDecode); q is 3329 = 0xd01.
        for coefficient in [3329_u16, 4095] {
            for at in [0, 3 * 100, 1536 - 3] {
                let mut share = initiator.share().to_vec();
                share[at] = coefficient as u8;
                share[at + 1] = share[at + 1] & 0xf0 | (coefficient >> 8) as u8;
                assert_eq!(
                    respond(&share).unwrap_err(),
                    HybridError::Kem,
                    "{coefficient} at {at}"
                );
            }
        }
    }

    // PROTOCOL SM-HS-3
    #[test]
    fn shares_of_any_other_length_are_refused() {
        for found in [0, 32, KEM_LEN, SHARE_LEN - 1, SHARE_LEN + 1] {
            let share = vec![0; found];
            assert_eq!(respond(&share).unwrap_err(), HybridError::Length { found });
            let initiator = Initiator::new().unwrap();
            assert_eq!(
                initiator.finish(&share).unwrap_err(),
                HybridError::Length { found }
            );
        }
    }

    // PROTOCOL SM-HS-3
    #[test]
    fn a_changed_ciphertext_gives_a_different_secret() {
        let initiator = Initiator::new().unwrap();
        let (mut response, theirs) = respond(initiator.share()).unwrap();
        response[7] ^= 1;
        assert_ne!(*initiator.finish(&response).unwrap(), *theirs);
    }
}
