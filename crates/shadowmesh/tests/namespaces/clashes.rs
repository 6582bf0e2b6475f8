//! The networks of the host and those of the overlay do not go together, and both go on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use shadowmesh::lab::{Family, LabNode, wait_until, wiring};
use shadowmesh_io::lab::{Capture, MemorySink};
use shadowmesh_io::netlink::{Handle, Link, Route};
use shadowmesh_io::netns::Netns;

use crate::support::{PING_INTERVAL, REACHABLE_MAX, TestLab, in_lab, in_routed_lab};

/// The host's network is the range that derived addresses are in.
const LAN_LEN: u8 = 16;
/// Beside the nodes, on the bridge.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 1);
/// What a capture may keep.
const CAPTURE_BYTES_MAX: usize = 1 << 20;

fn lan_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 100, 0, 11 + u8::try_from(index).unwrap())
}

fn link(netlink: &Handle, name: &str) -> Link {
    netlink.link_by_name(name).unwrap()
}

/// Gives everybody on the bridge, and the bridge, an address in that network, and takes the former one.
fn move_lan(lab: &mut TestLab) {
    lab.switch.run(|| {
        let netlink = Handle::new().unwrap();
        let bridge = link(&netlink, wiring::BRIDGE).index;
        netlink
            .add_address(bridge, GATEWAY.into(), LAN_LEN)
            .unwrap();
    });
    for (index, node) in lab.nodes.iter_mut().enumerate() {
        let former = node.underlay_v4;
        node.underlay_v4 = lan_address(index);
        join_lan(node, index);
        node.netns.run(|| {
            let netlink = Handle::new().unwrap();
            let cable = link(&netlink, wiring::CABLE).index;
            netlink.del_address(cable, former.into(), 24).unwrap();
        });
    }
}

fn join_lan(node: &LabNode, index: usize) {
    node.netns.run(|| {
        let netlink = Handle::new().unwrap();
        let cable = link(&netlink, wiring::CABLE).index;
        netlink
            .add_address(cable, lan_address(index).into(), LAN_LEN)
            .unwrap();
    });
}

fn answers(node: &LabNode, target: impl Into<IpAddr>) -> bool {
    node.ping_until_answered(target.into(), REACHABLE_MAX)
        .is_some()
}

/// What left by the node's cable for `target`, while it was pinged; nothing is to.
fn leaks(node: &LabNode, target: Ipv4Addr) -> usize {
    let sink = MemorySink::new(CAPTURE_BYTES_MAX);
    let capture = node
        .netns
        .run(|| Capture::start(wiring::CABLE, sink))
        .unwrap();
    let report = node.ping(target.into(), 5, PING_INTERVAL);
    assert!(
        report.is_ok_and(|report| report.received == 0),
        "the LAN has no such host"
    );
    let (sink, _) = capture.stop().unwrap();
    let wanted = target.octets();
    let clear = |data: &[u8]| data.windows(4).any(|bytes| bytes == wanted);
    sink.frames().filter(|frame| clear(frame.bytes)).count()
}

fn wait_for_log(node: &LabNode, words: &str) {
    let said = wait_until(REACHABLE_MAX, || node.log().contains(words));
    assert!(said, "never {words:?}: {}", node.log());
}

/// Whether the doctor has something of that level to say of the device, with these words in it.
fn doctor_says(node: &LabNode, level: &str, words: &str) -> bool {
    let said = node.doctor().unwrap();
    let all = said["network"].as_array().expect("a list").iter();
    let mut device = all.filter(|finding| finding["about"] == "device");
    device.any(|finding| {
        let says = finding["says"].as_str().unwrap_or_default();
        finding["level"] == level && says.contains(words)
    })
}

// PROTOCOL SM-DV-5
// PROTOCOL SM-PA-6
#[test]
fn on_a_lan_that_is_the_derived_range_nodes_meet_by_ipv6_and_nothing_leaves_in_the_clear() {
    let name = "clashes::on_a_lan_that_is_the_derived_range_nodes_meet_by_ipv6_and_nothing_leaves_in_the_clear";
    in_lab(name, 2, |lab| {
        move_lan(lab);
        lab.configure_full_mesh(Family::V4).unwrap();
        lab.start_all().unwrap();
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        assert!(answers(first, second.overlay_v6()), "{}", first.log());
        assert!(answers(first, GATEWAY), "the LAN stays reachable");
        assert!(answers(first, second.underlay_v4));
        assert_eq!(leaks(first, second.overlay_v4()), 0);
        for named in ["10.100.0.0/16", wiring::CABLE, &second.name, "[device]"] {
            wait_for_log(first, named);
        }
        assert!(doctor_says(first, "note", "10.100.0.0/16"));
        let status = first.query("status", &[]).unwrap();
        let addresses = status["device"]["addresses"].as_array().unwrap();
        assert_eq!(addresses.len(), 1, "{status:#}");
    });
}

