//! What the verbs say about running nodes, and what they make them do.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use shadowmesh::lab::{Family, LabNode};

use crate::support::{REACHABLE_MAX, in_lab_on_each_plane};

/// A verb, run on the node's own machine.
fn query(node: &LabNode, verb: &str, arguments: &[&str]) -> Value {
    node.netns
        .run(|| node.query(verb, arguments))
        .unwrap_or_else(|error| panic!("{verb}: {error}"))
}

#[test]
fn ping_connects_by_itself_and_takes_name_id_and_overlay_address() {
    let name = "verbs::ping_connects_by_itself_and_takes_name_id_and_overlay_address";
    in_lab_on_each_plane(name, 2, |lab| {
        lab.configure_full_mesh(Family::V4).unwrap();
        lab.start_all().unwrap();
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        let started = || first.query("status", &[]).is_ok() && second.query("status", &[]).is_ok();
        assert!(shadowmesh::lab::wait_until(REACHABLE_MAX, started));
        for wanted in [
            second.name.clone(),
            second.id.to_string(),
            second.overlay_v4().to_string(),
            second.overlay_v6().to_string(),
        ] {
            let report = query(
                first,
                "ping",
                &[&wanted, "--count", "3", "--interval", "10ms"],
            );
            assert_eq!(report["received"], 3, "{wanted}: {report:#}");
            assert_eq!(report["id"], second.id.to_string());
            assert_eq!(report["probes"][0]["path"]["kind"], "direct");
            let remote = second.underlay(Family::V4).to_string();
            assert_eq!(report["probes"][0]["path"]["remote"], remote);
            assert!(report["rtt"]["p50_us"].as_u64().unwrap() > 0);
        }
        let refused = first.command("ping").arg("nobody").output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("`nobody` is not a peer"), "{said}");
    });
}

#[test]
fn bench_measures_both_directions_and_round_trips_through_the_tunnel() {
    let name = "verbs::bench_measures_both_directions_and_round_trips_through_the_tunnel";
    in_lab_on_each_plane(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        let received = |node| {
            let status = query(node, "status", &[]);
            status["traffic"]["bytes_in"].as_u64().unwrap()
        };
        let before = received(second);
        let report = query(first, "bench", &[&second.name, "--seconds", "1"]);
        let sent = report["upload"]["bytes"].as_u64().unwrap();
        assert!(
            sent > 0 && report["download"]["bytes"].as_u64().unwrap() > 0,
            "{report:#}"
        );
        assert!(report["latency"]["p99_us"].as_u64() >= report["latency"]["p50_us"].as_u64());
        assert!(
            received(second) - before >= sent,
            "it went through the tunnel"
        );
    });
}

#[test]
fn status_and_peers_show_the_session_and_the_socket_is_private() {
    let name = "verbs::status_and_peers_show_the_session_and_the_socket_is_private";
    in_lab_on_each_plane(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        let status = query(first, "status", &[]);
        assert_eq!(status["id"], first.id.to_string());
        assert_eq!(
            (&status["peers_up"], &status["peers_total"]),
            (&1.into(), &1.into())
        );
        assert!(
            status["traffic"]["packets_in"].as_u64() > Some(0),
            "{status:#}"
        );
        assert!(status["drops"].is_object());

        let peers = query(first, "peers", &[]);
        let peer = &peers["peers"][0];
        assert_eq!(peer["id"], second.id.to_string());
        assert_eq!(peer["state"], "up");
        assert!(
            peer["epoch"].is_u64() && peer["cipher"].is_string(),
            "{peer:#}"
        );
        assert_eq!(
            peer["path"]["remote"],
            second.underlay(Family::V4).to_string()
        );

        let socket = first.state_dir().join("admin.sock");
        assert_eq!(
            fs::metadata(socket).unwrap().permissions().mode() & 0o777,
            0o600
        );
    });
}

#[test]
fn a_second_node_is_kept_out_of_a_state_directory_in_use() {
    let name = "verbs::a_second_node_is_kept_out_of_a_state_directory_in_use";
    in_lab_on_each_plane(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        let first = &lab.nodes[0];
        let refused = first.command("up").output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("already runs with state directory"), "{said}");
        assert!(said.contains(&first.pid().unwrap().to_string()), "{said}");
    });
}
