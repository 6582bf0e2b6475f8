//! Set-ups that are wrong in one way each: the doctor names the cause, and its advice, followed to the letter,
//! connects the two.

use std::time::Duration;

use serde_json::Value;
use shadowmesh::lab::{Family, LabNode, wait_until};

use crate::support::{REACHABLE_MAX, TestLab, in_lab};

/// Nobody types anything on either side, and they have met again within this time.
const ALONE_MAX: Duration = Duration::from_secs(60);

/// What the doctor says of the only peer, as soon as it begins like this.
fn verdict(node: &LabNode, begins: &str) -> Value {
    let mut said = Value::Null;
    let told = wait_until(REACHABLE_MAX, || {
        said = node.doctor().unwrap();
        let says = said["peers"][0]["says"].as_str().unwrap_or_default();
        says.starts_with(begins)
    });
    assert!(told, "never {begins:?}: {said:#}");
    said["peers"][0].clone()
}

fn is_up(node: &LabNode) -> bool {
    let peers = node.query("peers", &[]).unwrap_or_default();
    peers["peers"][0]["state"] == "up"
}

fn start(lab: &mut TestLab) {
    for node in &mut lab.nodes {
        node.start().unwrap();
    }
    let up = |lab: &TestLab| lab.nodes.iter().all(LabNode::answers);
    assert!(wait_until(REACHABLE_MAX, || up(lab)), "both start");
}

fn restart(node: &mut LabNode) {
    node.stop().unwrap();
    node.start().unwrap();
    assert!(wait_until(REACHABLE_MAX, || node.answers()), "it starts");
}

fn meet(lab: &TestLab) {
    let met = || lab.nodes.iter().all(is_up);
    assert!(wait_until(ALONE_MAX, met), "they meet without a word");
}

#[test]
fn a_wrong_port_is_named_with_the_right_one() {
    in_lab(
        "wrong::a_wrong_port_is_named_with_the_right_one",
        2,
        |lab| {
            let mut there = lab.nodes[1].as_peer(Family::V4);
            there.addresses[0].set_port(4444);
            lab.nodes[0].configure(&[there.clone()]).unwrap();
            lab.nodes[1]
                .configure(&[lab.nodes[0].as_unreachable_peer()])
                .unwrap();
            start(lab);
            let right = lab.nodes[1].underlay(Family::V4);
            let begins = format!(
                "nothing answers at {}:4444, but a node answers at {right}",
                right.ip()
            );
            let said = verdict(&lab.nodes[0], &begins);
            assert_eq!(said["level"], "bad");
            assert_eq!(said["block"], format!("address = [\"{right}\"]"));
            // The other side waits, and says what must stand in the file here.
            let other = verdict(&lab.nodes[1], "waits for its call");
            let block = other["block"].as_str().unwrap();
            assert!(block.contains(&right.to_string()), "{block}");
            assert!(block.contains(&lab.nodes[1].id.to_string()), "{block}");

            there.addresses = vec![right];
            lab.nodes[0].configure(&[there]).unwrap();
            restart(&mut lab.nodes[0]);
            meet(lab);
        },
    );
}

#[test]
fn another_machines_id_is_told_from_a_firewall() {
    in_lab(
        "wrong::another_machines_id_is_told_from_a_firewall",
        3,
        |lab| {
            let mut there = lab.nodes[1].as_peer(Family::V4);
            there.id = lab.nodes[2].id;
            lab.nodes[0].configure(&[there.clone()]).unwrap();
            lab.nodes[1]
                .configure(&[lab.nodes[0].as_unreachable_peer()])
                .unwrap();
            for node in &mut lab.nodes[..2] {
                node.start().unwrap();
            }
            let at = lab.nodes[1].underlay(Family::V4);
            let said = verdict(
                &lab.nodes[0],
                &format!("a node answers at {at}, but not to this PeerId"),
            );
            assert!(
                said["next"].as_str().unwrap().contains("shadowmesh id"),
                "{said:#}"
            );

            there.id = lab.nodes[1].id;
            lab.nodes[0].configure(&[there]).unwrap();
            restart(&mut lab.nodes[0]);
            let met = || lab.nodes[..2].iter().all(is_up);
            assert!(wait_until(ALONE_MAX, met), "they meet without a word");
        },
    );
}

