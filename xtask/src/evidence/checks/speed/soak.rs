//! Full speed for half an hour: nothing is lost but by the queue, nothing grows, no counter twice.
//!
//! One TCP stream in each direction at the same time, new keys every 10 s, a ping every 10 ms beside
//! them. What must hold at the end:
//!
//! - every frame that one node sealed the other opened, or the kernel's counter of full socket buffers
//!   accounts for it; and of those there is at most one in 100,000;
//! - the nodes dropped for no reason but a full queue;
//! - no ping was lost;
//! - resident memory in the second half of the time has no slope that matters.

use super::memory::Watch;
use super::program::Build;
use super::{Measured, field};
use field::{Field, REKEY_INTERVAL, inner, text};
use serde_json::{Value, json};
use shadowmesh::lab::bulk::{self, Amount, BulkReport};
use shadowmesh::lab::{DEVICE, Family, LabNode};
use shadowmesh_io::lab::EchoReport;
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

/// What the promise is about.
pub const TIME: Duration = Duration::from_secs(30 * 60);

/// The same with assertions is slower, and proves as much about counters sooner.
pub const TIME_ASSERTED: Duration = Duration::from_secs(10 * 60);

/// Reasons of the queue in front of the sealer: it is full, or it tells a flow that fills it.
const QUEUE: [&str; 2] = ["queue_codel", "queue_full"];

/// How a node shows what the kernel counts for its sockets; here the kernel is asked itself.
const SOCKET: &str = "socket_overflow";

/// Every host sends a few to multicast addresses, and they belong to no peer.
const HARMLESS: [&str; 1] = ["not_unicast"];

/// Of all frames, how many a full socket buffer of the far kernel may take.
const SOCKET_LOSS_MAX: f64 = 1e-5;

/// Resident memory at full speed, of each node.
const MEMORY_KIB_MAX: u64 = 64 * 1024;

/// What the second half may add when its slope is drawn out over the whole time.
const GROWTH_KIB_MAX: f64 = 1024.0;

const PING_INTERVAL: Duration = Duration::from_millis(10);

/// The program as users run it.
pub fn released(time: Duration) -> Result<Measured, String> {
    soak(time, Build::Release)
}

/// The program with debug assertions: a counter that seals a second frame stops it.
pub fn asserted(time: Duration) -> Result<Measured, String> {
    soak(time, Build::Asserting)
}

fn soak(time: Duration, build: Build) -> Result<Measured, String> {
    let mut field = Field::of(build, 2, Family::V4)?;
    field.start()?;
    let before = Accounts::read(&field)?;
    let pids: Vec<u32> = field.lab.nodes.iter().filter_map(LabNode::pid).collect();
    let watch = Watch::start(pids);
    let (flows, pings) = load(&field, time)?;
    let memory = watch.stop();
    let spent = Accounts::read(&field)?.since(&before);
    let panics = end(&mut field)?;
    let flat = memory.is_flat(time, GROWTH_KIB_MAX) && memory.most_kib() <= MEMORY_KIB_MAX;
    // A shorter trial of the check sees fewer.
    let rekeys_min = time.as_secs() / REKEY_INTERVAL.as_secs() * 3 / 4;
    let pass = spent.loss_is_the_queues_own()
        && pings.received == pings.sent
        && flat
        && spent.rekeys >= rekeys_min
        && panics == 0;
    let [there, back] = &flows;
    Ok(Measured {
        pass,
        figure: format!(
            "{} s, {}: {:.2} + {:.2} Gbit/s, {} rekeys, {}, pings lost {} of {} (p50 {} us, p99 {} us), \
             memory {}, panics {panics}",
            time.as_secs(),
            build.name(),
            there.gbit_s(),
            back.gbit_s(),
            spent.rekeys,
            spent.figure(),
            pings.sent - pings.received,
            pings.sent,
            quantile_us(&pings, 0.5),
            quantile_us(&pings, 0.99),
            memory.figure(),
        ),
        values: json!({
            "seconds": time.as_secs(),
            "build": build.name(),
            "gbit_s": [there.gbit_s(), back.gbit_s()],
            "rekeys": spent.rekeys,
            "accounts": spent.to_json(),
            "pings": { "sent": pings.sent, "received": pings.received,
                "p50_us": quantile_us(&pings, 0.5), "p99_us": quantile_us(&pings, 0.99) },
            "memory": memory.to_json(),
            "panics": panics,
        }),
    })
}

