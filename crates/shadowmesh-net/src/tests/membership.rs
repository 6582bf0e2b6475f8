//! Who is no member gets nothing.

use std::sync::atomic::Ordering;

use super::bare::Bare;
use super::harness::{World, ms};
use crate::{DownReason, DropReason, NetEvent};

// PROTOCOL SM-OV-4
// PROTOCOL SM-OV-5
#[test]
fn an_unlisted_peer_gets_no_session() {
    let mut world = World::new(2, 1);
    world.introduce(0, 1, true);
    world.connect(0, 1);
    world.run(ms(15_000));
    assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
    assert!(world.drops(1, DropReason::HandshakeFailed) >= 1);
    assert!(world.nodes[1].events.is_empty());
    let status = world.nodes[0].net.status(world.now);
    let error = status[0].last_error.as_deref().unwrap();
    assert!(error.starts_with("refused: "), "{error}");
    assert_eq!(world.nodes[1].net.open_connections(), 0);
}

// PROTOCOL SM-PA-4
#[test]
fn a_peer_that_refuses_is_not_asked_for_every_packet_that_wants_to_go_there() {
    let mut world = World::new(2, 1);
    world.introduce(0, 1, true);
    for _ in 0..100 {
        world.connect(0, 1);
        world.run(ms(100));
    }
    // After 0.1, 0.2, 0.4, 0.8, 1.6 and 3.2 s.
    let refused = world.drops(1, DropReason::HandshakeFailed);
    assert!((2..=8).contains(&refused), "{refused} handshakes in 10 s");
}

// PROTOCOL SM-HS-5
#[test]
fn somebody_else_at_the_address_of_a_peer_is_refused() {
    let mut world = World::new(3, 2);
    world.introduce(2, 0, false);
    // Node 0 wants node 1, but node 2 sits at its address. It gets no answer at all, because the
    // first packet is not tagged for node 2.
    world.introduce(0, 1, true);
    world.nodes.swap(1, 2);
    let address = world.nodes[2].address;
    world.nodes[1].address = address;
    world.nodes[2].address = ([198, 51, 100, 1], 1).into();
    let id = world.id(2);
    world.nodes[0].net.connect(&id, world.now);
    world.run(ms(15_000));
    assert!(world.drops(1, DropReason::FirstContactTag) > 0);
    assert_eq!(world.count(0, |e| matches!(e, NetEvent::PeerUp { .. })), 0);
}

// PROTOCOL SM-HS-5
// PROTOCOL SM-OV-5
#[test]
fn somebody_else_who_answers_in_a_peers_name_is_refused_and_counted() {
    let mut world = World::pair(7);
    let mut impostor = Bare::impostor(world.id(0));
    world.lost = Box::new(|flight| flight.from == 0);
    world.connect(0, 1);
    for _ in 0..4 {
        for flight in std::mem::take(&mut world.log) {
            for answer in impostor.answers(flight.source, &flight.data, world.now) {
                world.inject(flight.target, flight.source, answer);
            }
        }
        world.run(ms(6));
    }
    assert_eq!(world.drops(0, DropReason::HandshakeFailed), 1);
    let counters = world.nodes[0].net.handshake_counters();
    assert_eq!(counters.kem.load(Ordering::Relaxed), 2, "it did answer");
    assert_eq!(counters.verify.load(Ordering::Relaxed), 0);
    assert_eq!(world.count(0, |e| matches!(e, NetEvent::PeerUp { .. })), 0);
}

// PROTOCOL SM-HS-5
// PROTOCOL SM-OV-4
// PROTOCOL SM-OV-5
#[test]
fn a_removed_peer_loses_its_session_at_once_and_its_frames_are_counted() {
    let mut world = World::pair(3);
    world.join(0, 1);
    let id = world.id(0);
    // The removed peer hears nothing of it.
    world.lost = Box::new(|flight| flight.from == 1);
    world.nodes[1].net.remove_peer(&id, world.now);
    world.collect(1);
    for _ in 0..10 {
        assert!(world.send(0, 1, b"still there?"));
    }
    world.run(ms(10));
    assert_eq!(world.drops(1, DropReason::RemovedPeer), 10);
    assert!(world.nodes[1].packets.is_empty());
    let removed = world.count(1, |event| {
        matches!(
            event,
            NetEvent::PeerDown {
                reason: DownReason::Removed,
                ..
            }
        )
    });
    assert_eq!(removed, 1);
    // After a while nothing of it is remembered.
    world.nodes[0].net.shutdown(world.now);
    world.run(ms(120_000));
    assert_eq!(world.nodes[1].net.remembered_ids(), 0);
}

