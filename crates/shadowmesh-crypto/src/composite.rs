//! The one signature of ShadowMesh: ML-DSA-87 (FIPS 204) and Ed25519 (RFC 8032) over one message.
//!
//! Shape of draft-ietf-lamps-pq-composite-sigs: both algorithms sign
//! `prefix ‖ label ‖ 0 ‖ SHA-512(M)`, and the signature is the two side by side. Prefix and label
//! keep either half from being lifted into a protocol that uses one of the keys alone; the zero is
//! the length of an application context we do not use. Verification is a strict AND: a forger must
//! break both.

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, ML_DSA_87, UnparsedPublicKey};

/// Length of an ML-DSA-87 signature, bytes (FIPS 204, table 2).
pub(crate) const ML_DSA_SIGNATURE_LEN: usize = 4627;
/// Length of an Ed25519 signature, bytes.
pub(crate) const ED25519_SIGNATURE_LEN: usize = 64;
/// Length of the composite signature, bytes.
pub(crate) const SIGNATURE_LEN: usize = ML_DSA_SIGNATURE_LEN + ED25519_SIGNATURE_LEN;

const PREFIX: &[u8; 32] = b"CompositeAlgorithmSignatures2025";
/// The draft registers no ML-DSA-87 with Ed25519; this label is ours.
const LABEL: &[u8] = b"COMPSIG-MLDSA87-Ed25519-SHA512";

const SHA512_LEN: usize = 64;
const REPRESENTATIVE_LEN: usize = PREFIX.len() + LABEL.len() + 1 + SHA512_LEN;

/// What both algorithms sign in place of `message`.
pub(crate) fn representative(message: &[u8]) -> [u8; REPRESENTATIVE_LEN] {
    let mut out = [0; REPRESENTATIVE_LEN];
    let (prefix, rest) = out.split_at_mut(PREFIX.len());
    let (label, rest) = rest.split_at_mut(LABEL.len());
    prefix.copy_from_slice(PREFIX);
    label.copy_from_slice(LABEL);
    rest[1..].copy_from_slice(digest::digest(&digest::SHA512, message).as_ref());
    out
}

/// Whether both halves of `signature` are good for `message` under the two public keys.
// PROTOCOL SM-HS-4
pub(crate) fn verify(ml_dsa: &[u8], ed25519: &[u8], message: &[u8], signature: &[u8]) -> bool {
    if signature.len() != SIGNATURE_LEN {
        return false;
    }
    let (ml_dsa_half, ed25519_half) = signature.split_at(ML_DSA_SIGNATURE_LEN);
    let message = representative(message);
    // The cheap half first: who cannot even forge Ed25519 costs us 25 µs and not 75.
    UnparsedPublicKey::new(&ED25519, ed25519)
        .verify(&message, ed25519_half)
        .is_ok()
        && UnparsedPublicKey::new(&ML_DSA_87, ml_dsa)
            .verify(&message, ml_dsa_half)
            .is_ok()
}
