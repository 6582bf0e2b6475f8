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
    let own = vec!["10.100.0.0/16".parse().unwrap()];
    world.nodes[RELAY].net.set_overlay(own, Vec::new());
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

/// Two members that talk, and an overlay of their parents'.
fn pair(seed: u64) -> World {
    let mut world = World::pair(seed);
    for node in 0..2 {
        let own = vec!["10.9.0.0/24".parse().unwrap()];
        let peers = vec!["172.16.0.0/16".parse().unwrap()];
        world.nodes[node].net.set_overlay(own, peers);
    }
    world.join(0, 1);
    world
}

// PROTOCOL SM-PA-6
#[test]
fn no_way_leads_through_the_tunnel_whoever_names_it() {
    let mut world = pair(4);
    let (id, now) = (world.id(0), world.now);
    let inside = ["10.9.0.7:7", "172.16.3.4:7"].map(|a| a.parse().unwrap());
    let outside: SocketAddr = ([198, 51, 100, 9], 7).into();
    let tried = |world: &World, at: SocketAddr| world.log.iter().any(|f| f.target == at);
    for (round, address) in (100..).zip(inside) {
        say(&mut world, 0, 1, &candidates(round, address));
        world.nodes[1].net.learn_address(&id, address, now);
        world.collect(1);
        // A probe that the peer sent into the tunnel.
        world.log.clear();
        world.lost = Box::new(|flight| flight.from == 0);
        let (other, now) = (world.id(1), world.now);
        world.nodes[0].net.ping(&other, now).unwrap();
        world.collect(0);
        world.lost = Box::new(|_| false);
        let probe = world.log.pop().unwrap();
        world.inject(address, probe.target, probe.data);
        world.run(ms(300));
        assert!(!tried(&world, address), "{address}");
    }
    world.run(ms(10_000));
    say(&mut world, 0, 1, &candidates(200, outside));
    assert!(tried(&world, outside));
    // A network that we are in ourselves is reached without the tunnel.
    let own = crate::OwnAddress {
        address: ([172, 16, 0, 1], 4433).into(),
        kind: crate::AddressKind::Host,
    };
    let now = world.now;
    world.nodes[1].net.set_own_addresses(vec![own], now);
    world.run(ms(10_000));
    say(&mut world, 0, 1, &candidates(300, inside[1]));
    assert!(tried(&world, inside[1]));
    assert!(!tried(&world, inside[0]));
}

// PROTOCOL SM-PA-6
#[test]
fn the_overlay_is_what_is_configured_but_for_networks_of_the_host() {
    let tried = |address: &str, tell: fn(&mut crate::Net)| {
        let mut world = pair(4);
        tell(&mut world.nodes[1].net);
        let address: SocketAddr = address.parse().unwrap();
        say(&mut world, 0, 1, &candidates(100, address));
        world.log.iter().any(|flight| flight.target == address)
    };
    let as_is = |_: &mut crate::Net| {};
    assert!(
        tried("10.100.3.4:7", as_is),
        "derived addresses are none of ours"
    );
    assert!(!tried("10.9.0.7:7", as_is) && !tried("172.16.3.4:7", as_is));
    // The host is in our network, or in a part of it.
    let same = |net: &mut crate::Net| net.set_host(vec!["10.9.0.0/24".parse().unwrap()], false);
    assert!(tried("10.9.0.7:7", same));
    let part = |net: &mut crate::Net| net.set_host(vec!["10.9.0.0/28".parse().unwrap()], false);
    assert!(tried("10.9.0.7:7", part) && !tried("10.9.0.77:7", part));
    // Our datagrams never enter the tunnel, so a peer may be outside in what it leads to.
    let apart = |net: &mut crate::Net| net.set_host(Vec::new(), true);
    assert!(tried("172.16.3.4:7", apart) && !tried("10.9.0.7:7", apart));
}

#[test]
fn whoever_asks_for_better_ways_now_gets_a_search_and_calls() {
    let mut world = World::new(3, 6);
    world.introduce(0, 1, true);
    world.introduce(1, 0, true);
    world.introduce(0, 2, true);
    world.introduce(2, 0, true);
    world.join(0, 1);
    let own = crate::OwnAddress {
        address: world.nodes[0].address,
        kind: crate::AddressKind::Host,
    };
    let (id, now) = (world.id(1), world.now);
    world.nodes[0].net.set_own_addresses(vec![own], now);
    world.collect(0);
    world.run(ms(8_000));
    let before = world.nodes[0].net.search_round(&id);
    world.run(ms(8_000));
    assert_eq!(world.nodes[0].net.search_round(&id), before, "it was calm");
    assert!(!world.is_up(0, 2), "nobody called");
    let now = world.now;
    world.nodes[0].net.search_now(now);
    world.collect(0);
    world.run(ms(500));
    assert_eq!(world.nodes[0].net.search_round(&id), before + 1);
    assert!(world.is_up(0, 2));
}

