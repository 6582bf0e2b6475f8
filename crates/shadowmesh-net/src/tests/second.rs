//! A relay that can be asked at a second port, as nodes without sockets see it.

use std::net::SocketAddr;

use bytes::BytesMut;
use shadowmesh_wire::control::ControlMessage;

use super::harness::{World, ms};
use crate::{DropReason, Received, SECOND_SOCKET};

const CLIENT: usize = 0;
const RELAY: usize = 1;
const SECOND_PORT: u16 = 4434;

/// A relay with a second port, at which the network of these tests leads nobody anywhere.
fn world(seed: u64) -> World {
    let mut world = World::new(2, seed);
    world.configure(RELAY, |config| config.relay.enabled = true);
    world.nodes[RELAY].net.set_second_port(Some(SECOND_PORT));
    world.introduce_relay(CLIENT, RELAY);
    assert!(world.run_until(ms(2_000), |world| world.is_up(CLIENT, RELAY)));
    world
}

fn asked(world: &World) -> Vec<Vec<u8>> {
    let second = SocketAddr::new(world.nodes[RELAY].address.ip(), SECOND_PORT);
    let all = world.log.iter().filter(|flight| flight.target == second);
    all.map(|flight| flight.data.clone()).collect()
}

/// Words of the relay about where it sees the client from its second port.
fn second_word(world: &World) -> Option<SocketAddr> {
    let relay = world.id(RELAY);
    let status = world.nodes[CLIENT].net.status(world.now);
    let relay = status.into_iter().find(|status| status.peer == relay);
    relay?.session?.observed_second
}

// PROTOCOL SM-RL-10
#[test]
fn a_second_port_that_is_shut_is_asked_three_times_and_changes_nothing() {
    let mut world = world(1);
    world.run(ms(60_000));
    assert_eq!(asked(&world).len(), 3);
    assert_eq!(second_word(&world), None);
    assert!(world.is_up(CLIENT, RELAY));
}

// PROTOCOL SM-RL-10
#[test]
fn who_asks_at_the_second_port_by_its_session_is_told_where_from_and_others_get_nothing() {
    let mut world = world(2);
    world.run(ms(100));
    let question = asked(&world).pop().expect("it asks at once");
    let outside: SocketAddr = ([203, 0, 113, 9], 4000).into();
    let received = Received {
        socket: SECOND_SOCKET,
        ..Received::from_remote(outside)
    };
    // What strangers send there: a first packet, a frame of no session, noise.
    let first = world.log.iter().find(|flight| flight.from == CLIENT);
    let first = first.expect("it called").data.clone();
    for stranger in [first, vec![0x40; 60], vec![0xff; 1200]] {
        let now = world.now;
        let net = &mut world.nodes[RELAY].net;
        net.handle_datagram(received, BytesMut::from(&stranger[..]), now);
        assert_eq!(net.poll_transmit(), None);
    }
    assert_eq!(world.drops(RELAY, DropReason::UnknownIndex), 3);
    world.arrive_at(RELAY, received, &question);
    world.run(ms(50));
    assert_eq!(second_word(&world), Some(outside));
    // A way it is not: nothing is sent there.
    world.run(ms(5_000));
    assert!(world.log.iter().all(|flight| flight.target != outside));
}

// PROTOCOL SM-RL-10
#[test]
fn a_word_of_a_second_port_that_was_not_asked_counts_for_nothing() {
    let mut world = World::pair(3);
    world.join(0, 1);
    let (id, now) = (world.id(0), world.now);
    let made_up: SocketAddr = ([203, 0, 113, 9], 53).into();
    for message in [
        ControlMessage::SecondPort { port: 4434 },
        ControlMessage::SecondObserved(made_up),
    ] {
        world.nodes[1].net.send_control(&id, &message, now).unwrap();
    }
    world.collect(1);
    world.run(ms(3_000));
    assert_eq!(second_word(&world), None);
    assert!(world.log.iter().all(|flight| flight.target.port() != 4434));
}
