//! Links that carry less than a full frame: everything arrives all the same, and the length that
//! passes is found.

use std::time::Duration;

use shadowmesh_sim::{HostConfig, HostId, LinkProfile, World, seeds};

use crate::{ends, millis, seconds};

/// IP and UDP headers.
const HEADERS: usize = 28;

/// What a host believes of its path to its only peer, as an IP packet of the underlay.
fn path_mtu(world: &World, host: HostId) -> Option<usize> {
    let status = world.host(host).node().status(world.clock_of(host));
    let session = status.peers.first()?.net.as_ref()?.session.as_ref()?;
    session.path_mtu
}

fn link(mtu: usize, rtt: Duration) -> LinkProfile {
    LinkProfile {
        mtu: mtu - HEADERS,
        ..LinkProfile::round_trip(rtt)
    }
}

/// Packets of every length that the device takes, in both directions and both IP versions.
fn all_lengths(world: &mut World, a: HostId, b: HostId, mtu: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for (from, to) in [(a, b), (b, a)] {
        for len in (60..mtu).step_by(97).chain([1280, mtu]) {
            let v4 = (world.ipv4(from), world.ipv4(to));
            let v6 = (world.ipv6(from), world.ipv6(to));
            for (source, destination) in [v4, v6] {
                numbers.push(world.send_packet(from, to, source, destination, len));
            }
            world.run_for(millis(1));
        }
    }
    numbers
}

// PROTOCOL SM-MT-1
// PROTOCOL SM-MT-3
// PROTOCOL SM-MT-5
#[test]
fn nothing_vanishes_on_any_underlay_from_576_to_9000() {
    seeds::each("path_mtu", 2, |seed| {
        for (underlay, device) in [
            (576, 1420),
            (1280, 1420),
            (1400, 1420),
            (1500, 1420),
            (1500, 9000),
            (9000, 8942),
        ] {
            let mut world = World::new(seed);
            world.default_link = link(underlay, millis(20));
            let config = HostConfig {
                mtu: device,
                ..HostConfig::default()
            };
            let (a, b) = world.pair(config);
            assert!(world.settle(a, b));
            let best = underlay.min(usize::from(device) + 30 + HEADERS);
            // While the search goes on, and after it.
            let mut numbers = all_lengths(&mut world, a, b, device.into());
            world.run_for(seconds(3));
            numbers.extend(all_lengths(&mut world, a, b, device.into()));
            world.run_for(seconds(1));
            assert_eq!(world.ledger.lost(&numbers), 0, "underlay {underlay}");
            assert_eq!(world.ledger.violations(), Vec::<String>::new());
            // Only who can do something about it is told: IPv6 above 1280 here.
            let told = world.ledger.notices() > 0;
            assert_eq!(told, best < usize::from(device) + 30 + HEADERS);
            for host in [a, b] {
                let found = path_mtu(&world, host).expect("the search is over");
                assert!(found <= best && found + 4 > best, "{found} of {best}");
            }
            assert_eq!(ends(&world, a) + ends(&world, b), 0);
        }
    });
}

// PROTOCOL SM-MT-2
#[test]
fn a_path_that_shrinks_under_traffic_carries_everything_again_within_a_second_and_a_half() {
    seeds::each("path_mtu", 3, |seed| {
        let mut world = World::new(seed);
        world.default_link = link(1500, millis(20));
        let (a, b) = world.pair(HostConfig::default());
        assert!(world.settle(a, b));
        let (source, destination) = (world.ipv4(a), world.ipv4(b));
        let send = |world: &mut World, time: Duration| {
            let end = world.now() + time;
            let mut numbers = Vec::new();
            while world.now() < end {
                numbers.push(world.send_packet(a, b, source, destination, 1420));
                world.run_for(millis(5));
            }
            numbers
        };
        send(&mut world, seconds(3));
        world.link(a, b, link(1300, millis(20)));
        send(&mut world, millis(1500));
        let later = send(&mut world, seconds(3));
        world.run_for(seconds(1));
        assert_eq!(world.ledger.lost(&later), 0);
        let found = path_mtu(&world, a).expect("the search is over");
        assert!((1297..=1300).contains(&found), "{found}");
        assert_eq!(ends(&world, a) + ends(&world, b), 0);
    });
}

#[test]
fn each_direction_has_its_own_length() {
    seeds::each("path_mtu", 2, |seed| {
        let mut world = World::new(seed);
        let (a, b) = world.pair(HostConfig::default());
        world.link_one_way(a, b, link(1280, millis(20)));
        world.link_one_way(b, a, link(1500, millis(20)));
        assert!(world.settle(a, b));
        world.run_for(seconds(3));
        let numbers = all_lengths(&mut world, a, b, 1420);
        world.run_for(seconds(1));
        assert_eq!(world.ledger.lost(&numbers), 0);
        assert_eq!(path_mtu(&world, a), Some(1280));
        assert_eq!(
            path_mtu(&world, b),
            Some(1478),
            "a full frame of the device"
        );
    });
}

// PROTOCOL SM-MT-2
#[test]
fn loss_is_not_taken_for_a_short_path() {
    seeds::each("path_mtu", 3, |seed| {
        let mut world = World::new(seed);
        world.default_link = link(1500, millis(40)).losing(0.05);
        let (a, b) = world.pair(HostConfig::default());
        assert!(world.settle(a, b));
        world.run_for(seconds(2));
        let (source, destination) = (world.ipv4(a), world.ipv4(b));
        let mut short = 0;
        for _ in 0..6000 {
            world.send_packet(a, b, source, destination, 1420);
            world.run_for(millis(10));
            short += u32::from(path_mtu(&world, a) != Some(1478));
        }
        assert!(short < 200, "{short} of 6000 looks found less");
    });
}
