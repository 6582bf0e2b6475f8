//! `shadowmesh peers`

use serde::Serialize;

use super::args::Global;
use super::failure::Failure;
use super::layout::{Column, Table, Width};
use super::output::{age, bytes, rtt, short_id};
use super::{ask, output, unexpected};
use crate::admin::protocol::{Request, Response};
use crate::admin::report::{CallerReport, PathKind, PathReport, PeerReport, PeerState};

/// What `peers` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct PeersReport {
    /// Every peer, in the order of the configuration.
    peers: Vec<PeerReport>,
    /// Who called and was refused, the latest first.
    refused_callers: Vec<CallerReport>,
    /// What is wrong with the device, if anything.
    device_problem: Option<String>,
}

pub fn run(global: &Global) -> Result<(), Failure> {
    let peers = match ask(global, &Request::Peers)? {
        Response::Peers(peers) => peers,
        other => return Err(unexpected(&other)),
    };
    let node = match ask(global, &Request::Status)? {
        Response::Status(node) => *node,
        other => return Err(unexpected(&other)),
    };
    let (device, refused_callers) = (node.device, node.refused_callers);
    if global.json {
        output::json(&PeersReport {
            peers,
            refused_callers,
            device_problem: device.problem,
        });
    } else if peers.is_empty() {
        output::line(
            "no peers: add a [[peer]] block; `shadowmesh id` on the other machine prints it",
        );
        output::print(&refused(&refused_callers, global.width()));
    } else {
        let width = global.width();
        output::print(&text(&peers, width));
        output::print(&refused(&refused_callers, width));
        for trouble in device.troubles() {
            output::print(&width.hang("device: ", trouble));
        }
    }
    Ok(())
}

/// The table, and below it what keeps peers from being up.
fn text(peers: &[PeerReport], width: Width) -> String {
    let mut text = table(peers).to_text(width);
    for peer in peers {
        if let Some(problem) = &peer.problem {
            text += &width.hang(&format!("{}: ", called(peer)), problem);
        }
        if let Some(copied) = peer.copied {
            let says = format!("{}; {}", copied.says(), copied.next());
            text += &width.hang(&format!("{}: ", called(peer)), &says);
        }
    }
    text
}

/// The last caller that was refused, with what would let it in.
fn refused(callers: &[CallerReport], width: Width) -> String {
    callers.first().map_or(String::new(), |caller| {
        let says = format!(
            "{} called {} ago from {}, and no [[peer]] here has its PeerId; if it is one of your machines, add:",
            short_id(&caller.id),
            age(caller.age_ms),
            caller.address
        );
        width.hang("refused: ", &says) + &format!("  [[peer]]\n  id = \"{}\"\n", caller.id)
    })
}

/// What the columns are, and which a narrow terminal goes without.
const COLUMNS: [Column; 15] = [
    Column::new("NAME").wraps(8),
    Column::new("STATE"),
    Column::new("SEEN"),
    Column::new("HANDSHAKE"),
    Column::new("PATH").wraps(20),
    Column::new("RTT").rank(1),
    Column::new("IN").rank(2),
    Column::new("OUT").rank(2),
    Column::new("ADDRESSES").rank(3).wraps(15),
    Column::new("ID").rank(4),
    Column::new("PLANE").rank(5),
    Column::new("MTU").rank(6),
    Column::new("CIPHER").rank(7),
    Column::new("KEY AGE").rank(8),
    Column::new("EPOCH").rank(9),
];

fn table(peers: &[PeerReport]) -> Table {
    let mut table = Table::new(COLUMNS);
    for peer in peers {
        let path = peer.path.as_ref();
        table.row([
            called(peer),
            state(peer.state).into(),
            or_dash(peer.seen_age_ms.map(age)),
            or_dash(peer.handshake_age_ms.map(age)),
            or_dash(path.map(path_text)),
            or_dash(path.and_then(|path| path.rtt_us).map(rtt)),
            bytes(peer.traffic.bytes_in),
            bytes(peer.traffic.bytes_out),
            peer.allowed_ips.join(", "),
            short_id(&peer.id),
            or_dash(peer.data_plane.clone()),
            or_dash(path.and_then(|path| path.mtu).map(|mtu| mtu.to_string())),
            or_dash(peer.cipher.clone()),
            or_dash(peer.key_age_ms.map(age)),
            or_dash(peer.epoch.map(|epoch| epoch.to_string())),
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
        PeerState::Silent => "silent",
    }
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::snapshots;

    #[test]
    fn it_fits_the_terminal_and_shows_who_was_seen_when_also_when_it_is_down() {
        snapshots::hold("peers", |width| text(&snapshots::peers(), width));
        let caller = CallerReport {
            id: crate::config::tests::id(5),
            address: "192.0.2.7:4433".parse().unwrap(),
            age_ms: 12_000,
            count: 3,
        };
        snapshots::hold("peers-refused", |width| {
            refused(std::slice::from_ref(&caller), width)
        });
        let narrow = text(&snapshots::peers(), Width(Some(80)));
        let down = narrow
            .lines()
            .find(|line| line.contains("connecting"))
            .unwrap();
        assert!(down.contains("2 s"), "{narrow}");
    }
}
