//! The control side of a session: its chain of epochs.
//!
//! At most three epochs meet here: the *previous* one, still open for frames on their way; the
//! *current* one, in which we seal; and, on the side that answered a rekey, the *next* one, open
//! because the peer may already seal in it. Previous and next have the same key phase, so a next
//! epoch ends the previous one.
//!
//! What is decided elsewhere: when to rekey, who asks, whose request wins when two cross.

use std::sync::Arc;

use quinn_proto::Side;
use quinn_proto::crypto::Session;
use shadowmesh_wire::sealed::ReceiverIndex;

use super::counters::Counters;
use super::opener::EpochKey;
use super::schedule::Chain;
use super::{Opener, Sealer};
use crate::cipher::Cipher;
use crate::hybrid::{self, HybridError, Initiator};
use crate::kdf::{self, Secret};

/// TLS exporter label (RFC 8446 §7.5; the prefix is RFC 5705's for private use).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-shadowmesh session v1";

/// The keys of one session and how they move on.
///
/// The [`Sealer`] and [`Opener`] it gives out change with [`KeyChain::respond_rekey`],
/// [`KeyChain::finish_rekey`], [`KeyChain::confirm_rekey`] and [`KeyChain::retire_previous`]: fetch
/// them anew after each.
pub struct KeyChain {
    /// Our side of the control connection, and so of every key exchange's directions.
    side: Side,
    cipher: Cipher,
    theirs: ReceiverIndex,
    current: Epoch,
    /// Installed for receiving by the answering side, until the peer confirms.
    next: Option<Next>,
    sealer: Arc<Sealer>,
    opener: Arc<Opener>,
    counters: Arc<Counters>,
    send_header: Arc<aws_lc_rs::aead::quic::HeaderProtectionKey>,
}

struct Epoch {
    number: u32,
    chain: Chain,
}

/// The next epoch, ready to be sealed in. Made whole at once so that its chain can be dropped and
/// made anew when the peer asks again.
struct Next {
    epoch: Epoch,
    sealer: Arc<Sealer>,
}

/// A rekey that we asked for and whose answer is not there. Dropping it gives the rekey up.
pub struct RekeyPending {
    epoch: u32,
    initiator: Initiator,
}

/// Why a session could not be keyed from a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the control connection's handshake is not finished")]
pub struct ExportError;

/// Why a rekey step was refused. Nothing has changed: the current epoch stays in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RekeyError {
    /// The message is about another epoch than the one that is next.
    #[error("rekey to epoch {found}, but the next is {expected}")]
    WrongEpoch {
        /// The epoch that would be next.
        expected: u32,
        /// The epoch in the message.
        found: u32,
    },
    /// The key exchange failed.
    #[error(transparent)]
    Exchange(#[from] HybridError),
    /// A confirmation came for a rekey that nobody answered.
    #[error("no rekey to confirm")]
    NothingToConfirm,
}

impl KeyChain {
    /// Keys a new session from the finished handshake of its control connection. `side` is ours;
    /// `ours` and `theirs` are the receiver indices that both sides drew.
    ///
    /// # Errors
    /// When the handshake is not finished: data keys never come out of 0-RTT.
    // PROTOCOL SM-EP-1
    // PROTOCOL SM-HS-11
    pub fn export(
        quic: &dyn Session,
        side: Side,
        cipher: Cipher,
        ours: ReceiverIndex,
        theirs: ReceiverIndex,
    ) -> Result<Self, ExportError> {
        if quic.is_handshaking() {
            return Err(ExportError);
        }
        let (client, server) = match side {
            Side::Client => (ours, theirs),
            Side::Server => (theirs, ours),
        };
        let mut context = [0; 17];
        context[0] = cipher.code();
        context[1..9].copy_from_slice(&client.0.to_be_bytes());
        context[9..].copy_from_slice(&server.0.to_be_bytes());
        let mut secret = kdf::blank();
        quic.export_keying_material(secret.as_mut_slice(), EXPORTER_LABEL, &context)
            .map_err(|_| ExportError)?;
        Ok(Self::from_secret(secret, side, cipher, theirs))
    }

    pub(super) fn from_secret(
        secret: Secret,
        side: Side,
        cipher: Cipher,
        theirs: ReceiverIndex,
    ) -> Self {
        let chain = Chain::from_exporter(secret);
        let counters = Arc::new(Counters::default());
        let send_header = Arc::new(chain.header_key(cipher, side));
        let receive_header = Arc::new(chain.header_key(cipher, !side));
        let sealer = Sealer::new(
            0,
            cipher,
            chain.frame_cipher(cipher, side),
            Arc::clone(&send_header),
            theirs,
            Arc::clone(&counters),
        );
        let key = EpochKey {
            epoch: 0,
            cipher: chain.frame_cipher(cipher, !side),
        };
        Self {
            side,
            cipher,
            theirs,
            current: Epoch { number: 0, chain },
            next: None,
            sealer: Arc::new(sealer),
            opener: Arc::new(Opener::new(receive_header, Arc::new(key))),
            counters,
            send_header,
        }
    }

    /// What seals the frames we send.
    pub fn sealer(&self) -> Arc<Sealer> {
        Arc::clone(&self.sealer)
    }

    /// What opens the frames we get.
    pub fn opener(&self) -> Arc<Opener> {
        Arc::clone(&self.opener)
    }

