//! Others change what a node has set on its device, and the node sets it again, up to a limit.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use shadowmesh::lab::{DEVICE, Family, LabNode, wait_until};
use shadowmesh_io::netlink::{Address, Handle, Route, RouteKind, Rule};

use crate::support::{REACHABLE_MAX, TestLab, in_lab};

/// A network behind the second node.
const BEHIND: &str = "172.20.0.0/16";
/// More often than the node puts things back.
const FIGHTS: usize = 40;

/// Everything of a node's that the kernel holds: what is to be there again.
#[derive(Debug, PartialEq)]
struct Held {
    addresses: Vec<Address>,
    routes: Vec<(u32, IpAddr, u8, RouteKind)>,
    rules: Vec<Rule>,
    up: bool,
    mtu: u32,
}

fn held(node: &LabNode) -> Option<Held> {
    node.netns.run(|| {
        let netlink = Handle::new().unwrap();
        let device = netlink.link_by_name(DEVICE).ok()?;
        let addresses = netlink.addresses().ok()?.into_iter();
        // The kernel's own come and go with the device.
        let mut addresses: Vec<Address> = addresses
            .filter(|address| address.index == device.index)
            .filter(
                |address| !matches!(address.address, IpAddr::V6(ip) if ip.is_unicast_link_local()),
            )
            .collect();
        addresses.sort_by_key(|address| address.address);
        let ours = |route: &Route| (route.table, route.destination, route.prefix_len, route.kind);
        let routes = netlink.routes().ok()?;
        let mut routes: Vec<_> = routes
            .iter()
            .filter(|r| r.table >= 8300)
            .map(ours)
            .collect();
        routes.sort_unstable();
        let rules = [false, true].map(|ipv6| netlink.rules(ipv6).unwrap());
        Some(Held {
            addresses,
            routes,
            rules: rules.concat(),
            up: device.up,
            mtu: device.mtu,
        })
    })
}

fn device(netlink: &Handle) -> u32 {
    netlink.link_by_name(DEVICE).unwrap().index
}

fn bring_up(lab: &mut TestLab) -> Held {
    lab.configure_full_mesh(Family::V4).unwrap();
    let mut second = lab.nodes[1].as_peer(Family::V4);
    second.allowed_ips = vec![
        format!("{}/32", lab.nodes[1].overlay_v4()),
        format!("{}/128", lab.nodes[1].overlay_v6()),
        BEHIND.into(),
    ];
    lab.nodes[0].configure(&[second]).unwrap();
    lab.start_all().unwrap();
    assert_reaches(lab);
    let held = held(&lab.nodes[0]).expect("a device");
    assert!(held.up && held.addresses.len() == 2, "{held:?}");
    assert!(held.routes.len() > 6 && held.rules.len() > 6, "{held:?}");
    held
}

fn assert_reaches(lab: &TestLab) {
    let [first, second] = &lab.nodes[..] else {
        panic!("two nodes were asked for");
    };
    for target in [second.overlay_v4().into(), second.overlay_v6().into()] {
        assert!(
            first.ping_until_answered(target, REACHABLE_MAX).is_some(),
            "{}",
            first.log()
        );
    }
}

/// Somebody does `harm`; everything is as before soon after, packets pass, and the log has a word of it.
fn assert_put_back(lab: &TestLab, before: &Held, what: &str, harm: impl FnOnce(&Handle) + Send) {
    let node = &lab.nodes[0];
    // The log says the same no more than some times in a minute.
    let said = node.log().matches("it is set again").count().min(2);
    node.netns.run(|| harm(&Handle::new().unwrap()));
    let again = wait_until(REACHABLE_MAX, || held(node).as_ref() == Some(before));
    assert!(again, "{what}: {:#?}\n{before:#?}", held(node));
    assert_reaches(lab);
    let says = || node.log().matches("it is set again").count() > said;
    assert!(wait_until(REACHABLE_MAX, says), "{what}: {}", node.log());
}

