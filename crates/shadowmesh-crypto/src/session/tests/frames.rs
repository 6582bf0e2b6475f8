use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use shadowmesh_wire::sealed::{HEADER_LEN, TAG_LEN, is_long_header, receiver_index};

use super::*;

// PROTOCOL SM-SF-1
#[test]
fn a_sealed_frame_opens_at_the_other_end_and_costs_thirty_bytes() {
    for cipher in Cipher::ALL {
        let (client, mut server) = session(cipher);
        for len in [1, 2, 15, 16, 17, 1390, 1420, 9000] {
            let inner: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let datagram = client.seal(&inner);
            // The thirty count the inner frame's type byte.
            assert_eq!(datagram.len(), inner.len() - 1 + 30);
            assert_eq!(server.open(&datagram).unwrap(), inner);
        }
    }
}

// PROTOCOL SM-SF-1
#[test]
fn a_sealed_frame_looks_like_a_quic_short_header_and_shows_only_the_index() {
    let (client, _) = session(Cipher::Aes256Gcm);
    let inner = *b"a secret that must not be seen on the wire";
    for _ in 0..100 {
        let datagram = client.seal(&inner);
        assert!(!is_long_header(&datagram));
        assert_eq!(receiver_index(&datagram), Some(SERVER));
        assert_eq!(datagram[0] & 0xe0, 0x40, "fixed bit 1, spin bit 0");
        assert!(
            !datagram
                .windows(8)
                .any(|window| inner.windows(8).any(|part| part == window))
        );
    }
}

// PROTOCOL SM-SF-2
#[test]
fn header_protection_hides_the_counter_and_the_key_phase() {
    for cipher in Cipher::ALL {
        let (client, _) = session(cipher);
        let (mut ones, mut zeros, mut as_they_are) = (0, 0, 0);
        for counter in 0..200_u32 {
            let datagram = client.seal(b"x");
            ones |= datagram[0];
            zeros |= !datagram[0];
            as_they_are += u32::from(datagram[9..13] == counter.to_be_bytes());
        }
        assert_eq!(
            ones & zeros & 0x1f,
            0x1f,
            "every protected bit is seen as 0 and as 1"
        );
        assert_eq!(as_they_are, 0);
    }
}

/// Fixed bytes for a fixed secret, computed by a second implementation written from PROTOCOL.md and
/// the RFCs alone (HKDF, AEAD and header protection of other libraries): whoever changes the key
/// schedule or the frame by accident finds out here, before two versions fail to talk.
// PROTOCOL SM-EP-1
// PROTOCOL SM-SF-1
#[test]
fn the_first_frame_of_a_known_secret_is_known() {
    for (cipher, expected) in [(Cipher::Aes256Gcm, AES), (Cipher::ChaCha20Poly1305, CHACHA)] {
        let hex: String = session(cipher)
            .0
            .seal(b"\x06known")
            .iter()
            .map(hex)
            .collect();
        assert_eq!(hex, expected, "{cipher}");
    }
}

const AES: &str = "585e5e5e5e5e5e5e5eeeef06057b3fd8b27fe792024fdcda23a7d9f9b3f89a2e8bf2c3";
const CHACHA: &str = "555e5e5e5e5e5e5e5e01dc591d863d4c09a7603a908c9878c88b2fdae797f9ce8925ad";

fn hex(byte: &u8) -> String {
    format!("{byte:02x}")
}

// PROTOCOL SM-SF-1
// PROTOCOL SM-SF-4
#[test]
fn a_frame_with_any_one_bit_flipped_never_opens_and_marks_nothing() {
    for cipher in Cipher::ALL {
        let (client, mut server) = session(cipher);
        let datagram = client.seal(b"\x01some inner frame");
        for bit in 0..datagram.len() * 8 {
            let mut flipped = datagram.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = server.open(&flipped).unwrap_err();
            assert!(
                matches!(error, OpenError::Forged | OpenError::NoSuchEpoch),
                "bit {bit} of {cipher}: {error}"
            );
        }
        assert_eq!(server.open(&datagram).unwrap(), b"\x01some inner frame");
    }
}

