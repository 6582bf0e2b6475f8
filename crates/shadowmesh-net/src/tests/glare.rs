//! Both sides connect at once.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use shadowmesh_crypto::Sealer;
use shadowmesh_wire::sealed::{is_long_header, receiver_index};

use super::harness::{Kind, World, ms};
use crate::control::EARLY_FRAMES_MAX;
use crate::{DownReason, NetEvent};

/// One side alone takes the session for dead; its goodbye is lost.
fn loses_its_session(world: &mut World, node: usize) {
    let lost = std::mem::replace(&mut world.lost, Box::new(|_| true));
    let (now, key) = (world.now, world.nodes[node].net.primary_key(0));
    world.nodes[node]
        .net
        .close_as_dead(key, DownReason::Silent, now);
    world.collect(node);
    world.lost = lost;
}

fn initiated(world: &World, node: usize) -> bool {
    let status = world.nodes[node].net.status(world.now);
    status[0].session.as_ref().unwrap().initiated
}

// PROTOCOL SM-HS-13
#[test]
fn one_session_remains_and_it_is_the_lower_peer_ids() {
    // The second attempt begins at any moment of the first one's handshake.
    for first in [0, 1] {
        for offset in 0..50 {
            let mut world = World::pair(offset);
            world.delay = ms(10);
            world.connect(first, 1 - first);
            world.run(ms(offset));
            world.connect(1 - first, first);
            world.run(ms(3_000));
            let what = format!("first {first} offset {offset}");
            assert!(world.is_up(0, 1) && world.is_up(1, 0), "{what}");
            assert_ne!(initiated(&world, 0), initiated(&world, 1), "{what}");
            assert!(world.traffic_flows(0, 1), "{what}");
            for node in 0..2 {
                let downs = world.count(node, |e| matches!(e, NetEvent::PeerDown { .. }));
                assert_eq!(downs, 0, "{what}");
                assert_eq!(world.nodes[node].net.open_connections(), 1, "{what}");
            }
        }
    }
}

// PROTOCOL SM-HS-13
#[test]
fn attempts_that_cross_exactly_leave_the_lower_clients_and_lose_no_frame() {
    let mut world = World::pair(1);
    world.delay = ms(10);
    world.connect(0, 1);
    world.connect(1, 0);
    let mut sent = [0, 0];
    for _ in 0..300 {
        world.run(ms(10));
        for (node, sent) in sent.iter_mut().enumerate() {
            *sent += usize::from(world.send(node, 1 - node, b"packet"));
        }
    }
    world.run(ms(100));
    assert!(initiated(&world, 0) && !initiated(&world, 1));
    assert!(sent[0] > 200 && sent[1] > 200);
    assert_eq!(world.nodes[1].packets.len(), sent[0]);
    assert_eq!(world.nodes[0].packets.len(), sent[1]);
}

#[derive(Clone, Copy, PartialEq)]
enum Loses {
    Nothing,
    /// Of node 0.
    Calls,
    /// Of node 1, with everything that follows it by QUIC.
    Hello,
}

/// Node 0 has called before node 1 did, and its call, which is the one that counts, has just become a
/// session at node 1, whose own was up before.
fn a_crossing_at_the_server_of_the_lower(then: Loses) -> (World, Rc<Cell<Loses>>) {
    let mut world = World::pair(3);
    let loses = Rc::new(Cell::new(Loses::Calls));
    let lost = Rc::clone(&loses);
    world.lost = Box::new(move |flight| {
        let is_quic = flight.kind == Kind::Control;
        match lost.get() {
            Loses::Nothing => false,
            Loses::Calls => is_quic && flight.from == 0,
            Loses::Hello => is_quic && flight.from == 1 && !is_long_header(&flight.data),
        }
    });
    world.connect(0, 1);
    world.run(ms(20));
    loses.set(Loses::Nothing);
    world.connect(1, 0);
    let ups = |world: &World| world.count(1, |e| matches!(e, NetEvent::PeerUp { .. }));
    assert!(world.run_until(ms(100), |world| ups(world) == 1));
    loses.set(then);
    assert!(world.run_until(ms(1_000), |world| ups(world) == 2));
    (world, loses)
}

fn sealer(world: &World, node: usize) -> Arc<Sealer> {
    let forwarding = world.nodes[node].net.forwarding();
    let outbound = forwarding.outbound(&world.id(1 - node)).expect("a session");
    Arc::clone(&outbound.sealer)
}

// PROTOCOL SM-HS-13
// PROTOCOL SM-DV-3
#[test]
fn packets_go_by_the_session_that_is_replaced_until_the_peer_has_the_other() {
    let (mut world, loses) = a_crossing_at_the_server_of_the_lower(Loses::Hello);
    let before = sealer(&world, 1);
    // More than would wait for a session that is not up.
    for number in 0..2 * EARLY_FRAMES_MAX {
        assert!(world.send(1, 0, &number.to_be_bytes()));
        world.run(ms(6));
        assert_eq!(world.nodes[0].packets.len(), number + 1);
    }
    assert!(Arc::ptr_eq(&before, &sealer(&world, 1)));
    loses.set(Loses::Nothing);
    world.run(ms(3_000));
    assert!(!Arc::ptr_eq(&before, &sealer(&world, 1)));
    assert!(initiated(&world, 0) && world.traffic_flows(0, 1));
    assert_eq!(world.nodes[1].net.open_connections(), 1);
}