// PROTOCOL SM-LD-3
#[test]
fn forged_words_on_the_local_network_keep_nobody_from_its_peer() {
    let mut world = World::new(2, 5);
    let forged = |n: u64| SocketAddr::from(([198, 51, 100, n as u8], 7));
    let (id, real) = (world.id(1), world.nodes[1].address);
    let configured: Vec<SocketAddr> = (1..crate::config::ADDRESSES_MAX)
        .map(|n| ([203, 0, 113, n as u8], 9).into())
        .chain([real])
        .collect();
    let config = crate::PeerConfig {
        id,
        addresses: configured,
        known_key: None,
        data_plane: crate::DataPlane::default(),
        relay: false,
    };
    world.nodes[0].net.add_peer(config, world.now);
    world.introduce(1, 0, false);
    // Slower than a word in each 20 ms.
    world.delay = ms(100);
    world.connect(0, 1);
    for n in 0..100 {
        let now = world.now;
        world.nodes[0].net.learn_address(&id, forged(n), now);
        world.collect(0);
        world.run(ms(20));
    }
    assert!(world.is_up(0, 1));
    let tried = (0..100).filter(|n| world.log.iter().any(|f| f.target == forged(*n)));
    assert!((1..=5).contains(&tried.count()));
}

// PROTOCOL SM-LD-3
#[test]
fn what_is_heard_beside_a_session_is_forgotten_with_what_the_peer_told() {
    let mut world = pair(6);
    let (id, now) = (world.id(0), world.now);
    let heard: SocketAddr = ([198, 51, 100, 9], 7).into();
    world.nodes[1].net.learn_address(&id, heard, now);
    world.collect(1);
    world.run(ms(100));
    assert!(world.log.iter().any(|flight| flight.target == heard));
    say(
        &mut world,
        0,
        1,
        &candidates(100, ([198, 51, 100, 8], 7).into()),
    );
    world.log.clear();
    world.run(ms(60_000));
    assert!(world.log.iter().all(|flight| flight.target != heard));
    // The same word again and again is worth a few probes.
    world.log.clear();
    for _ in 0..100 {
        let now = world.now;
        world.nodes[1].net.learn_address(&id, heard, now);
        world.collect(1);
        world.run(ms(10));
    }
    let probes = world.log.iter().filter(|flight| flight.target == heard);
    assert!((1..=12).contains(&probes.count()));
}

// PROTOCOL SM-PA-6
#[test]
fn a_relay_that_changes_its_mind_with_each_message_begins_few_searches() {
    const A: usize = 0;
    const B: usize = 1;
    const R: usize = 2;
    const S: usize = 3;
    let mut world = World::new(4, 8);
    for relay in [R, S] {
        world.configure(relay, |config| config.relay.enabled = true);
        world.introduce_relay(A, relay);
        world.introduce_relay(B, relay);
    }
    world.introduce(A, B, true);
    world.introduce(B, A, false);
    let ends = [A, B].map(|node| world.nodes[node].address);
    world.lost = Box::new(move |flight| flight.from < 2 && ends.contains(&flight.target));
    world.run(ms(500));
    world.join(A, B);
    world.run(ms(3_000));
    let b = world.id(B);
    let round = |world: &World| world.nodes[A].net.search_round(&b);
    // By the first word nobody knows how A is translated, and B is told so; by the second, which differs from
    // the other relay's in the port alone, it is known.
    let unknown: SocketAddr = "[2001:db8::7]:7".parse().unwrap();
    let known = SocketAddr::new(world.nodes[A].address.ip(), 7);
    let (mut begun, began_at) = (0, world.now);
    for _ in 0..30 {
        say(&mut world, S, A, &ControlMessage::ObservedAddress(unknown));
        let now = world.now;
        world.nodes[A].net.search_now(now);
        world.collect(A);
        world.run(ms(50));
        let before = round(&world);
        say(&mut world, S, A, &ControlMessage::ObservedAddress(known));
        begun += round(&world) - before;
    }
    let seconds = (world.now - began_at).as_secs() as u32;
    assert!((1..=2 + seconds).contains(&begun), "{begun} in {seconds} s");
}

/// Clients of two relays, one of which tells each of them a lie; what `Y` then sends to the victim.
fn told_of_a_victim(clients: usize, lies: impl Fn(usize) -> SocketAddr) -> World {
    const Y: usize = 0;
    let (r, s) = (clients + 1, clients + 2);
    let mut world = World::new(clients + 3, 4);
    for relay in [r, s] {
        world.configure(relay, |config| config.relay.enabled = true);
        for node in 0..=clients {
            world.introduce_relay(node, relay);
        }
    }
    let ends: Vec<SocketAddr> = (0..=clients).map(|n| world.nodes[n].address).collect();
    world.lost = Box::new(move |flight| flight.from <= clients && ends.contains(&flight.target));
    world.run(ms(1_000));
    for x in 1..=clients {
        world.introduce(x, Y, true);
        world.introduce(Y, x, false);
        world.connect(x, Y);
    }
    world.run(ms(9_000));
    assert!((1..=clients).all(|x| world.is_up(x, Y)));
    world.log.clear();
    for x in 1..=clients {
        let (id, now) = (world.id(x), world.now);
        let lie = ControlMessage::ObservedAddress(lies(x));
        world.nodes[r].net.send_control(&id, &lie, now).unwrap();
        world.collect(r);
    }
    world.run(ms(60_000));
    world
}

