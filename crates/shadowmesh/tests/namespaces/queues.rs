//! Several sender and receiver threads, one for both ways while there is little to do, and the device without
//! offload: nothing that a program can see is different, the order of its packets least of all.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh::lab::datagrams::{self, Batching, Series};
use shadowmesh::lab::{Family, LabNode};
use shadowmesh_io::netns::Netns;
use shadowmesh_io::sched::Cores;

use crate::support::{PING_INTERVAL, TestLab, drops, in_lab};

const QUEUES: usize = 4;
const STREAMS: usize = 4;
const STREAM_BYTES: u64 = (32 << 20) + 4321;
const FLOWS: usize = 6;
/// Datagrams of each flow, in bursts, so that several wait in a queue at once.
const FLOW_DATAGRAMS: u64 = 4000;
const BURST: u64 = 8;
const BURST_INTERVAL: Duration = Duration::from_millis(4);
/// Longer than any stall on a busy machine; ends a flow whose last datagrams were lost.
const FLOW_TIMEOUT: Duration = Duration::from_secs(2);
const PINGS: u32 = 150;
const FEW: u32 = 15;
/// Seconds of a flood, and looks at a node that is to be calm: on a busy machine it may take a while.
const TRIES_MAX: u32 = 10;
/// Until a node that was busy is calm.
const CALM: Duration = Duration::from_millis(300);

// PROTOCOL SM-DV-3
// PROTOCOL SM-SF-4
#[test]
fn with_four_queues_at_both_ends_everything_arrives_whole_and_every_flow_in_order() {
    let name =
        "queues::with_four_queues_at_both_ends_everything_arrives_whole_and_every_flow_in_order";
    in_lab(name, 2, |lab| {
        for node in &mut lab.nodes {
            node.settings.queues = Some(QUEUES);
        }
        lab.bring_up_full_mesh(Family::V4);
        for node in &lab.nodes {
            assert_eq!(threads(node, "sender"), QUEUES, "{}", node.name);
            assert_eq!(threads(node, "receiver"), QUEUES, "{}", node.name);
        }
        load(lab, 0);
        for node in &lab.nodes {
            assert_eq!(node.netns.run(tcp_reorderings), 0, "{}", node.name);
        }
    });
}

// PROTOCOL SM-DV-1
// PROTOCOL SM-DV-3
#[test]
fn without_offload_at_one_end_or_both_everything_arrives_whole_and_every_flow_in_order() {
    let name = "queues::without_offload_at_one_end_or_both_everything_arrives_whole_and_every_flow_in_order";
    in_lab(name, 2, |lab| {
        for offloads in [[false, true], [false, false]] {
            for (node, offload) in lab.nodes.iter_mut().zip(offloads) {
                node.settings.offload = offload;
                node.settings.queues = Some(2);
            }
            lab.bring_up_full_mesh(Family::V4);
            for (node, offload) in lab.nodes.iter().zip(offloads) {
                let senders = if offload { 2 } else { 1 };
                assert_eq!(threads(node, "sender"), senders, "{}", node.name);
            }
            // The kernel's queue of 500 packets, not of 500 super-packets, runs over under eight
            // streams, and nobody sorts what waits in it.
            load(lab, PINGS / 10);
            lab.stop_all().unwrap();
        }
    });
}

// PROTOCOL SM-DV-1
// PROTOCOL SM-QD-5
#[test]
fn what_comes_by_quic_is_not_merged_for_a_device_without_offload() {
    let name = "queues::what_comes_by_quic_is_not_merged_for_a_device_without_offload";
    in_lab(name, 2, |lab| {
        for node in &mut lab.nodes {
            node.settings.offload = false;
            node.settings.data_plane = "quic".into();
        }
        lab.bring_up_full_mesh(Family::V4);
        for (from, to) in lab.pairs() {
            let amount = Amount::Bytes(STREAM_BYTES);
            let target = to.overlay_v4().into();
            let report = bulk::transfer(&from.netns, &to.netns, target, amount).unwrap();
            assert!(report.intact && report.bytes == STREAM_BYTES, "{report:?}");
        }
        for node in &lab.nodes {
            assert_eq!(drops(node, "device_full"), 0, "{}", node.name);
        }
    });
}

