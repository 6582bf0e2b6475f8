//! Who may say where somebody is to be reached, and who is told.

use std::net::SocketAddr;

use shadowmesh_wire::control::{
    CandidateAddress, CandidateKind, Candidates, ControlMessage, Mapping,
};

use super::harness::{World, ms};

const CLIENT: usize = 0;
const MEMBER: usize = 1;
const RELAY: usize = 2;

/// A relay with a client, which is nothing else to it, and a member.
fn world(seed: u64) -> World {
    let mut world = World::new(3, seed);
    world.configure(RELAY, |config| config.relay.enabled = true);
    world.introduce_relay(CLIENT, RELAY);
    world.introduce(MEMBER, RELAY, true);
    world.introduce(RELAY, MEMBER, true);
    world.run(ms(500));
    world.join(MEMBER, RELAY);
    assert!(world.is_up(CLIENT, RELAY) && world.is_up(RELAY, CLIENT));
    world
}

fn say(world: &mut World, from: usize, to: usize, message: &ControlMessage) {
    let (id, now) = (world.id(to), world.now);
    world.nodes[from]
        .net
        .send_control(&id, message, now)
        .unwrap();
    world.collect(from);
    world.run(ms(50));
}

fn candidates(round: u32, address: SocketAddr) -> ControlMessage {
    ControlMessage::Candidates(Candidates {
        round,
        mapping: Mapping::Stable,
        addresses: vec![CandidateAddress {
            address,
            kind: CandidateKind::Host,
        }],
    })
}

// PROTOCOL SM-RL-5
// PROTOCOL SM-PA-6
#[test]
fn a_relay_and_its_client_search_nothing_and_tell_each_other_no_addresses() {
    let mut world = world(1);
    let victim: SocketAddr = ([203, 0, 113, 9], 53).into();
    say(&mut world, CLIENT, RELAY, &candidates(7, victim));
    say(&mut world, RELAY, CLIENT, &candidates(7, victim));
    assert!(world.log.iter().all(|flight| flight.target != victim));
    // What makes members search.
    for node in [CLIENT, RELAY] {
        let now = world.now;
        world.nodes[node].net.network_changed(now);
        world.collect(node);
    }
    world.run(ms(2_000));
    let ids = [CLIENT, MEMBER, RELAY].map(|node| world.id(node));
    assert_eq!(world.nodes[RELAY].net.search_round(&ids[CLIENT]), 0);
    assert_eq!(world.nodes[CLIENT].net.search_round(&ids[RELAY]), 0);
    assert!(world.nodes[RELAY].net.search_round(&ids[MEMBER]) > 0);
}

// PROTOCOL SM-RL-5
// PROTOCOL SM-PA-6
#[test]
fn where_a_relay_is_seen_is_the_word_of_members_alone() {
    let mut world = world(2);
    let member = world.id(MEMBER);
    let observed = |world: &World| {
        let report = world.nodes[RELAY].net.path_report(&member, world.now);
        report.unwrap().observed
    };
    let seen = vec![(member, world.nodes[RELAY].address)];
    assert_eq!(observed(&world), seen);
    let made_up = ControlMessage::ObservedAddress(([203, 0, 113, 9], 53).into());
    say(&mut world, CLIENT, RELAY, &made_up);
    assert_eq!(observed(&world), seen);
    // Nor is what no node can be reached at.
    for bad in ["224.0.0.1:7", "10.100.3.4:7", "192.0.2.1:0", "127.0.0.1:7"] {
        let bad = ControlMessage::ObservedAddress(bad.parse().unwrap());
        say(&mut world, MEMBER, RELAY, &bad);
    }
    assert_eq!(observed(&world), seen);
}

// PROTOCOL SM-RL-5
#[test]
fn clients_of_a_relay_are_none_of_its_connections() {
    let world = world(3);
    let totals = world.nodes[RELAY].net.connectivity().totals();
    assert_eq!(
        (totals.connections_direct, totals.connections_relay),
        (1, 0)
    );
}
