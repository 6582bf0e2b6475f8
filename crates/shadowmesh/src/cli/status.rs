//! `shadowmesh status`

use std::time::Duration;

use super::args::Global;
use super::failure::Failure;
use super::output::{bytes, count, duration};
use super::{ask, output, unexpected};
use crate::admin::protocol::{Request, Response};
use crate::admin::report::NodeReport;

pub fn run(global: &Global) -> Result<(), Failure> {
    let report = match ask(global, &Request::Status)? {
        Response::Status(report) => report,
        other => return Err(unexpected(&other)),
    };
    if global.json {
        output::json(&report);
    } else {
        output::print(&text(&report));
    }
    Ok(())
}

fn text(report: &NodeReport) -> String {
    let traffic = &report.traffic;
    let listen: Vec<String> = report.listen.iter().map(ToString::to_string).collect();
    let drops: Vec<String> = report
        .drops
        .iter()
        .map(|(reason, n)| format!("{reason} {}", count(*n)))
        .collect();
    let rows = [
        ("node", report.peer_id.clone()),
        (
            "running",
            format!(
                "version {}, process {}, for {}",
                report.version,
                report.pid,
                duration(Duration::from_millis(report.uptime_ms))
            ),
        ),
        (
            "device",
            format!(
                "{}, mtu {}, {}",
                report.device.name,
                report.device.mtu,
                report.device.addresses.join(", ")
            ),
        ),
        ("listen", listen.join(", ")),
        (
            "peers",
            format!("{} of {} connected", report.peers_up, report.peers_total),
        ),
        (
            "in",
            format!(
                "{}, {} packets",
                bytes(traffic.bytes_in),
                count(traffic.packets_in)
            ),
        ),
        (
            "out",
            format!(
                "{}, {} packets",
                bytes(traffic.bytes_out),
                count(traffic.packets_out)
            ),
        ),
        ("ciphers", ciphers(report)),
        (
            "handshake",
            format!(
                "{} ML-KEM operations, {} signatures made, {} verified",
                count(report.handshakes.kem),
                count(report.handshakes.sign),
                count(report.handshakes.verify)
            ),
        ),
        (
            "drops",
            if drops.is_empty() {
                "none".into()
            } else {
                drops.join(", ")
            },
        ),
        (
            "cost",
            format!(
                "{:.1} s of CPU, {} of memory",
                report.cpu_ms as f64 / 1000.0,
                bytes(report.memory_kib * 1024)
            ),
        ),
    ];
    rows.map(|(name, value)| format!("{name:<10} {value}\n"))
        .concat()
}

fn ciphers(report: &NodeReport) -> String {
    let speed = |name: &str, mb_s: u32| match mb_s {
        0 => format!("{name} refused"),
        mb_s => format!("{name} {mb_s} MB/s"),
    };
    let speeds = &report.cipher_speeds;
    format!(
        "{}, {}",
        speed("aes-256-gcm", speeds.aes_256_gcm),
        speed("chacha20-poly1305", speeds.chacha20_poly1305)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_named_by_reason() {
        let mut report = NodeReport::default();
        assert!(text(&report).contains("drops      none\n"));
        report.drops.insert("replayed".into(), 1234);
        assert!(text(&report).contains("drops      replayed 1,234\n"));
    }
}
