//! The TLS 1.3 of the control connections, as quinn-proto wants it.
//!
//! One way to do everything, so that there is nothing to downgrade to: one key exchange group (the
//! hybrid, `group`), raw public keys instead of certificate chains (`certificate`), one composite
//! signature (`signing`), the peer pinned by its PeerId (`verifier`). Two cipher suites remain,
//! both with 256-bit keys; QUIC's Initial packets use AES-128-GCM because RFC 9001 says so, under
//! keys that are public anyway.
//!
//! A returning client resumes: tickets are kept by the server, and each is good once, so 0-RTT data
//! cannot be replayed to the same node; after a restart there are no tickets and the handshake is
//! full. Resumption skips the verifiers: ask [`authenticated_peer`] on *every* connection and check
//! the pin and the membership again.
//!
//! The one look at a clock is rustls's own: it lets tickets expire after a day of system time. A
//! clock that jumps costs a resumption, and the handshake is full again.

mod certificate;
mod group;
mod signing;
mod verifier;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use ::aws_lc_rs::rand;
use quinn_proto::crypto::Session;
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientSessionMemoryCache, ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ResolvesServerCert, ServerSessionMemoryCache};
use shadowmesh_wire::PeerId;

pub use certificate::{Certificate, CertificateError};

use crate::{Identity, PublicIdentity};
use signing::{ClientCertificate, ServerCertificate};
use verifier::{ClientVerifier, ServerVerifier};

/// Names the protocol on the control connection, and its version.
const ALPN: &[u8] = b"shadowmesh/1";

/// Tickets a server gives on each connection: one to return with, one in reserve for a return that
/// went unanswered, because an attempt uses its ticket up.
const TICKETS_PER_CONNECTION: usize = 2;
/// Tickets a server keeps, the oldest forgotten first. Each holds the client's certificate, so this
/// is about 3 MB at most; a client whose ticket is gone does a full handshake.
const TICKETS_MAX: usize = 1024;
/// Tickets a client keeps for each server: rustls counts in units of eight for each.
const TICKETS_PER_SERVER_MAX: usize = 8;

/// What the handshake asks and tells about peers. Called during handshakes, so it must not block.
pub trait PeerBook: Send + Sync + Debug {
    /// Whether this peer may connect to us.
    fn is_member(&self, peer: &PeerId) -> bool;
    /// The full key of this peer, if we hold it: what makes the short certificate possible.
    fn public_identity(&self, peer: &PeerId) -> Option<Arc<PublicIdentity>>;
    /// A peer proved with both signatures that this key is its own.
    fn learned(&self, identity: Arc<PublicIdentity>);
}

/// How much post-quantum work the handshakes of one node did. A flood of first packets must leave
/// them as they are.
#[derive(Debug, Default)]
pub struct HandshakeCounters {
    /// ML-KEM-1024 with X25519: keys made, shares answered, answers taken.
    pub kem: AtomicU64,
    /// Composite signatures made.
    pub sign: AtomicU64,
    /// Composite signatures checked.
    pub verify: AtomicU64,
}

/// Makes the TLS configurations of one node and keeps what a node must remember between
/// connections: the tickets it may return with, and those it gave out.
pub struct TlsConfigs {
    identity: Arc<Identity>,
    book: Arc<dyn PeerBook>,
    counters: Arc<HandshakeCounters>,
    provider: Arc<CryptoProvider>,
    server: Arc<QuicServerConfig>,
    /// One for each peer we ever connected to and did not [`TlsConfigs::forget`]: rustls resumes
    /// only under the very verifier and certificate resolver that were there when the ticket came.
    clients: Mutex<BTreeMap<PeerId, Client>>,
}

struct Client {
    config: Arc<QuicClientConfig>,
    certificate: Arc<ClientCertificate>,
}

impl TlsConfigs {
    /// The configurations of the node `identity`, whose peers are in `book`.
    pub fn new(
        identity: Arc<Identity>,
        book: Arc<dyn PeerBook>,
        counters: Arc<HandshakeCounters>,
    ) -> Self {
        seed_randomness();
        let provider = Arc::new(provider(&counters));
        let verifier = ClientVerifier::new(Arc::clone(&book), Arc::clone(&counters));
        let certificate = ServerCertificate::new(&identity, Arc::clone(&counters));
        let server = server_config(
            Arc::clone(&provider),
            Arc::new(verifier),
            Arc::new(certificate),
        );
        Self {
            identity,
            book,
            counters,
            provider,
            server: Arc::new(server),
            clients: Mutex::default(),
        }
    }

