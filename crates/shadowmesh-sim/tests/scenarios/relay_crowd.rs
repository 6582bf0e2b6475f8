//! A relay with many clients.

use shadowmesh_net::RelayConfig;
use shadowmesh_sim::scenario::relay::add_relay_with;
use shadowmesh_sim::{HostConfig, HostId, LinkProfile, World, seeds};

use crate::{millis, seconds};

fn crowd(seed: u64, clients: usize, clients_max: usize) -> (World, HostId, Vec<HostId>) {
    let mut world = World::new(seed);
    world.default_link = LinkProfile::round_trip(millis(40));
    let config = RelayConfig {
        enabled: true,
        clients_max,
        ..RelayConfig::default()
    };
    let relay = add_relay_with(&mut world, config);
    let hosts: Vec<HostId> = (0..clients)
        .map(|_| {
            let host = world.add_host(HostConfig::default());
            world.use_relay(host, relay);
            world.start(host);
            // Each has an address of its own, but only so many are let in without proof of it.
            world.run_for(millis(20));
            host
        })
        .collect();
    world.run_for(seconds(10));
    (world, relay, hosts)
}

fn connected(world: &World, hosts: &[HostId]) -> usize {
    let up = |host: &&HostId| {
        let status = world.host(**host).node().status(world.clock_of(**host));
        status.relays.iter().all(|relay| relay.session.is_some())
    };
    hosts.iter().filter(up).count()
}

// PROTOCOL SM-RL-5
#[test]
fn a_relay_is_full_when_it_has_the_clients_it_may_have() {
    seeds::each("relay_crowd", 1, |seed| {
        let (mut world, relay, hosts) = crowd(seed, 40, 30);
        assert_eq!(connected(&world, &hosts), 30);
        let (clients, ..) = world.host(relay).node().relay_totals();
        assert_eq!(clients, 30);
        for host in &hosts {
            world.kill(*host);
        }
        world.run_for(seconds(60));
        assert_eq!(world.host(relay).node().relay_totals().0, 0);
    });
}

#[test]
fn a_thousand_clients_fit_into_little_memory() {
    seeds::each("relay_crowd", 1, |seed| {
        let before = resident_bytes();
        let (world, relay, hosts) = crowd(seed, 1000, 1000);
        assert_eq!(connected(&world, &hosts), 1000);
        assert_eq!(world.host(relay).node().relay_totals().0, 1000);
        // Other tests of the same process may end meanwhile.
        let both_ends = resident_bytes().saturating_sub(before) / 1000;
        println!("both ends of a client's session, and the client's node: {both_ends} bytes");
        assert!(both_ends < 512 * 1024);
    });
}

/// What of this process lies in memory (Linux).
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0u64) * 4096
}
