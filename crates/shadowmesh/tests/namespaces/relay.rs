//! Two nodes without a cable between them reach each other over relays that can read nothing.

use std::time::{Duration, Instant};

use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh::lab::{PORT, RelayedLab, wait_until};
use shadowmesh_io::lab::{Capture, Frame};

use crate::support::{PING_INTERVAL, REACHABLE_MAX, RelayedTestLab, drops, in_relayed_lab};

/// The fixed bit of RFC 9000, which stands in every packet of ours.
const FIXED_BIT: u8 = 0x40;
/// A relay that died is missed by traffic within a second; a machine that also compiles may take its
/// time. The promise itself is judged by `cargo xtask evidence connect`.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(5);

fn bring_up(lab: &mut RelayedTestLab) {
    lab.configure().unwrap();
    lab.start_all().unwrap();
    let (from, to) = (&lab.nodes[0], &lab.nodes[1]);
    let reached = from.ping_until_answered(to.overlay_v4().into(), REACHABLE_MAX);
    assert!(reached.is_some(), "n1 does not reach n2");
}

/// The kind of path that a node has to the other, and over which relay.
fn path(lab: &RelayedLab, node: usize) -> (String, Option<String>) {
    let other = lab.nodes[1 - node].id.to_string();
    let peers = lab.nodes[node].query("peers", &[]).unwrap();
    let peers = peers["peers"].as_array().expect("a list");
    let peer = peers.iter().find(|peer| peer["id"] == *other);
    let path = &peer.expect("the other is a peer")["path"];
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    (
        text(&path["kind"]).unwrap_or_default(),
        text(&path["relay"]),
    )
}

// PROTOCOL SM-RL-1
// PROTOCOL SM-RL-2
#[test]
fn two_that_reach_only_a_relay_reach_each_other_and_it_sees_nothing_but_quic() {
    let name = "relay::two_that_reach_only_a_relay_reach_each_other_and_it_sees_nothing_but_quic";
    in_relayed_lab(
        name,
        |program, directory| RelayedLab::apart(program, directory, 1),
        |lab| {
            let capture = lab.nodes[2]
                .netns
                .run(|| Capture::start("to_n1", Seen::default()).unwrap());
            bring_up(lab);
            let relay = lab.nodes[2].id.to_string();
            for node in [0, 1] {
                assert_eq!(path(lab, node), ("relay".into(), Some(relay.clone())));
            }
            for (from, to) in [(0, 1), (1, 0)] {
                let (from, to) = (&lab.nodes[from], &lab.nodes[to]);
                for address in [to.overlay_v4().into(), to.overlay_v6().into()] {
                    let report = from.ping(address, 50, PING_INTERVAL).unwrap();
                    assert_eq!(
                        report.received, 50,
                        "{} to {}: {report:?}",
                        from.name, to.name
                    );
                    let amount = Amount::Bytes((16 << 20) + 4321);
                    let report = bulk::transfer(&from.netns, &to.netns, address, amount).unwrap();
                    assert!(report.intact, "{report:?}");
                }
            }
            for node in &lab.nodes {
                for reason in [
                    "seal_forged",
                    "relay_not_ours",
                    "relay_rate",
                    "relay_too_long",
                ] {
                    assert_eq!(drops(node, reason), 0, "{reason} at {}", node.name);
                }
            }
            let (seen, stats) = capture.stop().unwrap();
            assert_eq!((stats.lost, seen.strange), (0, 0));
            assert!(seen.datagrams > 10_000, "{}", seen.datagrams);
        },
    );
}

// PROTOCOL SM-RL-6
#[test]
fn a_relay_that_dies_is_replaced_by_the_other() {
    let name = "relay::a_relay_that_dies_is_replaced_by_the_other";
    in_relayed_lab(
        name,
        |program, directory| RelayedLab::apart(program, directory, 2),
        |lab| {
            bring_up(lab);
            let (_, first) = path(lab, 0);
            let first = first.expect("a relay is between");
            let used = lab
                .relays()
                .iter_mut()
                .find(|relay| relay.id.to_string() == first);
            used.expect("one of the two").kill().unwrap();
            let killed = Instant::now();
            let (from, to) = (&lab.nodes[0], &lab.nodes[1]);
            let reached = from.ping_until_answered(to.overlay_v4().into(), TAKEN_OVER_MAX);
            assert!(reached.is_some(), "not within {:?}", killed.elapsed());
            let moved = || path(lab, 0).1.is_some_and(|relay| relay != first);
            assert!(wait_until(TAKEN_OVER_MAX, moved), "{:?}", path(lab, 0));
        },
    );
}

/// What passes a cable.
#[derive(Debug, Default)]
struct Seen {
    datagrams: u64,
    /// Those without the fixed bit, and those too short for a packet of QUIC.
    strange: u64,
}

impl shadowmesh_io::lab::FrameSink for Seen {
    fn frame(&mut self, frame: &Frame<'_>) {
        for datagram in frame.udp_datagrams() {
            if datagram.source.port() != PORT && datagram.destination.port() != PORT {
                continue;
            }
            self.datagrams += 1;
            let payload = datagram.payload;
            let is_quic = payload.len() >= 21 && payload[0] & FIXED_BIT != 0;
            self.strange += u64::from(!is_quic);
        }
    }
}