    /// For a connection to `server`, which is accepted under no other PeerId.
    /// `server_holds_our_key`: it can verify our short certificate (it said so in its Hello). If
    /// that is no longer true the handshake fails, and the next must say `false`.
    // PROTOCOL SM-HS-5
    pub fn client(
        &self,
        server: PeerId,
        server_holds_our_key: bool,
    ) -> Arc<dyn quinn_proto::crypto::ClientConfig> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients
            .entry(server)
            .or_insert_with(|| self.new_client(server));
        client.certificate.set_short(server_holds_our_key);
        Arc::clone(&client.config) as Arc<dyn quinn_proto::crypto::ClientConfig>
    }

    /// Drops the tickets with which we could return to a removed peer. Those with which it could
    /// return to us do not help it: membership is checked on resumed connections, too.
    // PROTOCOL SM-HS-5
    pub fn forget(&self, peer: &PeerId) {
        self.clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(peer);
    }

    /// For incoming connections.
    pub fn server(&self) -> Arc<dyn quinn_proto::crypto::ServerConfig> {
        Arc::clone(&self.server) as Arc<dyn quinn_proto::crypto::ServerConfig>
    }

    fn new_client(&self, server: PeerId) -> Client {
        let certificate = Arc::new(ClientCertificate::new(
            &self.identity,
            Arc::clone(&self.counters),
        ));
        let verifier =
            ServerVerifier::new(server, Arc::clone(&self.book), Arc::clone(&self.counters));
        let config = client_config(
            Arc::clone(&self.provider),
            Arc::new(verifier),
            Arc::clone(&certificate) as Arc<dyn ResolvesClientCert>,
        );
        Client {
            config: Arc::new(config),
            certificate,
        }
    }
}

impl Debug for TlsConfigs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfigs")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// AWS-LC seeds itself with the first draw of a process, which takes it 25 to 70 ms: better at start
/// than in the first handshake.
fn seed_randomness() {
    rand::fill(&mut [0]).expect("the operating system's random source never fails");
}

fn client_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
    certificate: Arc<dyn ResolvesClientCert>,
) -> QuicClientConfig {
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider's suites are all of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // The name would tell an observer whom we call; the verifier knows it anyway.
    config.enable_sni = false;
    // PROTOCOL SM-HS-11
    config.enable_early_data = true;
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(
        TICKETS_PER_SERVER_MAX,
    )));
    QuicClientConfig::with_initial(Arc::new(config), initial_suite())
        .expect("the Initial suite is the one of RFC 9001")
}

fn server_config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    certificate: Arc<dyn ResolvesServerCert>,
) -> QuicServerConfig {
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider's suites are all of TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Tickets that the server keeps, taken out when used, so each serves once. (Sealed tickets that
    // the client keeps could be sent again and again within their lifetime.)
    // PROTOCOL SM-HS-11
    config.session_storage = ServerSessionMemoryCache::new(TICKETS_MAX);
    config.send_tls13_tickets = TICKETS_PER_CONNECTION;
    // The only value besides 0 that QUIC allows (RFC 9001 §4.6.1).
    config.max_early_data_size = u32::MAX;
    QuicServerConfig::with_initial(Arc::new(config), initial_suite())
        .expect("the Initial suite is the one of RFC 9001")
}

// PROTOCOL SM-HS-1
fn provider(counters: &Arc<HandshakeCounters>) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![group::hybrid(Arc::clone(counters))],
        ..aws_lc_rs::default_provider()
    }
}

/// AES-128-GCM with keys that anybody can compute: RFC 9001 §5.2 fixes it for Initial packets.
fn initial_suite() -> rustls::quic::Suite {
    cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .and_then(|suite| suite.quic_suite())
        .expect("this suite of rustls's AWS-LC provider supports QUIC")
}

/// The name to give to quinn-proto's `connect`. It is not sent; it files the ticket.
pub fn server_name(peer: &PeerId) -> String {
    peer.to_string()
}

/// The peer at the other end, once the handshake is finished: proven by its signatures, or by a
/// ticket that only a connection so proven gave. `None` before, and for what is no ShadowMesh
/// certificate.
// PROTOCOL SM-HS-5
pub fn authenticated_peer(session: &dyn Session) -> Option<PeerId> {
    if session.is_handshaking() {
        return None;
    }
    let chain = session
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    Some(Certificate::parse(chain.first()?).ok()?.peer_id())
}

#[cfg(test)]
mod tests;