// PROTOCOL SM-HS-5
#[test]
fn a_removed_peer_cannot_resume() {
    let mut world = World::pair(4);
    world.join(0, 1);
    let id = world.id(0);
    world.nodes[1].net.remove_peer(&id, world.now);
    world.collect(1);
    world.run(ms(500));
    assert!(!world.is_up(0, 1));
    let attempts = |world: &World| {
        world.count(0, |event| {
            matches!(event, NetEvent::Handshaken { resumed: true, .. })
        })
    };
    for _ in 0..20 {
        world.connect(0, 1);
        world.run(ms(500));
    }
    // It did resume as far as TLS goes, and that was not enough.
    assert!(attempts(&world) >= 1);
    assert!(world.drops(1, DropReason::NotMember) >= 1);
    for node in 0..2 {
        let ups = world.count(node, |e| matches!(e, NetEvent::PeerUp { .. }));
        assert_eq!(ups, 1, "only the one before");
    }
}

// PROTOCOL SM-OV-4
#[test]
fn a_peer_removed_before_its_hello_keeps_no_connection() {
    let mut world = World::pair(6);
    let mut member = Bare::client(&world, 0, 1);
    member.talk(&mut world, 1);
    assert_eq!(world.nodes[1].net.open_connections(), 1);
    let id = world.id(0);
    world.nodes[1].net.remove_peer(&id, world.now);
    // Back among the peers at once: the connection of before must not count.
    world.introduce(1, 0, false);
    world.run(ms(3_100));
    assert_eq!(world.nodes[1].net.open_connections(), 0);
}

// PROTOCOL SM-HS-10
#[test]
fn a_member_that_never_says_hello_takes_a_place_that_others_get_after_a_while() {
    let mut world = World::new(3, 8);
    world.nodes[1].config.handshakes_max = 1;
    world.restart(1);
    for node in [0, 2] {
        world.introduce(1, node, false);
        world.introduce(node, 1, true);
    }
    let mut silent = Bare::client(&world, 0, 1);
    silent.talk(&mut world, 1);
    world.connect(2, 1);
    world.run(ms(1_000));
    assert!(world.drops(1, DropReason::HandshakeTable) > 0);
    assert!(!world.is_up(2, 1));
    world.connect(2, 1);
    assert!(world.run_until(ms(3_000), |world| world.is_up(2, 1) && world.is_up(1, 2)));
}

// PROTOCOL SM-HS-5
#[test]
fn a_peer_that_is_added_again_is_welcome_again() {
    let mut world = World::pair(5);
    world.join(0, 1);
    let id = world.id(0);
    world.nodes[1].net.remove_peer(&id, world.now);
    world.collect(1);
    world.run(ms(500));
    world.introduce(1, 0, false);
    world.join(0, 1);
    assert!(world.traffic_flows(0, 1));
}

// PROTOCOL SM-SF-8
// PROTOCOL SM-CT-4
// PROTOCOL SM-PA-4
#[test]
fn a_peer_that_allows_no_cipher_of_ours_is_named_on_both_sides_and_not_called_for_every_packet() {
    let mut world = World::new(2, 8);
    for (node, speeds) in [[7000, 0], [0, 2000]].into_iter().enumerate() {
        world.nodes[node].config.cipher_speeds = speeds;
        world.restart(node);
    }
    world.introduce(0, 1, true);
    world.introduce(1, 0, true);
    for _ in 0..100 {
        world.connect(0, 1);
        world.run(ms(100));
    }
    let only = ["aes-256-gcm", "chacha20-poly1305"];
    for (node, [ours, theirs]) in [(0, only), (1, [only[1], only[0]])] {
        let ups = world.count(node, |event| matches!(event, NetEvent::PeerUp { .. }));
        assert_eq!(ups, 0, "no session came up");
        let status = world.nodes[node].net.status(world.now);
        let expected = format!("no common cipher: we allow only {ours}, the peer only {theirs}");
        assert_eq!(status[0].last_error.as_deref(), Some(expected.as_str()));
    }
    // After 0.1, 0.2, 0.4, 0.8, 1.6 and 3.2 s.
    let tried = world.count(0, |event| matches!(event, NetEvent::Handshaken { .. }));
    assert!((2..=8).contains(&tried), "{tried} handshakes in 10 s");
}
