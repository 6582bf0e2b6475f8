//! The sending side of a session's data plane.

use std::sync::Arc;

use aws_lc_rs::aead::quic::HeaderProtectionKey;
use shadowmesh_wire::sealed::{HEADER_LEN, KeyPhase, OVERHEAD, ReceiverIndex, write_header};

use super::COUNTER_END;
use super::counters::Counters;
use super::frame::FrameCipher;
use super::opener::apply_mask;
use crate::cipher::Cipher;

/// Frames after which an epoch ought to end although its time is not up. At 2^27 frames of 128
/// AES blocks an attacker's advantage against GCM is below 2^-60 (RFC 9001 appendix B.1), and
/// 10 Gbit/s of full frames reach it in 150 s.
// PROTOCOL SM-EP-4
const FRAMES_BEFORE_REKEY: u64 = 1 << 27;
/// Frames after which an AES-256-GCM epoch seals nothing any more: 2^-55, and still eight times
/// the frames before which rekeying began.
// PROTOCOL SM-SF-3
const FRAMES_MAX_AES: u64 = 1 << 30;
/// ChaCha20-Poly1305 has no such limit below the counter's own (RFC 9001 appendix B.2).
const FRAMES_MAX_CHACHA: u64 = COUNTER_END;

/// Seals the frames of one session in one epoch. Shared by any number of threads.
pub struct Sealer {
    epoch: u32,
    cipher: FrameCipher,
    header: Arc<HeaderProtectionKey>,
    /// How the peer finds the session: the index it drew.
    receiver: ReceiverIndex,
    /// One for all epochs of the session.
    counters: Arc<Counters>,
    /// Counters at which this epoch ought to end, and at which it does.
    rekey_at: u64,
    end: u64,
}

impl Sealer {
    pub(super) fn new(
        epoch: u32,
        kind: Cipher,
        cipher: FrameCipher,
        header: Arc<HeaderProtectionKey>,
        receiver: ReceiverIndex,
        counters: Arc<Counters>,
    ) -> Self {
        let start = counters.next();
        let frames_max = match kind {
            Cipher::Aes256Gcm => FRAMES_MAX_AES,
            Cipher::ChaCha20Poly1305 => FRAMES_MAX_CHACHA,
        };
        Self {
            epoch,
            cipher,
            header,
            receiver,
            counters,
            rekey_at: start.saturating_add(FRAMES_BEFORE_REKEY),
            end: start.saturating_add(frames_max).min(COUNTER_END),
        }
    }

    /// The epoch in which this seals.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether so much was sealed that the epoch should end before its time.
    pub fn wants_rekey(&self) -> bool {
        self.counters.next() >= self.rekey_at
    }

    /// HOT PATH. Sets aside `n` counters that nobody else gets, ever, and returns the first. Each
    /// is for one [`Sealer::seal`]; what is left over is simply skipped. `None` when the epoch's
    /// key has sealed all it safely can: only a rekey helps.
    // PROTOCOL SM-SF-3
    #[inline]
    pub fn reserve(&self, n: u64) -> Option<u64> {
        self.counters.reserve(n, self.end)
    }

    /// HOT PATH. Seals a datagram in place. On entry bytes 13 to n-16 are the inner frame, type
    /// byte first; on return the whole is a sealed frame. `counter` must come from
    /// [`Sealer::reserve`] and be used once: two frames under one counter give their key away.
    ///
    /// # Panics
    /// When the datagram has no room for header, inner type and tag: a bug of the caller. In builds
    /// with debug assertions also when the counter is not one that was reserved and not used yet.
    // PROTOCOL SM-SF-1
    #[inline]
    pub fn seal(&self, counter: u64, datagram: &mut [u8]) {
        assert!(
            datagram.len() >= OVERHEAD,
            "a sealed frame has room for header, type and tag"
        );
        self.counters.spend(counter);
        self.protect(counter, datagram);
    }

    /// As [`Sealer::seal`], whatever the counter.
    #[cfg(test)]
    pub(super) fn seal_unchecked(&self, counter: u64, datagram: &mut [u8]) {
        self.protect(counter, datagram);
    }

    #[inline]
    fn protect(&self, counter: u64, datagram: &mut [u8]) {
        let (header, _) = datagram
            .split_first_chunk_mut::<HEADER_LEN>()
            .expect("it is longer than a header");
        write_header(
            header,
            KeyPhase::from_epoch(self.epoch),
            self.receiver,
            counter,
        );
        self.cipher.seal(counter, datagram);
        // PROTOCOL SM-SF-2
        let (header, sealed) = datagram.split_at_mut(HEADER_LEN);
        apply_mask(&self.header, header, &sealed[..16]);
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}
