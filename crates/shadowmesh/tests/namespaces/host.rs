//! What a node sets on its host is gone when it is, and not a thing more.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use shadowmesh::engine::host;
use shadowmesh::engine::journal::{Journal, World};
use shadowmesh::lab::{DEVICE, Family, LabNode, wait_until};
use shadowmesh_io::lab::privileged;
use shadowmesh_io::netlink::{Address, Handle, Route, Rule};
use shadowmesh_io::netns::Netns;

use crate::support::{PING_INTERVAL, REACHABLE_MAX, in_lab};

/// Addresses, routes and rules of a namespace, in an order of their own.
fn settings(netns: &Netns) -> (Vec<Address>, Vec<Route>, Vec<Rule>) {
    netns.run(|| {
        let netlink = Handle::new().unwrap();
        let (routes, addresses) = (netlink.routes().unwrap(), netlink.addresses().unwrap());
        let rules = [false, true].map(|ipv6| netlink.rules(ipv6).unwrap());
        (addresses, routes, rules.concat())
    })
}

fn has_device(node: &LabNode) -> bool {
    node.netns
        .run(|| Handle::new().unwrap().link_by_name(DEVICE).is_ok())
}

fn has_journal(node: &LabNode) -> bool {
    Journal::load(&node.state_dir()).is_some()
}

// PROTOCOL SM-DV-2
#[test]
fn a_node_leaves_addresses_and_routes_as_it_found_them() {
    in_lab(
        "host::a_node_leaves_addresses_and_routes_as_it_found_them",
        2,
        |lab| {
            // A network behind the second node, so that there is a route beside the addresses.
            let mut second = lab.nodes[1].as_peer(Family::V4);
            second.allowed_ips = vec!["172.20.0.0/16".into(), "fd99::/64".into()];
            lab.nodes[0].configure(&[second]).unwrap();
            let before = settings(&lab.nodes[0].netns);

            for end in [LabNode::stop, terminate] {
                let node = &mut lab.nodes[0];
                node.start().unwrap();
                let routed = || {
                    let (_, routes, _) = settings(&node.netns);
                    let leads_to = |network: &str| {
                        let network: IpAddr = network.parse().unwrap();
                        routes.iter().any(|route| route.destination == network)
                    };
                    leads_to("172.20.0.0") && leads_to("fd99::")
                };
                assert!(wait_until(REACHABLE_MAX, routed), "{}", node.log());
                let addresses: Vec<IpAddr> =
                    settings(&node.netns).0.iter().map(|a| a.address).collect();
                assert!(addresses.contains(&node.overlay_v4().into()));
                assert!(addresses.contains(&node.overlay_v6().into()));

                assert!(end(node).unwrap().success());
                assert!(!has_device(node));
                assert_eq!(settings(&node.netns), before);
                assert!(!has_journal(node));
            }
        },
    );
}

/// Ends a node as a service manager does.
fn terminate(node: &mut LabNode) -> Result<std::process::ExitStatus, shadowmesh::lab::LabError> {
    node.signal_terminate()?;
    node.wait_for_end()
}

// PROTOCOL SM-DV-2
#[test]
fn after_kill_9_the_next_start_works_and_its_end_leaves_nothing() {
    in_lab(
        "host::after_kill_9_the_next_start_works_and_its_end_leaves_nothing",
        1,
        |lab| {
            let node = &mut lab.nodes[0];
            node.configure(&[]).unwrap();
            let before = settings(&node.netns);
            node.start().unwrap();
            assert!(wait_until(REACHABLE_MAX, || has_device(node) && has_journal(node)));
            node.kill().unwrap();
            assert!(has_journal(node), "nobody was left to remove it");

            node.start().unwrap();
            let up = || node.query("status", &[]).is_ok();
            assert!(wait_until(REACHABLE_MAX, up), "{}", node.log());
            node.stop().unwrap();
            assert!(wait_until(Duration::from_secs(2), || !has_device(node)));
            assert_eq!(settings(&node.netns), before);
            assert!(!has_journal(node));
        },
    );
}

