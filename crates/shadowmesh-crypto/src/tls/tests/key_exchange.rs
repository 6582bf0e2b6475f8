use quinn_proto::Side;
use rustls::NamedGroup;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, SharedSecret, SupportedKxGroup};

use super::super::*;
use super::nodes::{Node, Pair};
use crate::hybrid::{KEM_LEN, SHARE_LEN};

/// Changes a share on its way out.
type Change = fn(&mut Vec<u8>);

/// The honest group, whose shares are changed.
#[derive(Debug)]
struct Tampering {
    honest: &'static dyn SupportedKxGroup,
    change: Change,
}

impl SupportedKxGroup for Tampering {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        let honest = self.honest.start()?;
        let mut share = honest.pub_key().to_vec();
        (self.change)(&mut share);
        Ok(Box::new(TamperingExchange { honest, share }))
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, rustls::Error> {
        let mut completed = self.honest.start_and_complete(share)?;
        (self.change)(&mut completed.pub_key);
        Ok(completed)
    }

    fn name(&self) -> NamedGroup {
        self.honest.name()
    }
}

struct TamperingExchange {
    honest: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for TamperingExchange {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, rustls::Error> {
        self.honest.complete(share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        self.honest.group()
    }
}

fn with_groups(groups: Vec<&'static dyn SupportedKxGroup>, node: &Node) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: groups,
        ..provider(&node.counters)
    })
}

fn tampering(node: &Node, change: Change) -> Arc<CryptoProvider> {
    let honest = group::hybrid(Arc::clone(&node.counters));
    with_groups(
        vec![Box::leak(Box::new(Tampering { honest, change }))],
        node,
    )
}

fn book(node: &Node) -> Arc<dyn PeerBook> {
    Arc::clone(&node.book) as Arc<dyn PeerBook>
}

fn client_with(provider: Arc<CryptoProvider>, client: &Node, server: &Node) -> QuicClientConfig {
    let verifier = ServerVerifier::new(server.id(), book(client), Arc::clone(&client.counters));
    let certificate = ClientCertificate::new(&client.identity, Arc::clone(&client.counters));
    client_config(provider, Arc::new(verifier), Arc::new(certificate))
}

fn server_with(provider: Arc<CryptoProvider>, server: &Node) -> QuicServerConfig {
    let verifier = ClientVerifier::new(book(server), Arc::clone(&server.counters));
    let certificate = ServerCertificate::new(&server.identity, Arc::clone(&server.counters));
    server_config(provider, Arc::new(verifier), Arc::new(certificate))
}

/// Why an honest server refuses a client whose share is changed.
fn refused_by_server(change: Change) -> String {
    let (client, server) = Node::pair();
    let config = client_with(tampering(&client, change), &client, &server);
    let mut pair = Pair::with(Arc::new(config), server.tls.server(), &server.id());
    let (side, error) = pair.run().unwrap_err();
    assert_eq!(side, Side::Server, "{error}");
    assert_eq!(
        server.work(),
        [1, 0, 0],
        "nothing is signed for an invalid share"
    );
    error.reason
}

/// Why an honest client refuses a server whose share is changed.
fn refused_by_client(change: Change) -> String {
    let (client, server) = Node::pair();
    let config = server_with(tampering(&server, change), &server);
    let mut pair = Pair::with(
        client.tls.client(server.id(), false),
        Arc::new(config),
        &server.id(),
    );
    let (side, error) = pair.run().unwrap_err();
    assert_eq!(side, Side::Client, "{error}");
    error.reason
}

// PROTOCOL SM-HS-2
#[test]
fn an_all_zero_x25519_share_ends_the_handshake_on_either_side() {
    let zero: Change = |share| share[KEM_LEN..].fill(0);
    assert!(refused_by_server(zero).contains("InvalidKeyShare"));
    assert!(refused_by_client(zero).contains("InvalidKeyShare"));
}

// PROTOCOL SM-HS-3
#[test]
fn an_invalid_encapsulation_key_ends_the_handshake() {
    // Both coefficients of the first three bytes are 4095, and q is 3329.
    let reason = refused_by_server(|share| share[..3].fill(0xff));
    assert!(reason.contains("InvalidKeyShare"), "{reason}");
}

// PROTOCOL SM-HS-3
#[test]
fn shares_of_the_wrong_length_end_the_handshake_on_either_side() {
    let changes: [Change; 3] = [
        |share| share.truncate(SHARE_LEN - 1),
        |share| share.push(0),
        |share| share.truncate(32),
    ];
    for change in changes {
        assert!(refused_by_server(change).contains("InvalidKeyShare"));
        assert!(refused_by_client(change).contains("InvalidKeyShare"));
    }
}

// PROTOCOL SM-HS-3
#[test]
fn a_changed_ciphertext_ends_the_handshake_because_the_secrets_differ() {
    let reason = refused_by_client(|share| share[0] ^= 1);
    // The secrets differ and so do the transcripts' keys: over QUIC the next packet would not even
    // open; here its contents arrive in clear, and the Finished message gives the change away.
    assert!(!reason.is_empty());
}

// PROTOCOL SM-HS-1
#[test]
fn a_client_that_offers_any_other_group_is_refused() {
    for group in [
        kx_group::X25519,
        kx_group::X25519MLKEM768,
        kx_group::MLKEM1024,
    ] {
        let (client, server) = Node::pair();
        let config = client_with(with_groups(vec![group], &client), &client, &server);
        let mut pair = Pair::with(Arc::new(config), server.tls.server(), &server.id());
        let (side, error) = pair.run().unwrap_err();
        assert_eq!(side, Side::Server);
        assert!(error.reason.contains("NoKxGroupsInCommon"), "{error}");
        assert_eq!(server.work(), [0, 0, 0]);
    }
}

// PROTOCOL SM-HS-1
#[test]
fn the_hybrid_is_the_only_group_and_its_code_point_is_private() {
    let groups = provider(&Arc::default()).kx_groups;
    let names: Vec<u16> = groups.iter().map(|group| group.name().into()).collect();
    assert_eq!(names, [0xfe01]);
}
