//! Key derivation: HKDF (RFC 5869) over SHA-384, the hash of the TLS suite that most sessions use.
//!
//! SHA-384 and not SHA-256 because a chain secret then has room for two independent 256-bit
//! secrets, and because on 64-bit machines it is about as fast.

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

/// Length of every intermediate secret, bytes: the output of SHA-384.
pub(crate) const SECRET_LEN: usize = 48;

/// An intermediate secret, wiped when dropped.
pub(crate) type Secret = Zeroizing<[u8; SECRET_LEN]>;

/// HKDF-Extract: mixes fresh `input` into `salt`.
pub(crate) fn extract(salt: &[u8], input: &[u8]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA384, salt).extract(input)
}

/// Takes a secret that is already uniform as a pseudo-random key (RFC 5869 §3.3).
pub(crate) fn prk(secret: &Secret) -> hkdf::Prk {
    hkdf::Prk::new_less_safe(hkdf::HKDF_SHA384, secret.as_ref())
}

/// HKDF-Expand to exactly `N` bytes; `info` parts are concatenated, so callers give fixed-length
/// parts or put the variable one last.
pub(crate) fn expand<const N: usize>(prk: &hkdf::Prk, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut out = Zeroizing::new([0; N]);
    prk.expand(info, Length(N))
        .and_then(|okm| okm.fill(out.as_mut()))
        .expect("N is a constant far below HKDF's limit of 255 hashes");
    out
}