// While there is little to do one thread of a node does all, and the other sleeps; a flood has both.
#[test]
fn pings_leave_the_sender_asleep_until_there_is_more_to_do_and_afterwards_again() {
    let name =
        "queues::pings_leave_the_sender_asleep_until_there_is_more_to_do_and_afterwards_again";
    between_two_of_one_queue(name, |from, to, target| {
        let sleeps = || [from, to].map(sleeps_of_sender);
        for _ in 0..2 {
            // The first of them find the sender on duty.
            from.ping(target, FEW, PING_INTERVAL).unwrap();
            let before = sleeps();
            let report = from.ping(target, PINGS, PING_INTERVAL).unwrap();
            assert_eq!(report.received, PINGS);
            for (before, after) in before.into_iter().zip(sleeps()) {
                // A receiver that is held up on a busy machine calls the sender back for a while.
                assert!(after - before < (PINGS / 2).into(), "{}", after - before);
            }
            let before = sleeps_of_sender(from);
            flood(&from.netns, target);
            thread::sleep(CALM);
            assert!(sleeps_of_sender(from) > before, "the sender never worked");
        }
    });
}

// A flood takes a core from everybody else: threads of both directions on the other would share that.
#[test]
fn in_a_flood_sender_and_receiver_are_on_cores_of_their_own_and_afterwards_at_home_again() {
    let name = "queues::in_a_flood_sender_and_receiver_are_on_cores_of_their_own_and_afterwards_at_home_again";
    between_two_of_one_queue(name, |from, to, target| {
        let all: Vec<usize> = Cores::of_thread().unwrap().iter().collect();
        let [first, second] = all[..] else {
            // Nowhere to be apart, or no need.
            return;
        };
        let apart = [first, second].map(|core| core.to_string());
        let is_home = |_| {
            thread::sleep(CALM);
            from.ping(target, FEW, PING_INTERVAL).unwrap();
            cores(to, "receiver") == first.to_string()
        };
        let comes_home = || assert!((0..TRIES_MAX).any(is_home), "{}", cores(to, "receiver"));
        comes_home();
        let plan = Series {
            payload_len: 64,
            rate: None,
            duration: Duration::from_secs(1),
            batching: Batching::Together,
        };
        let mut seen: Vec<[String; 2]> = Vec::new();
        // At three looks in a row.
        let stay_apart = |seen: &[[String; 2]]| {
            let mut rows = seen.windows(3);
            rows.any(|row| row.iter().all(|cores| *cores == apart))
        };
        for _ in 0..TRIES_MAX {
            let flood = || datagrams::series(&from.netns, &to.netns, target, plan).map(|_| ());
            thread::scope(|scope| {
                let flood = scope.spawn(flood);
                while !flood.is_finished() {
                    seen.push([cores(from, "sender"), cores(to, "receiver")]);
                    thread::sleep(PING_INTERVAL);
                }
                flood.join().unwrap().unwrap();
            });
            if stay_apart(&seen) {
                break;
            }
        }
        assert!(stay_apart(&seen), "{seen:?}");
        comes_home();
    });
}

/// Two nodes of one sender and one receiver each, and the address of the second.
fn between_two_of_one_queue(name: &str, test: impl FnOnce(&LabNode, &LabNode, IpAddr)) {
    in_lab(name, 2, |lab| {
        for node in &mut lab.nodes {
            node.settings.queues = Some(1);
        }
        lab.bring_up_full_mesh(Family::V4);
        let [from, to] = [&lab.nodes[0], &lab.nodes[1]];
        test(from, to, to.overlay_v4().into());
    });
}

/// More datagrams at once than one thread would carry.
fn flood(from: &Netns, target: IpAddr) {
    thread::scope(|scope| {
        for _ in 0..FLOWS {
            let socket = from.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
            scope.spawn(move || {
                for _ in 0..FLOW_DATAGRAMS {
                    // To a port where nobody listens: some are refused.
                    let _ = socket.send_to(&[0; 100], (target, 9));
                }
            });
        }
    });
}