// PROTOCOL SM-DV-5
// PROTOCOL SM-PA-6
#[test]
fn with_addresses_elsewhere_the_derived_range_is_a_lan_like_any_other() {
    let name = "clashes::with_addresses_elsewhere_the_derived_range_is_a_lan_like_any_other";
    in_lab(name, 2, |lab| {
        move_lan(lab);
        let own = |index: usize| {
            [
                format!("10.222.0.{}", index + 1),
                format!("fd77:1::{}", index + 1),
            ]
        };
        for index in 0..2 {
            let [v4, v6] = own(index);
            lab.nodes[index].settings.addresses = vec![format!("{v4}/24"), format!("{v6}/64")];
            let mut peer = lab.nodes[1 - index].as_peer(Family::V4);
            let [v4, v6] = own(1 - index);
            peer.allowed_ips = vec![format!("{v4}/32"), format!("{v6}/128")];
            lab.nodes[index].configure(&[peer]).unwrap();
        }
        lab.start_all().unwrap();
        for address in own(1) {
            assert!(answers(&lab.nodes[0], address.parse::<IpAddr>().unwrap()));
        }
        assert!(answers(&lab.nodes[0], GATEWAY));
        assert!(
            !lab.nodes[0].log().contains("WARN"),
            "{}",
            lab.nodes[0].log()
        );
    });
}

// PROTOCOL SM-DV-5
#[test]
fn a_lan_that_is_entered_later_is_noticed_and_left_again() {
    let name = "clashes::a_lan_that_is_entered_later_is_noticed_and_left_again";
    in_lab(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        lab.switch.run(|| {
            let netlink = Handle::new().unwrap();
            let bridge = link(&netlink, wiring::BRIDGE).index;
            netlink
                .add_address(bridge, GATEWAY.into(), LAN_LEN)
                .unwrap();
        });
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        join_lan(first, 0);
        wait_for_log(first, "which overlaps the overlay's 10.100.0.0/16");
        assert!(answers(first, GATEWAY), "the LAN is reached");
        assert!(answers(first, second.overlay_v4()), "{}", first.log());
        assert!(answers(first, second.overlay_v6()));
        assert!(wait_until(REACHABLE_MAX, || doctor_says(
            first,
            "note",
            "10.100.0.0/16"
        )));

        first.netns.run(|| {
            let netlink = Handle::new().unwrap();
            let cable = link(&netlink, wiring::CABLE).index;
            netlink
                .del_address(cable, lan_address(0).into(), LAN_LEN)
                .unwrap();
        });
        assert!(answers(first, second.overlay_v4()), "{}", first.log());
    });
}

/// A peer behind a router whose outside address lies in what it leads to, in one IP version.
fn reach_inside(name: &str, family: Family, routed: fn(&LabNode) -> String, strict: bool) {
    in_routed_lab(name, |lab| {
        if strict {
            for node in &lab.nodes {
                node.netns
                    .set_sysctl("net.ipv4.conf.all.rp_filter", "1")
                    .unwrap();
            }
        }
        let peers = [0, 1].map(|index| lab.nodes[index].as_peer(family));
        let [first, mut second] = peers;
        let derived = [
            format!("{}/32", lab.nodes[1].overlay_v4()),
            format!("{}/128", lab.nodes[1].overlay_v6()),
        ];
        second.allowed_ips = [&derived[..], &[routed(&lab.nodes[1])]].concat();
        lab.nodes[0].configure(&[second]).unwrap();
        lab.nodes[1].configure(&[first]).unwrap();
        lab.start_all().unwrap();
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        assert!(answers(first, second.overlay_v6()), "{}", first.log());
        assert!(answers(first, second.overlay_v4()));
        let path = first.path_to(&second.id).expect("a session");
        assert_eq!(
            path.remote.map(|at| at.ip()),
            Some(second.underlay(family).ip())
        );
        // What is no datagram of ours goes into the tunnel, not around it.
        let index = first
            .netns
            .run(|| link(&Handle::new().unwrap(), "shadow0").index);
        let leads = first.netns.run(|| Handle::new().unwrap().routes().unwrap());
        assert!(leads.iter().any(|route| route.index == Some(index)));
    });
}

// PROTOCOL SM-DV-4
#[test]
fn a_peer_is_reached_whose_outside_address_is_in_the_network_it_leads_to() {
    let name = "clashes::a_peer_is_reached_whose_outside_address_is_in_the_network_it_leads_to";
    let network = |node: &LabNode| {
        let [a, b, c, _] = node.underlay_v4.octets();
        format!("{a}.{b}.{c}.0/24")
    };
    reach_inside(name, Family::V4, network, false);
}

// PROTOCOL SM-DV-4
#[test]
fn a_peer_is_reached_whose_outside_address_itself_is_led_to_it_though_sources_are_checked() {
    let name = "clashes::a_peer_is_reached_whose_outside_address_itself_is_led_to_it_though_sources_are_checked";
    let address = |node: &LabNode| format!("{}/32", node.underlay_v4);
    reach_inside(name, Family::V4, address, true);
}

