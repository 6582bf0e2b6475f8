use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::HybridError;
use crate::hybrid::{KEM_LEN, SHARE_LEN};

/// A whole rekey, retiring the old epoch at its end.
fn rekey(asker: &mut End, answerer: &mut End) {
    let epoch = asker.chain.epoch() + 1;
    let (pending, request) = asker.chain.begin_rekey().unwrap();
    let response = answerer.chain.respond_rekey(epoch, &request).unwrap();
    asker.chain.finish_rekey(pending, epoch, &response).unwrap();
    answerer.chain.confirm_rekey(epoch).unwrap();
    asker.chain.retire_previous();
    answerer.chain.retire_previous();
}

fn assert_talking(a: &mut End, b: &mut End) {
    assert_eq!(b.open(&a.seal(b"there")).unwrap(), b"there");
    assert_eq!(a.open(&b.seal(b"back")).unwrap(), b"back");
}

// PROTOCOL SM-EP-2
#[test]
fn the_session_goes_on_through_many_epochs_whoever_asks() {
    for cipher in Cipher::ALL {
        let (mut client, mut server) = session(cipher);
        for epoch in 1..=6 {
            if epoch % 3 == 0 {
                rekey(&mut server, &mut client);
            } else {
                rekey(&mut client, &mut server);
            }
            assert_eq!((client.chain.epoch(), server.chain.epoch()), (epoch, epoch));
            assert_talking(&mut client, &mut server);
        }
    }
}

// PROTOCOL SM-EP-2
#[test]
fn every_rekey_uses_fresh_keys() {
    let (client, mut server) = session(Cipher::Aes256Gcm);
    let (_, first) = client.chain.begin_rekey().unwrap();
    let (_, second) = client.chain.begin_rekey().unwrap();
    assert_ne!(first[..KEM_LEN], second[..KEM_LEN]);
    assert_ne!(first[KEM_LEN..], second[KEM_LEN..]);
    let answers = [(); 2].map(|()| server.chain.respond_rekey(1, &first).unwrap());
    assert_ne!(answers[0][..KEM_LEN], answers[1][..KEM_LEN]);
    assert_ne!(answers[0][KEM_LEN..], answers[1][KEM_LEN..]);
}

/// Frames sealed at every step of a rekey are kept back and opened at every later step.
// PROTOCOL SM-EP-3
#[test]
fn no_frame_on_its_way_is_lost_at_any_step_of_a_rekey() {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    // Two frames a step in each direction; the older of those kept back arrive now.
    let mut step = |client: &mut End, server: &mut End| {
        for _ in 0..2 {
            to_server.push(client.seal(b"there"));
            to_client.push(server.seal(b"back"));
        }
        let late = to_server.len().saturating_sub(3);
        for frame in to_server.drain(..late) {
            assert_eq!(server.open(&frame).unwrap(), b"there");
        }
        for frame in to_client.drain(..late) {
            assert_eq!(client.open(&frame).unwrap(), b"back");
        }
    };
    for epoch in 1..=4 {
        step(&mut client, &mut server);
        let (pending, request) = client.chain.begin_rekey().unwrap();
        step(&mut client, &mut server);
        let response = server.chain.respond_rekey(epoch, &request).unwrap();
        step(&mut client, &mut server);
        client
            .chain
            .finish_rekey(pending, epoch, &response)
            .unwrap();
        assert_eq!(
            (client.chain.epoch(), server.chain.epoch()),
            (epoch, epoch - 1)
        );
        step(&mut client, &mut server);
        server.chain.confirm_rekey(epoch).unwrap();
        for _ in 0..3 {
            step(&mut client, &mut server);
        }
        client.chain.retire_previous();
        step(&mut client, &mut server);
        server.chain.retire_previous();
        step(&mut client, &mut server);
    }
}

// PROTOCOL SM-EP-3
#[test]
fn the_answerer_opens_the_next_epoch_at_once_but_seals_in_it_only_when_told() {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let (pending, request) = client.chain.begin_rekey().unwrap();
    let response = server.chain.respond_rekey(1, &request).unwrap();
    client.chain.finish_rekey(pending, 1, &response).unwrap();

    let frame = client.seal(b"new");
    let (opened, _) = open(&server.chain.opener(), &server.window, &frame).unwrap();
    assert_eq!(opened.epoch, 1);
    let frame = server.seal(b"old");
    let (opened, _) = open(&client.chain.opener(), &client.window, &frame).unwrap();
    assert_eq!(opened.epoch, 0);

    server.chain.confirm_rekey(1).unwrap();
    let frame = server.seal(b"new");
    let (opened, _) = open(&client.chain.opener(), &client.window, &frame).unwrap();
    assert_eq!(opened.epoch, 1);
    // The message and the first frame both confirm.
    assert_eq!(server.chain.confirm_rekey(1), Ok(()));
}

