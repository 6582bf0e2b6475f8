//! `shadowmesh status`

use std::time::Duration;

use super::args::Global;
use super::failure::Failure;
use super::layout::Width;
use super::output::{bytes, count, duration, rtt as rtt_text, short_id};
use super::{ask, output, unexpected};
use crate::admin::protocol::{Request, Response};
use crate::admin::report::{AddressKind, CandidateReport, NodeReport, PeerState};

pub fn run(global: &Global) -> Result<(), Failure> {
    let report = match ask(global, &Request::Status)? {
        Response::Status(report) => report,
        other => return Err(unexpected(&other)),
    };
    if global.json {
        output::json(&report);
    } else {
        output::print(&text(&report, global.width()));
    }
    Ok(())
}

fn text(report: &NodeReport, width: Width) -> String {
    let traffic = &report.traffic;
    let listen: Vec<String> = report.listen.iter().map(ToString::to_string).collect();
    let peers = format!("{} of {} connected", report.peers_up, report.peers_total);
    let rows = [
        ("node", report.id.clone()),
        ("running", running(report)),
        ("device", device(report)),
        ("listen", listen.join(", ")),
        ("addresses", addresses(report)),
        ("peers", peers),
        ("relays", relays(report)),
        ("relaying", relaying(report)),
        ("in", moved(traffic.bytes_in, traffic.packets_in)),
        ("out", moved(traffic.bytes_out, traffic.packets_out)),
        ("ciphers", ciphers(report)),
        ("handshake", handshakes(report)),
        ("drops", drops(report)),
        ("cost", cost(report)),
    ];
    let warnings = report.warnings.iter().chain(&report.notices).cloned();
    let warnings = warnings.map(|warning| ("warning", warning));
    rows.into_iter()
        .chain(warnings)
        .map(|(name, value)| width.hang(&format!("{name:<10} "), &value))
        .collect()
}

fn running(report: &NodeReport) -> String {
    format!(
        "version {}, process {}, for {}",
        report.version,
        report.pid,
        duration(Duration::from_millis(report.uptime_ms))
    )
}

fn device(report: &NodeReport) -> String {
    let device = &report.device;
    if report.only_relays() {
        return "none: it only relays for others".into();
    }
    let addresses = device.addresses.join(", ");
    format!("{}, mtu {}, {addresses}", device.name, device.mtu)
}

/// Where others may reach this node, those that were seen first.
fn addresses(report: &NodeReport) -> String {
    let mut all: Vec<&CandidateReport> = report.candidates.iter().collect();
    all.sort_by_key(|address| std::cmp::Reverse(address.seen_by));
    let all: Vec<String> = all
        .into_iter()
        .map(|known| {
            let kind = match known.kind {
                AddressKind::Host => "",
                AddressKind::Announced => " announced",
                AddressKind::Mapped => " by the router",
                AddressKind::Observed => " from outside",
            };
            match known.seen_by {
                0 => format!("{}{kind}", known.address),
                seen_by => format!("{}{kind} (seen by {seen_by})", known.address),
            }
        })
        .collect();
    match all.is_empty() {
        true => "none known".into(),
        false => all.join(", "),
    }
}

/// The relays this node uses.
fn relays(report: &NodeReport) -> String {
    let relays: Vec<String> = report
        .relays
        .iter()
        .map(|relay| {
            let name = relay.name.clone().unwrap_or_else(|| short_id(&relay.id));
            let rtt = relay.path.as_ref().and_then(|path| path.rtt_us);
            match (relay.state, rtt, &relay.problem) {
                (PeerState::Up, Some(us), _) => format!("{name} {}", rtt_text(us)),
                (PeerState::Up, None, _) => format!("{name} up"),
                (PeerState::Silent, ..) => format!("{name} silent"),
                (_, _, Some(problem)) => format!("{name} down ({problem})"),
                (PeerState::Connecting, ..) => format!("{name} connecting"),
                (PeerState::Idle, ..) => format!("{name} in reserve"),
            }
        })
        .collect();
    match relays.is_empty() {
        true if report.only_relays() => "none: it is one itself".into(),
        true => "none: add [[relay.use]] to reach peers behind NATs at once".into(),
        false => relays.join(", "),
    }
}

/// What it does for others: how much, never for whom.
fn relaying(report: &NodeReport) -> String {
    match &report.relaying {
        None => "off".into(),
        Some(relaying) => format!(
            "{} clients, {} in {} datagrams",
            count(relaying.clients as u64),
            bytes(relaying.bytes),
            count(relaying.datagrams)
        ),
    }
}

fn moved(amount: u64, packets: u64) -> String {
    format!("{}, {} packets", bytes(amount), count(packets))
}

fn handshakes(report: &NodeReport) -> String {
    format!(
        "{} ML-KEM operations, {} signatures made, {} verified",
        count(report.handshakes.kem),
        count(report.handshakes.sign),
        count(report.handshakes.verify)
    )
}

fn drops(report: &NodeReport) -> String {
    if report.drops.is_empty() {
        return "none".into();
    }
    let drops = report.drops.iter();
    let drops: Vec<String> = drops
        .map(|(reason, n)| format!("{reason} {}", count(*n)))
        .collect();
    drops.join(", ")
}

fn cost(report: &NodeReport) -> String {
    format!(
        "{:.1} s of CPU, {} of memory",
        report.cpu_ms as f64 / 1000.0,
        bytes(report.memory_kib * 1024)
    )
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
    fn warnings_stand_below_the_rest() {
        let mut report = NodeReport::default();
        assert!(!text(&report, Width(None)).contains("warning"));
        report.warnings.push("vps: two machines".into());
        assert!(text(&report, Width(None)).ends_with("warning    vps: two machines\n"));
    }

    #[test]
    fn it_fits_the_terminal() {
        crate::cli::snapshots::hold("status", |width| {
            text(&crate::cli::snapshots::node(), width)
        });
    }

    #[test]
    fn drops_are_named_by_reason() {
        let mut report = NodeReport::default();
        assert!(text(&report, Width(None)).contains("drops      none\n"));
        report.drops.insert("replayed".into(), 1234);
        assert!(text(&report, Width(None)).contains("drops      replayed 1,234\n"));
    }
}
