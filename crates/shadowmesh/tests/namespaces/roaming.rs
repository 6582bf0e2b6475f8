//! A machine that changes its network keeps its sessions, and the programs on it their connections.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh::lab::{Family, Lab, LabNode, wiring};
use shadowmesh_io::netlink::Handle;

use crate::support::{PING_INTERVAL, in_lab_on_each_plane};

/// Where the machine is afterwards.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 177);
/// So long the transfer runs before the change.
const BEFORE: Duration = Duration::from_millis(500);
/// As much as takes longer than that and what follows it.
const BYTES: u64 = 400_000_000;
/// The change is heard from the kernel within 50 ms; then a probe has to go there and back, and inner
/// TCP to try again. Silence alone would take seconds to be noticed.
const GAP_MAX: Duration = Duration::from_secs(1);
/// As long as the pings go on.
const PINGS: u32 = 300;

/// A transfer and pings from the first node to the second, while `change` happens to the first.
fn transfer_during(lab: &Lab, change: impl FnOnce(&LabNode) + Send) {
    let [first, second] = &lab.nodes[..] else {
        panic!("two nodes were asked for");
    };
    let target: IpAddr = second.overlay_v4().into();
    let (report, pings) = thread::scope(|scope| {
        let transfer = scope
            .spawn(|| bulk::transfer(&first.netns, &second.netns, target, Amount::Bytes(BYTES)));
        let pings = scope.spawn(|| first.ping(target, PINGS, PING_INTERVAL));
        thread::sleep(BEFORE);
        change(first);
        let report = transfer.join().expect("no panic");
        (report, pings.join().expect("no panic"))
    });
    let (report, pings) = (report.expect("the connection lives"), pings.unwrap());
    let dark = PING_INTERVAL * (pings.sent - pings.received);
    println!(
        "{:.2} Gbit/s over the change, {dark:?} without an answer",
        report.gbit_s()
    );
    assert!(report.intact && report.bytes == BYTES, "{report:?}");
    assert!(dark < GAP_MAX, "{dark:?} of pings lost");
}

fn index(netlink: &Handle, name: &str) -> u32 {
    netlink.link_by_name(name).unwrap().index
}

// PROTOCOL SM-PA-2
#[test]
fn a_transfer_survives_a_change_of_address() {
    let name = "roaming::a_transfer_survives_a_change_of_address";
    in_lab_on_each_plane(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        transfer_during(lab, |node| {
            let old = node.underlay_v4.into();
            node.netns.run(|| {
                let netlink = Handle::new().unwrap();
                let cable = index(&netlink, wiring::CABLE);
                netlink.del_address(cable, old, 24).unwrap();
                netlink.add_address(cable, ELSEWHERE.into(), 24).unwrap();
            });
        });
    });
}

// PROTOCOL SM-PA-2
#[test]
fn a_transfer_survives_a_change_of_network_interface() {
    let name = "roaming::a_transfer_survives_a_change_of_network_interface";
    in_lab_on_each_plane(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        transfer_during(lab, |node| {
            wiring::second_cable(&lab.switch, &node.netns, "eth1", ELSEWHERE).unwrap();
            node.netns.run(|| {
                let netlink = Handle::new().unwrap();
                netlink.delete_link(index(&netlink, wiring::CABLE)).unwrap();
            });
        });
    });
}
