//! `shadowmesh peers`

use std::time::Duration;

use super::args::Global;
use super::failure::Failure;
use super::output::{Table, bytes, duration, rtt, short_id};
use super::{ask, output, unexpected};
use crate::admin::protocol::{Request, Response};
use crate::admin::report::{PathKind, PathReport, PeerReport, PeerState};

pub fn run(global: &Global) -> Result<(), Failure> {
    let peers = match ask(global, &Request::Peers)? {
        Response::Peers(peers) => peers,
        other => return Err(unexpected(&other)),
    };
    let device = match ask(global, &Request::Status)? {
        Response::Status(node) => node.device,
        other => return Err(unexpected(&other)),
    };
    if global.json {
        let problem = device.problem;
        output::json(&serde_json::json!({ "peers": peers, "device_problem": problem }));
    } else if peers.is_empty() {
        output::line(
            "no peers: add a [[peer]] block; `shadowmesh id` on the other machine prints it",
        );
    } else {
        output::print(&table(&peers).to_string());
        for peer in &peers {
            if let Some(problem) = &peer.problem {
                output::line(format!("{}: {problem}", called(peer)));
            }
            if let Some(copied) = peer.copied {
                let (says, next) = (copied.says(), copied.next());
                output::line(format!("{}: {says}; {next}", called(peer)));
            }
        }
        for trouble in device.troubles() {
            output::line(format!("device: {trouble}"));
        }
    }
    Ok(())
}

fn table(peers: &[PeerReport]) -> Table {
    let mut table = Table::new([
        "NAME",
        "ID",
        "STATE",
        "PATH",
        "RTT",
        "MTU",
        "EPOCH",
        "CIPHER",
        "PLANE",
        "IN",
        "OUT",
        "KEY AGE",
        "ADDRESSES",
    ]);
    for peer in peers {
        let path = peer.path.as_ref();
        table.row([
            or_dash(peer.name.clone()),
            short_id(&peer.id),
            state(peer.state).into(),
            or_dash(path.map(path_text)),
            or_dash(path.and_then(|path| path.rtt_us).map(|us| rtt(us as f64))),
            or_dash(path.and_then(|path| path.mtu).map(|mtu| mtu.to_string())),
            or_dash(peer.epoch.map(|epoch| epoch.to_string())),
            or_dash(peer.cipher.clone()),
            or_dash(peer.data_plane.clone()),
            bytes(peer.traffic.bytes_in),
            bytes(peer.traffic.bytes_out),
            or_dash(
                peer.key_age_ms
                    .map(|ms| duration(Duration::from_millis(ms))),
            ),
            peer.allowed_ips.join(", "),
        ]);
    }
    table
}

/// What keeps `id` from being up, when the node can be asked and knows.
pub fn problem_of(global: &Global, id: &str) -> Option<String> {
    match ask(global, &Request::Peers) {
        Ok(Response::Peers(peers)) => peers.into_iter().find(|peer| peer.id == id)?.problem,
        _ => None,
    }
}

fn called(peer: &PeerReport) -> String {
    peer.name.clone().unwrap_or_else(|| short_id(&peer.id))
}

/// `direct 192.0.2.7:4433`
pub fn path_text(path: &PathReport) -> String {
    let relay = path.relay.as_deref().map(short_id);
    match (path.kind, path.remote, path.relay_name.clone().or(relay)) {
        (PathKind::Direct, Some(remote), _) => format!("direct {remote}"),
        (PathKind::Relay, _, Some(relay)) => format!("relay {relay}"),
        (PathKind::Direct, None, _) => "direct".into(),
        (PathKind::Relay, _, None) => "relay".into(),
        (PathKind::Web, ..) => "web".into(),
    }
}

fn state(state: PeerState) -> &'static str {
    match state {
        PeerState::Idle => "idle",
        PeerState::Connecting => "connecting",
        PeerState::Up => "up",
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".into())
}
