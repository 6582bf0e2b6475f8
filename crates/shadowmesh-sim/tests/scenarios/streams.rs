//! Nodes whose network lets no UDP through go by streams, and are connected all the same.

use std::time::Duration;

use shadowmesh_net::{OwnAddress, PathInfo};
use shadowmesh_sim::NatKind::{self, Open, PortRestricted, SymmetricRandom, UdpBlocked};
use shadowmesh_sim::scenario::relay::{Relayed, add_client, way};
use shadowmesh_sim::{HostConfig, HostId, LinkProfile, World, seeds};

use crate::{ends, millis, seconds};

fn link() -> LinkProfile {
    LinkProfile::round_trip(millis(40))
}

/// From the start of both until packets had come out both ways.
fn connected(pair: &Relayed) -> Option<Duration> {
    let first = |from, to| pair.world.ledger.first_delivery(from, to, seconds(0));
    Some(first(pair.a, pair.b)?.max(first(pair.b, pair.a)?))
}

// PROTOCOL SM-PA-5
#[test]
fn without_udp_a_pair_meets_over_a_relay_within_two_seconds_of_its_start() {
    seeds::each("streams", 2, |seed| {
        for other in [Open, PortRestricted, SymmetricRandom, UdpBlocked] {
            let mut pair = Relayed::new(seed, [UdpBlocked, other], 2);
            pair.talk(seconds(4));
            let took = connected(&pair);
            assert!(
                took.is_some_and(|took| took < seconds(2)),
                "{other:?}: {took:?}"
            );
            let late = pair.talk(seconds(2));
            pair.world.run_for(seconds(1));
            assert_eq!(pair.world.ledger.lost(&late), 0, "{other:?}");
            assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
            let relay = pair.relay_between(pair.a, pair.b).expect("over a relay");
            assert_eq!(pair.world.streams_between(pair.a, relay), 1);
        }
    });
}

/// A node without UDP, and a public peer that takes streams. No relay.
fn listening_peer(seed: u64, kind: NatKind) -> (World, HostId, HostId) {
    let mut world = World::new(seed);
    world.default_link = link();
    let peer = world.add_host(HostConfig {
        takes_streams: true,
        ..HostConfig::default()
    });
    let node = add_client(&mut world, kind, &[], &HostConfig::default());
    world.introduce(node, peer);
    world.start(node);
    world.start(peer);
    (world, node, peer)
}

// PROTOCOL SM-PA-5
#[test]
fn a_peer_that_takes_streams_is_reached_by_one_and_by_udp_as_soon_as_that_passes() {
    seeds::each("streams", 2, |seed| {
        let (mut world, node, peer) = listening_peer(seed, UdpBlocked);
        let first = world.send(node, peer);
        let came = world.run_until(seconds(2), |world| world.ledger.arrived(first));
        assert!(came, "the first packet waits for the stream");
        for (from, to) in [(node, peer), (peer, node)] {
            assert_eq!(way(&world, from, to), Some(PathInfo::Stream));
        }
        // Into a network that lets UDP through; the host tells, as in the program.
        let home = world.add_nat(PortRestricted);
        world.put_behind(node, home);
        let own = OwnAddress {
            address: world.host(node).address(),
            kind: shadowmesh_net::AddressKind::Host,
        };
        world.with_node(node, |node, now| {
            node.set_own_addresses(vec![own], now);
            node.network_changed(now);
        });
        let straight = |world: &World| matches!(way(world, node, peer), Some(PathInfo::Direct(_)));
        for _ in 0..500 {
            world.send(node, peer);
            world.run_for(millis(10));
        }
        assert!(straight(&world), "{:?}", way(&world, node, peer));
        assert!(world.settle(node, peer));
        assert_eq!(world.ledger.violations(), Vec::<String>::new());
    });
}

#[test]
fn a_stream_loses_nothing_on_a_line_that_loses_a_tenth() {
    seeds::each("streams", 2, |seed| {
        let setup = (link().losing(0.1), HostConfig::default());
        let mut pair = Relayed::with(seed, setup, [UdpBlocked; 2], 1);
        pair.talk(seconds(4));
        let sent = pair.talk(seconds(10));
        pair.world.run_for(seconds(3));
        assert_eq!(pair.world.ledger.lost(&sent), 0);
        assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
        assert_eq!(ends(&pair.world, pair.a), 0);
    });
}

// PROTOCOL SM-RL-6
#[test]
fn when_the_relay_of_a_stream_dies_the_other_takes_over() {
    seeds::each("streams", 2, |seed| {
        let mut pair = Relayed::new(seed, [UdpBlocked, PortRestricted], 2);
        pair.talk(seconds(10));
        let relay = pair.relay_between(pair.a, pair.b).expect("over a relay");
        let at = pair.world.now();
        pair.world.kill(relay);
        assert_eq!(pair.world.streams_between(pair.a, relay), 0);
        pair.talk(seconds(5));
        let healed = pair.healed(at + millis(25));
        assert!(
            healed.is_some_and(|healed| healed < seconds(1)),
            "{healed:?}"
        );
        assert_ne!(pair.relay_between(pair.a, pair.b), Some(relay));
    });
}

// PROTOCOL SM-WS-6
#[test]
fn a_stream_that_was_in_the_dark_is_given_up_and_opened_again() {
    seeds::each("streams", 2, |seed| {
        let mut pair = Relayed::new(seed, [UdpBlocked, PortRestricted], 2);
        pair.talk(seconds(10));
        pair.world.plug(pair.a, false);
        pair.talk(seconds(90));
        let streams = |pair: &Relayed| -> usize {
            let relays = pair.relays.iter();
            relays
                .map(|relay| pair.world.streams_between(pair.a, *relay))
                .sum()
        };
        assert_eq!(streams(&pair), 0);
        pair.world.plug(pair.a, true);
        let lit = pair.world.now();
        pair.talk(seconds(40));
        let healed = pair.healed(lit).expect("packets flow again");
        // The longest pause between two tries, and what a start takes.
        assert!(healed < seconds(35), "{healed:?}");
        assert!(streams(&pair) > 0);
        assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
    });
}
