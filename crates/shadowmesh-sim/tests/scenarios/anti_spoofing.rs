//! A peer speaks only for its own addresses, even with perfect keys.

use std::net::IpAddr;

use shadowmesh_net::DropReason;
use shadowmesh_sim::{HostConfig, HostId, World, seeds};

use crate::{millis, seconds};

const STOLEN: [&str; 2] = ["10.77.0.1", "fd77::1"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Three hosts; the first has also given itself addresses that nobody granted it, and one of them
/// is the third's.
fn world_with_a_thief(seed: u64) -> (World, HostId, HostId, HostId) {
    let mut world = World::new(seed);
    let thief = world.add_host(HostConfig::default());
    let (victim, other) = (
        world.add_host(HostConfig::default()),
        world.add_host(HostConfig::default()),
    );
    let mut addresses: Vec<_> = STOLEN.iter().map(|a| (address(a), 24)).collect();
    for own in [
        world.ipv4(thief),
        world.ipv6(thief),
        world.ipv4(other),
        world.ipv6(other),
    ] {
        addresses.push((own, 24));
    }
    world.host_mut(thief).config.addresses = addresses;
    // The thief does not list the third host: it could not claim its address otherwise.
    world.introduce(thief, victim);
    world.introduce(victim, other);
    for host in [thief, victim, other] {
        world.start(host);
    }
    assert!(world.settle(thief, victim) && world.settle(victim, other));
    (world, thief, victim, other)
}

// PROTOCOL SM-OV-3
// PROTOCOL SM-OV-5
#[test]
fn a_packet_with_a_source_that_is_not_the_peers_own_is_dropped_and_counted() {
    seeds::each("anti_spoofing", 2, |seed| {
        let (mut world, thief, victim, other) = world_with_a_thief(seed);
        let to = [world.ipv4(victim), world.ipv6(victim)];
        let others = [world.ipv4(other), world.ipv6(other)];
        let spoofed = [address(STOLEN[0]), address(STOLEN[1]), others[0], others[1]];
        let numbers: Vec<u64> = spoofed
            .iter()
            .map(|source| {
                let destination = if source.is_ipv4() { to[0] } else { to[1] };
                world.send_packet(thief, victim, *source, destination, 100)
            })
            .collect();
        let honest = world.send(thief, victim);
        world.run_for(seconds(5));
        assert_eq!(world.ledger.lost(&numbers), numbers.len());
        assert_eq!(
            world.host(victim).drops(DropReason::SpoofedSource),
            numbers.len() as u64
        );
        assert!(world.ledger.arrived(honest));
    });
}

// PROTOCOL SM-OV-3
#[test]
fn a_packet_for_somebody_else_is_not_taken_in() {
    seeds::each("anti_spoofing", 2, |seed| {
        let (mut world, _, victim, other) = world_with_a_thief(seed);
        let settled = 1;
        // The victim is made to believe that a foreign network lies behind the third host.
        let mut peer = world.peer_entry(other);
        peer.allowed_ips = vec!["10.88.0.0/16".parse().unwrap()];
        world.with_node(victim, |node, now| {
            assert!(node.remove_peer(&peer.id, now));
            node.add_peer(peer, now).unwrap();
        });
        let source = world.ipv4(victim);
        for _ in 0..20 {
            world.send_packet(victim, other, source, address("10.88.0.1"), 100);
            world.run_for(millis(100));
        }
        assert!(world.host(other).drops(DropReason::NotForUs) > 0);
        let for_others = world
            .ledger
            .entries()
            .filter(|e| e.from == victim && e.to == other);
        let came_out = for_others.filter(|e| !e.delivered.is_empty()).count();
        assert_eq!(came_out, settled, "a packet for 10.88.0.1 came out");
    });
}

// PROTOCOL SM-OV-3
#[test]
fn a_peer_with_a_default_route_cannot_speak_in_our_own_name() {
    seeds::each("anti_spoofing", 1, |seed| {
        let mut world = World::new(seed);
        let ours = ["10.5.0.1", "10.5.0.2"].map(address);
        let victim = world.add_host(HostConfig {
            addresses: ours.map(|own| (own, 24)).into(),
            ..HostConfig::default()
        });
        let gateway = world.add_host(HostConfig {
            addresses: vec![(ours[0], 24), (address("10.6.0.1"), 24)],
            ..HostConfig::default()
        });
        for (host, peer, allowed) in [
            (victim, gateway, "0.0.0.0/0"),
            (gateway, victim, "10.5.0.2/32"),
        ] {
            let mut peer = world.peer_entry(peer);
            peer.allowed_ips = vec![allowed.parse().unwrap()];
            world.host_mut(host).peers.push(peer);
            world.start(host);
        }
        let honest = world.send_packet(gateway, victim, address("10.6.0.1"), ours[1], 100);
        world.run_for(seconds(2));
        assert!(world.ledger.arrived(honest));
        let spoofed = world.send_packet(gateway, victim, ours[0], ours[1], 100);
        world.run_for(seconds(1));
        assert!(world.ledger.entry(spoofed).delivered.is_empty());
        assert_eq!(world.host(victim).drops(DropReason::SpoofedSource), 1);
    });
}

// PROTOCOL SM-OV-4
// PROTOCOL SM-OV-5
#[test]
fn what_the_device_may_not_send_is_dropped_by_its_reason() {
    seeds::each("anti_spoofing", 1, |seed| {
        let mut world = World::new(seed);
        let (a, b) = world.pair(HostConfig::default());
        assert!(world.settle(a, b));
        let (own, own6, peers) = (world.ipv4(a), world.ipv6(a), world.ipv4(b));
        let cases = [
            (address("10.77.0.1"), peers, DropReason::ForeignSource),
            (own, address("10.77.0.1"), DropReason::NoRoute),
            (own, address("192.0.2.1"), DropReason::NoRoute),
            (own, own, DropReason::OwnAddress),
            (own, address("224.0.0.251"), DropReason::NotUnicast),
            (own, address("255.255.255.255"), DropReason::NotUnicast),
            (own6, address("ff02::2"), DropReason::NotUnicast),
        ];
        for (source, destination, reason) in cases {
            let before = world.host(a).drops(reason);
            let number = world.send_packet(a, b, source, destination, 100);
            world.run_for(seconds(1));
            assert!(
                world.ledger.entry(number).delivered.is_empty(),
                "{source} to {destination}"
            );
            assert_eq!(
                world.host(a).drops(reason),
                before + 1,
                "{source} to {destination}: {reason:?}"
            );
        }
        let longest = world.send_packet(a, b, own, peers, 65_535);
        world.run_for(seconds(1));
        assert!(world.ledger.arrived(longest), "it goes in fragments");
        world.with_node(a, |node, now| node.handle_device(b"no packet", now));
        assert_eq!(world.host(a).drops(DropReason::MalformedIpPacket), 1);
    });
}
