//! `shadowmesh bench`

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use super::args::Global;
use super::failure::Failure;
use super::layout::{Column, Table, Width};
use super::output::{self, short_id};
use super::{ask, unexpected};
use crate::admin::protocol::{Request, Response};
use crate::bench::handshake::{self, Cost, Kind};
use crate::bench::stats::Summary;
use crate::bench::stream::{self, Moved};

/// Round trips enough for a steady p99.
const ROUND_TRIPS_MAX: usize = 10_000;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct PeerBench {
    /// PeerId of the other side.
    id: String,
    /// Name of the configuration.
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

/// What `bench handshake` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct HandshakeBench {
    /// Every kind.
    handshakes: Vec<Cost>,
}

/// One direction.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Throughput {
    /// Payload.
    bytes: u64,
    /// How long it took.
    elapsed_ms: u64,
    /// Rate of the payload.
    gbit_s: f64,
    /// CPU time of this side: the node and this program. `null` when it cannot be read.
    cpu_ms: Option<u64>,
}

pub fn peer(global: &Global, peer: &str, seconds: u64) -> Result<(), Failure> {
    let duration = Duration::from_secs(seconds);
    let request = Request::BenchPrepare {
        peer: peer.into(),
        duration_ms: duration.as_millis() as u64 * 3,
    };
    let (address, id, name) = match ask(global, &request)? {
        Response::BenchReady { address, id, name } => (address, id, name),
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
    let latency = Summary::of(times.iter().map(|time| output::micros(*time)))
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
            id,
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
        elapsed_ms: output::millis(moved.elapsed),
        gbit_s: moved.gbit_s(),
        cpu_ms: spent.map(output::millis),
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
    let cpu = throughput.cpu_ms.map_or(String::new(), |ms| {
        format!(", {:.1} s of CPU on this side", ms as f64 / 1000.0)
    });
    format!(
        "{:.2} Gbit/s ({} in {:.1} s{cpu})",
        throughput.gbit_s,
        output::bytes(throughput.bytes),
        throughput.elapsed_ms as f64 / 1000.0
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
        output::json(&HandshakeBench { handshakes: costs });
    } else {
        output::print(&handshake_text(&costs, global.width()));
    }
    Ok(())
}

fn handshake_text(costs: &[Cost], width: Width) -> String {
    let mut table = Table::new([
        Column::new("HANDSHAKE").wraps(14),
        Column::new("PER S"),
        Column::new("CLIENT CPU"),
        Column::new("SERVER CPU"),
        Column::new("CLIENT SENDS").wraps(12),
        Column::new("SERVER SENDS").wraps(12),
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
            output::rtt(cost.client.cpu_us),
            output::rtt(cost.server.cpu_us),
            sends(&cost.client),
            sends(&cost.server),
        ]);
    }
    format!(
        "{}one core, both sides in this process, {} of each\n",
        table.to_text(width),
        costs[0].count
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::handshake::SideCost;

    #[test]
    fn the_table_of_handshakes_fits_the_terminal() {
        let side = SideCost {
            cpu_us: 430,
            bytes_sent: 11_600.0,
            datagrams_sent: 9.5,
        };
        let cost = |kind| Cost {
            kind,
            count: 300,
            per_second: 1176.4,
            client: side,
            server: side,
        };
        let costs = [Kind::Full, Kind::Short, Kind::Classical].map(cost);
        crate::cli::snapshots::hold("bench-handshake", |width| handshake_text(&costs, width));
    }
}
