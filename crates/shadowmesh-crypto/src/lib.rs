//! The only crate of ShadowMesh that sees key bytes.
//!
//! It decides *how* two nodes prove who they are, agree on keys and seal frames:
//!
//! - [`Identity`] and [`PublicIdentity`]: an ML-DSA-87 and an Ed25519 key that always act together;
//! - [`TlsConfigs`]: the TLS 1.3 of the control connections, with one hybrid key exchange
//!   (X25519 + ML-KEM-1024), raw public keys and one composite signature, nothing to fall back to;
//! - [`FirstContact`]: the tag by which a node tells a first packet meant for it from noise;
//! - [`KeyChain`], [`Sealer`], [`Opener`], [`SharedWindow`]: the data keys of a session, their
//!   epochs, and the hot path that seals and opens frames;
//! - [`Cipher`]: which AEAD, chosen by what both machines do fastest.
//!
//! It leaves to others *when*: there is no clock, socket, task or timer here. What it draws at
//! random comes from the operating system and is never an argument, because a key that can be
//! replayed from a seed is not a key.
//!
//! Secrets are held by AWS-LC, which cleanses them when it frees them, or in
//! [`zeroize::Zeroizing`], in a box where they are kept or handed on: a secret that moved by value would leave
//! copies behind that nobody wipes. No type that holds one prints it.
#![forbid(unsafe_code)]

mod cipher;
mod composite;
mod first_contact;
mod hybrid;
mod identity;
mod kdf;
mod lan_beacon;
mod measure;
mod session;
mod tls;

pub use cipher::{Cipher, choose};
pub use first_contact::FirstContact;
pub use hybrid::HybridError;
pub use identity::{Identity, IdentityFileError, PublicIdentity, PublicIdentityError};
pub use lan_beacon::{LanBeacon, LanPair};
pub use measure::measure_speeds;
pub use session::{
    Acceptance, Authentic, ExportError, KeyChain, OpenError, Opened, Opener, RekeyError,
    RekeyPending, ReplayWindow, Sealer, SharedWindow,
};
pub use tls::{
    Certificate, CertificateError, HandshakeCounters, PeerBook, TlsConfigs, authenticated_peer,
    server_name,
};
