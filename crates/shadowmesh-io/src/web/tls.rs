//! TLS 1.3 as browsers speak it, and a certificate for those who bring none.

use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};

use super::ServerError;
use crate::files;

/// The only protocol: a browser that opens a WebSocket offers nothing else either.
const ALPN: &[u8] = b"http/1.1";
/// What stands in a self-signed certificate, as in countless others.
const SELF_SIGNED_NAME: &str = "localhost";
/// A self-signed certificate begins a day ago, for clocks that are late, and lasts ten years.
const DAY: Duration = Duration::from_secs(24 * 3600);
const SELF_SIGNED_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 3600);

/// Offered and accepted in this order.
// PROTOCOL SM-WS-1
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        ..default_provider()
    })
}

/// For streams that we open.
pub(super) fn client() -> ClientConfig {
    let provider = provider();
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has cipher suites of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.into()];
    config
}

/// For streams that come in. `files` are a certificate chain and its key, in PEM.
pub(super) fn server(files: Option<(&Path, &Path)>) -> Result<ServerConfig, ServerError> {
    let (chain, key) = match files {
        Some((certificate, key)) => read(certificate, key)?,
        None => self_signed()?,
    };
    let refused = |error: Error| match files {
        Some((path, _)) => ServerError::Certificate {
            what: "certificate",
            path: path.into(),
            why: error.to_string(),
        },
        None => ServerError::Tls(error.to_string()),
    };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = vec![ALPN.into()];
    Ok(config)
}

/// A chain of ten certificates fits several times.
const PEM_LEN_MAX: u64 = 1 << 20;

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read(certificate: &Path, key: &Path) -> Result<ChainAndKey, ServerError> {
    let wrong = |what, path: &Path, why: String| ServerError::Certificate {
        what,
        path: path.into(),
        why,
    };
    // PROTOCOL SM-ID-4
    let open = |what, path: &Path| {
        let opened = files::open_named(path).map_err(|error| {
            let why = format!("{error}; next: {}", error.next_step());
            wrong(what, path, why)
        });
        Ok::<_, ServerError>(BufReader::new(opened?.take(PEM_LEN_MAX)))
    };
    let chain: Vec<_> = CertificateDer::pem_reader_iter(open("certificate", certificate)?)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong("certificate", certificate, error.to_string()))?;
    if chain.is_empty() {
        let why = "there is no certificate in it; expected PEM";
        return Err(wrong("certificate", certificate, why.into()));
    }
    let key = PrivateKeyDer::from_pem_reader(open("private key", key)?)
        .map_err(|error| wrong("private key", key, error.to_string()))?;
    Ok((chain, key))
}

fn self_signed() -> Result<ChainAndKey, ServerError> {
    let refused = |error: rcgen::Error| ServerError::Tls(error.to_string());
    let key = KeyPair::generate().map_err(refused)?;
    let mut params = CertificateParams::new([SELF_SIGNED_NAME.into()]).map_err(refused)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, SELF_SIGNED_NAME);
    params.distinguished_name = name;
    // A clock before 1970 is refused elsewhere.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + SELF_SIGNED_LIFETIME;
    let certificate = params.self_signed(&key).map_err(refused)?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    Ok((vec![certificate.der().clone()], key))
}

/// Takes every certificate: who is there is proved inside.
// PROTOCOL SM-WS-2
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let schemes = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
