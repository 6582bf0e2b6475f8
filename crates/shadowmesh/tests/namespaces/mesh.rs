//! Listed peers reach each other, and what they send arrives whole.

use std::net::IpAddr;
use std::time::Duration;

use shadowmesh::lab::Family;
use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh_io::lab::Echo;

use crate::support::{PING_INTERVAL, TestLab, drops, in_lab_on_each_plane};

fn every_pair_loses_no_ping(lab: &TestLab) {
    for (from, to) in lab.pairs() {
        let addresses: [IpAddr; 2] = [to.overlay_v4().into(), to.overlay_v6().into()];
        for address in addresses {
            let report = from.ping(address, 50, PING_INTERVAL).unwrap();
            assert_eq!(
                report.received, 50,
                "{} to {}: {report:?}",
                from.name, to.name
            );
        }
    }
}

#[test]
fn every_pair_reaches_each_other_over_an_ipv4_underlay() {
    in_lab_on_each_plane(
        "mesh::every_pair_reaches_each_other_over_an_ipv4_underlay",
        3,
        |lab| {
            lab.bring_up_full_mesh(Family::V4);
            every_pair_loses_no_ping(lab);
        },
    );
}

#[test]
fn every_pair_reaches_each_other_over_an_ipv6_underlay() {
    in_lab_on_each_plane(
        "mesh::every_pair_reaches_each_other_over_an_ipv6_underlay",
        3,
        |lab| {
            lab.bring_up_full_mesh(Family::V6);
            every_pair_loses_no_ping(lab);
        },
    );
}

// PROTOCOL SM-QD-5
#[test]
fn packets_as_long_as_the_device_takes_pass_from_the_first_on() {
    let name = "mesh::packets_as_long_as_the_device_takes_pass_from_the_first_on";
    in_lab_on_each_plane(name, 2, |lab| {
        // 1420 bytes in one DATAGRAM frame are more than fits 1500 by IPv6.
        lab.bring_up_full_mesh(Family::V6);
        for (from, to) in lab.pairs() {
            let targets: [(IpAddr, usize); 2] = [
                (to.overlay_v4().into(), 1420 - 28),
                (to.overlay_v6().into(), 1420 - 48),
            ];
            for (target, payload_len) in targets {
                let echo = Echo {
                    target,
                    count: 100,
                    interval: PING_INTERVAL,
                    timeout: Duration::from_secs(1),
                    payload_len,
                };
                let report = from.netns.run(|| echo.run()).unwrap();
                assert_eq!(report.received, 100, "{} to {target}", from.name);
            }
        }
        // Probes of the path's MTU that the host itself refuses count as too big, so that may be any.
        for node in &lab.nodes {
            for reason in ["fragment_invalid", "fragment_expired", "quic_queue_full"] {
                assert_eq!(drops(node, reason), 0, "{reason} at {}", node.name);
            }
        }
    });
}

// PROTOCOL SM-DV-1
#[test]
fn a_tcp_transfer_arrives_unchanged_in_both_directions_and_both_ip_versions() {
    let name = "mesh::a_tcp_transfer_arrives_unchanged_in_both_directions_and_both_ip_versions";
    in_lab_on_each_plane(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        for (from, to) in lab.pairs() {
            let addresses: [IpAddr; 2] = [to.overlay_v4().into(), to.overlay_v6().into()];
            for address in addresses {
                // Not a multiple of anything, so that the last segment is a short one.
                let amount = Amount::Bytes((64 << 20) + 4321);
                let report = bulk::transfer(&from.netns, &to.netns, address, amount).unwrap();
                assert!(report.intact, "{report:?}");
                assert_eq!(report.bytes, (64 << 20) + 4321);
            }
        }
        for node in &lab.nodes {
            for reason in ["seal_forged", "bad_offload", "malformed_ip_packet"] {
                assert_eq!(drops(node, reason), 0, "{reason} at {}", node.name);
            }
        }
    });
}

#[test]
fn both_ciphers_carry_traffic() {
    in_lab_on_each_plane("mesh::both_ciphers_carry_traffic", 2, |lab| {
        for cipher in ["aes-256-gcm", "chacha20-poly1305"] {
            for node in &mut lab.nodes {
                node.settings.cipher = cipher.into();
            }
            lab.bring_up_full_mesh(Family::V4);
            let peers = lab.nodes[0].query("peers", &[]).unwrap();
            assert!(peers.to_string().contains(cipher), "{peers:#}");
            lab.stop_all().unwrap();
        }
    });
}
