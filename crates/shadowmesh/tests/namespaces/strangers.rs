//! Who is not listed gets nothing through, and who is listed only what is its own.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use shadowmesh::lab::{DEVICE, Family, LabNode, wait_until};
use shadowmesh_io::lab::{Capture, Frame, MemorySink, SpoofedFlood};

use crate::support::{PING_INTERVAL, REACHABLE_MAX, drops, in_lab};

const CAPTURE_BYTES_MAX: usize = 1 << 20;

// PROTOCOL SM-OV-4
#[test]
fn a_peer_that_is_not_listed_gets_nothing_through() {
    in_lab(
        "strangers::a_peer_that_is_not_listed_gets_nothing_through",
        3,
        |lab| {
            let [first, second, stranger] = &mut lab.nodes[..] else {
                panic!("three nodes were asked for");
            };
            // The first two know each other; the stranger knows the first, who does not know it.
            first.configure(&[second.as_peer(Family::V4)]).unwrap();
            second.configure(&[first.as_peer(Family::V4)]).unwrap();
            stranger.configure(&[first.as_peer(Family::V4)]).unwrap();
            lab.start_all().unwrap();
            let [first, second, stranger] = &lab.nodes[..] else {
                panic!("three nodes were asked for");
            };
            let listed = second.ping_until_answered(first.overlay_v4().into(), REACHABLE_MAX);
            assert!(listed.is_some(), "the listed peer is not kept out");

            let report = stranger
                .ping(first.overlay_v4().into(), 50, PING_INTERVAL)
                .unwrap();
            assert_eq!(report.received, 0);
            assert!(
                wait_until(Duration::from_secs(5), || drops(first, "handshake_failed")
                    > 0),
                "the refusal is counted"
            );
            let peers = stranger.query("peers", &[]).unwrap();
            assert!(!peers.to_string().contains("\"up\""), "{peers:#}");
        },
    );
}

// PROTOCOL SM-OV-3
// PROTOCOL SM-OV-5
#[test]
fn a_listed_peer_cannot_send_from_an_address_that_is_not_its_own() {
    let name = "strangers::a_listed_peer_cannot_send_from_an_address_that_is_not_its_own";
    in_lab(name, 2, |lab| {
        // The second claims an address for itself that the first never granted it.
        lab.nodes[1].settings.addresses = vec!["10.100.77.77/16".into()];
        lab.configure_full_mesh(Family::V4).unwrap();
        lab.start_all().unwrap();
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        let over_v6 = second.ping_until_answered(first.overlay_v6().into(), REACHABLE_MAX);
        assert!(over_v6.is_some(), "its own IPv6 address is not in question");

        let before = drops(first, "spoofed_source");
        let report = second
            .ping(first.overlay_v4().into(), 20, PING_INTERVAL)
            .unwrap();
        assert_eq!(report.received, 0);
        assert_eq!(drops(first, "spoofed_source") - before, 20);
    });
}

// PROTOCOL SM-OV-3
#[test]
fn a_source_that_is_not_ours_does_not_leave_the_device() {
    let name = "strangers::a_source_that_is_not_ours_does_not_leave_the_device";
    in_lab(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        // Somebody with root on the first machine forges packets; the mesh must not carry them.
        let forged = SocketAddrV4::new(Ipv4Addr::new(10, 100, 77, 77), 1);
        let capture = |node: &LabNode| {
            let sink = MemorySink::new(CAPTURE_BYTES_MAX);
            let start = || Capture::start(DEVICE, sink).expect("a capture");
            node.netns.run(start)
        };
        let captures = [capture(first), capture(second)];
        let flood = SpoofedFlood {
            destination: SocketAddrV4::new(second.overlay_v4(), 9),
            rate: 100,
            duration: Duration::from_millis(200),
        };
        let sent = first
            .netns
            .run(|| flood.run(&AtomicBool::new(false), |_, _| forged))
            .unwrap()
            .sent;
        assert!(sent > 0);
        let counted = || drops(first, "foreign_source") >= sent;
        assert!(wait_until(Duration::from_secs(2), counted));
        let [left, arrived] = captures.map(|capture| {
            let (seen, _) = capture.stop().unwrap();
            let ours = |frame: &Frame<'_>| {
                let mut datagrams = frame.udp_datagrams();
                datagrams.any(|datagram| datagram.source == forged.into())
            };
            seen.frames().filter(ours).count()
        });
        assert!(left > 0, "the first machine sent them into its device");
        assert_eq!(arrived, 0);
    });
}
