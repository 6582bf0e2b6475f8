//! One AEAD key as sealed frames use it: nonce from the counter, header as associated data.

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use shadowmesh_wire::sealed::{HEADER_LEN, TAG_LEN};
use zeroize::Zeroizing;

use crate::cipher::Cipher;

/// The cipher of one direction in one epoch. AWS-LC cleanses the key when it frees it.
pub(crate) struct FrameCipher {
    key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_LEN]>,
}

impl FrameCipher {
    pub(crate) fn new(cipher: Cipher, key: &[u8; 32], iv: &[u8; NONCE_LEN]) -> Self {
        let key = UnboundKey::new(cipher.aead(), key).expect("both ciphers take 32-byte keys");
        Self {
            key: LessSafeKey::new(key),
            iv: Zeroizing::new(*iv),
        }
    }

    /// HOT PATH. Seals `datagram` in place: header, inner frame, room for the tag.
    #[inline]
    pub(crate) fn seal(&self, counter: u64, datagram: &mut [u8]) {
        let (header, rest) = datagram.split_at_mut(HEADER_LEN);
        let (inner, room) = rest.split_at_mut(rest.len() - TAG_LEN);
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(counter), Aad::from(&*header), inner)
            .expect("a datagram is far shorter than any AEAD's limit");
        room.copy_from_slice(tag.as_ref());
    }

    /// HOT PATH. Opens `sealed` (inner frame and tag) in place; false when it is not authentic.
    #[inline]
    pub(crate) fn open(&self, counter: u64, header: &[u8; HEADER_LEN], sealed: &mut [u8]) -> bool {
        self.key
            .open_in_place(self.nonce(counter), Aad::from(header), sealed)
            .is_ok()
    }

    /// The 64-bit counter, left-padded, xor the IV (RFC 9001 §5.3).
    // PROTOCOL SM-SF-3
    #[inline]
    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = *self.iv;
        for (byte, counter) in nonce[NONCE_LEN - 8..].iter_mut().zip(counter.to_be_bytes()) {
            *byte ^= counter;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}