// PROTOCOL SM-OV-7
#[test]
fn a_refusal_is_told_on_both_sides_and_mended_there_it_is_over_here() {
    let name = "wrong::a_refusal_is_told_on_both_sides_and_mended_there_it_is_over_here";
    in_lab(name, 3, |lab| {
        // The far side has a third machine's PeerId in the place of ours.
        let ours = lab.nodes[0].as_unreachable_peer();
        let mut wrong = ours.clone();
        wrong.id = lab.nodes[2].id;
        lab.nodes[0]
            .configure(&[lab.nodes[1].as_peer(Family::V4)])
            .unwrap();
        lab.nodes[1].configure(&[wrong]).unwrap();
        for node in &mut lab.nodes[..2] {
            node.start().unwrap();
        }
        let said = verdict(&lab.nodes[0], "it refuses this machine");
        let block = said["block"].as_str().unwrap();
        assert!(
            block.contains(&format!("id = \"{}\"", lab.nodes[0].id)),
            "{block}"
        );

        let begins = format!("a node at {} calls this one as", lab.nodes[0].underlay_v4);
        let other = verdict(&lab.nodes[1], &begins);
        assert_eq!(other["block"], format!("id = \"{}\"", lab.nodes[0].id));
        let peers = lab.nodes[1].query("peers", &[]).unwrap();
        let caller = &peers["refused_callers"][0];
        assert_eq!(caller["id"], lab.nodes[0].id.to_string(), "{peers:#}");
        let lines = lab.nodes[1].log().matches("a caller is refused").count();
        assert_eq!(lines, 1, "the log is not flooded");

        lab.nodes[1].configure(&[ours]).unwrap();
        restart(&mut lab.nodes[1]);
        let met = || lab.nodes[..2].iter().all(is_up);
        assert!(wait_until(ALONE_MAX, met), "they meet without a word");
    });
}

#[test]
fn a_far_side_that_was_stopped_is_told_and_met_again_when_it_starts() {
    let name = "wrong::a_far_side_that_was_stopped_is_told_and_met_again_when_it_starts";
    in_lab(name, 2, |lab| {
        lab.nodes[0]
            .configure(&[lab.nodes[1].as_peer(Family::V4)])
            .unwrap();
        lab.nodes[1]
            .configure(&[lab.nodes[0].as_unreachable_peer()])
            .unwrap();
        start(lab);
        meet(lab);
        lab.nodes[1].stop().unwrap();
        let said = verdict(&lab.nodes[0], "stopped there: its node said goodbye");
        assert!(
            said["next"].as_str().unwrap().contains("shadowmesh up"),
            "{said:#}"
        );
        // Where no node runs, that is what is said first, and all is not well.
        let there = lab.nodes[1].doctor().unwrap();
        let first = &there["network"][0];
        assert_eq!(
            (&first["about"], &first["level"]),
            (&"node".into(), &"bad".into()),
            "{there:#}"
        );
        assert_eq!(there["ok"], false);
        let peers = lab.nodes[0].query("peers", &[]).unwrap();
        assert!(
            peers["peers"][0]["seen_age_ms"].is_u64(),
            "also when it is down: {peers:#}"
        );
        assert!(peers["peers"][0]["handshake_age_ms"].is_u64(), "{peers:#}");

        lab.nodes[1].start().unwrap();
        meet(lab);
    });
}

#[test]
fn a_relay_beside_a_node_is_told_to_be_one_with_it_and_an_address_of_another_machine_is_no_taken_port()
 {
    let name = "wrong::a_relay_beside_a_node_is_told_to_be_one_with_it_and_an_address_of_another_machine_is_no_taken_port";
    in_lab(name, 2, |lab| {
        let [first, second] = &mut lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        first.configure(&[]).unwrap();
        first.start().unwrap();
        assert!(wait_until(REACHABLE_MAX, || first.answers()));
        let refused = first.netns.run(|| first.command("relay").output()).unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && said.contains("`enabled = true` in [relay]"),
            "{said}"
        );

        let strange = first.underlay(Family::V4);
        second.settings.listen = vec![strange];
        second.configure(&[]).unwrap();
        let said = second.doctor().unwrap();
        let all = said["network"].as_array().unwrap();
        let listen = all
            .iter()
            .find(|found| found["about"] == "listen")
            .expect("a finding");
        let says = listen["says"].as_str().unwrap();
        assert!(says.contains("is no address of this machine"), "{said:#}");
        assert!(
            !listen["next"].as_str().unwrap().contains("stop"),
            "{said:#}"
        );
    });
}
