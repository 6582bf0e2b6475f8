//! Bytes from anybody.

use proptest::prelude::*;

use super::harness::{Kind, World, ms, start};
use crate::{DropReason, NetEvent, Received};
use bytes::BytesMut;
use shadowmesh_wire::control::{ControlMessage, Hello};
use shadowmesh_wire::sealed::ReceiverIndex;

// PROTOCOL SM-SF-6
#[test]
fn a_forged_reset_does_nothing() {
    let mut world = World::pair(1);
    world.join(0, 1);
    let (a, b) = (world.nodes[0].address, world.nodes[1].address);
    for n in 0..200u8 {
        let mut reset = vec![n; 60];
        reset[0] = 0x40 | (n & 0x3f);
        world.inject(b, a, reset.clone());
        world.inject(a, b, reset);
    }
    world.run(ms(1_000));
    for node in 0..2 {
        assert_eq!(
            world.count(node, |e| matches!(e, NetEvent::PeerDown { .. })),
            0
        );
        assert!(world.drops(node, DropReason::UnknownIndex) >= 200);
    }
    assert!(world.traffic_flows(0, 1));
}

// PROTOCOL SM-SF-6
#[test]
fn a_true_reset_from_another_address_does_nothing() {
    let mut world = World::pair(2);
    world.join(0, 1);
    let frame = {
        assert!(world.send(
            0,
            1,
            b"a packet that is long enough to be answered by a reset"
        ));
        world.log.last().unwrap().clone()
    };
    let address = world.nodes[1].address;
    world.run(ms(10));
    // A twin of node 1 that lost its memory answers the frame.
    world.restart(1);
    world.introduce(1, 0, false);
    world.log.clear();
    world.lost = Box::new(|_| true);
    world.inject(frame.source, address, frame.data);
    world.run(ms(6));
    let reset = world.log.iter().find(|f| f.from == 1).unwrap().clone();
    assert!(reset.data.len() < 100);
    let elsewhere = ([203, 0, 113, 9], 9).into();
    world.inject(elsewhere, world.nodes[0].address, reset.data.clone());
    world.run(ms(10));
    assert_eq!(
        world.count(0, |e| matches!(e, NetEvent::PeerDown { .. })),
        0
    );
    // From the right address the very same bytes end the session.
    world.inject(address, world.nodes[0].address, reset.data);
    world.run(ms(10));
    assert_eq!(
        world.count(0, |e| matches!(e, NetEvent::PeerDown { .. })),
        1
    );
}

#[test]
fn resets_are_limited_for_each_source_and_end() {
    let mut world = World::pair(3);
    let target = world.nodes[0].address;
    for n in 0..1_000u32 {
        let mut noise = vec![0x41; 80];
        noise[1..5].copy_from_slice(&n.to_be_bytes());
        world.inject(world.nodes[1].address, target, noise);
    }
    world.run(ms(5_000));
    // Both nodes answer noise with resets; each is smaller than what it answers, so it ends.
    assert!(world.log.len() < 20, "{}", world.log.len());
    assert!(world.drops(0, DropReason::ResetLimit) >= 990);
}

// PROTOCOL SM-SF-6
#[test]
fn resets_for_a_retired_id_of_a_connection_have_the_same_limit() {
    let mut world = World::pair(3);
    world.join(0, 1);
    let retired = world.nodes[0].net.remember_retired_id();
    world.log.clear();
    let stranger = ([198, 51, 100, 7], 9).into();
    for n in 0..1_000u32 {
        let mut noise = vec![0x41; 80];
        noise[1..9].copy_from_slice(&retired.to_be_bytes());
        noise[9..13].copy_from_slice(&n.to_be_bytes());
        world.inject(stranger, world.nodes[0].address, noise);
    }
    world.run(ms(100));
    let resets = world.log.iter().filter(|f| f.target == stranger).count();
    assert_eq!(resets, 1);
    assert_eq!(world.drops(0, DropReason::ResetLimit), 999);
}

// PROTOCOL SM-HS-7
#[test]
fn a_first_packet_without_our_tag_gets_no_answer_and_costs_no_connection() {
    let mut world = World::pair(4);
    world.lost = Box::new(|_| true);
    world.connect(0, 1);
    let initial = world.log[0].clone();
    world.run(ms(3_000));
    world.log.clear();
    let mut forged = initial.data;
    forged[6] ^= 1;
    world.inject(initial.source, initial.target, forged);
    world.run(ms(100));
    assert!(world.log.iter().all(|flight| flight.from != 1));
    assert_eq!(world.drops(1, DropReason::FirstContactTag), 1);
    assert_eq!(world.nodes[1].net.open_connections(), 0);
}