// PROTOCOL SM-PA-8
// PROTOCOL SM-PA-9
#[test]
fn a_relay_that_lies_to_ten_clients_brings_a_third_party_a_few_probes_and_no_guesses() {
    let victim = |port: u16| SocketAddr::from(([185, 199, 108, 1], port));
    for same_port in [true, false] {
        let lie = |x: usize| victim(if same_port { 53 } else { 1000 + x as u16 });
        let world = told_of_a_victim(10, lie);
        let hits: Vec<_> = world
            .log
            .iter()
            .filter(|flight| flight.target.ip() == victim(1).ip())
            .collect();
        let bytes: usize = hits.iter().map(|flight| flight.data.len() + 28).sum();
        assert!(
            hits.len() < 1_100 && bytes <= 68_000,
            "{} of {bytes} bytes",
            hits.len()
        );
        assert!(
            hits.iter()
                .all(|hit| (1..=10).any(|x| hit.target == lie(x)))
        );
    }
}

// PROTOCOL SM-PA-9
#[test]
fn a_peer_that_names_one_address_again_and_again_has_it_sent_no_more_than_a_share() {
    let mut world = pair(9);
    let victim = |n: usize| SocketAddr::from(([203, 0, 113, 9], 1000 + n as u16));
    world.log.clear();
    let began = world.now;
    for round in 0..40 {
        let addresses = (0..32).map(|n| CandidateAddress {
            address: victim(32 * round + n),
            kind: [
                CandidateKind::Host,
                CandidateKind::Observed,
                CandidateKind::Predicted,
            ][n % 3],
        });
        let message = ControlMessage::Candidates(Candidates {
            round: 100 + round as u32,
            mapping: Mapping::Random,
            addresses: addresses.collect(),
        });
        say(&mut world, 0, 1, &message);
        world.run(ms(1_400));
    }
    assert!(world.now - began < ms(60_000));
    let hits = world
        .log
        .iter()
        .filter(|flight| flight.target.ip() == victim(0).ip());
    let bytes: usize = hits.map(|flight| flight.data.len() + 28).sum();
    assert!((10_000..=68_000).contains(&bytes), "{bytes}");
    assert!(world.drops(1, crate::DropReason::UnansweredLimit) > 0);
    // Who is reached already is none the worse for it.
    assert!(world.traffic_flows(0, 1));
}

// PROTOCOL SM-PA-9
#[test]
fn an_absent_peer_is_called_within_the_allowance_of_its_address_and_found_when_it_comes() {
    let mut world = World::pair(10);
    let absent = world.nodes[1].address;
    world.lost = Box::new(move |flight| flight.target == absent);
    let began = world.now;
    while world.now < began + ms(60_000) {
        world.connect(0, 1);
        world.run(ms(200));
    }
    let calls = world.log.iter().filter(|flight| flight.target == absent);
    let bytes: usize = calls.map(|flight| flight.data.len() + 28).sum();
    assert!((30_000..=100_000).contains(&bytes), "{bytes}");
    world.lost = Box::new(|_| false);
    let came = world.now;
    while !world.is_up(0, 1) && world.now < came + ms(20_000) {
        world.connect(0, 1);
        world.run(ms(100));
    }
    assert!(
        world.is_up(0, 1) && world.now < came + ms(8_000),
        "{:?}",
        world.now - came
    );
}

// PROTOCOL SM-PA-15
#[test]
fn an_announced_address_that_nobody_sees_is_told_to_peers_however_many_others_there_are() {
    let mut world = World::new(2, 7);
    world.introduce(0, 1, true);
    world.introduce(1, 0, true);
    world.join(0, 1);
    let announced = SocketAddr::from(([203, 0, 113, 250], 4433));
    let hosts = (1..=40).map(|n| crate::OwnAddress {
        address: ([172, 16, 0, n], 4433).into(),
        kind: crate::AddressKind::Host,
    });
    let own = crate::OwnAddress {
        address: announced,
        kind: crate::AddressKind::Announced,
    };
    let now = world.now;
    world.nodes[0]
        .net
        .set_own_addresses(hosts.chain([own]).collect(), now);
    world.collect(0);
    world.run(ms(1_000));
    let probed = |flight: &super::harness::Flight| flight.target == announced;
    assert!(world.log.iter().any(probed), "the peer never tried it");
}
