//! Both sides connect at once.

use super::harness::{World, ms};
use crate::{DownReason, NetEvent};

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
    // The higher side alone takes the session for dead; its goodbye is lost.
    world.lost = Box::new(|_| true);
    let key = world.nodes[1].net.primary_key(0);
    let now = world.now;
    world.nodes[1]
        .net
        .close_as_dead(key, DownReason::Silent, now);
    world.collect(1);
    world.lost = Box::new(|_| false);
    world.connect(1, 0);
    world.run(ms(4_000));
    assert!(world.is_up(0, 1) && world.is_up(1, 0));
    assert!(world.traffic_flows(0, 1));
    assert!(initiated(&world, 1));
}
