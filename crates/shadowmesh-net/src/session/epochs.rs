//! From one epoch to the next, without losing a frame.
//!
//! ```text
//! asker                                   answerer
//! Idle ── RekeyRequest(e+1, share) ──►    opens e+1 beside e, seals in e       -> Answered
//! Asked
//! opens and seals in e+1  ◄─ RekeyResponse(e+1, share)
//! Finished ── RekeyConfirm(e+1) ──►       seals in e+1
//!                                         Overlap: e stays open for late frames
//! Overlap ◄────── RekeyConfirm(e+1) ──
//! ```
//!
//! Each side keeps opening the old epoch until the other certainly seals in the new one and late
//! frames have had their time; then its keys are wiped. Either side may ask; when requests cross,
//! the lower PeerId's counts. A rekey that does not come through is not repaired here: `Net` makes
//! a new connection beside the old one, which needs no key of this chain.

use std::sync::Arc;
use std::time::Instant;

use shadowmesh_crypto::{KeyChain, Opener, RekeyError, RekeyPending, Sealer};
use shadowmesh_wire::control::ControlMessage;

/// The keys of a session and what rekey is under way.
pub(crate) struct Epochs {
    chain: KeyChain,
    state: State,
    /// When the current epoch began to be used for sending.
    pub(crate) changed_at: Instant,
}

enum State {
    /// One epoch.
    Idle,
    /// We asked.
    Asked(RekeyPending),
    /// We answered, and receive in both epochs until told that the peer is over.
    Answered,
    /// Our request was answered; the peer has not yet said that it is over.
    Finished,
    /// Both are over; the old epoch stays open for late frames.
    Overlap,
}

/// What followed from a rekey message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// To be sent back.
    pub(crate) reply: Option<ControlMessage>,
    /// The data plane needs the new sealer or opener.
    pub(crate) keys_changed: bool,
    /// We now seal in this epoch.
    pub(crate) moved_to: Option<u32>,
    /// The old epoch can be wiped after the overlap.
    pub(crate) overlap_begins: bool,
}

/// Why a rekey message cannot be followed. The peer's fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EpochError {
    #[error(transparent)]
    Rekey(#[from] RekeyError),
    #[error("rekey message out of turn")]
    OutOfTurn,
}

impl Epochs {
    pub(crate) fn new(chain: KeyChain, now: Instant) -> Self {
        Self {
            chain,
            state: State::Idle,
            changed_at: now,
        }
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.chain.epoch()
    }

    pub(crate) fn sealer(&self) -> Arc<Sealer> {
        self.chain.sealer()
    }

    pub(crate) fn opener(&self) -> Arc<Opener> {
        self.chain.opener()
    }

    /// Whether a rekey waits for the peer.
    pub(crate) fn is_under_way(&self) -> bool {
        !matches!(self.state, State::Idle | State::Overlap)
    }

    /// Asks for the next epoch, if nothing is under way.
    // PROTOCOL SM-EP-2
    pub(crate) fn ask(&mut self) -> Result<Option<ControlMessage>, RekeyError> {
        if !matches!(self.state, State::Idle) {
            return Ok(None);
        }
        let (pending, share) = self.chain.begin_rekey()?;
        self.state = State::Asked(pending);
        Ok(Some(ControlMessage::RekeyRequest {
            epoch: self.chain.epoch() + 1,
            share,
        }))
    }

    /// The peer asks for `epoch`. `ours_counts`: our PeerId is the lower one.
    // PROTOCOL SM-EP-5
    pub(crate) fn on_request(
        &mut self,
        epoch: u32,
        share: &[u8],
        ours_counts: bool,
    ) -> Result<Step, EpochError> {
        match &self.state {
            State::Asked(_) if ours_counts => return Ok(Step::default()),
            State::Idle | State::Asked(_) | State::Overlap => {}
            State::Answered | State::Finished => return Err(EpochError::OutOfTurn),
        }
        let share = self.chain.respond_rekey(epoch, share)?;
        self.state = State::Answered;
        Ok(Step {
            reply: Some(ControlMessage::RekeyResponse { epoch, share }),
            keys_changed: true,
            ..Step::default()
        })
    }

    /// The peer answers our request.
    // PROTOCOL SM-EP-3
    pub(crate) fn on_response(
        &mut self,
        epoch: u32,
        share: &[u8],
        now: Instant,
    ) -> Result<Step, EpochError> {
        let State::Asked(pending) = std::mem::replace(&mut self.state, State::Finished) else {
            return Err(EpochError::OutOfTurn);
        };
        self.chain.finish_rekey(pending, epoch, share)?;
        self.changed_at = now;
        Ok(Step {
            reply: Some(ControlMessage::RekeyConfirm { epoch }),
            keys_changed: true,
            moved_to: Some(epoch),
            overlap_begins: false,
        })
    }

    /// The peer says that it seals in `epoch`.
    // PROTOCOL SM-EP-3
    pub(crate) fn on_confirm(&mut self, epoch: u32, now: Instant) -> Result<Step, EpochError> {
        match self.state {
            State::Answered => {
                self.chain.confirm_rekey(epoch)?;
                self.changed_at = now;
                self.state = State::Overlap;
                Ok(Step {
                    reply: Some(ControlMessage::RekeyConfirm { epoch }),
                    keys_changed: true,
                    moved_to: Some(epoch),
                    overlap_begins: true,
                })
            }
            State::Finished if epoch == self.chain.epoch() => {
                self.state = State::Overlap;
                Ok(Step {
                    overlap_begins: true,
                    ..Step::default()
                })
            }
            _ => Err(EpochError::OutOfTurn),
        }
    }

    /// Late frames have had their time: wipes the old epoch. True: keys changed.
    // PROTOCOL SM-EP-3
    pub(crate) fn retire(&mut self) -> bool {
        if !matches!(self.state, State::Overlap) {
            return false;
        }
        self.chain.retire_previous();
        self.state = State::Idle;
        true
    }
}
