use quinn_proto::Side;

use super::*;
use crate::testing::{Node, Pair};

fn export(pair: &Pair, side: Side, cipher: Cipher, ours: u64, theirs: u64) -> End {
    let quic = match side {
        Side::Client => &*pair.client,
        Side::Server => &*pair.server,
    };
    let chain = KeyChain::export(
        quic,
        side,
        cipher,
        ReceiverIndex(ours),
        ReceiverIndex(theirs),
    );
    End {
        chain: chain.unwrap(),
        window: ReplayWindow::new(),
    }
}

// PROTOCOL SM-EP-1
#[test]
fn both_ends_of_a_connection_export_the_same_session() {
    let (client, server) = Node::pair();
    for cipher in Cipher::ALL {
        let pair = Pair::finished(&client, &server);
        let mut client = export(&pair, Side::Client, cipher, 1, 2);
        let mut server = export(&pair, Side::Server, cipher, 2, 1);
        assert_eq!(server.open(&client.seal(b"there")).unwrap(), b"there");
        assert_eq!(client.open(&server.seal(b"and back")).unwrap(), b"and back");
    }
}

// PROTOCOL SM-EP-1
#[test]
fn another_cipher_or_index_or_connection_is_another_session() {
    let (client, server) = Node::pair();
    let pair = Pair::finished(&client, &server);
    let frame = export(&pair, Side::Client, Cipher::Aes256Gcm, 1, 2).seal(b"x");
    let opens = |pair: &Pair, cipher, ours, theirs| {
        export(pair, Side::Server, cipher, ours, theirs)
            .open(&frame)
            .is_ok()
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
    let result = KeyChain::export(
        &*returning.client,
        Side::Client,
        Cipher::Aes256Gcm,
        CLIENT,
        SERVER,
    );
    assert_eq!(result.unwrap_err(), ExportError);
}