// PROTOCOL SM-OV-5
#[test]
fn a_first_packet_changed_on_its_way_is_counted_and_begins_nothing() {
    let mut world = World::pair(6);
    world.lost = Box::new(|_| true);
    world.connect(0, 1);
    let mut initial = world.log[0].clone();
    world.run(ms(3_000));
    world.log.clear();
    *initial.data.last_mut().unwrap() ^= 1;
    world.inject(initial.source, initial.target, initial.data);
    world.run(ms(10));
    assert_eq!(world.drops(1, DropReason::HandshakeFailed), 1);
    assert_eq!(world.nodes[1].net.open_connections(), 0);
    assert!(world.log.iter().all(|flight| flight.from != 1));
}

#[test]
fn a_peer_that_breaks_every_session_does_not_keep_us_busy_with_handshakes() {
    let mut world = World::pair(7);
    world.connect(0, 1);
    let (peer, end) = (world.id(0), world.now + ms(10_000));
    let second_hello = ControlMessage::Hello(Hello {
        version: 1,
        boot: 1,
        index: ReceiverIndex(1),
        reset_token: [0; 16],
        cipher_speeds: [1, 1],
        mtu: 1420,
        holds_your_key: false,
        data_plane: None,
        beside: None,
        call: None,
    });
    while world.now < end {
        world.run_until(ms(100), |world| world.is_up(1, 0));
        let now = world.now;
        let _ = world.nodes[1].net.send_control(&peer, &second_hello, now);
        world.run(ms(10));
    }
    let sessions = world.count(0, |e| matches!(e, NetEvent::PeerUp { .. }));
    assert!((4..25).contains(&sessions), "{sessions}");
    assert!(world.run_until(ms(6_500), |world| world.is_up(0, 1) && world.is_up(1, 0)));
    assert!(world.traffic_flows(0, 1));
}

// PROTOCOL SM-CT-1
#[test]
fn messages_to_a_peer_that_does_not_read_are_refused_and_not_kept() {
    let mut world = World::pair(5);
    world.join(0, 1);
    world.lost = Box::new(|_| true);
    let (peer, now) = (world.id(1), world.now);
    let message = ControlMessage::RekeyRequest {
        epoch: 9,
        share: vec![0; 10_000],
    };
    let net = &mut world.nodes[0].net;
    let taken = (0..200).filter(|_| net.send_control(&peer, &message, now).is_ok());
    assert!(taken.count() < 30);
    assert!(net.outgoing_bytes() < 160 * 1024);
}

fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..1400);
    let long =
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..1400)).prop_map(|(first, rest)| {
            let mut datagram = vec![first | 0xc0, 0, 0, 0, 1];
            datagram.extend(rest);
            datagram
        });
    prop_oneof![bytes, long]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_datagrams_never_panic_and_never_disturb_a_session(
        datagrams in proptest::collection::vec(datagram(), 1..40),
    ) {
        let mut world = World::pair(5);
        world.join(0, 1);
        let (a, b) = (world.nodes[0].address, world.nodes[1].address);
        for datagram in datagrams {
            world.inject(b, a, datagram);
        }
        world.run(ms(200));
        prop_assert!(world.traffic_flows(0, 1));
        prop_assert_eq!(world.nodes[0].net.open_connections(), 1);
    }

    #[test]
    fn true_datagrams_with_a_changed_byte_never_panic(
        at: prop::sample::Index,
        byte: prop::sample::Index,
        flip in 1u8..,
    ) {
        let mut world = World::pair(6);
        world.join(0, 1);
        let control: Vec<_> = world.log.iter().filter(|f| f.kind == Kind::Control).collect();
        let mut flight = control[at.index(control.len())].clone();
        let byte = byte.index(flight.data.len());
        flight.data[byte] ^= flip;
        world.inject(flight.source, flight.target, flight.data);
        world.run(ms(200));
        prop_assert!(world.traffic_flows(0, 1));
    }

    #[test]
    fn random_inner_frames_never_panic(inner in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut world = World::pair(7);
        world.join(0, 1);
        let id = world.id(1);
        let received = Received::from_remote(world.nodes[1].address);
        world.nodes[0].net.handle_inner(&id, received, &inner, world.now);
        prop_assert!(world.traffic_flows(0, 1));
    }
}

#[test]
fn a_datagram_for_a_node_without_peers_never_panics() {
    let mut world = World::new(1, 8);
    let received = Received::from_remote(([203, 0, 113, 9], 9).into());
    for len in 0..100 {
        for first in [0x00, 0x40, 0x7f, 0x80, 0xc0, 0xff] {
            let data = BytesMut::from(&vec![first; len][..]);
            world.nodes[0].net.handle_datagram(received, data, start());
        }
    }
    assert!(world.nodes[0].net.drops().total() > 0);
}
