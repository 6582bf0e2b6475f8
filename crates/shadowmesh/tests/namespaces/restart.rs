//! A node that dies and comes back is met again at once, and nobody has to help.

use std::time::Duration;

use shadowmesh::lab::{Family, wait_until};

use crate::support::in_lab_on_each_plane;

/// What a peer that comes back is promised: so long from its restart to the first packet.
const RECOVERY_MAX: Duration = Duration::from_millis(1500);

fn kill_and_restart_one_side(name: &str, killed: usize, pinging: usize) {
    in_lab_on_each_plane(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        let target = lab.nodes[1 - pinging].overlay_v4().into();
        lab.nodes[killed].kill().unwrap();
        lab.nodes[killed].start().unwrap();
        let recovery = lab.nodes[pinging].ping_until_answered(target, RECOVERY_MAX * 4);
        let recovery = recovery.expect("the pair finds each other again");
        println!("recovered after {recovery:?}");
        assert!(recovery < RECOVERY_MAX, "{recovery:?}");
    });
}

#[test]
fn after_kill_9_the_surviving_side_reaches_the_restarted_one() {
    let name = "restart::after_kill_9_the_surviving_side_reaches_the_restarted_one";
    kill_and_restart_one_side(name, 1, 0);
}

#[test]
fn after_kill_9_the_restarted_side_reaches_the_surviving_one() {
    let name = "restart::after_kill_9_the_restarted_side_reaches_the_surviving_one";
    kill_and_restart_one_side(name, 0, 0);
}

#[test]
fn a_node_that_leaves_says_so() {
    in_lab_on_each_plane("restart::a_node_that_leaves_says_so", 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        lab.nodes[1].stop().unwrap();
        let staying = &lab.nodes[0];
        let is_alone = || staying.query("status", &[]).unwrap()["peers_up"] == 0;
        // Silence alone would take seconds to be noticed.
        assert!(
            wait_until(Duration::from_secs(1), is_alone),
            "{}",
            staying.log()
        );
    });
}
