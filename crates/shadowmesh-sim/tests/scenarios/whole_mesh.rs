//! Many nodes at once, every one with every other, over links of every kind.

use std::time::Duration;

use rand::Rng;
use shadowmesh_sim::{HostConfig, LinkProfile, Loss, World, seeds};

use crate::{millis, seconds};

const NODES: usize = 8;

#[test]
fn every_pair_of_a_mesh_exchanges_packets_over_both_ip_versions() {
    seeds::each("whole_mesh", 1, |seed| {
        let mut world = World::new(seed);
        let hosts: Vec<_> = (0..NODES)
            .map(|_| {
                world.add_host(HostConfig {
                    greet: true,
                    ..HostConfig::default()
                })
            })
            .collect();
        for (n, &a) in hosts.iter().enumerate() {
            for &b in &hosts[n + 1..] {
                world.introduce(a, b);
                let delay = Duration::from_millis(world.rng().random_range(0..100));
                world.link(
                    a,
                    b,
                    LinkProfile {
                        delay,
                        ..LinkProfile::default()
                    },
                );
            }
        }
        for &host in &hosts {
            world.start(host);
        }
        world.run_for(seconds(3));
        let mut numbers = Vec::new();
        for _ in 0..20 {
            for &a in &hosts {
                for &b in hosts.iter().filter(|b| **b != a) {
                    numbers.push(world.send(a, b));
                    let (source, destination) = (world.ipv6(a), world.ipv6(b));
                    numbers.push(world.send_packet(a, b, source, destination, 1420));
                }
            }
            world.run_for(millis(50));
        }
        world.run_for(seconds(1));
        assert_eq!(world.ledger.violations(), Vec::<String>::new());
        assert_eq!(world.ledger.lost(&numbers), 0);
    });
}

/// All spokes call within the same instant: far more first packets at once than the gate lets
/// through without proof of address.
// PROTOCOL SM-HS-9
#[test]
fn a_hundred_nodes_that_start_at_once_all_reach_their_hub() {
    seeds::each("hundred_nodes", 1, |seed| {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(millis(50));
        let config = HostConfig {
            greet: true,
            ..HostConfig::default()
        };
        let hub = world.add_host(HostConfig::default());
        let spokes: Vec<_> = (1..100).map(|_| world.add_host(config.clone())).collect();
        for &spoke in &spokes {
            world.introduce(hub, spoke);
        }
        for host in world.host_ids() {
            world.start(host);
        }
        world.run_for(seconds(5));
        let numbers: Vec<u64> = spokes
            .iter()
            .flat_map(|&spoke| {
                let [at_spoke, at_hub] = [spoke, hub].map(|host| world.ipv6(host));
                [
                    world.send_packet(spoke, hub, at_spoke, at_hub, 100),
                    world.send_packet(hub, spoke, at_hub, at_spoke, 100),
                ]
            })
            .collect();
        world.run_for(seconds(1));
        assert_eq!(world.ledger.violations(), Vec::<String>::new());
        assert_eq!(world.ledger.lost(&numbers), 0);
    });
}

#[test]
fn a_slow_narrow_path_with_bursts_of_loss_still_gives_a_session() {
    seeds::each("narrow_path", 4, |seed| {
        let mut world = World::new(seed);
        world.default_link = LinkProfile {
            rate: Some(500_000),
            queue: millis(200),
            loss: Loss::Bursts {
                enter: 0.02,
                leave: 0.3,
                good: 0.0,
                bad: 0.8,
            },
            // 1280 bytes of IPv6 less its header and UDP's.
            mtu: 1232,
            ..LinkProfile::round_trip(millis(150))
        };
        let (a, b) = world.pair(HostConfig::default());
        let numbers: Vec<u64> = (0..300)
            .map(|_| {
                let number = world.send(a, b);
                world.run_for(millis(100));
                number
            })
            .collect();
        assert_eq!(world.ledger.violations(), Vec::<String>::new());
        let lost = world.ledger.lost(&numbers[100..]);
        assert!(lost < 60, "{lost} of 200 packets lost after the first 10 s");
    });
}