// PROTOCOL SM-SF-1
#[test]
fn a_frame_cut_or_lengthened_never_opens() {
    let (client, mut server) = session(Cipher::Aes256Gcm);
    let datagram = client.seal(b"\x01some inner frame");
    for len in 0..datagram.len() {
        let error = server.open(&datagram[..len]).unwrap_err();
        let expected = if len < 30 {
            OpenError::TooShort
        } else {
            OpenError::Forged
        };
        assert_eq!(error, expected, "length {len}");
    }
    let longer = [datagram.as_slice(), &[0]].concat();
    assert_eq!(server.open(&longer), Err(OpenError::Forged));
}

// PROTOCOL SM-SF-4
#[test]
fn a_replayed_frame_is_refused_however_late() {
    let (client, mut server) = session(Cipher::Aes256Gcm);
    let first = client.seal(b"x");
    server.open(&first).unwrap();
    assert_eq!(server.open(&first), Err(OpenError::Replayed));
    for _ in 0..100 {
        server.open(&client.seal(b"x")).unwrap();
    }
    assert_eq!(server.open(&first), Err(OpenError::Replayed));
    for _ in 0..ReplayWindow::LEN {
        server.open(&client.seal(b"x")).unwrap();
    }
    assert_eq!(server.open(&first), Err(OpenError::TooOld));
}

// PROTOCOL SM-SF-3
#[test]
fn a_frame_sent_back_to_its_sender_does_not_open() {
    let (mut client, _) = session(Cipher::Aes256Gcm);
    let mut datagram = client.seal(b"x");
    assert!(client.open(&datagram).is_err());
    datagram[1..9].copy_from_slice(&CLIENT.to_bytes());
    assert!(client.open(&datagram).is_err());
}

// PROTOCOL SM-SF-3
#[test]
fn counters_cross_the_border_of_what_the_header_carries() {
    let (client, server) = session(Cipher::Aes256Gcm);
    let border = 1_u64 << 32;
    client.chain.set_counter(border - 3);
    server
        .window
        .lock()
        .accept(&Authentic::of(border - 10))
        .unwrap();
    let sealer = client.chain.remade_sealer();
    let frames: Vec<_> = (0..6).map(|_| seal(&sealer, b"x")).collect();
    // Late ones from below the border after ones from above it.
    for (at, frame) in [3, 0, 5, 4, 2, 1].map(|at| (at, &frames[at])) {
        let (opened, _) = open(&server.chain.opener(), &server.window, frame).unwrap();
        assert_eq!(opened.counter, border - 3 + at as u64);
    }
}

// PROTOCOL SM-SF-3
#[test]
fn a_counter_at_the_end_of_all_counters_is_not_followed() {
    let (client, mut server) = session(Cipher::ChaCha20Poly1305);
    let sealer = client.chain.sealer();
    server
        .window
        .lock()
        .accept(&Authentic::of(COUNTER_END - 1))
        .unwrap();
    let mut datagram = vec![0; 40];
    sealer.seal_unchecked(COUNTER_END, &mut datagram);
    assert_eq!(server.open(&datagram), Err(OpenError::Forged));
}

