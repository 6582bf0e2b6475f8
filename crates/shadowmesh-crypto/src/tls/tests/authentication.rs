use std::sync::atomic::Ordering;

use quinn_proto::Side;
use rustls::server::ClientHello;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

use super::super::*;
use super::nodes::{Node, Pair, deliver, flight};
use crate::composite::{ML_DSA_SIGNATURE_LEN, SIGNATURE_LEN};

// PROTOCOL SM-HS-5
#[test]
fn both_sides_learn_who_the_other_is() {
    let (client, server) = Node::pair();
    let pair = Pair::finished(&client, &server);
    assert_eq!(authenticated_peer(&*pair.client), Some(server.id()));
    assert_eq!(authenticated_peer(&*pair.server), Some(client.id()));
    assert!(client.holds_key_of(&server));
    assert!(server.holds_key_of(&client));
    assert_eq!(client.work(), [2, 1, 1]);
    assert_eq!(server.work(), [1, 1, 1]);
}

#[test]
fn nobody_is_authenticated_before_the_handshake_ends() {
    let (client, server) = Node::pair();
    let mut pair = Pair::new(&client, &server);
    let hello = flight(&mut *pair.client);
    deliver(&mut *pair.server, &hello).unwrap();
    let answer = flight(&mut *pair.server);
    assert_eq!(authenticated_peer(&*pair.server), None);
    deliver(&mut *pair.client, &answer).unwrap();
    assert_eq!(authenticated_peer(&*pair.server), None);
    let finished = flight(&mut *pair.client);
    deliver(&mut *pair.server, &finished).unwrap();
    assert_eq!(authenticated_peer(&*pair.server), Some(client.id()));
}

// PROTOCOL SM-HS-5
#[test]
fn a_client_refuses_every_server_but_the_one_it_called() {
    let (client, server) = Node::pair();
    let other = Node::new();
    client.book.add(other.id());
    let mut pair = Pair::with(
        client.tls.client(other.id(), false),
        server.tls.server(),
        &other.id(),
    );
    let (side, error) = pair.run().unwrap_err();
    assert_eq!(side, Side::Client, "{error}");
    assert!(error.reason.contains("NotValidForName"), "{error}");
    assert_eq!(client.counters.verify.load(Ordering::Relaxed), 0);
    assert_eq!(authenticated_peer(&*pair.client), None);
}

// PROTOCOL SM-HS-5
#[test]
fn a_server_refuses_a_stranger_before_checking_its_signatures() {
    let (client, server) = (Node::new(), Node::new());
    let mut pair = Pair::new(&client, &server);
    let (side, error) = pair.run().unwrap_err();
    assert_eq!(side, Side::Server, "{error}");
    assert_eq!(server.counters.verify.load(Ordering::Relaxed), 0);
    assert_eq!(authenticated_peer(&*pair.server), None);
    assert!(!server.holds_key_of(&client));
}

/// A signature with one byte changed on its way out.
#[derive(Debug, Clone)]
struct Tampering {
    key: Arc<dyn SigningKey>,
    byte: usize,
}

impl SigningKey for Tampering {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.key.choose_scheme(offered)?;
        Some(Box::new(TamperingSigner {
            signer,
            byte: self.byte,
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }
}

#[derive(Debug)]
struct TamperingSigner {
    signer: Box<dyn Signer>,
    byte: usize,
}

impl Signer for TamperingSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut signature = self.signer.sign(message)?;
        if let Some(byte) = signature.get_mut(self.byte) {
            *byte ^= 1;
        } else {
            signature.truncate(ML_DSA_SIGNATURE_LEN);
        }
        Ok(signature)
    }

    fn scheme(&self) -> SignatureScheme {
        self.signer.scheme()
    }
}

/// The full certificate, with a key that tampers.
#[derive(Debug)]
struct TamperingResolver(Arc<CertifiedKey>);

impl TamperingResolver {
    fn new(node: &Node, byte: usize) -> Arc<Self> {
        let honest = ClientCertificate::new(&node.identity, Arc::clone(&node.counters));
        let honest = honest.resolve(&[], &[]).unwrap();
        let key = Tampering {
            key: Arc::clone(&honest.key),
            byte,
        };
        Arc::new(Self(Arc::new(CertifiedKey::new(
            honest.cert.clone(),
            Arc::new(key),
        ))))
    }
}

impl ResolvesClientCert for TamperingResolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for TamperingResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

fn book(node: &Node) -> Arc<dyn PeerBook> {
    Arc::clone(&node.book) as Arc<dyn PeerBook>
}

/// A handshake in which the server's signature is changed at `byte`; past its end: is cut short.
fn with_server_tampering(byte: usize) -> (Side, String) {
    let (client, server) = Node::pair();
    let config = server_config(
        Arc::new(provider(&server.counters)),
        Arc::new(ClientVerifier::new(
            book(&server),
            Arc::clone(&server.counters),
        )),
        TamperingResolver::new(&server, byte),
    );
    let mut pair = Pair::with(
        client.tls.client(server.id(), false),
        Arc::new(config),
        &server.id(),
    );
    let (side, error) = pair.run().unwrap_err();
    assert!(
        !client.holds_key_of(&server),
        "nothing is learned from a bad signature"
    );
    assert_eq!(authenticated_peer(&*pair.client), None);
    (side, error.reason)
}

/// The same with the client's signature.
fn with_client_tampering(byte: usize) -> (Side, String) {
    let (client, server) = Node::pair();
    let verifier = ServerVerifier::new(server.id(), book(&client), Arc::clone(&client.counters));
    let config = client_config(
        Arc::new(provider(&client.counters)),
        Arc::new(verifier),
        TamperingResolver::new(&client, byte),
    );
    let mut pair = Pair::with(Arc::new(config), server.tls.server(), &server.id());
    let (side, error) = pair.run().unwrap_err();
    assert!(
        !server.holds_key_of(&client),
        "nothing is learned from a bad signature"
    );
    assert_eq!(authenticated_peer(&*pair.server), None);
    (side, error.reason)
}

fn assert_refused(byte: usize) {
    let (side, reason) = with_server_tampering(byte);
    assert_eq!(side, Side::Client);
    assert!(reason.contains("BadSignature"), "{reason}");
    let (side, reason) = with_client_tampering(byte);
    assert_eq!(side, Side::Server);
    assert!(reason.contains("BadSignature"), "{reason}");
}

// PROTOCOL SM-HS-4
#[test]
fn a_handshake_whose_ml_dsa_half_is_bad_fails_on_either_side() {
    assert_refused(0);
    assert_refused(ML_DSA_SIGNATURE_LEN - 1);
}

// PROTOCOL SM-HS-4
#[test]
fn a_handshake_whose_ed25519_half_is_bad_fails_on_either_side() {
    assert_refused(ML_DSA_SIGNATURE_LEN);
    assert_refused(SIGNATURE_LEN - 1);
}

// PROTOCOL SM-HS-4
#[test]
fn a_handshake_with_the_ml_dsa_half_alone_fails_on_either_side() {
    assert_refused(SIGNATURE_LEN);
}
