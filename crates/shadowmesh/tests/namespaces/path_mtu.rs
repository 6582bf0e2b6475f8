//! Paths that carry less, or more, than a full frame: nothing vanishes, and local senders learn it.
//! `cargo xtask evidence speed` moves more over more of them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh::lab::{Family, wait_until};
use shadowmesh_io::lab::{Echo, PathMtuProbe};

use crate::support::{PING_INTERVAL, REACHABLE_MAX, RoutedTestLab, drops, in_routed_lab};

/// A search takes less than a second; a machine that also compiles may take its time.
const SETTLED_MAX: Duration = Duration::from_secs(5);

fn bring_up(lab: &mut RoutedTestLab, family: Family) {
    lab.configure_full_mesh(family).unwrap();
    lab.start_all().unwrap();
    lab.wait_until_reachable(REACHABLE_MAX).unwrap();
}

/// The path MTU that each node has found, as it tells it.
fn found(lab: &RoutedTestLab) -> Vec<Option<u64>> {
    let one = |node: &shadowmesh::lab::LabNode| {
        let peers = node.query("peers", &[]).ok()?;
        let peer = peers
            .as_array()
            .or_else(|| peers["peers"].as_array())?
            .first()?;
        peer["path"]["mtu"].as_u64()
    };
    lab.nodes.iter().map(one).collect()
}

fn settles_at(lab: &RoutedTestLab, range: std::ops::RangeInclusive<u64>) {
    let settled = || {
        found(lab)
            .iter()
            .all(|mtu| mtu.is_some_and(|mtu| range.contains(&mtu)))
    };
    assert!(
        wait_until(SETTLED_MAX, settled),
        "{:?} is not in {range:?}",
        found(lab)
    );
}

/// As [`settles_at`], for `n1` alone: who sends nothing long has no reason to look.
fn sender_settles_at(lab: &RoutedTestLab, range: std::ops::RangeInclusive<u64>) {
    let settled = || found(lab)[0].is_some_and(|mtu| range.contains(&mtu));
    assert!(
        wait_until(SETTLED_MAX, settled),
        "{:?} is not in {range:?}",
        found(lab)
    );
}

/// As [`settles_at`], while each node sends something long to the other: a hole is found only by who
/// falls into it, and until then what is too long is lost.
fn settles_under_pings_at(lab: &RoutedTestLab, range: std::ops::RangeInclusive<u64>) {
    let settled = || {
        for (from, to) in lab.pairs() {
            let echo = Echo {
                target: to.overlay_v4().into(),
                count: 5,
                interval: PING_INTERVAL,
                timeout: Duration::from_millis(100),
                payload_len: 1372,
            };
            from.netns.run(|| echo.run()).unwrap();
        }
        found(lab)
            .iter()
            .all(|mtu| mtu.is_some_and(|mtu| range.contains(&mtu)))
    };
    assert!(
        wait_until(SETTLED_MAX, settled),
        "{:?} is not in {range:?}",
        found(lab)
    );
}

/// The overlay addresses of `n2`.
fn targets(lab: &RoutedTestLab) -> [IpAddr; 2] {
    [
        lab.nodes[1].overlay_v4().into(),
        lab.nodes[1].overlay_v6().into(),
    ]
}

/// Every pair moves a little TCP and loses no ping of full size.
fn everything_arrives(lab: &RoutedTestLab, payload_len: usize) {
    for (from, to) in lab.pairs() {
        for target in [to.overlay_v4().into(), to.overlay_v6().into()] {
            let echo = Echo {
                target,
                count: 20,
                interval: PING_INTERVAL,
                timeout: Duration::from_secs(1),
                payload_len,
            };
            let report = from.netns.run(|| echo.run()).unwrap();
            assert_eq!(report.received, 20, "{} to {target}", from.name);
            let amount = Amount::Bytes((2 << 20) + 321);
            let report = bulk::transfer(&from.netns, &to.netns, target, amount).unwrap();
            assert!(report.intact, "{report:?}");
        }
    }
}

// PROTOCOL SM-MT-1
// PROTOCOL SM-MT-3
#[test]
fn an_underlay_of_576_carries_everything() {
    in_routed_lab("path_mtu::an_underlay_of_576_carries_everything", |lab| {
        lab.set_middle_mtu(576).unwrap();
        lab.filter_icmp().unwrap();
        bring_up(lab, Family::V4);
        settles_at(lab, 576..=576);
        everything_arrives(lab, 1372);
        for node in &lab.nodes {
            assert_eq!(drops(node, "fragment_invalid"), 0);
        }
    });
}

#[test]
fn an_ipv6_underlay_of_1280_carries_everything() {
    in_routed_lab(
        "path_mtu::an_ipv6_underlay_of_1280_carries_everything",
        |lab| {
            lab.set_middle_mtu(1280).unwrap();
            bring_up(lab, Family::V6);
            settles_at(lab, 1280..=1280);
            everything_arrives(lab, 1372);
        },
    );
}

