//! Peers that move.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::harness::{World, ms};
use crate::NetEvent;

// PROTOCOL SM-PA-2
#[test]
fn a_peer_that_changes_its_address_keeps_its_session() {
    for mover in [0, 1] {
        let mut world = World::pair(1);
        world.join(0, 1);
        let old = world.nodes[mover].address;
        world.nodes[mover].address = ([198, 51, 100, 7], 7777).into();
        // Under traffic from the mover; replies go to the old address and are lost at first.
        for _ in 0..30 {
            world.send(mover, 1 - mover, b"packet");
            world.run(ms(100));
        }
        assert_ne!(world.nodes[mover].address, old);
        assert!(world.traffic_flows(0, 1), "mover {mover}");
        let moved = world.count(1 - mover, |e| matches!(e, NetEvent::PathChanged { .. }));
        assert_eq!(moved, 1);
        for node in 0..2 {
            assert_eq!(
                world.count(node, |e| matches!(e, NetEvent::PeerDown { .. })),
                0
            );
        }
        // The control connection moved with it: keys still change over it.
        world.run(ms(15_000));
        assert!(world.count(0, |e| matches!(e, NetEvent::Rekeyed { .. })) >= 1);
        assert_eq!(world.count(0, |e| matches!(e, NetEvent::PeerUp { .. })), 1);
    }
}

// PROTOCOL SM-PA-2
#[test]
fn frames_resent_from_elsewhere_do_not_move_the_path() {
    let mut world = World::pair(2);
    world.join(0, 1);
    let id = world.id(1);
    world.log.clear();
    // The probe request is held back and arrives only from the attacker's address.
    world.lost = Box::new(|flight| flight.from == 0);
    world.nodes[0].net.ping(&id, world.now).unwrap();
    world.collect(0);
    world.lost = Box::new(|_| false);
    let probe = world.log.pop().unwrap();
    let attacker = ([203, 0, 113, 9], 9).into();
    world.inject(attacker, probe.target, probe.data);
    world.run(ms(100));
    let to_attacker = world.log.iter().filter(|f| f.target == attacker).count();
    assert_eq!(to_attacker, 2, "one answer and one challenge");
    assert_eq!(
        world.count(1, |e| matches!(e, NetEvent::PathChanged { .. })),
        0
    );
    assert!(world.traffic_flows(0, 1));
}

// PROTOCOL SM-PA-1
#[test]
fn who_answers_without_being_the_peer_does_not_draw_the_attempt_to_itself() {
    let mut world = World::new(2, 3);
    world.introduce(1, 0, false);
    let (peer, now) = (world.id(1), world.now);
    let real = world.nodes[1].address;
    let attacker = ([203, 0, 113, 9], 9).into();
    let config = crate::PeerConfig {
        id: peer,
        addresses: vec![attacker, real],
        known_key: None,
        data_plane: crate::DataPlane::default(),
        relay: false,
    };
    world.nodes[0].net.add_peer(config, now);
    world.connect(0, 1);
    // The attacker saw our first packet, and answers sooner with noise to the id in it.
    let initial = world.log.iter().find(|f| f.target == attacker).unwrap();
    let id_len = usize::from(initial.data[5]);
    let ours = initial.data[7 + id_len..][..8].to_vec();
    let noise = [&[0xe3, 0, 0, 0, 1, 8], &ours[..], &[0; 60]].concat();
    let victim = world.nodes[0].address;
    world.delay = ms(1);
    world.inject(attacker, victim, noise);
    world.delay = ms(5);
    assert!(world.run_until(ms(1_000), |world| world.is_up(0, 1)));
    let status = world.nodes[0].net.status(world.now);
    assert_eq!(
        status[0].session.as_ref().unwrap().path,
        crate::PathInfo::Direct(real)
    );
}

// PROTOCOL SM-SF-6
#[test]
fn an_ipv4_address_written_as_ipv6_is_the_same_address() {
    let mut world = World::new(2, 20);
    let SocketAddr::V4(v4) = world.nodes[1].address else {
        unreachable!("the harness gives IPv4 addresses")
    };
    let mapped = SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()));
    let config = crate::PeerConfig {
        id: world.id(1),
        addresses: vec![mapped],
        known_key: None,
        data_plane: crate::DataPlane::default(),
        relay: false,
    };
    world.nodes[0].net.add_peer(config, world.now);
    world.introduce(1, 0, false);
    world.join(0, 1);
    // The word of a peer that lost our keys is believed only from its address.
    world.restart(1);
    world.introduce(1, 0, false);
    world.send(
        0,
        1,
        b"a packet of ordinary size, so that a reset is smaller than it",
    );
    assert!(world.run_until(ms(200), |world| world.is_up(1, 0)));
}

/// What is promised of a change of path: this much time of a core for both sides together.
const VALIDATION_MAX: Duration = Duration::from_micros(553);

// PROTOCOL SM-PA-2
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how long it takes is the question here"
)]
fn a_new_path_is_validated_in_a_round_trip_and_less_than_553_us() {
    let mut world = World::pair(9);
    world.join(0, 1);
    let is_moved = |event: &NetEvent| matches!(event, NetEvent::PathChanged { .. });
    let mut shortest = Duration::MAX;
    for port in 7000..7020 {
        world.run(ms(3_000));
        let before = world.count(1, is_moved);
        world.nodes[0].address = ([198, 51, 100, 7], port).into();
        let (at, start) = (world.now, Instant::now());
        world.nodes[0].net.network_changed(at);
        let moved = world.run_until(ms(500), |world| world.count(1, is_moved) > before);
        shortest = shortest.min(start.elapsed());
        assert!(moved, "port {port}");
        // The mover's probe to the peer, then the peer's challenge and its answer.
        assert_eq!(world.now - at, 3 * world.delay);
    }
    println!("a change of path costs both sides {shortest:?} together");
    assert!(shortest < VALIDATION_MAX, "{shortest:?}");
}