/// Both streams and the pings, until the time is over.
fn load(field: &Field, time: Duration) -> Result<([BulkReport; 2], EchoReport), String> {
    let transfer = |from: usize, to: usize| {
        let (from, to) = (field.node(from), field.node(to));
        let address = inner(to, Family::V4);
        bulk::transfer(&from.netns, &to.netns, address, Amount::Time(time)).map_err(text)
    };
    let count = (time.as_millis() / PING_INTERVAL.as_millis()) as u32;
    thread::scope(|scope| {
        let there = scope.spawn(|| transfer(0, 1));
        let back = scope.spawn(|| transfer(1, 0));
        let target = inner(field.node(1), Family::V6);
        let pings = field.node(0).ping(target, count, PING_INTERVAL);
        let join = |flow: thread::ScopedJoinHandle<'_, _>| flow.join().expect("no panic");
        Ok(([join(there)?, join(back)?], pings.map_err(text)?))
    })
}

/// Asks both nodes to end and counts the panics in what they wrote.
fn end(field: &mut Field) -> Result<usize, String> {
    let mut panics = 0;
    for node in &mut field.lab.nodes {
        if node.is_running() {
            let status = node.stop().map_err(text)?;
            panics += usize::from(!status.success());
        } else {
            panics += 1;
        }
        panics += node.log().matches("panicked at").count();
    }
    Ok(panics)
}

fn quantile_us(pings: &EchoReport, part: f64) -> u128 {
    pings.quantile(part).map_or(0, |time| time.as_micros())
}

/// What both nodes and both kernels counted.
#[derive(Debug, Default)]
struct Accounts {
    sealed: u64,
    opened: u64,
    rekeys: u64,
    /// Datagrams that found the socket of a node full.
    socket_full: u64,
    /// Packets that the kernel dropped because nobody had read the device for long: its queue, before
    /// ours.
    device_full: u64,
    /// Segments that the inner TCP sent again.
    retransmitted: u64,
    drops: BTreeMap<String, u64>,
}

impl Accounts {
    fn read(field: &Field) -> Result<Self, String> {
        let mut all = Self {
            rekeys: field.epoch(0, 1)?,
            ..Self::default()
        };
        for node in &field.lab.nodes {
            let status = node.query("status", &[]).map_err(text)?;
            let count = |value: &Value| value.as_u64().unwrap_or(0);
            all.sealed += count(&status["traffic"]["packets_out"]);
            all.opened += count(&status["traffic"]["packets_in"]);
            for (reason, number) in status["drops"].as_object().into_iter().flatten() {
                if reason == SOCKET {
                    continue;
                }
                *all.drops.entry(reason.clone()).or_default() += count(number);
            }
            let kernel = node.netns.run(kernel_counters).map_err(text)?;
            all.socket_full += kernel("Udp", "RcvbufErrors") + kernel("Udp6", "RcvbufErrors");
            all.retransmitted += kernel("Tcp", "RetransSegs");
            all.device_full += node.netns.run(device_drops).map_err(text)?;
        }
        Ok(all)
    }

    fn since(self, before: &Self) -> Self {
        let grown = |(reason, number): (String, u64)| {
            let number = number - before.drops.get(&reason).copied().unwrap_or(0);
            (number > 0).then_some((reason, number))
        };
        Self {
            sealed: self.sealed - before.sealed,
            opened: self.opened - before.opened,
            rekeys: self.rekeys - before.rekeys,
            socket_full: self.socket_full - before.socket_full,
            device_full: self.device_full - before.device_full,
            retransmitted: self.retransmitted - before.retransmitted,
            drops: self.drops.into_iter().filter_map(grown).collect(),
        }
    }

    /// Frames that were sealed and never opened.
    fn lost(&self) -> u64 {
        self.sealed.saturating_sub(self.opened)
    }

    /// Lost, and no counter says where: what the queue drops was never sealed. The few frames that are sealed while the second node is
    /// being asked count here too, hence a little patience.
    fn unaccounted(&self) -> u64 {
        self.lost().saturating_sub(self.socket_full)
    }

    fn loss_is_the_queues_own(&self) -> bool {
        let named = |reason: &String| {
            QUEUE.contains(&reason.as_str()) || HARMLESS.contains(&reason.as_str())
        };
        self.drops.keys().all(named)
            && self.unaccounted() <= 8
            && self.socket_full as f64 <= self.sealed as f64 * SOCKET_LOSS_MAX
    }

