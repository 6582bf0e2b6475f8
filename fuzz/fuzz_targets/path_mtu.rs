//! What paths of any length need: fragments of a peer, "too big" messages, the MSS of handshakes.
//!
//! The first byte chooses which; two more are a length, and the rest is what is judged.

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use shadowmesh_net::{Reassembled, Reassembler, pieces};
use shadowmesh_wire::fragment::FragmentHeader;
use shadowmesh_wire::ip::IpPacket;
use shadowmesh_wire::{icmp, mss};

/// What one frame holds on the shortest path: 576 less IP, UDP and the frame's own bytes.
const INNER_LEN_MIN: usize = 576 - 28 - 30;

fuzz_target!(|input: &[u8]| {
    let Some(([choice, l0, l1], rest)) = input.split_first_chunk::<3>() else {
        return;
    };
    let len = usize::from(u16::from_be_bytes([*l0, *l1]));
    match choice & 3 {
        0 => fragments(rest),
        1 => cut(rest, len.max(INNER_LEN_MIN)),
        2 => too_big(rest, len),
        _ => handshake(rest, len),
    }
});

/// Bodies of fragments behind a length of two bytes each, as a hostile peer would send them. A piece may
/// be longer than the input: zeros follow then, so that the fuzzer can afford long ones.
fn fragments(mut rest: &[u8]) {
    let mut reassembler = Reassembler::default();
    let mut now = Instant::now();
    while let Some((len, behind)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len));
        now += Duration::from_millis(len as u64 & 0xff);
        let (written, behind) = behind.split_at(behind.len().min(len).min(16));
        rest = behind;
        let mut body = written.to_vec();
        body.resize(len, 0);
        let result = reassembler.push(&body, now, |_| ());
        match (FragmentHeader::decode(&body), result) {
            (Ok((header, piece)), Reassembled::Whole(packet)) => {
                assert_eq!(packet.len(), usize::from(header.total));
                let at = usize::from(header.offset);
                assert_eq!(&packet[at..at + piece.len()], piece);
            }
            (Ok(_), _) => {}
            (Err(_), result) => assert!(matches!(result, Reassembled::Refused(_))),
        }
    }
}

/// What we cut, a peer makes whole, whichever piece comes first.
fn cut(packet: &[u8], inner_len_max: usize) {
    if packet.is_empty() || packet.len() > usize::from(u16::MAX) {
        return;
    }
    let mut bodies = Vec::new();
    for (offset, len) in pieces(packet.len(), inner_len_max) {
        let header = FragmentHeader {
            id: 7,
            total: packet.len() as u16,
            offset: offset as u16,
        };
        let mut body = header.encode().to_vec();
        body.extend_from_slice(&packet[offset..offset + len]);
        assert!(body.len() <= inner_len_max, "it fits its frame");
        bodies.push(body);
    }
    let first = usize::from(packet[0]) % bodies.len();
    bodies.rotate_left(first);
    let mut reassembler = Reassembler::default();
    let now = Instant::now();
    let last = bodies.pop().expect("there is a piece");
    for body in &bodies {
        let result = reassembler.push(body, now, |_| panic!("nothing is dropped"));
        assert_eq!(result, Reassembled::Waiting);
    }
    let result = reassembler.push(&last, now, |_| panic!("nothing is dropped"));
    assert_eq!(result, Reassembled::Whole(packet.to_vec()));
}

/// The message goes back to the sender, quotes its packet, and is no reason for another.
fn too_big(packet: &[u8], mtu: usize) {
    let Some(message) = icmp::too_big(packet, mtu) else {
        return;
    };
    let about = IpPacket::parse(packet).expect("a message is about a packet");
    let outer = IpPacket::parse(&message).expect("a message is a packet");
    assert_eq!(outer.total_len(), message.len());
    assert_eq!(
        (outer.source(), outer.destination()),
        (about.destination(), about.source())
    );
    assert!(packet.starts_with(&outer.payload()[8..]));
    assert_eq!(icmp::too_big(&message, 0), None);
}

/// Four bytes change at most, in such a way that a checksum is as right or wrong as before, and never
/// twice.
fn handshake(packet: &[u8], inner_len_max: usize) {
    let mut clamped = packet.to_vec();
    let changed = mss::clamp(&mut clamped, inner_len_max);
    let differences = packet.iter().zip(&clamped).filter(|(a, b)| a != b).count();
    assert_eq!(changed, differences > 0);
    assert!(differences <= 4);
    assert_eq!(sum(packet), sum(&clamped));
    let once = clamped.clone();
    assert!(!mss::clamp(&mut clamped, inner_len_max));
    assert_eq!(once, clamped);
}

/// Sum of 16 bit words as the checksums of IP and TCP take it: both zeros are one.
fn sum(packet: &[u8]) -> u64 {
    let words = packet
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or_default()));
    words.sum::<u64>() % 0xffff
}
