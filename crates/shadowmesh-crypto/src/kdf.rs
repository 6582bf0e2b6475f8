//! Key derivation: HKDF (RFC 5869) over SHA-384, the hash of the TLS suite that most sessions use.
//!
//! SHA-384 and not SHA-256 because a chain secret then has room for two independent 256-bit
//! secrets, and because on 64-bit machines it is about as fast.

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

/// Length of every intermediate secret, bytes: the output of SHA-384.
pub(crate) const SECRET_LEN: usize = 48;

/// An intermediate secret, wiped when dropped. Boxed, so that moving it moves a pointer and leaves no
/// copy on the stack that nobody wipes.
pub(crate) type Secret = Box<Zeroizing<[u8; SECRET_LEN]>>;

/// A secret to be filled in.
pub(crate) fn blank() -> Secret {
    Box::new(Zeroizing::new([0; SECRET_LEN]))
}

/// HKDF-Extract: mixes fresh `input` into `salt`.
pub(crate) fn extract(salt: &[u8], input: &[u8]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA384, salt).extract(input)
}

/// Takes a secret that is already uniform as a pseudo-random key (RFC 5869 §3.3).
pub(crate) fn prk(secret: &Secret) -> hkdf::Prk {
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA384, secret.as_slice())
}

/// HKDF-Expand: fills `out` in place, so that no copy is left behind. The parts of `info` are
/// concatenated, so callers give parts of fixed length.
pub(crate) fn expand(prk: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    prk.expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("all outputs are far below HKDF's limit of 255 hashes");
}
