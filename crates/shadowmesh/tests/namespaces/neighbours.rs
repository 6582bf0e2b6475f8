//! Peers on one network find each other without being told where, and nobody else learns who is there.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use shadowmesh::lab::{Family, LabNode, wait_until};
use shadowmesh_io::lab::{Capture, MemorySink};
use shadowmesh_wire::beacon;

use crate::support::{REACHABLE_MAX, TestLab, in_lab};

/// What peers on one network are promised.
const FOUND_MAX: Duration = Duration::from_secs(2);
/// The first two bytes of a PeerId come up in random bytes; eight of them do not.
const TELLTALE_LEN: usize = 8;

/// The first two nodes list each other without an address; the third, on the same network, is nobody's
/// peer.
fn configure(lab: &mut TestLab) {
    for node in &mut lab.nodes {
        node.settings.lan_discovery = true;
    }
    let unplaced = |node: &LabNode| {
        let mut peer = node.as_peer(Family::V4);
        peer.addresses.clear();
        peer
    };
    lab.nodes[0].configure(&[unplaced(&lab.nodes[1])]).unwrap();
    lab.nodes[1].configure(&[unplaced(&lab.nodes[0])]).unwrap();
    lab.nodes[2].configure(&[]).unwrap();
}

fn is_up(node: &LabNode) -> bool {
    node.query("status", &[]).is_ok()
}

// PROTOCOL SM-LD-1
// PROTOCOL SM-LD-2
// PROTOCOL SM-LD-3
#[test]
fn two_peers_that_know_no_address_find_each_other_and_a_capture_shows_noise() {
    let name =
        "neighbours::two_peers_that_know_no_address_find_each_other_and_a_capture_shows_noise";
    in_lab(name, 3, |lab| {
        configure(lab);
        let capture = lab
            .switch
            .run(|| Capture::start("port2", MemorySink::new(4 << 20)).unwrap());
        lab.nodes[2].start().unwrap();
        lab.nodes[0].start().unwrap();
        let first_up = || is_up(&lab.nodes[0]) && is_up(&lab.nodes[2]);
        assert!(wait_until(REACHABLE_MAX, first_up));
        lab.nodes[1].start().unwrap();
        assert!(wait_until(REACHABLE_MAX, || is_up(&lab.nodes[1])));
        let start = Instant::now();
        let target = lab.nodes[1].overlay_v4().into();
        let found = lab.nodes[0].ping_until_answered(target, REACHABLE_MAX);
        let found = found.expect("they find each other");
        println!("found each other after {found:?}");
        assert!(found < FOUND_MAX, "{found:?}");
        // The further beacons of the start.
        std::thread::sleep(Duration::from_secs(3).saturating_sub(start.elapsed()));

        let (seen, _) = capture.stop().unwrap();
        let mut beacons = Vec::new();
        for frame in seen.frames() {
            let datagrams = frame.udp_datagrams();
            let to_group = datagrams.filter(|it| it.destination.port() == beacon::PORT);
            beacons.extend(to_group.map(|it| it.payload.to_vec()));
        }
        assert!(beacons.len() >= 6, "{} beacons seen", beacons.len());
        let different: BTreeSet<&Vec<u8>> = beacons.iter().collect();
        assert_eq!(different.len(), beacons.len(), "no two are alike");
        for datagram in &beacons {
            assert_eq!(datagram.len(), beacon::LEN);
            for node in &lab.nodes {
                let id = node.id.as_bytes();
                let mut pieces = id.windows(TELLTALE_LEN);
                let shows = |piece: &[u8]| datagram.windows(TELLTALE_LEN).any(|at| at == piece);
                assert!(!pieces.any(shows), "{} is readable", node.name);
            }
        }
    });
}

