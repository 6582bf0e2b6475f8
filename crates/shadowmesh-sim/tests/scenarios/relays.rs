//! Two nodes that cannot reach each other talk over relays.

use shadowmesh_net::{DropReason, PathInfo, RelayAllow, RelayConfig};
use shadowmesh_sim::NatKind::{self, Double, PortRestricted, SymmetricRandom};
use shadowmesh_sim::scenario::relay::{Relayed, add_relay_with, way};
use shadowmesh_sim::{HostConfig, HostId, LinkProfile, World, seeds};

use crate::{millis, seconds};

const APART: [[NatKind; 2]; 3] = [
    [SymmetricRandom, SymmetricRandom],
    [SymmetricRandom, Double],
    [PortRestricted, SymmetricRandom],
];

// PROTOCOL SM-RL-1
// PROTOCOL SM-RL-6
#[test]
fn two_nodes_behind_nats_connect_over_a_relay_at_once_and_no_packet_is_lost() {
    seeds::each("relays", 3, |seed| {
        for kinds in APART {
            let mut pair = Relayed::new(seed, kinds, 2);
            // Nothing is up yet, not even the sessions with the relays.
            let mut sent = vec![pair.world.send(pair.a, pair.b)];
            sent.extend(pair.talk(seconds(2)));
            pair.world.run_for(seconds(1));
            let first = pair.world.ledger.first_delivery(pair.a, pair.b, seconds(0));
            let first = first.expect("a packet came out");
            assert!(
                first < millis(600),
                "{kinds:?}: first packet after {first:?}"
            );
            assert_eq!(pair.world.ledger.lost(&sent), 0, "{kinds:?}");
            assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
        }
    });
}

// PROTOCOL SM-RL-5
#[test]
fn a_client_that_the_relay_does_not_serve_is_told_so_and_another_relay_is_used() {
    seeds::each("relays", 3, |seed| {
        let mut pair = Relayed::new(seed, APART[0], 1);
        let nobody = RelayConfig {
            enabled: true,
            allow: RelayAllow::Listed(Default::default()),
            ..RelayConfig::default()
        };
        let closed = add_relay_with(&mut pair.world, nobody);
        for host in [pair.a, pair.b] {
            pair.world.use_relay(host, closed);
            pair.world.start(host);
        }
        pair.talk(seconds(3));
        let relay = pair.world.host(pair.relays[0]).id();
        assert_eq!(
            way(&pair.world, pair.a, pair.b),
            Some(PathInfo::Relayed { relay })
        );
        let closed_id = pair.world.host(closed).id();
        let now = pair.world.clock_of(pair.a);
        let status = pair.world.host(pair.a).node().status(now);
        let closed = status.relays.iter().find(|relay| relay.peer == closed_id);
        let error = closed.and_then(|relay| relay.last_error.clone());
        assert!(error.is_some_and(|error| error.contains("does not serve us")));
    });
}

// PROTOCOL SM-RL-7
#[test]
fn a_greedy_client_gets_its_rate_and_takes_nothing_from_others() {
    seeds::each("relays", 2, |seed| {
        // A megabyte a second.
        let rate = 1_000_000;
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(millis(40));
        let config = RelayConfig {
            enabled: true,
            client_rate: rate,
            ..RelayConfig::default()
        };
        let relay = add_relay_with(&mut world, config);
        let hosts: Vec<HostId> = (0..4)
            .map(|_| {
                let host = world.add_host(HostConfig::default());
                let home = world.add_nat(SymmetricRandom);
                world.put_behind(host, home);
                host
            })
            .collect();
        let [greedy, victim, a, b] = hosts[..] else {
            unreachable!("there are four")
        };
        world.introduce(greedy, victim);
        world.introduce(a, b);
        world.introduce(a, victim);
        for host in hosts {
            world.use_relay(host, relay);
            world.start(host);
        }
        assert!(world.settle(greedy, victim) && world.settle(a, b));
        assert!(world.settle(a, victim));
        world.run_for(seconds(2));
        let (mut much, mut little) = (Vec::new(), Vec::new());
        let len = 1300;
        for _ in 0..500 {
            let (from, to) = (world.ipv4(greedy), world.ipv4(victim));
            for _ in 0..10 {
                much.push(world.send_packet(greedy, victim, from, to, len));
            }
            little.push(world.send(a, b));
            little.push(world.send(b, a));
            // Also to whom the greedy one sends, and back.
            little.push(world.send(a, victim));
            little.push(world.send(victim, a));
            world.run_for(millis(10));
        }
        world.run_for(seconds(1));
        assert_eq!(world.ledger.lost(&little), 0);
        let arrived = (much.len() - world.ledger.lost(&much)) * len;
        let whole = usize::try_from(rate).unwrap() * 5;
        assert!(
            (whole * 8 / 10..whole * 11 / 10).contains(&arrived),
            "{arrived}"
        );
        assert!(world.host(relay).drops(DropReason::RelayRate) > 0);
    });
}

// PROTOCOL SM-RL-3
// PROTOCOL SM-MT-3
#[test]
fn packets_of_1280_pass_over_a_relay_whatever_its_links_take() {
    // As UDP payload: Ethernet, PPPoE, and the least that IPv6 promises.
    for mtu in [1472, 1464, 1232] {
        seeds::each("relays", 2, |seed| {
            let mut world = World::new(seed);
            world.default_link = LinkProfile {
                mtu,
                ..LinkProfile::round_trip(millis(40))
            };
            let config = RelayConfig {
                enabled: true,
                ..RelayConfig::default()
            };
            let relay = add_relay_with(&mut world, config);
            let [a, b] = [(); 2].map(|()| {
                let host = world.add_host(HostConfig::default());
                let home = world.add_nat(SymmetricRandom);
                world.put_behind(host, home);
                host
            });
            world.introduce(a, b);
            for host in [a, b] {
                world.use_relay(host, relay);
                world.start(host);
            }
            assert!(world.settle(a, b));
            world.run_for(seconds(5));
            let mut sent = Vec::new();
            for len in [1280, 1404, 1420] {
                for (from, to) in [(a, b), (b, a)] {
                    let (source, target) = (world.ipv4(from), world.ipv4(to));
                    sent.push(world.send_packet(from, to, source, target, len));
                    world.run_for(millis(50));
                }
            }
            world.run_for(seconds(1));
            assert_eq!(world.ledger.lost(&sent), 0, "links of {mtu}");
            let now = world.clock_of(a);
            let status = world.host(a).node().status(now);
            let session = status.peers[0].net.as_ref().unwrap().session.as_ref();
            let found = session.unwrap().path_mtu.unwrap();
            // What IPv4 puts around it, and the frame to the relay.
            let headers = 28 + 38;
            assert!(
                (mtu - 38 - 4..=mtu - 38).contains(&(found - headers)),
                "{found}"
            );
        });
    }
}
