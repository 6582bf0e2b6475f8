//! What comes on a stream, once TLS is taken off: messages of a WebSocket, and datagrams in them.
//!
//! The first byte chooses what the rest is: one message, lengths of datagrams to be sent, or all the
//! bytes that a client writes.

#![no_main]

use std::io::Cursor;
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use shadowmesh_io::web::{Incoming, MESSAGE_LEN_MAX, WebStream};
use shadowmesh_wire::bundle::{self, Bundle};

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else {
        return;
    };
    match choice % 3 {
        0 => message(rest),
        1 => datagrams(rest),
        _ => connection(rest),
    }
});

/// Of a message that is taken every byte belongs to a datagram.
fn message(bytes: &[u8]) {
    let mut message = bytes.to_vec();
    if let Ok(bundle) = Bundle::parse(&mut message) {
        let datagrams: Vec<Vec<u8>> = bundle.into_iter().map(|d| d.to_vec()).collect();
        assert_eq!(bundled(&datagrams), [bytes]);
    }
}

/// What we put together, the other side takes apart.
fn datagrams(lengths: &[u8]) {
    let lengths = lengths.chunks_exact(2);
    let sent: Vec<Vec<u8>> = lengths
        .map(|len| vec![len[1]; usize::from(u16::from_be_bytes([len[0], len[1]]))])
        .filter(|datagram| bundle::has_room(0, datagram.len()))
        .collect();
    let mut arrived: Vec<Vec<u8>> = Vec::new();
    for mut message in bundled(&sent) {
        let bundle = Bundle::parse(&mut message).expect("what was bundled is a bundle");
        arrived.extend(bundle.into_iter().map(|datagram| datagram.to_vec()));
    }
    assert_eq!(arrived, sent);
}

fn bundled(datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut messages = vec![Vec::new()];
    for datagram in datagrams {
        let mut message = messages.pop().expect("there is one");
        if !bundle::has_room(message.len(), datagram.len()) {
            messages.push(std::mem::take(&mut message));
        }
        message.extend_from_slice(&bundle::length(datagram.len()));
        message.extend_from_slice(datagram);
        messages.push(message);
    }
    messages.retain(|message| !message.is_empty());
    messages
}

/// A client that closes when it has written all that.
fn connection(bytes: &[u8]) {
    let from_client = Cursor::new(bytes.to_vec());
    let connection = tokio::io::join(from_client, tokio::io::sink());
    let mut stream = WebStream::serve(connection);
    let mut context = Context::from_waker(Waker::noop());
    let mut received = 0;
    loop {
        match stream.poll_receive(&mut context) {
            Poll::Ready(Some(Ok(Incoming::Message(bytes)))) => {
                assert!(bytes.len() <= MESSAGE_LEN_MAX);
                received += bytes.len();
                message(&bytes);
            }
            Poll::Ready(Some(Ok(Incoming::Sign))) => {}
            Poll::Ready(Some(Err(_)) | None) => break,
            Poll::Pending => panic!("whatever is to come is there already"),
        }
    }
    assert!(received <= bytes.len(), "nothing becomes more on its way");
}
