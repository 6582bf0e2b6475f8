//! Packets by QUIC datagrams are packets like any others: whole nodes, real keys, a link with faults.

use std::time::Duration;

use shadowmesh_net::{DataPlane, DropReason, NetEvent, PlaneStatus};
use shadowmesh_sim::{HostConfig, LinkProfile, World, seeds};

use crate::seconds;

fn config(data_plane: DataPlane) -> HostConfig {
    HostConfig {
        rekey_interval: seconds(10),
        data_plane,
        ..HostConfig::default()
    }
}

// PROTOCOL SM-QD-1
// PROTOCOL SM-QD-6
#[test]
fn new_keys_under_traffic_cost_no_packet_by_quic_either() {
    seeds::each("data_plane", 3, |seed| {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(Duration::from_millis(60))
            .reordering(0.3, Duration::from_millis(20));
        let a = world.add_host(config(DataPlane::Quic));
        let b = world.add_host(config(DataPlane::Quic));
        world.introduce(a, b);
        world.start(a);
        world.start(b);
        assert!(world.settle(a, b), "no session before the traffic");
        // The path's MTU is found.
        world.run_for(seconds(2));
        let end = world.now() + seconds(45);
        while world.now() < end {
            for (from, to) in [(a, b), (b, a)] {
                let (source, destination) = (world.ipv4(from), world.ipv4(to));
                world.send_packet(from, to, source, destination, 1400);
            }
            world.run_for(Duration::from_millis(4));
        }
        world.run_for(seconds(1));
        let (sent, delivered) = world.ledger.totals();
        let drops = [a, b].map(|host| {
            world
                .host(host)
                .node()
                .drops()
                .nonzero()
                .collect::<Vec<_>>()
        });
        assert_eq!(delivered, sent, "seed {seed}: {drops:?}");
        assert_eq!(world.ledger.violations(), Vec::<String>::new());
        for host in [a, b] {
            let up = |(_, e): &&(Duration, NetEvent)| matches!(e, NetEvent::PeerUp { .. });
            let sessions = world.host(host).events.iter().filter(up).count();
            assert!(sessions >= 4, "{sessions} sessions in 45 s");
            let now = world.with_node(host, |_, now| now);
            let status = world.host(host).node().status(now);
            let net = status.peers[0].net.as_ref().expect("a known peer");
            let session = net.session.as_ref().expect("a session is up");
            assert_eq!(session.plane, PlaneStatus::Quic);
        }
    });
}

// PROTOCOL SM-QD-1
// PROTOCOL SM-QD-5
#[test]
fn long_packets_lose_nothing_whichever_side_demands_quic_and_however_short_the_path() {
    for (ours, theirs) in [
        (DataPlane::Quic, DataPlane::Auto),
        (DataPlane::Auto, DataPlane::Quic),
        (DataPlane::Sealed, DataPlane::Quic),
    ] {
        // UDP payloads: what every path of QUIC takes, and one too short for a packet of the device.
        for mtu in [1200, 1400, 1472] {
            long_packets_lose_nothing([ours, theirs], mtu);
        }
    }
}

fn long_packets_lose_nothing(planes: [DataPlane; 2], mtu: usize) {
    let mut world = World::new(7);
    world.default_link = LinkProfile {
        mtu,
        ..LinkProfile::round_trip(Duration::from_millis(30))
    };
    let [a, b] = planes.map(|plane| world.add_host(config(plane)));
    world.introduce(a, b);
    world.start(a);
    world.start(b);
    assert!(world.settle(a, b), "no session before the traffic");
    let end = world.now() + seconds(25);
    while world.now() < end {
        for (from, to) in [(a, b), (b, a)] {
            let (source, destination) = (world.ipv4(from), world.ipv4(to));
            world.send_packet(from, to, source, destination, 1400);
        }
        world.run_for(Duration::from_millis(7));
    }
    world.run_for(seconds(1));
    let (sent, delivered) = world.ledger.totals();
    assert!(sent > 5000);
    assert_eq!(delivered, sent, "{planes:?} over {mtu}");
    assert_eq!(world.ledger.violations(), Vec::<String>::new());
    for host in [a, b] {
        assert_eq!(world.host(host).drops(DropReason::TooBig), 0);
    }
}

// PROTOCOL SM-OV-3
// PROTOCOL SM-QD-5
#[test]
fn a_forged_inner_source_does_not_pass_by_quic() {
    let mut world = World::new(4);
    let a = world.add_host(config(DataPlane::Quic));
    let b = world.add_host(config(DataPlane::Quic));
    // The sender's own check would stop it: this one believes that the address is its own.
    let forged = std::net::IpAddr::from([10, 100, 200, 200]);
    world.host_mut(a).config.addresses = vec![(forged, 16)];
    world.introduce(a, b);
    world.start(a);
    world.start(b);
    world.with_node(a, |node, now| node.connect_all(now));
    world.run_for(seconds(1));
    let destination = world.ipv4(b);
    world.send_packet(a, b, forged, destination, 100);
    world.run_for(seconds(1));
    assert_eq!(world.host(b).drops(DropReason::SpoofedSource), 1);
}
