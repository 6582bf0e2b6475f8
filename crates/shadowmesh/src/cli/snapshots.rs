//! What every verb prints, at 80 and at 200 columns, as files beside this one: a change of what people see is
//! seen in review. Set `SHADOWMESH_WRITE_SNAPSHOTS` to have them written anew.

use std::path::PathBuf;

use clap::CommandFactory;

use super::args::Cli;
use super::layout::Width;
use crate::admin::report::{
    AddressKind, CandidateReport, NodeReport, PathKind, PathReport, PeerReport, PeerState,
    RelayReport, RelayingReport, TrafficReport,
};
use crate::config::tests::id;

/// Set, it has the files written anew instead of compared.
const WRITE: &str = "SHADOWMESH_WRITE_SNAPSHOTS";

/// Holds what `render` prints against `snapshots/NAME.COLUMNS.txt`, and its lines against the width.
pub(super) fn hold(name: &str, render: impl Fn(Width) -> String) {
    for columns in [80, 200] {
        let text = render(Width(Some(columns)));
        for line in text.lines() {
            let long = line.chars().count();
            assert!(long <= columns, "{name}: {long} columns: {line}");
        }
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/cli/snapshots");
        let path = directory.join(format!("{name}.{columns}.txt"));
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let held = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            held == text,
            "{name} at {columns} columns is not what {} holds; if it is meant: {WRITE}=1\n{text}",
            path.display()
        );
    }
}

/// A path as long as they come.
fn path(kind: PathKind) -> PathReport {
    PathReport {
        kind,
        remote: (kind == PathKind::Direct).then(|| {
            "[2001:db8:1234:5678:9abc:def0:1234:5678]:44333"
                .parse()
                .unwrap()
        }),
        relay: (kind == PathKind::Relay).then(|| id(9)),
        relay_name: None,
        local: None,
        rtt_us: Some(123_456),
        mtu: Some(1478),
    }
}

pub(super) fn peers() -> Vec<PeerReport> {
    let peer = |n: u8, name: Option<&str>, kind: Option<PathKind>| PeerReport {
        id: id(n),
        name: name.map(str::to_owned),
        state: match kind {
            Some(_) => PeerState::Up,
            None => PeerState::Connecting,
        },
        problem: kind.is_none().then(|| "no answer".into()),
        cause: None,
        seen_age_ms: Some(2_000),
        handshake_age_ms: (n != 3).then_some(192_000),
        path: kind.map(path),
        epoch: kind.map(|_| 17),
        cipher: kind.map(|_| "chacha20-poly1305".into()),
        data_plane: kind.map(|_| "quic (sealed frames do not pass)".into()),
        allowed_ips: vec![
            format!("10.100.1.{n}/32"),
            "fd12:3456:789a:bcde:f012:3456:789a:bcde/128".into(),
        ],
        traffic: TrafficReport {
            bytes_in: 123_456_789,
            bytes_out: 999_950_000_000,
            ..TrafficReport::default()
        },
        session_age_ms: kind.map(|_| 192_000),
        key_age_ms: kind.map(|_| 72_000),
        resumed: kind.map(|_| true),
        observed: None,
        copied: None,
    };
    vec![
        peer(1, Some("vps"), Some(PathKind::Direct)),
        peer(
            2,
            Some("a-laptop-with-quite-a-long-name.example"),
            Some(PathKind::Relay),
        ),
        peer(3, None, None),
    ]
}

pub(super) fn node() -> NodeReport {
    let mut node = NodeReport {
        id: id(7),
        version: "0.1.0".into(),
        pid: 1_234_567,
        uptime_ms: 7_500_000,
        listen: vec![
            "0.0.0.0:4433".parse().unwrap(),
            "[::]:4433".parse().unwrap(),
        ],
        peers_total: 3,
        peers_up: 2,
        ..NodeReport::default()
    };
    node.device.name = "shadow0".into();
    node.device.mtu = 1420;
    node.device.addresses = vec![
        "10.100.218.173/16".into(),
        "fd12:3456:789a:bcde:f012:3456:789a:bcde/48".into(),
    ];
    let candidate = |address: &str, kind, seen_by| CandidateReport {
        address: address.parse().unwrap(),
        kind,
        seen_by,
    };
    node.candidates = vec![
        candidate("192.168.1.5:4433", AddressKind::Host, 0),
        candidate(
            "[2001:db8:1234:5678:9abc:def0:1234:5678]:4433",
            AddressKind::Host,
            2,
        ),
        candidate("203.0.113.9:61000", AddressKind::Observed, 1),
        candidate("203.0.113.9:4433", AddressKind::Mapped, 0),
    ];
    let relay = |n: u8, state, problem: Option<&str>| RelayReport {
        id: id(n),
        name: None,
        state,
        problem: problem.map(str::to_owned),
        path: (state == PeerState::Up).then(|| path(PathKind::Direct)),
        observed: None,
        observed_second: None,
    };
    node.relays = vec![
        relay(8, PeerState::Up, None),
        relay(9, PeerState::Connecting, Some("no answer")),
    ];
    node.relaying = Some(RelayingReport {
        clients: 12,
        datagrams: 1_234_567,
        bytes: 1_234_567_890,
    });
    for (reason, count) in [
        ("replayed", 1234),
        ("seal_forged", 7),
        ("handshake_source", 1),
        ("stale_snapshot", 99),
    ] {
        node.drops.insert(reason.into(), count);
    }
    node
}

#[test]
fn help_of_every_verb_fits() {
    let names: Vec<String> = Cli::command()
        .get_subcommands()
        .map(|verb| verb.get_name().into())
        .collect();
    hold("help", |width| help(&[], width));
    for verb in names {
        hold(&format!("help-{verb}"), |width| help(&[&verb], width));
    }
    hold("help-config-check", |width| {
        help(&["config", "check"], width)
    });
    hold("help-bench-handshake", |width| {
        help(&["bench", "handshake"], width)
    });
}

fn help(verb: &[&str], Width(columns): Width) -> String {
    let mut command = Cli::command().term_width(columns.unwrap_or(0));
    let line = ["shadowmesh"].iter().chain(verb).chain(&["--help"]);
    command
        .try_get_matches_from_mut(line)
        .unwrap_err()
        .to_string()
}
