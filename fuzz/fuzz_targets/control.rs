//! The control stream, as an authenticated but hostile peer may write it, in pieces of any size.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shadowmesh_wire::control::{ControlError, ControlMessage, Decoder};

fuzz_target!(|input: &[u8]| {
    let Some((piece, stream)) = input.split_first() else {
        return;
    };
    let whole = decode(stream, stream.len().max(1));
    let pieces = decode(stream, usize::from(*piece) + 1);
    assert_eq!(whole, pieces, "the size of the pieces changes nothing");
    for message in whole.0 {
        let mut bytes = Vec::new();
        message
            .encode(&mut bytes)
            .expect("what was decoded fits a message");
        assert_eq!(decode(&bytes, bytes.len()), (vec![message], None));
    }
});

fn decode(stream: &[u8], piece: usize) -> (Vec<ControlMessage>, Option<ControlError>) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for bytes in stream.chunks(piece) {
        decoder.push(bytes);
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}
