//! The hybrid key exchange as a TLS group of rustls.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};

use super::HandshakeCounters;
use crate::hybrid::{self, HybridError, Initiator};

/// In the range that RFC 8446 §4.2.7 leaves to private use.
// PROTOCOL SM-HS-1
pub(super) const GROUP: NamedGroup = NamedGroup::Unknown(0xfe01);

#[derive(Debug)]
struct Hybrid {
    counters: Arc<HandshakeCounters>,
}

/// The group, counting its work in `counters`.
///
/// rustls takes groups as `&'static`, so each call leaks some sixteen bytes. It is called once for
/// each node, and a program is one node.
pub(super) fn hybrid(counters: Arc<HandshakeCounters>) -> &'static dyn SupportedKxGroup {
    Box::leak(Box::new(Hybrid { counters }))
}

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        self.counters.kem.fetch_add(1, Ordering::Relaxed);
        let initiator = Initiator::new().map_err(error)?;
        Ok(Box::new(Active {
            initiator,
            counters: Arc::clone(&self.counters),
        }))
    }

    fn start_and_complete(&self, client_share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        self.counters.kem.fetch_add(1, Ordering::Relaxed);
        let (pub_key, secret) = hybrid::respond(client_share).map_err(error)?;
        let secret = SharedSecret::from(secret.as_slice());
        Ok(CompletedKeyExchange {
            group: GROUP,
            pub_key,
            secret,
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        GROUP
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// The client's side between its share and the server's.
struct Active {
    initiator: Initiator,
    counters: Arc<HandshakeCounters>,
}

impl ActiveKeyExchange for Active {
    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, Error> {
        self.counters.kem.fetch_add(1, Ordering::Relaxed);
        let secret = self.initiator.finish(server_share).map_err(error)?;
        Ok(SharedSecret::from(secret.as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        self.initiator.share()
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        GROUP
    }
}

fn error(error: HybridError) -> Error {
    match error {
        HybridError::Randomness => Error::FailedToGetRandomBytes,
        HybridError::Length { .. } | HybridError::Kem | HybridError::X25519 => {
            PeerMisbehaved::InvalidKeyShare.into()
        }
    }
}