#[test]
fn who_does_not_want_to_be_found_says_nothing() {
    let name = "neighbours::who_does_not_want_to_be_found_says_nothing";
    in_lab(name, 3, |lab| {
        configure(lab);
        lab.nodes[1].settings.lan_discovery = false;
        let mut peer = lab.nodes[0].as_peer(Family::V4);
        peer.addresses.clear();
        lab.nodes[1].configure(&[peer]).unwrap();
        let capture = lab
            .switch
            .run(|| Capture::start("port1", MemorySink::new(4 << 20)).unwrap());
        lab.start_all().unwrap();
        assert!(wait_until(REACHABLE_MAX, || lab.nodes.iter().all(is_up)));
        std::thread::sleep(Duration::from_millis(1500));
        let (seen, _) = capture.stop().unwrap();
        let from_it = seen
            .frames()
            .flat_map(|frame| frame.udp_datagrams().collect::<Vec<_>>())
            .filter(|it| it.source.ip() == lab.nodes[1].underlay_v4);
        assert_eq!(from_it.count(), 0);
        let peers = lab.nodes[1].query("peers", &[]).unwrap();
        assert!(!peers.to_string().contains("\"up\""), "{peers:#}");
    });
}

/// What a node sends to the address of another, by where it goes and how long it is.
fn sent(frames: &MemorySink, from: &LabNode, to: &LabNode) -> Vec<(u16, usize)> {
    let datagrams = frames
        .frames()
        .flat_map(|frame| frame.udp_datagrams().collect::<Vec<_>>());
    let from_it = datagrams
        .filter(|it| it.source.ip() == from.underlay_v4 && it.destination.ip() == to.underlay_v4);
    from_it
        .map(|it| (it.destination.port(), it.payload.len()))
        .collect()
}

// PROTOCOL SM-LD-3
#[test]
fn a_recorded_beacon_draws_the_same_from_a_peer_of_its_sender_and_from_a_stranger() {
    let name = "neighbours::a_recorded_beacon_draws_the_same_from_a_peer_of_its_sender_and_from_a_stranger";
    in_lab(name, 3, |lab| {
        configure(lab);
        let capture = lab
            .switch
            .run(|| Capture::start("port0", MemorySink::new(4 << 20)).unwrap());
        lab.nodes[0].start().unwrap();
        assert!(wait_until(REACHABLE_MAX, || is_up(&lab.nodes[0])));
        std::thread::sleep(Duration::from_millis(1500));
        lab.nodes[0].stop().unwrap();
        let (seen, _) = capture.stop().unwrap();
        let recorded = seen.frames().find_map(|frame| {
            let mut datagrams = frame.udp_datagrams();
            let beacon = datagrams.find(|it| it.destination.ip() == beacon::GROUP_V4)?;
            Some(beacon.payload.to_vec())
        });
        let recorded = recorded.expect("it said that it was there");

        // Two who never met it, one of which lists it as a peer.
        for node in &mut lab.nodes[1..] {
            node.start().unwrap();
        }
        assert!(wait_until(REACHABLE_MAX, || lab.nodes[1..]
            .iter()
            .all(is_up)));
        std::thread::sleep(Duration::from_millis(500));
        let capture = lab
            .switch
            .run(|| Capture::start("port0", MemorySink::new(4 << 20)).unwrap());
        // From its own place, and with its own port.
        lab.nodes[0].netns.run(|| {
            let socket = UdpSocket::bind((lab.nodes[0].underlay_v4, beacon::PORT)).unwrap();
            let group = SocketAddr::new(beacon::GROUP_V4.into(), beacon::PORT);
            for _ in 0..3 {
                socket.send_to(&recorded, group).unwrap();
                std::thread::sleep(Duration::from_millis(700));
            }
        });
        let (seen, _) = capture.stop().unwrap();
        let [recorder, peer, stranger] = &lab.nodes[..] else {
            panic!("there are three nodes");
        };
        let drawn = [peer, stranger].map(|node| sent(&seen, node, recorder));
        println!("each repetition drew {drawn:?}");
        assert_eq!(drawn[0], drawn[1]);
        let question = (beacon::PORT, beacon::LEN);
        assert_eq!(
            drawn[0], [question; 3],
            "one question each, and nothing more"
        );
    });
}
