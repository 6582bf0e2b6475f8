//! Which cipher a session has follows from what both machines allow and from what they measured, and
//! people see it.

use std::time::Duration;

use serde_json::Value;
use shadowmesh::lab::{Family, LabNode, wait_until};

use crate::support::{REACHABLE_MAX, TestLab, in_lab};

const AES: &str = "aes-256-gcm";
const CHACHA: &str = "chacha20-poly1305";

/// Time for both sides to have called in vain.
const PROBLEM_MAX: Duration = Duration::from_secs(10);

fn configure(lab: &mut TestLab, settings: [&str; 2]) {
    for (node, cipher) in lab.nodes.iter_mut().zip(settings) {
        node.settings.cipher = cipher.into();
    }
}

/// The only peer of a node.
fn peer_of(node: &LabNode) -> Value {
    node.query("peers", &[]).unwrap()["peers"][0].clone()
}

/// What a verb prints for people who want all of it.
fn text(node: &LabNode, verb: &str) -> String {
    let output = node.command(verb).arg("--wide").output().unwrap();
    assert!(output.status.success(), "{verb}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Measured speeds of both ciphers as the node tells them, 0 for one that it refuses.
fn speeds(node: &LabNode) -> [u64; 2] {
    let status = node.query("status", &[]).unwrap();
    ["aes_256_gcm", "chacha20_poly1305"].map(|name| {
        let speed = &status["cipher_speeds"][name];
        speed.as_u64().unwrap_or_else(|| panic!("{status:#}"))
    })
}

fn each_side_uses(lab: &TestLab, cipher: &str) {
    for node in &lab.nodes {
        assert_eq!(peer_of(node)["cipher"], cipher, "{}", node.name);
        let shown = text(node, "peers");
        assert!(shown.contains(&format!(" {cipher} ")), "{shown}");
    }
}

// PROTOCOL SM-SF-8
#[test]
fn a_side_that_allows_one_cipher_only_gets_it_from_one_that_measures() {
    let name = "ciphers::a_side_that_allows_one_cipher_only_gets_it_from_one_that_measures";
    in_lab(name, 2, |lab| {
        for forced in [CHACHA, AES] {
            configure(lab, ["auto", forced]);
            lab.bring_up_full_mesh(Family::V4);
            each_side_uses(lab, forced);
            let other = if forced == AES { CHACHA } else { AES };
            let shown = text(&lab.nodes[1], "status");
            assert!(shown.contains(&format!("{other} refused")), "{shown}");
            assert!(!text(&lab.nodes[0], "status").contains("refused"));
            lab.stop_all().unwrap();
        }
    });
}

// PROTOCOL SM-SF-8
#[test]
fn two_sides_that_measure_use_the_cipher_whose_slower_side_is_faster() {
    let name = "ciphers::two_sides_that_measure_use_the_cipher_whose_slower_side_is_faster";
    in_lab(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        let [first, second] = [0, 1].map(|at| speeds(&lab.nodes[at]));
        let slower = |cipher: usize| first[cipher].min(second[cipher]);
        assert!(slower(0) > 0 && slower(1) > 0, "{first:?} {second:?}");
        let expected = if slower(0) >= slower(1) { AES } else { CHACHA };
        each_side_uses(lab, expected);
        for (node, speeds) in lab.nodes.iter().zip([first, second]) {
            let shown = text(node, "status");
            let line = format!("{AES} {} MB/s, {CHACHA} {} MB/s", speeds[0], speeds[1]);
            assert!(shown.contains(&line), "{shown}");
        }
    });
}

// PROTOCOL SM-SF-8
// PROTOCOL SM-CT-4
#[test]
fn two_sides_without_a_common_cipher_have_no_session_and_both_say_why() {
    let name = "ciphers::two_sides_without_a_common_cipher_have_no_session_and_both_say_why";
    in_lab(name, 2, |lab| {
        configure(lab, [AES, CHACHA]);
        lab.configure_full_mesh(Family::V4).unwrap();
        lab.start_all().unwrap();
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        // Only one side calls: the other has to say it as well.
        let answer = first.ping_until_answered(second.overlay_v4().into(), Duration::from_secs(2));
        assert!(answer.is_none(), "nothing passes without a cipher");
        for (node, ours, theirs) in [(first, AES, CHACHA), (second, CHACHA, AES)] {
            let problem = format!("no common cipher: we allow only {ours}, the peer only {theirs}");
            let told = wait_until(PROBLEM_MAX, || peer_of(node)["problem"] == *problem);
            let peer = peer_of(node);
            assert!(told, "{}: {peer:#}", node.name);
            assert!(
                peer["cipher"].is_null() && peer["state"] != "up",
                "{peer:#}"
            );
            let shown = text(node, "peers");
            assert!(shown.contains(&problem), "{shown}");
        }

        // One setting on one side mends it.
        lab.stop_all().unwrap();
        configure(lab, ["auto", CHACHA]);
        lab.configure_full_mesh(Family::V4).unwrap();
        lab.start_all().unwrap();
        lab.wait_until_reachable(REACHABLE_MAX).unwrap();
        each_side_uses(lab, CHACHA);
    });
}