#[test]
fn an_interface_that_is_smaller_itself_needs_no_probe_to_tell() {
    let name = "path_mtu::an_interface_that_is_smaller_itself_needs_no_probe_to_tell";
    in_routed_lab(name, |lab| {
        bring_up(lab, Family::V4);
        settles_at(lab, 1478..=1478);
        lab.set_edge_mtu(1400).unwrap();
        // What is under way at the moment of the change is lost like anything that meets a change.
        for (from, to) in lab.pairs() {
            let echo = Echo {
                target: to.overlay_v4().into(),
                count: 5,
                interval: PING_INTERVAL,
                timeout: Duration::from_millis(100),
                payload_len: 1392,
            };
            from.netns.run(|| echo.run()).unwrap();
        }
        settles_at(lab, 1397..=1400);
        everything_arrives(lab, 1372);
    });
}

#[test]
fn a_jumbo_underlay_carries_jumbo_packets() {
    in_routed_lab("path_mtu::a_jumbo_underlay_carries_jumbo_packets", |lab| {
        lab.set_edge_mtu(9000).unwrap();
        lab.set_middle_mtu(9000).unwrap();
        for node in &mut lab.nodes {
            node.settings.mtu = Some(9000);
        }
        bring_up(lab, Family::V4);
        settles_at(lab, 9000..=9000);
        everything_arrives(lab, 8800);
        // A full packet of the device is 58 bytes too long for the path.
        everything_arrives(lab, 8952);
    });
}

// PROTOCOL SM-MT-5
#[test]
fn the_kernel_of_a_local_sender_believes_what_it_is_told() {
    let name = "path_mtu::the_kernel_of_a_local_sender_believes_what_it_is_told";
    in_routed_lab(name, |lab| {
        lab.set_middle_mtu(1300).unwrap();
        bring_up(lab, Family::V4);
        settles_at(lab, 1297..=1300);
        // As strict as administrators make it.
        let first = &lab.nodes[0].netns;
        first
            .set_sysctl("net.ipv4.conf.all.rp_filter", "1")
            .unwrap();
        for target in targets(lab) {
            let believed = first.run(|| {
                let probe = PathMtuProbe::towards(target).unwrap();
                assert!(probe.send(1420).unwrap(), "it knows nothing yet");
                wait_until(Duration::from_secs(1), || probe.mtu().unwrap() < 1420);
                probe.mtu().unwrap()
            });
            let expected = if target.is_ipv4() {
                1239..=1242
            } else {
                1280..=1280
            };
            assert!(expected.contains(&believed), "{target}: {believed}");
        }
    });
}

/// Bytes flow for `time`, and something happens a second after the start: the longest pause in which
/// nothing arrived.
fn longest_pause(
    lab: &RoutedTestLab,
    target: IpAddr,
    time: Duration,
    event: impl FnOnce(),
) -> Duration {
    let [first, second] = &lab.nodes[..] else {
        panic!("two nodes");
    };
    let listener = second
        .netns
        .run(|| TcpListener::bind(SocketAddr::new(target, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut chunk = vec![0; 1 << 16];
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while stream.read(&mut chunk).unwrap() > 0 {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            longest
        });
        let writer = scope.spawn(|| {
            let mut stream = first.netns.run(|| TcpStream::connect(address)).unwrap();
            let start = Instant::now();
            while start.elapsed() < time {
                stream.write_all(&[7; 1 << 14]).unwrap();
                // Some 100 Mbit/s: what fills the machine is measured elsewhere.
                thread::sleep(Duration::from_millis(1));
            }
        });
        thread::sleep(Duration::from_secs(1));
        event();
        writer.join().unwrap();
        reader.join().unwrap()
    })
}

// PROTOCOL SM-MT-2
#[test]
fn a_path_that_shrinks_under_a_transfer_stalls_it_for_less_than_three_seconds() {
    let name =
        "path_mtu::a_path_that_shrinks_under_a_transfer_stalls_it_for_less_than_three_seconds";
    in_routed_lab(name, |lab| {
        bring_up(lab, Family::V4);
        settles_at(lab, 1478..=1478);
        let [v4, v6] = targets(lab);
        // Without the routers' ICMP first: a real black hole.
        lab.filter_icmp().unwrap();
        let shrink = || lab.set_middle_mtu(1300).unwrap();
        let pause = longest_pause(lab, v4, Duration::from_secs(6), shrink);
        assert!(pause < Duration::from_secs(3), "{pause:?}");
        sender_settles_at(lab, 1297..=1300);
        let shrink = || lab.set_middle_mtu(1200).unwrap();
        let pause = longest_pause(lab, v6, Duration::from_secs(6), shrink);
        assert!(pause < Duration::from_secs(3), "{pause:?}");
        sender_settles_at(lab, 1197..=1200);
        settles_under_pings_at(lab, 1197..=1200);
        everything_arrives(lab, 1372);
    });
}