// PROTOCOL SM-HS-13
#[test]
fn packets_go_by_the_new_session_one_round_trip_after_it_is_up() {
    // Either that comes by QUIC or what is sealed is enough.
    for loses_sealed in [false, true] {
        let (mut world, _) = a_crossing_at_the_server_of_the_lower(Loses::Nothing);
        let (before, indices) = (sealer(&world, 1), Rc::clone(&world.indices));
        world.lost = Box::new(move |flight| {
            let index = receiver_index(&flight.data);
            let is_sealed = index.is_some_and(|index| indices.borrow().contains(&index));
            flight.from == 0 && is_sealed == loses_sealed
        });
        let round_trip = 2 * world.delay;
        let changed = |world: &World| !Arc::ptr_eq(&before, &sealer(world, 1));
        assert!(world.run_until(round_trip, changed), "{loses_sealed}");
        world.lost = Box::new(|_| false);
        assert!(world.traffic_flows(0, 1), "{loses_sealed}");
    }
}

// PROTOCOL SM-HS-13
#[test]
fn a_peer_that_lost_its_session_is_sent_to_by_the_new_one_at_once() {
    let mut world = World::pair(5);
    world.join(0, 1);
    loses_its_session(&mut world, 0);
    world.connect(0, 1);
    let ups = |world: &World| world.count(1, |e| matches!(e, NetEvent::PeerUp { .. }));
    let before = ups(&world);
    assert!(world.run_until(ms(1_000), |world| ups(world) > before));
    for number in 0..20usize {
        assert!(world.send(1, 0, &number.to_be_bytes()));
        world.run(ms(1));
    }
    world.run(ms(20));
    assert_eq!(world.nodes[0].packets.len(), 20);
}

// PROTOCOL SM-PA-4
#[test]
fn after_a_dead_session_one_handshake_is_made_by_the_side_that_found_it_dead() {
    for finder in [0, 1] {
        for delay in [1, 20, 100, 240] {
            let mut world = World::pair(delay);
            world.delay = ms(delay);
            world.join(0, 1);
            world.run(ms(20_000));
            let clients = |world: &World| {
                [0, 1].map(|node| world.count(node, |e| matches!(e, NetEvent::Handshaken { .. })))
            };
            let before = clients(&world);
            let (now, key) = (world.now, world.nodes[finder].net.primary_key(0));
            let net = &mut world.nodes[finder].net;
            net.close_as_dead(key, DownReason::Silent, now);
            world.run(ms(5_000));
            let mut expected = before;
            expected[finder] += 1;
            assert_eq!(clients(&world), expected, "finder {finder} delay {delay}");
            assert!(world.traffic_flows(0, 1), "finder {finder} delay {delay}");
        }
    }
}

// PROTOCOL SM-PA-4
#[test]
fn a_side_that_is_told_of_a_dead_session_calls_if_the_other_cannot() {
    let mut world = World::pair(1);
    world.join(0, 1);
    world.run(ms(20_000));
    let (now, key) = (world.now, world.nodes[0].net.primary_key(0));
    world.nodes[0]
        .net
        .close_as_dead(key, DownReason::Silent, now);
    // What it sends last arrives; then it is gone and comes back without knowing where we are.
    world.collect(0);
    world.restart(0);
    world.introduce(0, 1, false);
    assert!(world.run_until(ms(500), |w| w.is_up(0, 1) && w.is_up(1, 0)));
    let reasons = world.count(1, |e| {
        matches!(
            e,
            NetEvent::PeerDown {
                reason: DownReason::FoundDead,
                ..
            }
        )
    });
    assert_eq!(reasons, 1);
}

// PROTOCOL SM-HS-13
#[test]
fn pings_under_way_while_one_session_takes_the_place_of_another_are_answered() {
    for offset in 0..30 {
        let mut world = World::pair(offset);
        world.delay = ms(10);
        world.connect(1, 0);
        world.run(ms(offset));
        world.connect(0, 1);
        let mut sent = [0, 0];
        for _ in 0..200 {
            world.run(ms(1));
            for (node, sent) in sent.iter_mut().enumerate() {
                let (peer, now) = (world.id(1 - node), world.now);
                *sent += usize::from(world.nodes[node].net.ping(&peer, now).is_ok());
            }
        }
        world.run(ms(100));
        for (node, &sent) in sent.iter().enumerate() {
            let answered = world.count(node, |e| matches!(e, NetEvent::PingReply { .. }));
            assert!(sent > 100, "offset {offset}: {sent}");
            assert_eq!(answered, sent, "offset {offset}, node {node}");
        }
    }
}

// PROTOCOL SM-HS-13
#[test]
fn a_higher_peer_that_lost_its_session_gets_a_new_one_from_the_lower() {
    let mut world = World::pair(2);
    world.join(0, 1);
    loses_its_session(&mut world, 1);
    world.connect(1, 0);
    world.run(ms(4_000));
    assert!(world.is_up(0, 1) && world.is_up(1, 0));
    assert!(world.traffic_flows(0, 1));
    assert!(initiated(&world, 1));
}