    fn figure(&self) -> String {
        let drops: Vec<String> = self.drops.iter().map(|(r, n)| format!("{r} {n}")).collect();
        format!(
            "{} frames sealed, {} not opened ({} by full sockets, {} unaccounted), {} dropped \
             in the device's queue, {} retransmitted, drops {{{}}}",
            self.sealed,
            self.lost(),
            self.socket_full,
            self.unaccounted(),
            self.device_full,
            self.retransmitted,
            drops.join(", "),
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "sealed": self.sealed,
            "opened": self.opened,
            "socket_full": self.socket_full,
            "unaccounted": self.unaccounted(),
            "device_full": self.device_full,
            "retransmitted": self.retransmitted,
            "drops": self.drops,
        })
    }
}

/// A reader of the counters of the calling thread's namespace.
fn kernel_counters() -> std::io::Result<impl Fn(&str, &str) -> u64> {
    let four = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let six = std::fs::read_to_string("/proc/thread-self/net/snmp6")?;
    Ok(move |protocol: &str, name: &str| {
        snmp(&four, protocol, name)
            .or_else(|| snmp6(&six, protocol, name))
            .unwrap_or(0)
    })
}

/// `/proc/net/snmp` has two lines for each protocol: the names, then the counts.
fn snmp(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| {
        let (of, rest) = line.split_once(':')?;
        (of == protocol).then(|| rest.split_whitespace())
    });
    let (names, counts) = (lines.next()?, lines.next()?);
    let (_, count) = names.zip(counts).find(|(found, _)| *found == name)?;
    count.parse().ok()
}

fn snmp6(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let wanted = format!("{protocol}{name}");
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(wanted.as_str()))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Packets that the device of the calling thread's namespace dropped on their way to the node: the
/// twelfth number behind its name.
fn device_drops() -> std::io::Result<u64> {
    const TX_DROPPED: usize = 11;
    let table = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let row = table.lines().find_map(|line| {
        let (name, counts) = line.split_once(':')?;
        (name.trim() == DEVICE).then_some(counts)
    });
    let count = row.and_then(|row| row.split_whitespace().nth(TX_DROPPED));
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts(sealed: u64, opened: u64, socket_full: u64, drops: &[(&str, u64)]) -> Accounts {
        Accounts {
            sealed,
            opened,
            socket_full,
            drops: drops.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect(),
            ..Accounts::default()
        }
    }

    #[test]
    fn only_the_queue_may_lose() {
        let good = |a: Accounts| a.loss_is_the_queues_own();
        assert!(good(accounts(
            1_000_000,
            1_000_000,
            0,
            &[("queue_full", 5000)]
        )));
        assert!(good(accounts(1_000_000, 999_995, 5, &[("not_unicast", 3)])));
        assert!(!good(accounts(1_000_000, 999_000, 1000, &[])), "sockets");
        assert!(!good(accounts(1_000_000, 999_900, 0, &[])), "nowhere");
        for reason in [
            "seal_forged",
            "seal_replayed",
            "seal_too_old",
            "seal_no_epoch",
        ] {
            assert!(!good(accounts(1_000_000, 999_999, 0, &[(reason, 1)])));
        }
    }

    #[test]
    fn counters_of_the_kernel_are_found_by_name() {
        let four =
            "Tcp: RtoMin RetransSegs\nTcp: 200 17\nUdp: InDatagrams RcvbufErrors\nUdp: 5 3\n";
        assert_eq!(snmp(four, "Tcp", "RetransSegs"), Some(17));
        assert_eq!(snmp(four, "Udp", "RcvbufErrors"), Some(3));
        assert_eq!(snmp(four, "Udp", "Nothing"), None);
        let six = "Udp6RcvbufErrors                \t4\nUdp6SndbufErrors 9\n";
        assert_eq!(snmp6(six, "Udp6", "RcvbufErrors"), Some(4));
    }

    #[test]
    fn only_what_grew_counts() {
        let before = accounts(10, 10, 1, &[("no_session", 4)]);
        let spent = accounts(30, 29, 2, &[("no_session", 4), ("queue_full", 2)]).since(&before);
        assert_eq!((spent.sealed, spent.opened, spent.socket_full), (20, 19, 1));
        assert_eq!(spent.drops.len(), 1);
    }
}
