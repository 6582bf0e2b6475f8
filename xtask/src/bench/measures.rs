//! What is measured of one contender, and how. Every measurement is bounded in time.

use super::contenders::{Stage, Tunnel};
use shadowmesh::lab::datagrams::{self, Batching, Series, SeriesReport};
use shadowmesh::lab::load;
use shadowmesh_io::cpu;
use shadowmesh_io::lab::{Echo, EchoReport};
use std::net::IpAddr;
use std::time::Duration;

/// Figures of one measurement, by key.
pub type Sample = Vec<(&'static str, f64)>;

/// One measurement.
pub struct Measure {
    /// For `--measure`.
    pub name: &'static str,
    /// In one line.
    pub what: &'static str,
    /// Rounds in which peers take part, where their share would take long and nothing is judged by it.
    pub peer_rounds_max: usize,
    /// Measures once.
    pub run: fn(&Subject<'_>, &mut Memory) -> Result<Sample, String>,
}

/// A running contender, and how long to look at it.
pub struct Subject<'a> {
    /// Where it runs.
    pub stage: &'a Stage,
    /// What it is.
    pub tunnel: &'a Tunnel,
    /// Length of a TCP measurement.
    pub time: Duration,
}

/// What a contender's earlier rounds tell a later one.
#[derive(Debug, Default)]
pub struct Memory {
    /// Where the search for the highest paced rate ended, in packets per second.
    paced: Option<f64>,
    /// The same, of super-packets.
    paced_gso: Option<f64>,
}

/// All of them.
pub const ALL: &[Measure] = &[
    measure(
        "tcp",
        "one TCP stream, with CPU and memory",
        usize::MAX,
        tcp,
    ),
    measure(
        "reverse",
        "one TCP stream the other way",
        PEER_ROUNDS,
        reverse,
    ),
    measure("four", "four TCP streams", PEER_ROUNDS, four),
    measure("ipv6", "one TCP stream over inner IPv6", PEER_ROUNDS, ipv6),
    measure(
        "udp-1300",
        "UDP as fast as a program can send, 1300 B",
        usize::MAX,
        flood_1300,
    ),
    measure(
        "udp-64",
        "UDP as fast as a program can send, 64 B",
        usize::MAX,
        flood_64,
    ),
    measure(
        "udp-paced",
        "UDP of 1300 B: highest rate with at most 1 % loss, and loss at 80 % of it",
        usize::MAX,
        paced,
    ),
    measure(
        "udp-1300-gso",
        "as udp-1300, sent and received in super-packets (UDP_SEGMENT, UDP_GRO)",
        usize::MAX,
        flood_1300_gso,
    ),
    measure(
        "udp-64-gso",
        "as udp-64, sent and received in super-packets",
        usize::MAX,
        flood_64_gso,
    ),
    measure(
        "udp-paced-gso",
        "as udp-paced, sent and received in super-packets",
        usize::MAX,
        paced_gso,
    ),
    measure("ping", "1,000 pings at 2 ms", usize::MAX, ping),
    measure(
        "ping-load",
        "500 pings at 4 ms beside one TCP stream",
        usize::MAX,
        ping_load,
    ),
];

/// What no verdict looks at is measured in so many rounds of a peer.
const PEER_ROUNDS: usize = 3;

const fn measure(
    name: &'static str,
    what: &'static str,
    peer_rounds_max: usize,
    run: fn(&Subject<'_>, &mut Memory) -> Result<Sample, String>,
) -> Measure {
    Measure {
        name,
        what,
        peer_rounds_max,
        run,
    }
}

/// UDP payloads: one that fills a packet of every tunnel here, and a small one as of a call.
const LARGE_LEN: usize = 1300;
const SMALL_LEN: usize = 64;
const FLOOD_TIME: Duration = Duration::from_millis(1000);
/// One step of the search for the highest paced rate.
const STEP_TIME: Duration = Duration::from_millis(500);
const STEPS_MAX: usize = 12;
/// The search ends when the answer is known to this factor.
const STEP_FINE: f64 = 1.05;
/// From one step to the next while the answer lies outside what is known.
const STEP_COARSE: f64 = 1.3;
/// "At most 1 % loss".
const LOSS_MAX: f64 = 0.01;
/// A source that cannot offer this part of what it should is itself the limit.
const OFFERED_MIN: f64 = 0.9;

fn tcp(subject: &Subject<'_>, _: &mut Memory) -> Result<Sample, String> {
    let (gbit_s, gbit_per_cpu_s) = streams(subject, 1, subject.target_v4()?, false)?;
    let mut sample = vec![
        ("tcp_gbit_s", gbit_s),
        ("tcp_gbit_per_cpu_s", gbit_per_cpu_s),
    ];
    let each = subject.tunnel.pids().into_iter().map(cpu::memory_of);
    let each: Vec<u64> = each
        .map(|memory| memory.map(|memory| memory.resident_max))
        .collect::<Result<_, _>>()
        .map_err(text)?;
    if let Some(most) = each.into_iter().max() {
        sample.push(("memory_mb", most as f64 / 1e6));
    }
    Ok(sample)
}

fn reverse(subject: &Subject<'_>, _: &mut Memory) -> Result<Sample, String> {
    let pair = subject.tunnel.v4.or(subject.tunnel.v6);
    let back = pair.ok_or("the tunnel has no addresses")?[0];
    let (gbit_s, _) = streams(subject, 1, back, true)?;
    Ok(vec![("reverse_gbit_s", gbit_s)])
}

fn four(subject: &Subject<'_>, _: &mut Memory) -> Result<Sample, String> {
    let (gbit_s, _) = streams(subject, 4, subject.target_v4()?, false)?;
    Ok(vec![("four_gbit_s", gbit_s)])
}

fn ipv6(subject: &Subject<'_>, _: &mut Memory) -> Result<Sample, String> {
    let Some([_, target]) = subject.tunnel.v6 else {
        return Ok(Vec::new());
    };
    let (gbit_s, _) = streams(subject, 1, target, false)?;
    Ok(vec![("ipv6_gbit_s", gbit_s)])
}

/// Gbit/s, and Gbit per second of CPU of the whole machine.
fn streams(
    subject: &Subject<'_>,
    count: usize,
    target: IpAddr,
    reverse: bool,
) -> Result<(f64, f64), String> {
    let [near, far] = &subject.stage.ends;
    let (from, to) = if reverse { (far, near) } else { (near, far) };
    let before = cpu::machine().map_err(text)?;
    let (gbit_s, bytes) = load::streams(from, to, target, count, subject.time).map_err(text)?;
    let spent = cpu::machine().map_err(text)?.since(&before);
    let gbit = bytes as f64 * 8.0 / 1e9;
    // The kernel counts in ticks of 10 ms; a measurement this short has no use for less.
    Ok((gbit_s, gbit / spent.busy.as_secs_f64().max(0.01)))
}

fn flood_1300(subject: &Subject<'_>, _: &mut Memory) -> Result<Sample, String> {
    let report = series(subject, LARGE_LEN, None, FLOOD_TIME, Batching::Alone)?;
    Ok(vec![
        ("flood_1300_gbit_s", report.received_gbit_s()),
        ("flood_1300_loss_percent", report.loss() * 100.0),
    ])
}

fn flood_64(subject: &Subject<'_>, _: &mut Memory) -> Result<Sample, String> {
    let report = series(subject, SMALL_LEN, None, FLOOD_TIME, Batching::Alone)?;
    Ok(vec![
        ("flood_64_kpacket_s", report.received_packets_s() / 1e3),
        ("flood_64_loss_percent", report.loss() * 100.0),
    ])
}

fn flood_1300_gso(subject: &Subject<'_>, _: &mut Memory) -> Result<Sample, String> {
    let report = series(subject, LARGE_LEN, None, FLOOD_TIME, Batching::Together)?;
    Ok(vec![
        ("flood_1300_gso_gbit_s", report.received_gbit_s()),
        ("flood_1300_gso_loss_percent", report.loss() * 100.0),
    ])
}

fn flood_64_gso(subject: &Subject<'_>, _: &mut Memory) -> Result<Sample, String> {
    let report = series(subject, SMALL_LEN, None, FLOOD_TIME, Batching::Together)?;
    Ok(vec![
        ("flood_64_gso_kpacket_s", report.received_packets_s() / 1e3),
        ("flood_64_gso_loss_percent", report.loss() * 100.0),
    ])
}

fn paced(subject: &Subject<'_>, memory: &mut Memory) -> Result<Sample, String> {
    let [gbit_s, loss] = highest_rate(subject, &mut memory.paced, Batching::Alone)?;
    Ok(vec![
        ("paced_gbit_s", gbit_s),
        ("paced_80_loss_percent", loss),
    ])
}

fn paced_gso(subject: &Subject<'_>, memory: &mut Memory) -> Result<Sample, String> {
    let [gbit_s, loss] = highest_rate(subject, &mut memory.paced_gso, Batching::Together)?;
    Ok(vec![
        ("paced_gso_gbit_s", gbit_s),
        ("paced_gso_80_loss_percent", loss),
    ])
}

/// Brackets the highest rate with steps of [`STEP_COARSE`], then halves the bracket. The figure is
/// what was received at the highest rate that was good, never the rate that was asked for. With it, the
/// loss at 80 % of it, in percent. `known` is where an earlier search ended, and then where this did.
fn highest_rate(
    subject: &Subject<'_>,
    known: &mut Option<f64>,
    batching: Batching,
) -> Result<[f64; 2], String> {
    let mut rate = match *known {
        Some(rate) => rate,
        None => {
            let flood = series(subject, LARGE_LEN, None, STEP_TIME, batching)?;
            flood.received_packets_s().max(1000.0)
        }
    };
    let (mut good, mut bad): (Option<(f64, f64)>, Option<f64>) = (None, None);
    for _ in 0..STEPS_MAX {
        let report = series(subject, LARGE_LEN, Some(rate), STEP_TIME, batching)?;
        let offered_all = report.offered_packets_s() >= rate * OFFERED_MIN;
        if report.loss() <= LOSS_MAX {
            let received = report.received_gbit_s();
            if good.is_none_or(|(_, best)| received > best) {
                good = Some((rate, received));
            }
        }
        if report.loss() > LOSS_MAX || !offered_all {
            bad = Some(bad.map_or(rate, |bad| bad.min(rate)));
        }
        rate = match (good, bad) {
            (Some((good, _)), Some(bad)) if bad <= good * STEP_FINE => break,
            (Some((good, _)), Some(bad)) => (good * bad).sqrt(),
            (Some((good, _)), None) => good * STEP_COARSE,
            (None, _) => rate / STEP_COARSE,
        };
    }
    // Where the source and not the tunnel ends the search, the figure is a lower bound.
    let Some((rate, gbit_s)) = good else {
        return Ok([0.0, 100.0]);
    };
    *known = Some(rate);
    let calm = gbit_s * 0.8 * 1e9 / 8.0 / LARGE_LEN as f64;
    let calm = series(subject, LARGE_LEN, Some(calm), FLOOD_TIME, batching)?;
    Ok([gbit_s, calm.loss() * 100.0])
}

fn series(
    subject: &Subject<'_>,
    payload_len: usize,
    rate: Option<f64>,
    duration: Duration,
    batching: Batching,
) -> Result<SeriesReport, String> {
    let [from, to] = &subject.stage.ends;
    let plan = Series {
        payload_len,
        rate,
        duration,
        batching,
    };
    datagrams::series(from, to, subject.target_v4()?, plan).map_err(text)
}

fn ping(subject: &Subject<'_>, _: &mut Memory) -> Result<Sample, String> {
    let echo = echo(subject.target_v4()?, 1000, Duration::from_millis(2));
    let report = subject.stage.ends[0].run(|| echo.run()).map_err(text)?;
    let [p50, p99] = quantiles(&report)?;
    Ok(vec![("ping_p50_us", p50), ("ping_p99_us", p99)])
}

fn ping_load(subject: &Subject<'_>, _: &mut Memory) -> Result<Sample, String> {
    let [from, to] = &subject.stage.ends;
    let target = subject.target_v4()?;
    let echo = echo(target, 500, Duration::from_millis(4));
    let (pings, stream) = load::ping_beside_stream(from, to, target, echo).map_err(text)?;
    let [p50, p99] = quantiles(&pings)?;
    Ok(vec![
        ("load_p50_us", p50),
        ("load_p99_us", p99),
        ("load_gbit_s", stream.gbit_s()),
    ])
}

fn echo(target: IpAddr, count: u32, interval: Duration) -> Echo {
    Echo {
        target,
        count,
        interval,
        timeout: Duration::from_millis(500),
        payload_len: 56,
    }
}

/// p50 and p99 in us. A ping that was lost took the longest of all: a queue that drops does not
/// look quick by it.
fn quantiles(report: &EchoReport) -> Result<[f64; 2], String> {
    if report.received == 0 {
        return Err(format!("none of {} pings was answered", report.sent));
    }
    let mut round_trips: Vec<f64> = report
        .round_trips
        .iter()
        .map(|time| time.as_secs_f64() * 1e6)
        .collect();
    round_trips.sort_by(f64::total_cmp);
    let longest = *round_trips.last().expect("one was answered");
    round_trips.resize(report.sent as usize, longest);
    Ok([0.5, 0.99].map(|part| {
        let rank = (part * round_trips.len() as f64).ceil() as usize;
        round_trips[rank.max(1) - 1]
    }))
}

impl Subject<'_> {
    /// IPv4 where the tunnel has it, else IPv6.
    fn target_v4(&self) -> Result<IpAddr, String> {
        let pair = self.tunnel.v4.or(self.tunnel.v6);
        Ok(pair.ok_or("the tunnel has no addresses")?[1])
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_ping_counts_as_the_slowest() {
        let report = EchoReport {
            sent: 4,
            received: 2,
            round_trips: vec![Duration::from_micros(10), Duration::from_micros(50)],
            ..EchoReport::default()
        };
        assert_eq!(quantiles(&report).unwrap(), [50.0, 50.0]);
        assert!(quantiles(&EchoReport::default()).is_err());
    }
}