/// A device that outlives its node, as a persistent TUN device does; here a veth stands in for it.
struct Leftovers {
    netns: Netns,
    journal: Journal,
    state_dir: tempfile::TempDir,
}

const OURS: &str = "10.100.3.4";
const THEIRS: &str = "192.168.50.1";

fn leave_leftovers() -> Leftovers {
    let netns = Netns::new().unwrap();
    let journal = netns.run(|| {
        let netlink = Handle::new().unwrap();
        netlink.create_veth("left0", "right0").unwrap();
        let index = netlink.link_by_name("left0").unwrap().index;
        netlink.set_up(index).unwrap();
        netlink
            .set_up(netlink.link_by_name("right0").unwrap().index)
            .unwrap();
        netlink
            .add_address(index, OURS.parse().unwrap(), 16)
            .unwrap();
        netlink
            .add_address(index, THEIRS.parse().unwrap(), 24)
            .unwrap();
        let journal = Journal {
            world: World::current().unwrap(),
            device_index: index,
            device_name: "left0".into(),
            addresses: vec![(OURS.parse().unwrap(), 16)],
            routes: vec![("172.20.0.0".parse().unwrap(), 16)],
            tables: Vec::new(),
            ports: Vec::new(),
        };
        let (network, len) = journal.routes[0];
        let route = Route::to_device(network, len, index);
        netlink.add_route(&route).unwrap();
        journal
    });
    let state_dir = tempfile::tempdir().unwrap();
    journal.save(state_dir.path()).unwrap();
    Leftovers {
        netns,
        journal,
        state_dir,
    }
}

impl Leftovers {
    fn clean(&self) {
        let state_dir = self.state_dir.path();
        self.netns.run(|| host::clean_leftovers(state_dir)).unwrap();
        assert_eq!(Journal::load(state_dir), None);
    }

    fn has_address(&self, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        settings(&self.netns)
            .0
            .iter()
            .any(|found| found.address == address)
    }

    fn has_route(&self) -> bool {
        settings(&self.netns)
            .1
            .iter()
            .any(|route| route.destination.to_string() == "172.20.0.0")
    }
}

// PROTOCOL SM-DV-2
#[test]
fn what_a_killed_node_left_on_a_lasting_device_is_taken_away_and_nothing_else() {
    privileged(
        "host::what_a_killed_node_left_on_a_lasting_device_is_taken_away_and_nothing_else",
        || {
            let leftovers = leave_leftovers();
            assert!(leftovers.has_address(OURS) && leftovers.has_route());
            leftovers.clean();
            assert!(!leftovers.has_address(OURS) && !leftovers.has_route());
            assert!(leftovers.has_address(THEIRS));
        },
    );
}

#[test]
fn a_journal_about_another_device_or_another_boot_touches_nothing() {
    privileged(
        "host::a_journal_about_another_device_or_another_boot_touches_nothing",
        || {
            let mut leftovers = leave_leftovers();
            leftovers.journal.device_index += 100;
            leftovers.journal.save(leftovers.state_dir.path()).unwrap();
            leftovers.clean();
            assert!(leftovers.has_address(OURS), "the device was made anew");

            let elsewhere = Netns::new().unwrap();
            leftovers.journal.device_index -= 100;
            leftovers.journal.world = elsewhere.run(|| World::current().unwrap());
            leftovers.journal.save(leftovers.state_dir.path()).unwrap();
            leftovers.clean();
            assert!(
                leftovers.has_address(OURS),
                "the journal speaks of another namespace"
            );
        },
    );
}

#[test]
fn where_ipv6_is_switched_off_for_new_devices_the_overlay_still_has_it() {
    let name = "host::where_ipv6_is_switched_off_for_new_devices_the_overlay_still_has_it";
    in_lab(name, 2, |lab| {
        for node in &lab.nodes {
            let path = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
            node.netns.run(|| fs::write(path, "1")).unwrap();
        }
        lab.bring_up_full_mesh(Family::V4);
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        let address = second.overlay_v6().into();
        let report = first.ping(address, 10, PING_INTERVAL).unwrap();
        assert_eq!(report.received, 10);
    });
}