// PROTOCOL SM-SF-3
#[test]
fn the_counter_goes_on_across_epochs_and_a_replay_from_before_is_refused() {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let old = client.seal(b"old");
    server.open(&old).unwrap();
    let (pending, request) = client.chain.begin_rekey().unwrap();
    let response = server.chain.respond_rekey(1, &request).unwrap();
    let old_sealer = client.chain.sealer();
    client.chain.finish_rekey(pending, 1, &response).unwrap();
    // A data-plane thread that has not noticed the new epoch yet draws from the same counter.
    let counters = [
        old_sealer.reserve(1),
        client.chain.sealer().reserve(1),
        old_sealer.reserve(1),
    ];
    assert_eq!(counters, [Some(1), Some(2), Some(3)]);
    server.open(&client.seal(b"new")).unwrap();
    assert_eq!(server.open(&old), Err(OpenError::Replayed));
}

// PROTOCOL SM-EP-3
#[test]
fn after_an_epoch_is_retired_nothing_is_left_that_opens_it() {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let late = client.seal(b"late");
    let snapshot = server.chain.opener();
    let sealer = Arc::downgrade(&server.chain.sealer());
    let key = snapshot.weak_key(0).unwrap();
    rekey(&mut client, &mut server);
    assert_eq!(server.open(&late), Err(OpenError::NoSuchEpoch));
    assert!(server.chain.opener().weak_key(0).is_none());
    assert!(sealer.upgrade().is_none(), "the old sealing key is freed");
    // Freed, and so cleansed, the moment the data plane lets its old opener go.
    assert!(key.upgrade().is_some());
    drop(snapshot);
    assert!(key.upgrade().is_none());
    assert_talking(&mut client, &mut server);
}

// PROTOCOL SM-EP-3
#[test]
fn retiring_twice_or_with_an_answer_outstanding_loses_nothing() {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    server.chain.retire_previous();
    assert_talking(&mut client, &mut server);
    let (pending, request) = client.chain.begin_rekey().unwrap();
    let response = server.chain.respond_rekey(1, &request).unwrap();
    server.chain.retire_previous();
    assert_talking(&mut client, &mut server);
    client.chain.finish_rekey(pending, 1, &response).unwrap();
    assert_talking(&mut client, &mut server);
}

/// Runs a request through `change` and expects the answerer to refuse it and to go on as before.
fn assert_request_refused(change: impl Fn(&mut Vec<u8>), expected: HybridError) {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let (_, mut request) = client.chain.begin_rekey().unwrap();
    change(&mut request);
    assert_eq!(
        server.chain.respond_rekey(1, &request),
        Err(RekeyError::Exchange(expected))
    );
    assert_eq!(
        server.chain.confirm_rekey(1),
        Err(RekeyError::NothingToConfirm)
    );
    assert_talking(&mut client, &mut server);
    // The next attempt succeeds: nothing of the failed one is needed.
    // PROTOCOL SM-EP-6
    rekey(&mut client, &mut server);
    assert_talking(&mut client, &mut server);
}

/// The same with the response and the asker.
fn assert_response_refused(change: impl Fn(&mut Vec<u8>), expected: HybridError) {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let (pending, request) = client.chain.begin_rekey().unwrap();
    let mut response = server.chain.respond_rekey(1, &request).unwrap();
    change(&mut response);
    let result = client.chain.finish_rekey(pending, 1, &response);
    assert_eq!(result, Err(RekeyError::Exchange(expected)));
    assert_eq!(client.chain.epoch(), 0);
    assert_talking(&mut client, &mut server);
    // PROTOCOL SM-EP-6
    rekey(&mut client, &mut server);
    assert_talking(&mut client, &mut server);
}

// PROTOCOL SM-HS-2
// PROTOCOL SM-EP-2
#[test]
fn a_rekey_share_with_an_all_zero_x25519_key_is_refused_and_harms_nothing() {
    assert_request_refused(|share| share[KEM_LEN..].fill(0), HybridError::X25519);
    assert_response_refused(|share| share[KEM_LEN..].fill(0), HybridError::X25519);
}

// PROTOCOL SM-HS-3
// PROTOCOL SM-EP-2
#[test]
fn a_rekey_share_with_an_invalid_ml_kem_part_is_refused_and_harms_nothing() {
    assert_request_refused(|share| share[..3].fill(0xff), HybridError::Kem);
    let found = SHARE_LEN - 1;
    assert_request_refused(|share| share.truncate(found), HybridError::Length { found });
    assert_response_refused(|share| share.truncate(found), HybridError::Length { found });
    assert_response_refused(|share| share.clear(), HybridError::Length { found: 0 });
}

