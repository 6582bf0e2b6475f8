//! A NAT that leads what comes from our port to where nobody is any more.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::NetEvent;

use super::harness::{World, ms};

const LAPTOP: usize = 0;
const HUB: usize = 1;

/// What comes from these addresses, or goes there, is lost.
type Dead = Rc<RefCell<BTreeSet<SocketAddr>>>;

fn world(seed: u64, relay: bool) -> (World, Dead) {
    let mut world = World::new(2, seed);
    if relay {
        world.configure(HUB, |config| config.relay.enabled = true);
        world.introduce_relay(LAPTOP, HUB);
    } else {
        world.introduce(LAPTOP, HUB, true);
        world.introduce(HUB, LAPTOP, false);
        let id = world.id(HUB);
        world.nodes[LAPTOP].net.keep(&id, world.now);
        world.collect(LAPTOP);
    }
    let dead = Dead::default();
    let lost = dead.clone();
    world.lost = Box::new(move |flight| {
        let dead = lost.borrow();
        dead.contains(&flight.source) || dead.contains(&flight.target)
    });
    (world, dead)
}

/// The last port from which the laptop sent something that is not lost.
fn port_in_use(world: &World) -> SocketAddr {
    let last = world.log.iter().rev().find(|flight| flight.from == LAPTOP);
    last.expect("it sent something").source
}

/// The laptop goes on sending for so long, or until there is a session again that carries packets.
fn back(world: &mut World, within: Duration, busy: bool) -> bool {
    let end = world.now + within;
    while world.now < end {
        if busy && !world.send(LAPTOP, HUB, b"hello?") {
            world.connect(LAPTOP, HUB);
        }
        world.run(ms(250));
        let up = world.is_up(LAPTOP, HUB) && world.is_up(HUB, LAPTOP);
        if up && world.traffic_flows(LAPTOP, HUB) {
            return true;
        }
    }
    false
}

// PROTOCOL SM-PA-14
#[test]
fn a_mapping_that_is_dead_for_as_long_as_it_is_used_is_left_for_a_fresh_port() {
    for (busy, within) in [(true, 20_000), (false, 60_000)] {
        let (mut world, dead) = world(1, false);
        assert!(back(&mut world, ms(1_000), busy));
        dead.borrow_mut().insert(world.nodes[LAPTOP].address);
        assert!(back(&mut world, ms(within), busy), "busy: {busy}");
        let fresh = port_in_use(&world);
        assert_ne!(fresh, world.nodes[LAPTOP].address);
        // The session lives there, with new keys and all.
        let downs =
            |world: &World| world.count(LAPTOP, |event| matches!(event, NetEvent::PeerDown { .. }));
        let before = downs(&world);
        for _ in 0..60 {
            assert!(world.traffic_flows(LAPTOP, HUB));
            world.run(ms(1_000));
        }
        assert_eq!(downs(&world), before);
        // And if that port dies too, there are others.
        dead.borrow_mut().insert(fresh);
        assert!(back(&mut world, ms(2 * within), busy), "busy: {busy}");
        assert_ne!(port_in_use(&world), fresh);
    }
}

// PROTOCOL SM-PA-14
#[test]
fn a_relay_is_called_from_a_fresh_port_too() {
    let (mut world, dead) = world(2, true);
    let is_up = |world: &World| world.is_up(LAPTOP, HUB) && world.is_up(HUB, LAPTOP);
    assert!(world.run_until(ms(1_000), is_up));
    dead.borrow_mut().insert(world.nodes[LAPTOP].address);
    assert!(world.run_until(ms(60_000), |world| !world.is_up(LAPTOP, HUB)));
    assert!(world.run_until(ms(30_000), is_up));
}

// PROTOCOL SM-PA-14
#[test]
fn calls_alternate_between_the_listening_port_and_a_few_others_which_are_closed_again() {
    let (mut world, _dead) = world(3, false);
    world.run(ms(1_000));
    world.lost = Box::new(|_| true);
    world.run(Duration::from_secs(1_200));
    let own = world.nodes[LAPTOP].address;
    let ports: BTreeSet<SocketAddr> = world
        .log
        .iter()
        .filter(|f| f.from == LAPTOP)
        .map(|f| f.source)
        .collect();
    assert!(
        ports.contains(&own) && ports.len() > 2 && ports.len() <= 9,
        "{ports:?}"
    );
    let count = |from: SocketAddr| world.log.iter().filter(|f| f.source == from).count();
    assert!(count(own) > 100);
    world.lost = Box::new(|_| false);
    let up = world.run_until(ms(60_000), |world| world.is_up(LAPTOP, HUB));
    assert!(up);
    let keeps: Vec<usize> = world.nodes[LAPTOP]
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            NetEvent::SocketsDone { keep } => Some(keep.len()),
            _ => None,
        })
        .collect();
    assert!(
        keeps.len() > 5 && keeps.iter().all(|keep| *keep == 0),
        "{keeps:?}"
    );
}