// PROTOCOL SM-DV-4
#[test]
fn a_peer_is_reached_over_ipv6_inside_the_network_it_leads_to() {
    let name = "clashes::a_peer_is_reached_over_ipv6_inside_the_network_it_leads_to";
    let network = |node: &LabNode| {
        let mut segments = node.underlay_v6.segments();
        segments[4..].fill(0);
        format!("{}/64", Ipv6Addr::from(segments))
    };
    reach_inside(name, Family::V6, network, false);
}

/// The next hop is on a network that a wide prefix of a peer's holds.
// PROTOCOL SM-DV-5
#[test]
fn the_lan_and_the_routes_inside_a_wide_prefix_of_a_peer_stay_the_hosts() {
    let name = "clashes::the_lan_and_the_routes_inside_a_wide_prefix_of_a_peer_stay_the_hosts";
    in_lab(name, 2, |lab| {
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        let elsewhere: IpAddr = [192, 168, 200, 1].into();
        second.netns.run(|| {
            let netlink = Handle::new().unwrap();
            let lo = link(&netlink, "lo").index;
            netlink.add_address(lo, elsewhere, 32).unwrap();
        });
        first.netns.run(|| {
            let netlink = Handle::new().unwrap();
            let via = Route::via([192, 168, 200, 0].into(), 24, second.underlay_v4.into());
            // As somebody else's.
            netlink.add_route(&Route { protocol: 4, ..via }).unwrap();
        });
        let mut peer = second.as_peer(Family::V4);
        peer.allowed_ips = vec![
            format!("{}/32", second.overlay_v4()),
            format!("{}/128", second.overlay_v6()),
            "192.168.0.0/16".into(),
        ];
        first.configure(&[peer]).unwrap();
        second.configure(&[first.as_peer(Family::V4)]).unwrap();
        lab.start_all().unwrap();
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        assert!(answers(first, second.overlay_v4()), "{}", first.log());
        assert!(answers(first, second.underlay_v4), "the LAN");
        assert!(answers(first, elsewhere), "a route that was there");
    });
}

// PROTOCOL SM-DV-4
#[test]
fn two_nodes_in_one_namespace_have_tables_of_their_own() {
    let name = "clashes::two_nodes_in_one_namespace_have_tables_of_their_own";
    in_lab(name, 3, |lab| {
        let netns: Netns = lab.nodes[0].netns.try_clone().unwrap();
        let shared = lab.nodes[0].underlay_v4;
        let beside = &mut lab.nodes[1];
        beside.netns = netns;
        beside.underlay_v4 = shared;
        beside.settings.device = "shadow1".into();
        beside.settings.listen = vec!["0.0.0.0:4434".parse().unwrap()];
        let third = lab.nodes[2].as_peer(Family::V4);
        let mut callers = [0, 1].map(|index| lab.nodes[index].as_peer(Family::V4));
        for caller in &mut callers {
            caller.addresses.clear();
        }
        lab.nodes[0]
            .configure(std::slice::from_ref(&third))
            .unwrap();
        // The second leads a network to the third that the first one has no part in.
        let mut wider = third;
        wider.allowed_ips = vec!["10.55.0.0/16".into()];
        lab.nodes[1].configure(&[wider]).unwrap();
        lab.nodes[2].configure(&callers).unwrap();
        let before = settled(&lab.nodes[0].netns);
        lab.start_all().unwrap();
        let [first, beside, third] = &mut lab.nodes[..] else {
            panic!("three nodes were asked for");
        };
        assert!(answers(first, third.overlay_v4()), "{}", first.log());
        // The third one has nothing there that answers; the session is what is asked for.
        let asked = beside.ping([10, 55, 0, 1].into(), 1, PING_INTERVAL);
        let up = wait_until(REACHABLE_MAX, || beside.path_to(&third.id).is_some());
        assert!(up, "{asked:?} {}", beside.log());
        let tables = |netns: &Netns| {
            let (routes, _) = settled(netns);
            let mut tables: Vec<u32> = routes.iter().map(|route| route.table).collect();
            tables.retain(|table| *table >= 8300);
            tables.sort_unstable();
            tables.dedup();
            tables
        };
        assert_eq!(tables(&first.netns), [8300, 8301, 8302, 8303]);
        // The end of one leaves the other's.
        beside.stop().unwrap();
        assert!(answers(first, third.overlay_v4()));
        first.stop().unwrap();
        assert_eq!(settled(&first.netns), before);
    });
}

fn settled(netns: &Netns) -> (Vec<Route>, usize) {
    netns.run(|| {
        let netlink = Handle::new().unwrap();
        let rules = [false, true].map(|ipv6| netlink.rules(ipv6).unwrap().len());
        (netlink.routes().unwrap(), rules.iter().sum())
    })
}
