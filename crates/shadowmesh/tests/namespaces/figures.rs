//! What a person is told of ways to peers: `doctor`, `status`, and the metrics endpoint.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;
use shadowmesh::lab::{LabNode, RelayedLab, wait_until};
use shadowmesh_io::lab::{NatBoxConfig, NatBoxKind};

use crate::support::{REACHABLE_MAX, in_internet, in_relayed_lab};

const METRICS: &str = "127.0.0.1:9464";
/// Figures are told anew after a second; a machine that also compiles may take its time.
const TOLD_MAX: Duration = Duration::from_secs(5);

/// One sample of a node's metrics, by its name and labels as written.
fn sample(node: &LabNode, name: &str) -> Option<f64> {
    let text = node.netns.run(|| {
        let mut stream = TcpStream::connect(METRICS).ok()?;
        let get = format!("GET /metrics HTTP/1.1\r\nHost: {METRICS}\r\n\r\n");
        stream.write_all(get.as_bytes()).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().parse().ok()
}

#[test]
fn a_relayed_pair_is_told_as_such_by_metrics_status_and_doctor_and_figures_grow() {
    let name =
        "figures::a_relayed_pair_is_told_as_such_by_metrics_status_and_doctor_and_figures_grow";
    in_relayed_lab(
        name,
        |program, directory| RelayedLab::apart(program, directory, 1),
        |lab| {
            lab.configure().unwrap();
            serve_metrics(&lab.nodes);
            lab.start_all().unwrap();
            let (from, to, relay) = (&lab.nodes[0], &lab.nodes[1], &lab.nodes[2]);
            let reached = from.ping_until_answered(to.overlay_v4().into(), REACHABLE_MAX);
            assert!(reached.is_some(), "n1 does not reach n2");

            let relayed = "shadowmesh_p2p_connections_total{type=\"relay\"}";
            let told = || sample(from, relayed) >= Some(1.0);
            assert!(wait_until(TOLD_MAX, told), "{:?}", sample(from, relayed));
            assert_eq!(sample(from, "shadowmesh_paths{type=\"relay\"}"), Some(1.0));
            assert_eq!(sample(from, "shadowmesh_relays{state=\"up\"}"), Some(1.0));
            assert_eq!(sample(relay, "shadowmesh_relay_clients"), Some(2.0));

            let passed = "shadowmesh_relay_datagrams_total";
            let before = sample(relay, passed).unwrap();
            let sent = from.ping(to.overlay_v4().into(), 50, Duration::from_millis(5));
            assert_eq!(sent.unwrap().received, 50);
            let grown = || sample(relay, passed) >= Some(before + 100.0);
            assert!(wait_until(TOLD_MAX, grown), "{:?}", sample(relay, passed));

            let status = relay.query("status", &[]).unwrap();
            assert_eq!(status["relaying"]["clients"], 2);
            let status = from.query("status", &[]).unwrap();
            assert_eq!(status["relays"][0]["id"], relay.id.to_string());
            assert_eq!(status["relays"][0]["state"], "up");

            let said = from.doctor().unwrap();
            assert_eq!(said["ok"], true, "{said}");
            let peer = &said["peers"][0];
            assert_eq!(peer["level"], "note", "{said}");
            assert!(
                peer["says"].as_str().unwrap().contains("relay sm1"),
                "{said}"
            );
            let network = said["network"].as_array().unwrap();
            let udp = network.iter().find(|finding| finding["about"] == "UDP");
            assert_eq!(udp.unwrap()["level"], "ok", "{said}");
        },
    );
}

/// Switches the endpoint on at every node of a laboratory that is configured.
fn serve_metrics(nodes: &[LabNode]) {
    for node in nodes {
        let file = OpenOptions::new().append(true).open(node.config_path());
        writeln!(file.unwrap(), "[metrics]\nlisten = \"{METRICS}\"").unwrap();
    }
}

#[test]
fn a_move_from_relay_to_direct_through_two_nats_is_counted_and_told() {
    let name = "figures::a_move_from_relay_to_direct_through_two_nats_is_counted_and_told";
    let nat = [NatBoxConfig::new(NatBoxKind::PortRestricted)];
    in_internet(name, |internet| {
        internet.start_relays().unwrap();
        let mut pair = internet.test_pair([&nat, &nat]);
        serve_metrics(&pair.nodes);
        pair.start().unwrap();
        let (from, to) = (&pair.nodes[0], &pair.nodes[1]);
        let reached = from.ping_until_answered(to.overlay_v4().into(), REACHABLE_MAX);
        assert!(reached.is_some(), "n1 does not reach n2");
        let direct = "shadowmesh_paths{type=\"direct\"}";
        let told = || sample(from, direct) == Some(1.0);
        assert!(wait_until(REACHABLE_MAX, told), "{:?}", from.doctor());
        let moved = "shadowmesh_p2p_migrations_total{status=\"success\"}";
        let took = "shadowmesh_p2p_migration_duration_seconds_count";
        let moves = sample(from, moved).unwrap();
        let first = sample(from, "shadowmesh_p2p_connections_total{type=\"relay\"}").unwrap();
        assert!(moves >= 1.0 || first == 0.0, "{moves} moves of {first}");
        assert_eq!(sample(from, took), Some(moves));
        let said = from.doctor().unwrap();
        assert_eq!(said["peers"][0]["level"], "ok", "{said}");
    });
}

#[test]
fn a_relay_that_is_gone_is_told_by_the_doctor_with_and_without_a_node() {
    let name = "figures::a_relay_that_is_gone_is_told_by_the_doctor_with_and_without_a_node";
    in_relayed_lab(
        name,
        |program, directory| RelayedLab::apart(program, directory, 1),
        |lab| {
            lab.configure().unwrap();
            lab.relays()[0].start().unwrap();
            let well = || {
                let said = lab.nodes[0].doctor().unwrap();
                assert_eq!(said["node_running"], false, "{said}");
                let network = said["network"].as_array().unwrap();
                let udp = network.iter().find(|finding| finding["about"] == "UDP");
                udp.unwrap()["level"] == "ok"
            };
            assert!(
                wait_until(REACHABLE_MAX, well),
                "{}",
                lab.nodes[0].doctor().unwrap()
            );
            lab.relays()[0].kill().unwrap();
            lab.nodes[0].start().unwrap();
            let told = || {
                let said = lab.nodes[0].doctor().unwrap();
                let network = said["network"].as_array().unwrap();
                let bad = |finding: &Value| {
                    let about = finding["about"].as_str().unwrap();
                    about.starts_with("relay sm1") && finding["level"] == "bad"
                };
                said["node_running"] == true && said["ok"] == false && network.iter().any(bad)
            };
            assert!(
                wait_until(REACHABLE_MAX, told),
                "{}",
                lab.nodes[0].doctor().unwrap()
            );
        },
    );
}
