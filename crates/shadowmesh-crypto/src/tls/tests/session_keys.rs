//! The session that comes out of a control connection.

use quinn_proto::Side;
use shadowmesh_wire::sealed::{OVERHEAD, ReceiverIndex};

use super::nodes::{Node, Pair};
use crate::{Cipher, ExportError, KeyChain};

/// One side's keys; `ours` and `theirs` are receiver indices.
fn export(pair: &Pair, side: Side, cipher: Cipher, ours: u64, theirs: u64) -> KeyChain {
    let quic = match side {
        Side::Client => &*pair.client,
        Side::Server => &*pair.server,
    };
    KeyChain::export(
        quic,
        side,
        cipher,
        ReceiverIndex(ours),
        ReceiverIndex(theirs),
    )
    .unwrap()
}

/// An empty frame of the first epoch.
fn seal(chain: &KeyChain) -> [u8; OVERHEAD] {
    let mut datagram = [0; OVERHEAD];
    let counter = chain.sealer().reserve(1).unwrap();
    chain.sealer().seal(counter, &mut datagram);
    datagram
}

fn opens(chain: &KeyChain, mut datagram: [u8; OVERHEAD]) -> bool {
    chain.opener().open(&mut datagram, 0).is_ok()
}

// PROTOCOL SM-EP-1
#[test]
fn both_ends_of_a_connection_export_the_same_session() {
    let (client, server) = Node::pair();
    for cipher in Cipher::ALL {
        let pair = Pair::finished(&client, &server);
        let client = export(&pair, Side::Client, cipher, 1, 2);
        let server = export(&pair, Side::Server, cipher, 2, 1);
        assert!(opens(&server, seal(&client)));
        assert!(opens(&client, seal(&server)));
    }
}

// PROTOCOL SM-EP-1
#[test]
fn another_cipher_or_index_or_connection_is_another_session() {
    let (client, server) = Node::pair();
    let pair = Pair::finished(&client, &server);
    let frame = seal(&export(&pair, Side::Client, Cipher::Aes256Gcm, 1, 2));
    let opens = |pair: &Pair, cipher, ours, theirs| {
        opens(&export(pair, Side::Server, cipher, ours, theirs), frame)
    };
    assert!(opens(&pair, Cipher::Aes256Gcm, 2, 1));
    assert!(!opens(&pair, Cipher::ChaCha20Poly1305, 2, 1));
    assert!(!opens(&pair, Cipher::Aes256Gcm, 2, 3));
    assert!(!opens(&pair, Cipher::Aes256Gcm, 3, 1));
    assert!(!opens(&pair, Cipher::Aes256Gcm, 1, 2));
    let resumed = Pair::finished(&client, &server);
    assert!(!opens(&resumed, Cipher::Aes256Gcm, 2, 1));
}

// PROTOCOL SM-HS-11
#[test]
fn no_session_comes_out_of_an_unfinished_handshake() {
    let (client, server) = Node::pair();
    Pair::finished(&client, &server);
    let returning = Pair::new(&client, &server);
    assert!(
        returning.client.early_crypto().is_some(),
        "it could send 0-RTT"
    );
    let (ours, theirs) = (ReceiverIndex(1), ReceiverIndex(2));
    let result = KeyChain::export(
        &*returning.client,
        Side::Client,
        Cipher::Aes256Gcm,
        ours,
        theirs,
    );
    assert_eq!(result.unwrap_err(), ExportError);
}