// PROTOCOL SM-EP-2
#[test]
fn a_forged_response_share_gives_its_forger_no_key_and_opens_nothing() {
    for byte in [0, KEM_LEN] {
        let (mut client, mut server) = session(Cipher::Aes256Gcm);
        let (pending, request) = client.chain.begin_rekey().unwrap();
        let mut response = server.chain.respond_rekey(1, &request).unwrap();
        response[byte] ^= 1;
        client.chain.finish_rekey(pending, 1, &response).unwrap();
        assert_eq!(server.open(&client.seal(b"x")), Err(OpenError::Forged));
    }
}

/// Whoever knows all of epoch 0 but took no part in the exchange does not follow.
// PROTOCOL SM-EP-1
#[test]
fn a_stolen_epoch_opens_that_epoch_only() {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let (_, mut thief) = session(Cipher::Aes256Gcm);
    assert_eq!(thief.open(&client.seal(b"stolen")).unwrap(), b"stolen");
    let (pending, request) = client.chain.begin_rekey().unwrap();
    let response = server.chain.respond_rekey(1, &request).unwrap();
    client.chain.finish_rekey(pending, 1, &response).unwrap();
    // It sees both shares and can only answer the request itself, which is not what happened.
    thief.chain.respond_rekey(1, &request).unwrap();
    assert_eq!(thief.open(&client.seal(b"x")), Err(OpenError::Forged));
}

// PROTOCOL SM-EP-2
#[test]
fn rekey_messages_for_any_other_epoch_are_refused() {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let (_, request) = client.chain.begin_rekey().unwrap();
    for found in [0, 2, u32::MAX] {
        let wrong = RekeyError::WrongEpoch { expected: 1, found };
        assert_eq!(server.chain.respond_rekey(found, &request), Err(wrong));
        let (pending, request) = client.chain.begin_rekey().unwrap();
        let response = server.chain.respond_rekey(1, &request).unwrap();
        assert_eq!(
            client.chain.finish_rekey(pending, found, &response),
            Err(wrong)
        );
    }
    assert_eq!(
        server.chain.confirm_rekey(2),
        Err(RekeyError::WrongEpoch {
            expected: 1,
            found: 2
        })
    );
    assert_talking(&mut client, &mut server);
}

// PROTOCOL SM-EP-2
#[test]
fn a_response_to_a_rekey_overtaken_by_another_is_refused() {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let (overtaken, request) = client.chain.begin_rekey().unwrap();
    let response = server.chain.respond_rekey(1, &request).unwrap();
    rekey(&mut client, &mut server);
    assert_eq!(
        client.chain.finish_rekey(overtaken, 2, &response),
        Err(RekeyError::WrongEpoch {
            expected: 2,
            found: 1
        })
    );
    assert_talking(&mut client, &mut server);
}

// PROTOCOL SM-EP-6
#[test]
fn a_request_may_be_made_again_with_fresh_keys_and_the_newest_counts() {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let (given_up, request) = client.chain.begin_rekey().unwrap();
    server.chain.respond_rekey(1, &request).unwrap();
    drop(given_up);
    rekey(&mut client, &mut server);
    assert_eq!(client.chain.epoch(), 1);
    assert_talking(&mut client, &mut server);
}

// PROTOCOL SM-EP-5
#[test]
fn when_two_requests_cross_the_winner_is_answered_and_the_loser_dropped() {
    let (mut client, mut server) = session(Cipher::Aes256Gcm);
    let (winner, request) = client.chain.begin_rekey().unwrap();
    let (loser, _) = server.chain.begin_rekey().unwrap();
    drop(loser);
    let response = server.chain.respond_rekey(1, &request).unwrap();
    client.chain.finish_rekey(winner, 1, &response).unwrap();
    server.chain.confirm_rekey(1).unwrap();
    assert_talking(&mut client, &mut server);
}

proptest! {
    // PROTOCOL SM-EP-2
    #[test]
    fn arbitrary_shares_never_panic_and_never_change_the_current_epoch(
        any: Vec<u8>,
        full in prop::collection::vec(any::<u8>(), SHARE_LEN),
    ) {
        let (mut client, mut server) = session(Cipher::Aes256Gcm);
        for share in [&any, &full] {
            // A share of the right length is valid with luck only, and then only answered.
            let _ = server.chain.respond_rekey(1, share);
            let (pending, _) = client.chain.begin_rekey().unwrap();
            if share.len() != SHARE_LEN {
                let found = share.len();
                let refused = Err(RekeyError::Exchange(HybridError::Length { found }));
                prop_assert_eq!(client.chain.finish_rekey(pending, 1, share), refused);
            }
            prop_assert_eq!((client.chain.epoch(), server.chain.epoch()), (0, 0));
            assert_talking(&mut client, &mut server);
        }
    }
}
