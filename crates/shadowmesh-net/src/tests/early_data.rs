//! Resumption and 0-RTT.

use super::harness::{World, ms};
use crate::plane::DataPlane;
use crate::{DropReason, NetEvent};
use std::sync::atomic::Ordering;

fn meet_and_part(world: &mut World) {
    world.join(0, 1);
    world.nodes[1].net.shutdown(world.now);
    world.run(ms(1_000));
    assert!(!world.is_up(0, 1));
}

// PROTOCOL SM-HS-11
#[test]
fn a_returning_node_sends_its_hello_as_early_data_and_signs_nothing() {
    let mut world = World::pair(1);
    meet_and_part(&mut world);
    let signatures = |world: &World| {
        let counters = world.nodes[0].net.handshake_counters();
        counters.sign.load(Ordering::Relaxed)
    };
    assert_eq!(signatures(&world), 1);
    world.join(0, 1);
    assert_eq!(signatures(&world), 1);
    let early = world.count(0, |event| {
        matches!(
            event,
            NetEvent::Handshaken {
                resumed: true,
                early_data: true,
                ..
            }
        )
    });
    assert_eq!(early, 1);
    assert!(world.traffic_flows(0, 1));
}

// PROTOCOL SM-HS-11
#[test]
fn early_data_that_is_replayed_changes_nothing() {
    let mut world = World::pair(2);
    meet_and_part(&mut world);
    world.log.clear();
    world.join(0, 1);
    let flights: Vec<_> = world.log.iter().filter(|f| f.from == 0).cloned().collect();
    let ups = |world: &World| world.count(1, |event| matches!(event, NetEvent::PeerUp { .. }));
    let before = ups(&world);

    // All that the client sent comes again, from elsewhere, after the connection is gone.
    // The client leaves too, or it would call again.
    for node in [1, 0] {
        world.nodes[node].net.shutdown(world.now);
    }
    world.run(ms(2_000));
    let attacker = ([203, 0, 113, 9], 9).into();
    let refused = world.drops(1, DropReason::HandshakeFailed);
    for flight in flights {
        world.inject(attacker, flight.target, flight.data);
    }
    world.run(ms(15_000));
    assert_eq!(ups(&world), before);
    assert!(!world.is_up(1, 0));
    assert_eq!(world.drops(1, DropReason::HandshakeFailed), refused + 1);
}

// PROTOCOL SM-HS-11
#[test]
fn early_data_that_is_refused_is_said_again() {
    let mut world = World::pair(3);
    meet_and_part(&mut world);
    // A restarted peer knows no tickets.
    world.restart(1);
    world.introduce(1, 0, false);
    let key = world.nodes[0].net.public_identity(&world.id(0));
    assert!(key.is_none());
    world.connect(0, 1);
    assert!(world.run_until(ms(1_500), |world| world.is_up(0, 1) && world.is_up(1, 0)));
    assert!(world.traffic_flows(0, 1));
}

// PROTOCOL SM-HS-11
// PROTOCOL SM-QD-5
#[test]
fn packets_in_early_data_are_never_delivered() {
    let mut world = World::pair_with(4, [DataPlane::Quic; 2]);
    meet_and_part(&mut world);
    let before = world.nodes[1].packets.len();
    let (id, now) = (world.id(1), world.now);
    let node = &mut world.nodes[0].net;
    node.send_early_datagram(&id, b"\x01early", now);
    assert!(world.run_until(ms(5_000), |world| world.is_up(0, 1)));
    world.run(ms(500));
    let early = |event: &NetEvent| {
        matches!(
            event,
            NetEvent::Handshaken {
                early_data: true,
                ..
            }
        )
    };
    assert_eq!(world.count(0, early), 1);
    assert_eq!(world.nodes[1].packets.len(), before);
    assert_eq!(world.drops(1, DropReason::StaleSnapshot), 1);
    assert!(world.traffic_flows(0, 1));
}