// PROTOCOL SM-DV-6
#[test]
fn what_others_take_from_the_device_is_set_again() {
    in_lab(
        "kept::what_others_take_from_the_device_is_set_again",
        2,
        |lab| {
            let before = bring_up(lab);
            assert_put_back(lab, &before, "down and up", |netlink| {
                let device = device(netlink);
                netlink.set_down(device).unwrap();
                netlink.set_up(device).unwrap();
            });
            assert_put_back(lab, &before, "down", |netlink| {
                netlink.set_down(device(netlink)).unwrap();
            });
            assert_put_back(lab, &before, "addresses flushed", |netlink| {
                for address in netlink.addresses().unwrap() {
                    if address.index == device(netlink) {
                        let Address {
                            index,
                            address,
                            prefix_len,
                            ..
                        } = address;
                        netlink.del_address(index, address, prefix_len).unwrap();
                    }
                }
            });
            assert_put_back(lab, &before, "routes flushed", |netlink| {
                for route in netlink.routes().unwrap().iter().filter(|r| r.table >= 8300) {
                    // IPv6 takes several away at once.
                    let _ = netlink.del_route(route);
                }
            });
            assert_put_back(lab, &before, "rules flushed", |netlink| {
                for rule in [false, true]
                    .map(|ipv6| netlink.rules(ipv6).unwrap())
                    .concat()
                {
                    if rule.table >= 8300 {
                        netlink.del_rule(&rule).unwrap();
                    }
                }
            });
            assert_put_back(lab, &before, "another MTU", |netlink| {
                netlink.set_mtu(device(netlink), 1300).unwrap();
            });
            assert_put_back(lab, &before, "IPv6 switched off", |_| {
                let path = format!("/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6");
                fs::write(path, "1").unwrap();
            });
        },
    );
}

// PROTOCOL SM-DV-6
#[test]
fn a_fight_for_the_device_is_given_up_and_told() {
    in_lab(
        "kept::a_fight_for_the_device_is_given_up_and_told",
        2,
        |lab| {
            bring_up(lab);
            let node = &lab.nodes[0];
            let address = IpAddr::from(node.overlay_v4());
            let gives_up = || node.log().contains("somebody keeps changing the device");
            for _ in 0..FIGHTS {
                let taken = node.netns.run(|| {
                    let netlink = Handle::new().unwrap();
                    netlink.del_address(device(&netlink), address, 16)
                });
                let is_back = || {
                    let held = held(node).expect("a device");
                    held.addresses.iter().any(|held| held.address == address)
                };
                drop(taken);
                if !wait_until(Duration::from_secs(5), || is_back() || gives_up()) || gives_up() {
                    break;
                }
            }
            assert!(gives_up(), "{}", node.log());
            let put_back = node.log().matches("it is set again").count();
            assert!((5..=10).contains(&put_back), "{put_back} times");
            let said = node.doctor().unwrap();
            let all = said["network"].as_array().unwrap();
            let bad = all
                .iter()
                .any(|finding| finding["about"] == "device" && finding["level"] == "bad");
            assert!(bad, "{said:#}");
            let peers = node.query("peers", &[]).unwrap();
            assert!(peers["device_problem"].is_string(), "{peers:#}");
        },
    );
}

#[test]
fn a_node_whose_device_is_deleted_ends_with_an_error_that_says_so() {
    let name = "kept::a_node_whose_device_is_deleted_ends_with_an_error_that_says_so";
    in_lab(name, 2, |lab| {
        bring_up(lab);
        let node = &mut lab.nodes[0];
        node.netns.run(|| {
            let netlink = Handle::new().unwrap();
            netlink.delete_link(device(&netlink)).unwrap();
        });
        assert!(
            wait_until(REACHABLE_MAX, || !node.is_running()),
            "it runs on"
        );
        assert!(
            node.log().contains("the device was probably deleted"),
            "{}",
            node.log()
        );
        let rules = [false, true].map(|ipv6| {
            node.netns
                .run(|| Handle::new().unwrap().rules(ipv6).unwrap())
        });
        assert!(
            rules.concat().iter().all(|rule| rule.table < 8300),
            "{rules:?}"
        );
    });
}
