//! Floods of first packets.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use super::harness::{World, ms};
use crate::{DropReason, NetEvent};

/// First flights of `n` strangers who know node 0's PeerId.
fn first_flights(world: &mut World, n: usize) -> Vec<Vec<Vec<u8>>> {
    let mut strangers = World::new(n, 99);
    let victim = crate::PeerConfig {
        id: world.id(0),
        addresses: vec![world.nodes[0].address],
        known_key: None,
        data_plane: crate::DataPlane::default(),
        relay: false,
    };
    (0..n)
        .map(|node| {
            let now = strangers.now;
            let stranger = &mut strangers.nodes[node].net;
            stranger.add_peer(victim.clone(), now);
            stranger.connect(&victim.id, now);
            std::iter::from_fn(|| stranger.poll_transmit())
                .map(|transmit| transmit.contents)
                .collect()
        })
        .collect()
}

fn post_quantum_work(world: &World, node: usize) -> u64 {
    let counters = world.nodes[node].net.handshake_counters();
    [&counters.kem, &counters.sign, &counters.verify]
        .iter()
        .map(|counter| counter.load(Ordering::Relaxed))
        .sum()
}

fn spoofed(n: usize) -> SocketAddr {
    ([10, 9, (n >> 8) as u8, n as u8], 1000 + n as u16).into()
}

// PROTOCOL SM-HS-9
#[test]
fn under_a_flood_unproven_senders_cost_no_post_quantum_work() {
    let mut world = World::pair(1);
    let flights = first_flights(&mut world, 60);
    let target = world.nodes[0].address;
    let mut costs = Vec::new();
    for (n, flight) in flights.into_iter().enumerate() {
        for datagram in flight {
            world.inject(spoofed(n), target, datagram);
        }
        world.run(ms(1));
        costs.push(post_quantum_work(&world, 0));
    }
    world.run(ms(20));
    // The burst that is served when it was quiet: one key exchange and one signature each.
    assert_eq!(costs[8], *costs.last().unwrap());
    assert!(post_quantum_work(&world, 0) <= 2 * 4);
    let retries = world
        .log
        .iter()
        .filter(|f| f.from == 0 && f.data[0] & 0xf0 == 0xf0);
    assert!(retries.count() >= 50);
    assert!(world.drops(0, DropReason::HandshakeGate) >= 50);
    assert!(world.nodes[0].net.open_connections() <= 4);

    // An honest newcomer proves its address and is in.
    world.connect(1, 0);
    assert!(world.run_until(ms(1_000), |world| world.is_up(1, 0) && world.is_up(0, 1)));
    assert!(world.traffic_flows(0, 1));
    // And what the flood left behind is gone soon.
    world.run(ms(15_000));
    assert_eq!(world.nodes[0].net.open_connections(), 1);
}

// PROTOCOL SM-HS-9
#[test]
fn a_flood_that_starts_at_once_gains_not_one_key_exchange() {
    let mut world = World::pair(5);
    let flights = first_flights(&mut world, 60);
    let target = world.nodes[0].address;
    for (n, flight) in flights.into_iter().enumerate() {
        for datagram in flight {
            world.inject(spoofed(n), target, datagram);
        }
    }
    world.run(ms(1_000));
    assert_eq!(post_quantum_work(&world, 0), 0);
    assert_eq!(world.nodes[0].net.open_connections(), 0);
    world.connect(1, 0);
    assert!(world.run_until(ms(1_000), |world| world.is_up(1, 0) && world.is_up(0, 1)));
}

// PROTOCOL SM-HS-10
#[test]
fn one_source_cannot_begin_handshakes_without_end() {
    let mut world = World::pair(2);
    let flights = first_flights(&mut world, 40);
    let target = world.nodes[0].address;
    for (n, flight) in flights.into_iter().enumerate() {
        // Slow enough to stay below the gate for spoofed sources.
        for datagram in flight {
            world.inject(([10, 9, 9, 9], 2000 + n as u16).into(), target, datagram);
        }
        world.run(ms(510));
        assert!(world.nodes[0].net.open_connections() <= 25);
    }
    assert_eq!(world.count(0, |e| matches!(e, NetEvent::PeerUp { .. })), 0);
}

// PROTOCOL SM-HS-9
#[test]
fn made_up_tokens_are_looked_at_only_so_often() {
    let mut world = World::pair(4);
    let target = world.nodes[0].address;
    for n in 0..3_000u16 {
        // Initial, version 1, two ids of 8 bytes, a token of 64 bytes.
        let mut datagram = vec![0xc3, 0, 0, 0, 1, 8];
        datagram.extend([n.to_be_bytes(); 4].concat());
        datagram.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0x40, 64]);
        datagram.extend([7; 64]);
        datagram.extend([0x44, 0x40]);
        datagram.resize(1200, n as u8);
        world.inject(spoofed(n.into()), target, datagram);
    }
    world.run(ms(100));
    let dropped = world.drops(0, DropReason::HandshakeGate);
    assert!((1_900..2_900).contains(&dropped), "{dropped}");
    assert_eq!(post_quantum_work(&world, 0), 0);
    assert!(world.log.iter().all(|flight| flight.from != 0));
    world.join(1, 0);
}
