//! Our side of authentication: which certificate we show, and the signature under it.
//!
//! The two certificates are told apart by two private signature schemes, both the same composite
//! signature. A side lists the short scheme only when it can verify it: a client because it holds
//! the server's key, a server always, because it does not know yet who calls; so a client uses the
//! short one only when it was told that the server holds its key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

use super::{Certificate, HandshakeCounters};
use crate::Identity;

/// The composite signature under a full certificate. Private use is 0xFE00 and up (RFC 8446
/// §4.2.3); low bytes 0 to 2 look like RSA and DSA of TLS 1.2 to rustls, which then drops them.
// PROTOCOL SM-HS-6
pub(super) const FULL: SignatureScheme = SignatureScheme::Unknown(0xfe10);
/// The composite signature under a short certificate.
// PROTOCOL SM-HS-6
pub(super) const SHORT: SignatureScheme = SignatureScheme::Unknown(0xfe11);

/// Both certificates of this node, each with its key.
#[derive(Debug)]
struct Certificates {
    full: Arc<CertifiedKey>,
    short: Arc<CertifiedKey>,
}

impl Certificates {
    fn new(identity: &Arc<Identity>, counters: Arc<HandshakeCounters>) -> Self {
        let with = |certificate, scheme| {
            let key = CompositeKey {
                identity: Arc::clone(identity),
                scheme,
                counters: Arc::clone(&counters),
            };
            Arc::new(CertifiedKey::new(vec![certificate], Arc::new(key)))
        };
        Self {
            full: with(Certificate::full(identity.public()), FULL),
            short: with(Certificate::short(&identity.peer_id()), SHORT),
        }
    }

    fn choose(&self, short: bool) -> Arc<CertifiedKey> {
        Arc::clone(if short { &self.short } else { &self.full })
    }
}

/// What a server shows: the short certificate to whoever says that it can verify it.
#[derive(Debug)]
pub(super) struct ServerCertificate(Certificates);

impl ServerCertificate {
    pub(super) fn new(identity: &Arc<Identity>, counters: Arc<HandshakeCounters>) -> Self {
        Self(Certificates::new(identity, counters))
    }
}

impl ResolvesServerCert for ServerCertificate {
    // PROTOCOL SM-HS-6
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(
            self.0
                .choose(client_hello.signature_schemes().contains(&SHORT)),
        )
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

/// What a client shows to one server.
#[derive(Debug)]
pub(super) struct ClientCertificate {
    certificates: Certificates,
    /// Whether that server holds our key. A flag and not two resolvers, because rustls resumes only
    /// under the resolver that was there when the ticket came.
    short: AtomicBool,
}

impl ClientCertificate {
    pub(super) fn new(identity: &Arc<Identity>, counters: Arc<HandshakeCounters>) -> Self {
        let certificates = Certificates::new(identity, counters);
        Self {
            certificates,
            short: AtomicBool::new(false),
        }
    }

    pub(super) fn set_short(&self, short: bool) {
        self.short.store(short, Ordering::Relaxed);
    }
}

impl ResolvesClientCert for ClientCertificate {
    // PROTOCOL SM-HS-6
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let short = self.short.load(Ordering::Relaxed) && sigschemes.contains(&SHORT);
        Some(self.certificates.choose(short))
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The identity as rustls's signing key, under one of the two schemes.
#[derive(Debug, Clone)]
struct CompositeKey {
    identity: Arc<Identity>,
    scheme: SignatureScheme,
    counters: Arc<HandshakeCounters>,
}

impl SigningKey for CompositeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&self.scheme)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        let [_, algorithm] = self.scheme.to_array();
        SignatureAlgorithm::from(algorithm)
    }
}

impl Signer for CompositeKey {
    // PROTOCOL SM-HS-4
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.counters.sign.fetch_add(1, Ordering::Relaxed);
        Ok(self.identity.sign(message))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