    /// The epoch in which we seal.
    pub fn epoch(&self) -> u32 {
        self.current.number
    }

    /// The cipher of this session.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Asks for the next epoch: returns what to keep and the share to send in RekeyRequest for
    /// epoch [`KeyChain::epoch`] + 1.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    // PROTOCOL SM-EP-2
    pub fn begin_rekey(&self) -> Result<(RekeyPending, Vec<u8>), RekeyError> {
        let initiator = Initiator::new()?;
        let share = initiator.share().to_vec();
        Ok((
            RekeyPending {
                epoch: self.next_epoch(),
                initiator,
            },
            share,
        ))
    }

    /// Answers the peer's request for `epoch`: returns the share for RekeyResponse and opens the
    /// next epoch's frames from now on. The same epoch may be asked for again, when the first
    /// attempt failed; the newest answer counts.
    ///
    /// # Errors
    /// When `epoch` is not the next one, or the share is invalid.
    // PROTOCOL SM-EP-2
    // PROTOCOL SM-EP-3
    pub fn respond_rekey(&mut self, epoch: u32, share: &[u8]) -> Result<Vec<u8>, RekeyError> {
        self.expect_next(epoch)?;
        let (response, fresh) = hybrid::respond(share)?;
        let chain = self.current.chain.next(epoch, &fresh, share, &response);
        let sealer = self.install(epoch, &chain);
        self.next = Some(Next {
            epoch: Epoch {
                number: epoch,
                chain,
            },
            sealer,
        });
        Ok(response)
    }

    /// Takes the peer's response to our request: from now on the next epoch is the current one, for
    /// opening and for sealing. Send RekeyConfirm.
    ///
    /// # Errors
    /// When `epoch` is not the one that was asked for, or the share is invalid. The attempt is then
    /// over; begin another.
    // PROTOCOL SM-EP-2
    // PROTOCOL SM-EP-3
    pub fn finish_rekey(
        &mut self,
        pending: RekeyPending,
        epoch: u32,
        share: &[u8],
    ) -> Result<(), RekeyError> {
        self.expect_next(epoch)?;
        self.expect_next(pending.epoch)?;
        let request = pending.initiator.share().to_vec();
        let fresh = pending.initiator.finish(share)?;
        let chain = self.current.chain.next(epoch, &fresh, &request, share);
        let sealer = self.install(epoch, &chain);
        self.enter(Next {
            epoch: Epoch {
                number: epoch,
                chain,
            },
            sealer,
        });
        Ok(())
    }

    /// The peer seals in `epoch` (it said so, or a frame of it opened), so we may, too.
    ///
    /// # Errors
    /// When we answered no request for `epoch`. Confirming the current epoch again is no error: the
    /// message and the first frame of a new epoch both confirm it.
    // PROTOCOL SM-EP-3
    pub fn confirm_rekey(&mut self, epoch: u32) -> Result<(), RekeyError> {
        if epoch == self.current.number {
            return Ok(());
        }
        self.expect_next(epoch)?;
        let next = self.next.take().ok_or(RekeyError::NothingToConfirm)?;
        self.enter(next);
        Ok(())
    }

    /// Closes every epoch before the current one. Its keys are wiped as soon as the data plane lets
    /// go of the openers and sealers it was given before.
    // PROTOCOL SM-EP-3
    pub fn retire_previous(&mut self) {
        // An answered next epoch stays open: the peer may seal in it any moment.
        self.opener = Arc::new(self.opener.since(self.current.number));
    }

    /// Opens `epoch` for receiving and makes its sealer.
    fn install(&mut self, epoch: u32, chain: &Chain) -> Arc<Sealer> {
        let key = EpochKey {
            epoch,
            cipher: chain.frame_cipher(self.cipher, !self.side),
        };
        self.opener = Arc::new(self.opener.with(Arc::new(key)));
        Arc::new(self.new_sealer(epoch, chain))
    }

    fn new_sealer(&self, epoch: u32, chain: &Chain) -> Sealer {
        Sealer::new(
            epoch,
            self.cipher,
            chain.frame_cipher(self.cipher, self.side),
            Arc::clone(&self.send_header),
            self.theirs,
            Arc::clone(&self.counters),
        )
    }

    /// Makes `next` the current epoch. The old chain secret is wiped here: from now on nothing we
    /// hold gives the old epoch's keys but those keys themselves.
    fn enter(&mut self, next: Next) {
        self.current = next.epoch;
        self.sealer = next.sealer;
        self.next = None;
    }

    fn next_epoch(&self) -> u32 {
        self.current
            .number
            .checked_add(1)
            .expect("2^32 epochs of 10 s are 1361 years")
    }

    fn expect_next(&self, found: u32) -> Result<(), RekeyError> {
        let expected = self.next_epoch();
        if found == expected {
            Ok(())
        } else {
            Err(RekeyError::WrongEpoch { expected, found })
        }
    }
}

#[cfg(test)]
impl KeyChain {
    /// As if that many frames had been sent.
    pub(super) fn set_counter(&self, counter: u64) {
        self.counters.set(counter);
    }

    /// The sealer of the current epoch as if the epoch began at the counter of now.
    pub(super) fn remade_sealer(&self) -> Sealer {
        self.new_sealer(self.current.number, &self.current.chain)
    }
}

impl std::fmt::Debug for KeyChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyChain")
            .field("epoch", &self.epoch())
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for RekeyPending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RekeyPending")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}
