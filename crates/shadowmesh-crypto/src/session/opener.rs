//! The receiving side of a session's data plane.

use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::aead::quic::HeaderProtectionKey;
use shadowmesh_wire::sealed::{
    FRAME_LEN_MIN, HEADER_LEN, Header, KeyPhase, TAG_LEN, expand_counter, read_header,
};

use super::COUNTER_END;
use super::frame::FrameCipher;

/// Bits of the first byte under header protection in a short header (RFC 9001 §5.4.1).
const PROTECTED_BITS: u8 = 0x1f;
/// Where the counter's low half stands; the header protection sample begins 4 bytes after it.
const COUNTER_AT: usize = 9;
const SAMPLE_LEN: usize = 16;

/// Opens the frames of one session in the one or two epochs that are open right now.
///
/// Immutable: a new epoch makes a new `Opener`. A wiped epoch is one whose last `Opener` is gone,
/// so hold these no longer than a batch.
pub struct Opener {
    header: Arc<HeaderProtectionKey>,
    /// By key phase, as the two open epochs are neighbours.
    keys: [Option<Arc<EpochKey>>; 2],
}

/// The receiving key of one epoch.
pub(super) struct EpochKey {
    pub(super) epoch: u32,
    pub(super) cipher: FrameCipher,
}

/// A frame that opened. Whether it came before, and so whether it may be delivered, is for
/// [`SharedWindow`](super::SharedWindow) to say; until then nobody learns where its contents lie.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Authentic(Opened);

impl Authentic {
    pub(super) fn counter(&self) -> u64 {
        self.0.counter
    }

    pub(super) fn accepted(&self) -> Opened {
        self.0.clone()
    }

    /// A frame as far as a window can tell.
    #[cfg(test)]
    pub(super) fn of(counter: u64) -> Self {
        Self(Opened {
            counter,
            epoch: 0,
            inner: 0..0,
        })
    }
}

/// An authentic frame that never came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The frame's counter.
    pub counter: u64,
    /// The epoch whose key opened it.
    pub epoch: u32,
    /// Where in the datagram the inner frame lies, type byte first. Never empty.
    pub inner: Range<usize>,
}

/// Why a datagram did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OpenError {
    /// Too short for a sealed frame.
    #[error("too short for a sealed frame")]
    TooShort,
    /// No key for the epoch it claims: late by an epoch, or forged.
    #[error("no key for the frame's epoch")]
    NoSuchEpoch,
    /// Not sealed by the peer with this key, or changed on the way.
    #[error("not authentic")]
    Forged,
    /// Authentic, and here before.
    #[error("replayed")]
    Replayed,
    /// Authentic, and older than the replay window reaches.
    #[error("older than the replay window")]
    TooOld,
}

impl Opener {
    pub(super) fn new(header: Arc<HeaderProtectionKey>, key: Arc<EpochKey>) -> Self {
        Self {
            header,
            keys: [None, None],
        }
        .with(key)
    }

    /// The same with `key` open too. It takes the place of the epoch two before it.
    pub(super) fn with(&self, key: Arc<EpochKey>) -> Self {
        let mut keys = self.keys.clone();
        let slot = slot(KeyPhase::from_epoch(key.epoch));
        keys[slot] = Some(key);
        Self {
            header: Arc::clone(&self.header),
            keys,
        }
    }

    /// The same with no epoch before `epoch` open.
    pub(super) fn since(&self, epoch: u32) -> Self {
        let keys = self
            .keys
            .clone()
            .map(|key| key.filter(|key| key.epoch >= epoch));
        Self {
            header: Arc::clone(&self.header),
            keys,
        }
    }

    /// HOT PATH. Opens a datagram in place: the inner frame then lies in clear. After an
    /// error the datagram's contents are of no use to anybody. `highest` is about the highest
    /// counter seen so far ([`SharedWindow::highest`](super::SharedWindow::highest)); it may be
    /// wrong by 2^31.
    ///
    /// # Errors
    /// See [`OpenError`]; each is a reason to drop the datagram.
    // PROTOCOL SM-SF-1
    #[inline]
    pub fn open(&self, datagram: &mut [u8], highest: u64) -> Result<Authentic, OpenError> {
        if datagram.len() < FRAME_LEN_MIN {
            return Err(OpenError::TooShort);
        }
        let inner = HEADER_LEN..datagram.len() - TAG_LEN;
        let header = self.unprotect(datagram);
        let Header {
            phase, counter_low, ..
        } = read_header(&header).ok_or(OpenError::Forged)?;
        let counter = expand_counter(counter_low, highest);
        if counter >= COUNTER_END {
            return Err(OpenError::Forged);
        }
        let key = self.keys[slot(phase)]
            .as_ref()
            .ok_or(OpenError::NoSuchEpoch)?;
        if !key
            .cipher
            .open(counter, &header, &mut datagram[HEADER_LEN..])
        {
            return Err(OpenError::Forged);
        }
        Ok(Authentic(Opened {
            counter,
            epoch: key.epoch,
            inner,
        }))
    }

    /// The header as it was before protection; the datagram keeps it as it came.
    // PROTOCOL SM-SF-2
    #[inline]
    fn unprotect(&self, datagram: &[u8]) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&datagram[..HEADER_LEN]);
        apply_mask(
            &self.header,
            &mut header,
            &datagram[HEADER_LEN..HEADER_LEN + SAMPLE_LEN],
        );
        header
    }
}

#[cfg(test)]
impl Opener {
    /// A look at the key of `epoch` that does not keep it.
    pub(super) fn weak_key(&self, epoch: u32) -> Option<std::sync::Weak<EpochKey>> {
        let key = self.keys.iter().flatten().find(|key| key.epoch == epoch)?;
        Some(Arc::downgrade(key))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut epochs: Vec<u32> = self.keys.iter().flatten().map(|key| key.epoch).collect();
        epochs.sort_unstable();
        f.debug_struct("Opener")
            .field("epochs", &epochs)
            .finish_non_exhaustive()
    }
}

fn slot(phase: KeyPhase) -> usize {
    match phase {
        KeyPhase::Zero => 0,
        KeyPhase::One => 1,
    }
}

/// HOT PATH. Adds or takes away header protection: the same xor either way (RFC 9001 §5.4.1).
// PROTOCOL SM-SF-2
#[inline]
pub(super) fn apply_mask(key: &HeaderProtectionKey, header: &mut [u8], sample: &[u8]) {
    let mask = key
        .new_mask(sample)
        .expect("the sample is 16 bytes, as every key wants it");
    header[0] ^= mask[0] & PROTECTED_BITS;
    for (byte, mask) in header[COUNTER_AT..HEADER_LEN].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
}
