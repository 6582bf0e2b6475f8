//! `shadowmesh bench`

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::args::Global;
use super::failure::Failure;
use super::output::{self, Table, short_id};
use super::{ask, unexpected};
use crate::admin::protocol::{Request, Response};
use crate::bench::handshake::{self, Cost, Kind};
use crate::bench::stats::Summary;
use crate::bench::stream::{self, Moved};

/// Round trips enough for a steady p99.
const ROUND_TRIPS_MAX: usize = 10_000;

#[derive(Serialize)]
struct PeerBench {
    peer: String,
    name: Option<String>,
    /// Overlay address measured against.
    address: SocketAddr,
    /// Congestion control of the inner TCP stream on this side.
    congestion_control: String,
    upload: Throughput,
    download: Throughput,
    /// Round trips of 64 bytes, one after the other.
    latency: Summary,
}

#[derive(Serialize)]
struct Throughput {
    bytes: u64,
    seconds: f64,
    gbit_s: f64,
    /// CPU time of this side: the node and this program. Absent when it cannot be read.
    local_cpu_s: Option<f64>,
}

pub fn peer(global: &Global, peer: &str, seconds: u64) -> Result<(), Failure> {
    let duration = Duration::from_secs(seconds);
    let request = Request::BenchPrepare {
        peer: peer.into(),
        duration_ms: duration.as_millis() as u64 * 3,
    };
    let (address, id, name) = match ask(global, &request)? {
        Response::BenchReady {
            address,
            peer,
            name,
        } => (address, peer, name),
        other => return Err(unexpected(&other)),
    };
    let who = name.clone().unwrap_or_else(|| short_id(&id));
    let say = |text: &str| {
        if !global.json {
            output::line(text);
        }
    };
    say(&format!(
        "{who} at {address}: one TCP stream, {seconds} s each way"
    ));
    let upload = throughput(global, || stream::upload(address, duration), &who)?;
    say(&format!("  to {who}    {}", throughput_text(&upload)));
    let download = throughput(global, || stream::download(address, duration), &who)?;
    say(&format!("  from {who}  {}", throughput_text(&download)));
    let times = stream::round_trips(address, duration, ROUND_TRIPS_MAX)
        .map_err(|error| broken(&who, &error))?;
    let latency = Summary::of(times.iter().map(|time| time.as_secs_f64() * 1e6))
        .ok_or_else(|| Failure::new(format!("no round trip to {who} within {seconds} s")))?;
    say(&format!(
        "  round trip  p50 {}, p99 {} ({} of 64 bytes)",
        output::rtt(latency.p50_us),
        output::rtt(latency.p99_us),
        output::count(latency.count as u64)
    ));
    if global.json {
        let congestion_control = congestion_control();
        output::json(&PeerBench {
            peer: id,
            name,
            address,
            congestion_control,
            upload,
            download,
            latency,
        });
    }
    Ok(())
}

fn throughput(
    global: &Global,
    run: impl FnOnce() -> io::Result<Moved>,
    who: &str,
) -> Result<Throughput, Failure> {
    let before = local_cpu(global);
    let moved = run().map_err(|error| broken(who, &error))?;
    let spent = local_cpu(global)
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before));
    Ok(Throughput {
        bytes: moved.bytes,
        seconds: moved.elapsed.as_secs_f64(),
        gbit_s: moved.gbit_s(),
        local_cpu_s: spent.map(|cpu| cpu.as_secs_f64()),
    })
}

/// CPU time of the local node and of this program.
fn local_cpu(global: &Global) -> Option<Duration> {
    let Ok(Response::Status(report)) = ask(global, &Request::Status) else {
        return None;
    };
    let own = shadowmesh_io::cpu::process().ok()?;
    Some(Duration::from_millis(report.cpu_ms) + own.total())
}

fn throughput_text(throughput: &Throughput) -> String {
    let cpu = throughput.local_cpu_s.map_or(String::new(), |cpu| {
        format!(", {cpu:.1} s of CPU on this side")
    });
    format!(
        "{:.2} Gbit/s ({} in {:.1} s{cpu})",
        throughput.gbit_s,
        output::bytes(throughput.bytes),
        throughput.seconds
    )
}

fn congestion_control() -> String {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")
        .map_or("unknown".into(), |name| name.trim().into())
}

fn broken(who: &str, error: &io::Error) -> Failure {
    Failure::new(format!("the measuring stream to {who} broke: {error}")).next(format!(
        "try `shadowmesh ping {who}`; a firewall on either machine may block TCP on the overlay, and \
         this command must run in the network namespace of the node"
    ))
}

pub fn handshake(global: &Global, count: u32) -> Result<(), Failure> {
    let mut costs = Vec::new();
    for kind in [Kind::Full, Kind::Short, Kind::Classical] {
        costs.push(handshake::measure(kind, count).map_err(Failure::new)?);
    }
    if global.json {
        output::json(&serde_json::json!({ "handshakes": costs }));
    } else {
        output::print(&handshake_text(&costs));
    }
    Ok(())
}

fn handshake_text(costs: &[Cost]) -> String {
    let mut table = Table::new([
        "HANDSHAKE",
        "PER SECOND",
        "CLIENT CPU",
        "SERVER CPU",
        "CLIENT SENDS",
        "SERVER SENDS",
    ]);
    for cost in costs {
        let sends = |side: &handshake::SideCost| {
            format!(
                "{:.0} bytes, {:.1} datagrams",
                side.bytes_sent, side.datagrams_sent
            )
        };
        let name = match cost.kind {
            Kind::Full => "post-quantum, first contact",
            Kind::Short => "post-quantum, known peer",
            Kind::Classical => "classical X25519 + Ed25519",
        };
        table.row([
            name.into(),
            format!("{:.0}", cost.per_second),
            format!("{:.0} us", cost.client.cpu_us),
            format!("{:.0} us", cost.server.cpu_us),
            sends(&cost.client),
            sends(&cost.server),
        ]);
    }
    format!(
        "{table}one core, both sides in this process, {} of each\n",
        costs[0].count
    )
}
