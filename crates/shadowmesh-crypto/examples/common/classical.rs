//! Two nodes with classical cryptography, for comparison only: X25519, and Ed25519 raw public keys
//! on both sides.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::crypto::{ClientConfig, ServerConfig, Session};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group, sign};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};

use super::handshake::{Dial, parameters};

/// A client and a server.
pub struct Nodes {
    client: Arc<QuicClientConfig>,
    server: Arc<QuicServerConfig>,
}

impl Nodes {
    /// Two nodes that pin each other's key.
    pub fn new() -> Self {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
            kx_groups: vec![kx_group::X25519],
            ..default_provider()
        });
        let algorithms = provider.signature_verification_algorithms;
        let initial = cipher_suite::TLS13_AES_128_GCM_SHA256
            .tls13()
            .and_then(|suite| suite.quic_suite())
            .expect("the suite of RFC 9001");
        let (client_key, server_key) = (key(), key());
        let pin = |key: &CertifiedKey| {
            Arc::new(Pin {
                key: key.cert[0].clone(),
                algorithms,
            })
        };

        let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a suite of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(pin(&server_key))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
                Arc::clone(&client_key),
            )));
        client.resumption = rustls::client::Resumption::disabled();
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("a suite of TLS 1.3")
            .with_client_cert_verifier(pin(&client_key))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(server_key)));
        let initial_error = "the suite of RFC 9001";
        Self {
            client: QuicClientConfig::with_initial(Arc::new(client), initial)
                .expect(initial_error)
                .into(),
            server: QuicServerConfig::with_initial(Arc::new(server), initial)
                .expect(initial_error)
                .into(),
        }
    }
}

impl Dial for Nodes {
    fn client(&self) -> Box<dyn Session> {
        Arc::clone(&self.client)
            .start_session(1, "classical", &parameters())
            .expect("version 1 is QUIC's")
    }

    fn server(&self) -> Box<dyn Session> {
        Arc::clone(&self.server).start_session(1, &parameters())
    }
}

fn key() -> Arc<CertifiedKey> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("randomness");
    let key = sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(document.as_ref()))
        .expect("a key made a moment ago");
    let public = key
        .public_key()
        .expect("Ed25519 keys have one")
        .into_owned();
    Arc::new(CertifiedKey::new(
        vec![CertificateDer::from(public.to_vec())],
        key,
    ))
}

/// Accepts one key.
#[derive(Debug)]
struct Pin {
    key: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pin {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        if *certificate == self.key {
            Ok(())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(certificate.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pin {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
