//! The key schedule: from the handshake to the keys of every epoch.
//!
//! ```text
//! chain 0   = TLS-Exporter("EXPORTER-shadowmesh session v1", context)
//! chain n+1 = HKDF-Expand(HKDF-Extract(chain n, hybrid secret),
//!                         "shadowmesh chain v1" ‖ epoch ‖ SHA-384(request share ‖ response share))
//! key, IV   = HKDF-Expand(chain n, "shadowmesh key v1" | "shadowmesh iv v1" ‖ direction)
//! header    = HKDF-Expand(chain 0, "shadowmesh header v1" ‖ direction)
//! ```
//!
//! Direction is the side of the control connection that sends. The shares are bound into the chain
//! because ML-KEM alone does not bind its ciphertext (as TLS binds them by its transcript).

use aws_lc_rs::aead::quic::HeaderProtectionKey;
use aws_lc_rs::{digest, hkdf};
use quinn_proto::Side;
use zeroize::Zeroizing;

use super::FrameCipher;
use crate::cipher::Cipher;
use crate::hybrid::HybridSecret;
use crate::kdf::{self, Secret};

/// The chain secret of one epoch. Wiped when dropped.
pub(super) struct Chain(Secret);

impl Chain {
    /// Epoch 0, straight from the TLS exporter.
    // PROTOCOL SM-EP-1
    pub(super) fn from_exporter(secret: Secret) -> Self {
        Self(secret)
    }

    /// The chain of the next epoch, `epoch`: needs a key exchange that this chain does not contain.
    // PROTOCOL SM-EP-1
    pub(super) fn next(
        &self,
        epoch: u32,
        fresh: &HybridSecret,
        request: &[u8],
        response: &[u8],
    ) -> Self {
        let mut shares = digest::Context::new(&digest::SHA384);
        shares.update(request);
        shares.update(response);
        let prk = kdf::extract(self.0.as_slice(), fresh.as_slice());
        let shares = shares.finish();
        let info: [&[u8]; 3] = [
            b"shadowmesh chain v1",
            &epoch.to_be_bytes(),
            shares.as_ref(),
        ];
        let mut next = kdf::blank();
        kdf::expand(&prk, &info, next.as_mut_slice());
        Self(next)
    }

    /// The frame key of the direction in which `sender` sends.
    pub(super) fn frame_cipher(&self, cipher: Cipher, sender: Side) -> FrameCipher {
        let prk = self.prk();
        let direction = [direction(sender)];
        let (mut key, mut iv) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 12]));
        kdf::expand(&prk, &[b"shadowmesh key v1", &direction], key.as_mut());
        kdf::expand(&prk, &[b"shadowmesh iv v1", &direction], iv.as_mut());
        FrameCipher::new(cipher, &key, &iv)
    }

    /// The header protection key of a direction: taken from epoch 0 and kept for the session.
    // PROTOCOL SM-SF-2
    pub(super) fn header_key(&self, cipher: Cipher, sender: Side) -> HeaderProtectionKey {
        let mut key = Zeroizing::new([0; 32]);
        let info: [&[u8]; 2] = [b"shadowmesh header v1", &[direction(sender)]];
        kdf::expand(&self.prk(), &info, key.as_mut());
        HeaderProtectionKey::new(cipher.header_protection(), key.as_ref())
            .expect("both header protections take 32-byte keys")
    }

    fn prk(&self) -> hkdf::Prk {
        kdf::prk(&self.0)
    }
}

fn direction(sender: Side) -> u8 {
    match sender {
        Side::Client => 0,
        Side::Server => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(epoch: u32, fresh: u8, request: &[u8], response: &[u8]) -> String {
        let mut first = kdf::blank();
        first.fill(42);
        let fresh = HybridSecret::new(Zeroizing::new([fresh; 64]));
        let chain = Chain(first).next(epoch, &fresh, request, response);
        chain.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As in the test of the first frame, the figure is a second implementation's.
    // PROTOCOL SM-EP-1
    #[test]
    fn the_second_chain_secret_of_a_known_exchange_is_known() {
        const EXPECTED: &str = concat!(
            "85db07db2380a1cdc7a1029b2f98000a97ae45b242e4958c",
            "465c27260082e53466a12eba20e2dade3850fa0f9e1f7cda"
        );
        assert_eq!(next(1, 7, b"request", b"response"), EXPECTED);
    }

    // PROTOCOL SM-EP-1
    #[test]
    fn a_chain_secret_depends_on_the_epoch_the_exchange_and_both_shares() {
        let all = [
            next(1, 7, b"request", b"response"),
            next(2, 7, b"request", b"response"),
            next(1, 8, b"request", b"response"),
            next(1, 7, b"Request", b"response"),
            next(1, 7, b"request", b"Response"),
        ];
        assert_eq!(std::collections::BTreeSet::from_iter(&all).len(), all.len());
    }
}
