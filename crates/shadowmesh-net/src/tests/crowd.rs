//! Thousands of peers that are away, and some that are not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::Rng;
use shadowmesh_wire::PeerId;

use crate::pacing::CALLS_MAX;
use crate::{DataPlane, DropReason, PeerConfig};

use super::harness::{World, ms};

const US: usize = 0;
/// What IPv4 and UDP add to a datagram.
const HEADERS: usize = 28;

/// Makes so many peers of ours that are not there.
fn absent(world: &mut World, count: usize) -> Vec<PeerId> {
    let ids: Vec<PeerId> = (0..count)
        .map(|_| PeerId::from_bytes(world.rng.random()))
        .collect();
    for (number, id) in ids.iter().enumerate() {
        let [.., high, low] = number.to_be_bytes();
        let address: SocketAddr = ([198, 51, high, low], 4433).into();
        let config = PeerConfig {
            id: *id,
            addresses: vec![address],
            known_key: None,
            data_plane: DataPlane::default(),
            relay: false,
        };
        let now = world.now;
        world.nodes[US].net.add_peer(config, now);
    }
    ids
}

fn sent_since(world: &World, at: usize) -> usize {
    let log = world.log[at..].iter().filter(|flight| flight.from == US);
    log.map(|flight| flight.data.len() + HEADERS).sum()
}

/// Lets time pass and returns how many connections there were at most.
fn run(world: &mut World, time: Duration) -> usize {
    let end: Instant = world.now + time;
    let mut most = 0;
    while world.now < end {
        world.run(ms(50));
        most = most.max(world.nodes[US].net.open_connections());
    }
    most
}

// PROTOCOL SM-PA-13
#[test]
fn five_thousand_absent_peers_cost_less_than_two_megabytes_in_five_seconds_and_few_connections() {
    for wanted in [false, true] {
        let mut world = World::new(1, 1);
        let ids = absent(&mut world, 5_000);
        for id in &ids {
            match wanted {
                true => world.nodes[US].net.connect(id, world.now),
                false => world.nodes[US].net.keep(id, world.now),
            }
        }
        world.collect(US);
        let most = run(&mut world, ms(5_000));
        let bytes = sent_since(&world, 0);
        assert!(bytes < 2_000_000, "wanted: {wanted}, {bytes} bytes in 5 s");
        assert!(most <= CALLS_MAX, "{most} connections");
        let at = world.log.len();
        let most = run(&mut world, ms(10_000));
        let bytes = sent_since(&world, at);
        assert!(
            bytes < 10 * 80_000,
            "wanted: {wanted}, {bytes} bytes in 10 s"
        );
        assert!(
            bytes > 10 * 20_000,
            "wanted: {wanted}, {bytes} bytes in 10 s"
        );
        assert!(most <= CALLS_MAX, "{most} connections");
        // A change of the network makes all calls due again, and brings no other flood.
        let at = world.log.len();
        world.nodes[US].net.network_changed(world.now);
        world.collect(US);
        let most = run(&mut world, ms(5_000));
        assert!(sent_since(&world, at) < 2_000_000);
        assert!(most <= CALLS_MAX, "{most} connections");
        assert_eq!(world.drops(US, DropReason::TransmitBacklog), 0);
    }
}

// PROTOCOL SM-PA-13
#[test]
fn fifty_peers_that_are_there_are_found_among_a_thousand_that_are_not_within_seconds() {
    const THERE: usize = 50;
    let mut world = World::new(1 + THERE, 2);
    world.delay = ms(40);
    // Those that are away come first, in the configuration and in the queue.
    let mut ids = absent(&mut world, 1_000);
    for other in 1..=THERE {
        world.introduce(US, other, true);
        world.introduce(other, US, false);
        ids.push(world.id(other));
    }
    let end = world.now + ms(5_000);
    let all_up = |world: &World| (1..=THERE).all(|other| world.is_up(US, other));
    while world.now < end && !all_up(&world) {
        for id in &ids {
            world.nodes[US].net.connect(id, world.now);
        }
        world.collect(US);
        world.run(ms(100));
    }
    let up = (1..=THERE).filter(|other| world.is_up(US, *other)).count();
    assert_eq!(up, THERE);
}

// PROTOCOL SM-PA-13
#[test]
fn a_peer_that_gives_no_sign_of_life_but_is_there_has_its_turn_all_the_same() {
    let mut world = World::new(2, 3);
    let mut ids = absent(&mut world, 500);
    world.introduce(US, 1, true);
    world.introduce(1, US, false);
    ids.push(world.id(1));
    // Knocks are lost.
    world.lost = Box::new(|flight| flight.from == US && flight.data.len() < 100);
    for id in &ids {
        world.nodes[US].net.keep(id, world.now);
    }
    world.collect(US);
    assert!(world.run_until(ms(150_000), |world| world.is_up(US, 1)));
}

// PROTOCOL SM-PA-13
#[test]
fn a_removed_peer_gives_its_turn_away() {
    let mut world = World::new(2, 4);
    let ids = absent(&mut world, CALLS_MAX + 100);
    for id in &ids {
        world.nodes[US].net.keep(id, world.now);
    }
    world.introduce(US, 1, true);
    world.introduce(1, US, false);
    let id = world.id(1);
    world.nodes[US].net.keep(&id, world.now);
    world.collect(US);
    for id in &ids {
        world.nodes[US].net.remove_peer(id, world.now);
    }
    world.collect(US);
    assert!(world.run_until(ms(500), |world| world.is_up(US, 1)));
}
