//! Frames that come before the Hello of the side that sealed them.

use std::cell::Cell;
use std::rc::Rc;

use bytes::BytesMut;
use shadowmesh_wire::sealed::is_long_header;

use super::harness::{Kind, World, ms};
use crate::DropReason;
use crate::control::EARLY_FRAMES_MAX;
use crate::event::Received;
use crate::plane::DataPlane;

/// Node 0 has called node 1, whose session is up and whose Hello is lost for as long as the cell
/// holds.
fn world_without_the_servers_hello(seed: u64) -> (World, Rc<Cell<bool>>) {
    without_the_servers_hello(World::pair(seed))
}

fn without_the_servers_hello(mut world: World) -> (World, Rc<Cell<bool>>) {
    let losing = Rc::new(Cell::new(true));
    let lost = Rc::clone(&losing);
    world.lost = Box::new(move |flight| {
        let from_server = flight.from == 1 && flight.kind == Kind::Control;
        lost.get() && from_server && !is_long_header(&flight.data)
    });
    world.connect(0, 1);
    assert!(world.run_until(ms(1_000), |world| world.is_up(1, 0)));
    assert!(!world.is_up(0, 1));
    (world, losing)
}

fn send_numbered(world: &mut World, count: usize) {
    for number in 0..count {
        assert!(world.send(1, 0, &number.to_be_bytes()));
        world.run(ms(1));
    }
}

// PROTOCOL SM-SF-9
#[test]
fn frames_that_overtake_the_hello_are_delivered_in_order_when_it_has_come() {
    let (mut world, losing) = world_without_the_servers_hello(1);
    send_numbered(&mut world, 20);
    world.run(ms(20));
    assert!(world.nodes[0].packets.is_empty());
    losing.set(false);
    assert!(world.run_until(ms(3_000), |world| world.is_up(0, 1)));
    let numbers: Vec<_> = (0..20usize).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(world.nodes[0].packets, numbers);
    assert_eq!(world.drops(0, DropReason::StaleSnapshot), 0);
    assert_eq!(world.drops(0, DropReason::UnknownIndex), 0);
}

// PROTOCOL SM-SF-9
#[test]
fn of_too_many_early_frames_the_first_are_kept_and_the_others_counted() {
    let (mut world, losing) = world_without_the_servers_hello(2);
    send_numbered(&mut world, EARLY_FRAMES_MAX + 5);
    world.run(ms(20));
    losing.set(false);
    assert!(world.run_until(ms(3_000), |world| world.is_up(0, 1)));
    assert_eq!(world.nodes[0].packets.len(), EARLY_FRAMES_MAX);
    assert_eq!(world.nodes[0].packets[0], 0usize.to_be_bytes());
    assert_eq!(world.drops(0, DropReason::StaleSnapshot), 5);
}

// PROTOCOL SM-OV-5
#[test]
fn early_frames_of_a_session_that_does_not_come_are_counted() {
    let (mut world, _losing) = world_without_the_servers_hello(3);
    send_numbered(&mut world, 3);
    world.run(ms(11_000));
    assert_eq!(world.drops(0, DropReason::StaleSnapshot), 3);
}

// PROTOCOL SM-SF-9
#[test]
fn frames_judged_before_their_session_was_up_are_judged_again() {
    let mut world = World::pair(5);
    world.connect(0, 1);
    assert!(world.run_until(ms(1_000), |world| world.is_up(0, 1) && world.is_up(1, 0)));
    world.lost = Box::new(|flight| flight.kind == Kind::Data);
    send_numbered(&mut world, 2);
    // A data thread read them together, and by an older picture.
    let frames = world.log.iter().filter(|flight| flight.kind == Kind::Data);
    let frames: Vec<_> = frames.map(|flight| flight.data.clone()).collect();
    let (from, now) = (Received::from_remote(world.nodes[1].address), world.now);
    let together = BytesMut::from(&frames.concat()[..]);
    let net = &mut world.nodes[0].net;
    net.handle_datagrams(from, together, frames[0].len(), now);
    world.collect(0);
    let numbers: Vec<_> = (0..2usize).map(|n| n.to_be_bytes().to_vec()).collect();
    assert_eq!(world.nodes[0].packets, numbers);
    assert_eq!(world.drops(0, DropReason::StaleSnapshot), 0);
}

/// Packets that hold a Hello are long; its peer keeps back what is as long.
const HELLO_PACKET_MIN: usize = 100;

// PROTOCOL SM-SF-9
// PROTOCOL SM-QD-5
#[test]
fn of_too_many_early_quic_datagrams_the_first_are_kept_and_the_others_counted() {
    let mut world = World::pair_with(4, [DataPlane::Quic; 2]);
    let losing = Rc::new(Cell::new(true));
    let lost = Rc::clone(&losing);
    world.lost = Box::new(move |flight| {
        let from_server = flight.from == 1 && flight.kind == Kind::Control;
        let short = !is_long_header(&flight.data);
        lost.get() && from_server && short && flight.data.len() >= HELLO_PACKET_MIN
    });
    world.connect(0, 1);
    assert!(world.run_until(ms(1_000), |world| world.is_up(1, 0)));
    assert!(!world.is_up(0, 1));
    send_numbered(&mut world, EARLY_FRAMES_MAX + 40);
    assert!(!world.is_up(0, 1));
    losing.set(false);
    assert!(world.run_until(ms(3_000), |world| world.is_up(0, 1)));
    world.run(ms(100));
    let packets = &world.nodes[0].packets;
    let dropped = world.drops(0, DropReason::StaleSnapshot);
    assert!(packets.len() <= EARLY_FRAMES_MAX, "{}", packets.len());
    assert!(packets.len() > EARLY_FRAMES_MAX / 2 && dropped > 0);
}