/// Threads are the engine's; here they only race for counters.
// PROTOCOL SM-SF-3
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the race for counters is what is tested"
)]
fn no_counter_is_given_out_twice_whatever_the_threads_do() {
    const THREADS: u64 = 4;
    const CALLS: u64 = 20_000;
    let (client, _) = session(Cipher::Aes256Gcm);
    let sealer = client.chain.sealer();
    let total = AtomicU64::new(0);
    let mut all: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (sealer, total) = (&sealer, &total);
                scope.spawn(move || {
                    let ranges = (0..CALLS).map(|call| {
                        let n = 1 + (call * 7 + thread) % 64;
                        total.fetch_add(n, Ordering::Relaxed);
                        (sealer.reserve(n).unwrap(), n)
                    });
                    ranges.collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    all.sort_unstable();
    let mut next = 0;
    for (first, n) in all {
        assert_eq!(first, next, "ranges meet without overlap and without gap");
        next = first + n;
    }
    assert_eq!(next, total.into_inner());
}

fn sealer(kind: Cipher, counter: u64) -> Sealer {
    let (client, _) = session(kind);
    client.chain.set_counter(counter);
    client.chain.remade_sealer()
}

// PROTOCOL SM-SF-3
#[test]
fn an_aes_epoch_asks_for_its_end_and_then_seals_nothing_more() {
    let sealer = sealer(Cipher::Aes256Gcm, 1000);
    assert!(!sealer.wants_rekey());
    assert_eq!(sealer.reserve(1 << 27), Some(1000));
    assert!(sealer.wants_rekey());
    assert_eq!(
        sealer.reserve((1 << 30) - (1 << 27)),
        Some(1000 + (1 << 27))
    );
    assert_eq!(sealer.reserve(1), None);
    assert_eq!(sealer.reserve(u64::MAX), None);
}

// PROTOCOL SM-SF-3
#[test]
fn a_chacha_epoch_ends_only_with_the_counter() {
    let sealer = sealer(Cipher::ChaCha20Poly1305, COUNTER_END - 10);
    assert_eq!(sealer.reserve(11), None);
    assert_eq!(sealer.reserve(10), Some(COUNTER_END - 10));
    assert_eq!(sealer.reserve(1), None);
}

#[test]
fn keys_are_never_printed() {
    let (client, _) = session(Cipher::Aes256Gcm);
    let (pending, _) = client.chain.begin_rekey().unwrap();
    let printed = format!(
        "{:?} {:?} {:?} {pending:?}",
        client.chain,
        client.chain.sealer(),
        client.chain.opener()
    );
    assert_eq!(
        printed,
        "KeyChain { epoch: 0, cipher: Aes256Gcm, .. } Sealer { epoch: 0, .. } \
         Opener { epochs: [0], .. } RekeyPending { epoch: 1, .. }"
    );
}

#[test]
fn the_data_plane_may_be_shared_by_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Arc<Sealer>>();
    shared::<Arc<Opener>>();
    fn owned<T: Send + 'static>() {}
    owned::<KeyChain>();
    owned::<RekeyPending>();
}

proptest! {
    // PROTOCOL SM-SF-4
    #[test]
    fn through_loss_reordering_and_duplication_each_frame_is_delivered_at_most_once(
        order in prop::collection::vec(0_usize..200, 0..600),
    ) {
        let (client, mut server) = session(Cipher::Aes256Gcm);
        let frames: Vec<_> = (0..200_u8).map(|number| client.seal(&[number])).collect();
        let mut delivered = BTreeSet::new();
        for number in order {
            match server.open(&frames[number]) {
                Ok(inner) => {
                    prop_assert_eq!(&inner, &[number as u8]);
                    prop_assert!(delivered.insert(number));
                }
                Err(error) => {
                    prop_assert_eq!(error, OpenError::Replayed);
                    prop_assert!(delivered.contains(&number));
                }
            }
        }
    }

    // PROTOCOL SM-SF-1
    #[test]
    fn arbitrary_bytes_never_open(mut bytes: Vec<u8>, shaped: bool) {
        let (_, mut server) = session(Cipher::ChaCha20Poly1305);
        if shaped && bytes.len() > HEADER_LEN + TAG_LEN {
            bytes[0] = bytes[0] & 0x3f | 0x40;
            bytes[1..9].copy_from_slice(&SERVER.to_bytes());
        }
        prop_assert!(server.open(&bytes).is_err());
        prop_assert_eq!(server.window.highest(), 0);
    }
}