/// Streams and counted datagrams both ways at once, pings beside them.
fn load(lab: &TestLab, pings_lost_max: u32) {
    thread::scope(|scope| {
        for (from, to) in lab.pairs() {
            let targets: [IpAddr; 2] = [to.overlay_v4().into(), to.overlay_v6().into()];
            for target in targets.into_iter().cycle().take(STREAMS) {
                scope.spawn(move || {
                    let amount = Amount::Bytes(STREAM_BYTES);
                    let report = bulk::transfer(&from.netns, &to.netns, target, amount).unwrap();
                    assert!(report.intact && report.bytes == STREAM_BYTES, "{report:?}");
                });
            }
            for target in targets.into_iter().cycle().take(FLOWS) {
                scope.spawn(move || {
                    let arrived = flow(&from.netns, &to.netns, target).unwrap();
                    assert!(arrived.is_sorted_by(|a, b| a < b), "{target}: out of order");
                    // Streams fill the queues, so some are lost; hardly all.
                    assert!(!arrived.is_empty(), "{target}: nothing arrived");
                });
            }
            scope.spawn(move || {
                let report = from.ping(targets[0], PINGS, PING_INTERVAL).unwrap();
                let lost = PINGS - report.received;
                assert!(lost <= pings_lost_max, "{lost} lost: {report:?}");
            });
        }
    });
    for node in &lab.nodes {
        for reason in [
            "seal_replayed",
            "seal_too_old",
            "seal_forged",
            "bad_offload",
            "malformed_ip_packet",
        ] {
            assert_eq!(drops(node, reason), 0, "{reason} at {}", node.name);
        }
    }
}

/// Sends numbers in one flow and returns those that arrived, as they arrived.
fn flow(from: &Netns, to: &Netns, target: IpAddr) -> io::Result<Vec<u64>> {
    let receiver = to.run(|| UdpSocket::bind(SocketAddr::new(target, 0)))?;
    receiver.set_read_timeout(Some(FLOW_TIMEOUT))?;
    let target = receiver.local_addr()?;
    let any: IpAddr = match target {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let sender = from.run(|| UdpSocket::bind(SocketAddr::new(any, 0)))?;
    sender.connect(target)?;
    thread::scope(|scope| {
        let arriving = scope.spawn(move || {
            let mut arrived = Vec::new();
            let mut datagram = [0; 1200];
            while let Ok(len) = receiver.recv(&mut datagram) {
                let number = datagram
                    .first_chunk()
                    .filter(|_| len >= 8)
                    .expect("8 bytes");
                arrived.push(u64::from_be_bytes(*number));
                if arrived.last() == Some(&(FLOW_DATAGRAMS - 1)) {
                    break;
                }
            }
            arrived
        });
        for number in 0..FLOW_DATAGRAMS {
            // Of all lengths, so that runs end in all places.
            let mut datagram = [0; 1200];
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            sender.send(&datagram[..8 + (number as usize * 37) % 1190])?;
            if number % BURST == BURST - 1 {
                thread::sleep(BURST_INTERVAL);
            }
        }
        Ok(arriving.join().expect("the receiving half does not panic"))
    })
}

/// How many threads of a node's process have this name.
fn threads(node: &LabNode, name: &str) -> usize {
    tasks(node, name).count()
}

/// The threads of that name, as directories.
fn tasks(node: &LabNode, name: &str) -> impl Iterator<Item = PathBuf> {
    let tasks = format!("/proc/{}/task", node.pid().expect("a running node"));
    let tasks = std::fs::read_dir(tasks).expect("the process's threads");
    let is_named = move |task: &PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|found| found.trim() == name)
    };
    tasks
        .filter_map(|task| Some(task.ok()?.path()))
        .filter(is_named)
}

/// How often the only sender has gone to sleep.
fn sleeps_of_sender(node: &LabNode) -> u64 {
    let counter = status(node, "sender", "voluntary_ctxt_switches:");
    counter.parse().expect("a number")
}

/// On which cores the only thread of that name may be.
fn cores(node: &LabNode, name: &str) -> String {
    status(node, name, "Cpus_allowed_list:")
}

/// What the kernel says of the only thread of that name.
fn status(node: &LabNode, name: &str, field: &str) -> String {
    let task = tasks(node, name).next().expect("a thread of that name");
    let status = std::fs::read_to_string(task.join("status")).expect("its status");
    let mut values = status.lines().filter_map(|line| line.strip_prefix(field));
    let value = values.next().expect("the kernel knows the field");
    value.trim().to_owned()
}

/// How often TCP in this namespace found that segments had overtaken each other, by its own count.
fn tcp_reorderings() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").expect("TCP's counters");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let counters = names.split_whitespace().zip(values.split_whitespace());
    let reorderings = ["TCPSACKReorder", "TCPTSReorder", "TCPRenoReorder"];
    let found: Vec<(&str, u64)> = counters
        .filter(|(name, _)| reorderings.contains(name))
        .map(|(name, value)| (name, value.parse().unwrap()))
        .collect();
    assert_eq!(found.len(), reorderings.len(), "{text}");
    found.iter().map(|(_, value)| value).sum()
}
