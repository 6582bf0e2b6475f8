//! The data keys of a session with one peer.
//!
//! [`KeyChain`] is the control side: it comes out of a finished handshake and moves from epoch to
//! epoch. [`Sealer`] and [`Opener`] are what it hands to the data plane: immutable, shared by
//! threads, without locks or allocation. [`SharedWindow`] remembers which frames came: what opens is
//! [`Authentic`], what it accepts is [`Opened`], and only that tells where the inner frame lies.
//!
//! ```text
//! TLS exporter -> chain 0 -> keys of epoch 0
//!                    | + fresh X25519 and ML-KEM-1024
//!                 chain 1 -> keys of epoch 1        (chain 0 is gone)
//!                    ...
//! ```
//!
//! A stolen epoch key opens that epoch only: the next needs a key exchange the thief did not see.

mod chain;
mod counters;
mod frame;
#[cfg(test)]
mod model;
mod opener;
mod replay;
mod schedule;
mod sealer;
mod sync;
mod window;

pub use chain::{ExportError, KeyChain, RekeyError, RekeyPending};
pub(crate) use frame::FrameCipher;
pub use opener::{Authentic, OpenError, Opened, Opener};
pub use replay::ReplayWindow;
pub use sealer::Sealer;
pub use window::{Acceptance, SharedWindow};

/// Counters end where QUIC's packet numbers do (RFC 9000 §12.3). Nobody gets there honestly, and a
/// peer that pretends to is not followed, so no counter arithmetic can overflow.
// PROTOCOL SM-SF-3
const COUNTER_END: u64 = 1 << 62;

#[cfg(test)]
mod tests;
