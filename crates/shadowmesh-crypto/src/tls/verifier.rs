//! The other side of authentication: whose certificate we accept, and its signature.
//!
//! A client accepts one PeerId, a server its members. Both are decided on the certificate, before
//! the 75 µs of a signature check, and both signatures of the composite must verify.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};
use shadowmesh_wire::PeerId;

use super::signing::{FULL, SHORT};
use super::{Certificate, HandshakeCounters, PeerBook};
use crate::PublicIdentity;

/// What both sides share: reading a certificate, finding its key, checking the signature.
#[derive(Debug)]
struct Verifier {
    book: Arc<dyn PeerBook>,
    counters: Arc<HandshakeCounters>,
}

impl Verifier {
    // PROTOCOL SM-HS-4
    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (identity, new) = self.key(parse(certificate)?, signature.scheme)?;
        self.counters.verify.fetch_add(1, Ordering::Relaxed);
        if !identity.verify(message, signature.signature()) {
            return Err(CertificateError::BadSignature.into());
        }
        if new {
            self.book.learned(identity);
        }
        Ok(HandshakeSignatureValid::assertion())
    }

    /// The key to verify with, and whether it came with the certificate. Each scheme goes with one
    /// kind of certificate.
    // PROTOCOL SM-HS-6
    fn key(
        &self,
        certificate: Certificate,
        scheme: SignatureScheme,
    ) -> Result<(Arc<PublicIdentity>, bool), Error> {
        match (certificate, scheme) {
            (Certificate::Full(identity), FULL) => Ok((Arc::new(identity), true)),
            (Certificate::Short(peer), SHORT) => self
                .book
                .public_identity(&peer)
                // A book that gives somebody else's key must not get its owner accepted.
                .filter(|identity| identity.peer_id() == peer)
                .map(|identity| (identity, false))
                .ok_or_else(|| CertificateError::UnknownIssuer.into()),
            _ => Err(CertificateError::BadEncoding.into()),
        }
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::parse(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

/// One certificate and nothing behind it: raw public keys come alone (RFC 7250 §3).
fn parse_alone(
    certificate: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<Certificate, Error> {
    if intermediates.is_empty() {
        parse(certificate)
    } else {
        Err(CertificateError::BadEncoding.into())
    }
}

fn no_tls12() -> Error {
    PeerIncompatible::Tls13RequiredForQuic.into()
}

/// Accepts one server.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    server: PeerId,
    verifier: Verifier,
}

impl ServerVerifier {
    pub(super) fn new(
        server: PeerId,
        book: Arc<dyn PeerBook>,
        counters: Arc<HandshakeCounters>,
    ) -> Self {
        Self {
            server,
            verifier: Verifier { book, counters },
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    // PROTOCOL SM-HS-5
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if parse_alone(end_entity, intermediates)?.peer_id() == self.server {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify(message, certificate, signature)
    }

    /// The short scheme only when we hold the server's key.
    // PROTOCOL SM-HS-6
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        if self.verifier.book.public_identity(&self.server).is_some() {
            vec![SHORT, FULL]
        } else {
            vec![FULL]
        }
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Accepts members.
#[derive(Debug)]
pub(super) struct ClientVerifier(Verifier);

impl ClientVerifier {
    pub(super) fn new(book: Arc<dyn PeerBook>, counters: Arc<HandshakeCounters>) -> Self {
        Self(Verifier { book, counters })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    // PROTOCOL SM-HS-5
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let peer = parse_alone(end_entity, intermediates)?.peer_id();
        if self.0.book.is_member(&peer) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SHORT, FULL]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
