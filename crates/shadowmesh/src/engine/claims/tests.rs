//! The rules, each by hosts that it is for.

use super::*;

const OWN: [u8; 32] = [7; 32];
const RUNNING: Moment = Moment::Running {
    ipv4: true,
    ipv6: true,
};

fn prefix(text: &str) -> IpPrefix {
    text.parse().unwrap()
}

fn lan(text: &str) -> HostNetwork {
    HostNetwork {
        prefix: prefix(text),
        device: "eth0".into(),
        connected: true,
    }
}

fn route(text: &str) -> HostNetwork {
    HostNetwork {
        connected: false,
        ..lan(text)
    }
}

/// The derived addresses, 10.100.7.7/16 and one in fd53:4d65:7368::/48, and these prefixes of a peer.
fn derived_node(peer: &[&str]) -> Wanted {
    let own = PeerId::from_bytes(OWN);
    node(&derived(&own), peer)
}

fn node(addresses: &[(IpAddr, u8)], peer: &[&str]) -> Wanted {
    let peers = peer.iter().map(|text| (prefix(text), "b".to_owned()));
    Wanted::new(&PeerId::from_bytes(OWN), addresses, peers)
}

fn configured(address: &str, len: u8, peer: &[&str]) -> Wanted {
    node(&[(address.parse().unwrap(), len)], peer)
}

/// Where a packet goes that no rule before ours has taken.
fn goes(plan: &Plan, to: &str) -> Option<Target> {
    let to: IpAddr = to.parse().unwrap();
    for part in [Part::Peers, Part::Networks] {
        let leads = plan.leads.iter().filter(|lead| lead.part == part);
        let matching = leads.filter(|lead| lead.prefix.contains(to));
        // Into the tunnel before nowhere, as their metrics say.
        let best = matching.min_by_key(|lead| (u8::MAX - lead.prefix.len(), lead.to));
        if let Some(lead) = best.filter(|lead| lead.to != Target::Host) {
            return Some(lead.to);
        }
    }
    None
}

// PROTOCOL SM-DV-5
#[test]
fn on_a_host_elsewhere_everything_is_taken_and_nothing_is_said() {
    let plan = derived_node(&["10.100.3.4/32", "172.20.0.0/16"])
        .plan(&[lan("192.168.1.0/24"), route("0.0.0.0/0")], Moment::Start);
    assert_eq!((plan.addresses.len(), &plan.clashes[..]), (2, &[][..]));
    for inside in ["10.100.3.4", "172.20.1.1", "10.100.9.9"] {
        assert_eq!(goes(&plan, inside), Some(Target::Device), "{inside}");
    }
    assert_eq!(goes(&plan, "192.168.1.7"), None);
}

// PROTOCOL SM-DV-5
#[test]
fn where_the_host_is_in_the_derived_network_or_a_part_of_it_there_is_ipv6_only() {
    for taken in [
        "10.100.0.0/16",
        "10.100.32.0/20",
        "10.0.0.0/8",
        "10.100.7.7/32",
    ] {
        let plan = derived_node(&["10.100.3.4/32", "fd53:4d65:7368::9/128"])
            .plan(&[lan(taken)], Moment::Start);
        assert_eq!(plan.addresses.len(), 1, "{taken}");
        assert!(plan.addresses[0].0.is_ipv6());
        assert_eq!(
            goes(&plan, "10.100.3.4"),
            Some(Target::Refused),
            "{taken}: never in clear"
        );
        assert_eq!(goes(&plan, "10.100.32.9"), None, "{taken}: the host's");
        assert_eq!(goes(&plan, "fd53:4d65:7368::9"), Some(Target::Device));
        let [clash] = &plan.clashes[..] else {
            panic!("{:?}", plan.clashes);
        };
        assert!(clash.is_loss());
        let said = clash.to_string();
        for named in [taken, "eth0", "10.100.7.7", "IPv4", "b"] {
            assert!(said.contains(named), "{said}");
        }
        assert!(clash.next_step().contains("[device]"));
        assert_eq!(plan.left, [prefix(taken)]);
    }
}

// PROTOCOL SM-DV-5
#[test]
fn no_network_that_a_router_advertises_takes_the_derived_ipv6_address() {
    let peer = "fd53:4d65:7368:1::9";
    for taken in [
        "fd53:4d65:7368:1::/64",
        "fd53:4d65:7368::/48",
        "fd53::/16",
        "fd53:4d65:7368:1::9/128",
    ] {
        for moment in [Moment::Start, RUNNING] {
            let plan = derived_node(&["fd53:4d65:7368:1::9/128"]).plan(&[lan(taken)], moment);
            assert_eq!(plan.addresses.len(), 2, "{taken}");
            assert_eq!(goes(&plan, peer), Some(Target::Device), "{taken}");
        }
    }
    let plan = derived_node(&[]).plan(&[lan("fd53:4d65:7368:1::/64")], RUNNING);
    assert_eq!(goes(&plan, "fd53:4d65:7368:1::1"), None);
    assert_eq!(goes(&plan, "fd53:4d65:7368:2::1"), Some(Target::Device));
    let plan = derived_node(&[]).plan(&[lan("fd53:4d65:7368::/48")], RUNNING);
    assert_eq!(goes(&plan, "fd53:4d65:7368:2::1"), None);
}

// PROTOCOL SM-DV-5
#[test]
fn a_network_that_a_running_node_comes_to_takes_neither_its_address_nor_a_peers() {
    let nodes = [
        derived_node(&["10.100.3.4/32"]),
        configured("10.100.7.7", 16, &["10.100.3.4/32"]),
    ];
    for (node, taken) in nodes.iter().flat_map(|node| {
        let all = [
            lan("10.100.0.0/16"),
            lan("10.100.7.0/24"),
            lan("10.100.7.7/32"),
        ];
        all.map(|taken| (node, taken))
    }) {
        let plan = node.plan(std::slice::from_ref(&taken), RUNNING);
        assert_eq!(plan.addresses, node.addresses().collect::<Vec<_>>());
        assert_eq!(goes(&plan, "10.100.3.4"), Some(Target::Device), "{taken}");
        assert_eq!(goes(&plan, "10.100.7.1"), None, "{taken}: the host's");
        assert!(
            matches!(&plan.clashes[0], clash @ Clash::NetworkLeft { .. } if clash.is_loss()),
            "{:?}",
            plan.clashes
        );
        // What it never had it does not come to have there.
        let (ipv4, ipv6) = (false, true);
        let plan = node.plan(std::slice::from_ref(&taken), Moment::Running { ipv4, ipv6 });
        assert!(plan.addresses.iter().all(|(address, _)| address.is_ipv6()));
        assert_eq!(goes(&plan, "10.100.3.4"), Some(Target::Refused), "{taken}");
        // An address in the main table brings its network along.
        let plan = node.plan(std::slice::from_ref(&taken), Moment::MainTable);
        assert!(plan.addresses.iter().all(|(address, _)| address.is_ipv6()));
        assert_eq!(goes(&plan, "10.100.3.4"), Some(Target::Refused), "{taken}");
    }
}

// PROTOCOL SM-DV-5
#[test]
fn six_hundred_peers_take_no_network_of_the_host_along() {
    let peers: Vec<String> = (0..600u32)
        .map(|n| format!("10.7.{}.{}/32", n / 256, n % 256))
        .chain(["192.168.0.0/16".into()])
        .collect();
    let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
    let host = [lan("192.168.1.0/24")];
    let plan = configured("10.9.0.1", 24, &peers).plan(&host, Moment::Start);
    assert_eq!(goes(&plan, "192.168.1.1"), None);
    assert_eq!(goes(&plan, "192.168.2.1"), Some(Target::Device));
    assert!(
        matches!(&plan.clashes[..], [Clash::PartLeft { .. }]),
        "{:?}",
        plan.clashes
    );
}

// PROTOCOL SM-DV-5
#[test]
fn a_prefix_with_more_networks_inside_than_can_be_left_out_is_refused() {
    let mut host: Vec<HostNetwork> = (0..2000u32)
        .map(|n| route(&format!("10.{}.{}.0/24", n / 256, n % 256)))
        .collect();
    host.extend([lan("10.200.1.0/24"), lan("172.16.5.0/24")]);
    let peers = ["10.0.0.0/8", "172.16.0.0/12"];
    let plan = configured("192.168.9.1", 24, &peers).plan(&host, Moment::Start);
    assert_eq!(plan.left.len(), LEFT_MAX + 1);
    assert_eq!(goes(&plan, "10.200.1.1"), None, "the host is in it");
    assert_eq!(goes(&plan, "172.16.5.1"), None, "and in that");
    assert_eq!(goes(&plan, "172.16.6.1"), Some(Target::Device));
    assert_eq!(goes(&plan, "10.201.0.1"), Some(Target::Refused));
    let crowded = plan
        .clashes
        .iter()
        .find(|clash| matches!(clash, Clash::Crowded { .. }));
    assert!(crowded.is_some_and(|clash| clash.is_loss()));
}

// PROTOCOL SM-DV-5
#[test]
fn an_address_that_somebody_chose_gives_way_only_to_the_same_network_or_one_it_lies_in() {
    let chosen = configured("10.9.0.1", 16, &[]);
    for (host, goes_on) in [
        ("10.9.0.0/16", false),
        ("10.9.0.0/24", false),
        ("10.9.5.0/24", true),
        ("10.0.0.0/8", true),
        ("10.100.0.0/16", true),
    ] {
        let plan = chosen.plan(&[lan(host)], Moment::Start);
        assert_eq!(!plan.addresses.is_empty(), goes_on, "{host}");
    }
    let plan = chosen.plan(&[lan("10.9.5.0/24")], Moment::Start);
    assert_eq!(goes(&plan, "10.9.5.7"), None);
    assert_eq!(goes(&plan, "10.9.6.7"), Some(Target::Device));
}

// PROTOCOL SM-DV-5
#[test]
fn a_network_of_the_host_inside_a_peers_prefix_stays_the_hosts() {
    let peer = ["10.0.0.0/8", "10.0.5.9/32", "172.17.0.0/16"];
    let host = [
        lan("10.0.5.0/24"),
        route("10.20.0.0/16"),
        lan("172.17.0.0/16"),
        route("0.0.0.0/0"),
    ];
    let plan = configured("192.168.9.1", 24, &peer).plan(&host, Moment::Start);
    assert_eq!(goes(&plan, "10.0.5.1"), None, "the gateway");
    assert_eq!(
        goes(&plan, "10.20.1.1"),
        None,
        "a route of the administrator's"
    );
    assert_eq!(
        goes(&plan, "10.0.5.9"),
        Some(Target::Device),
        "one address of a peer"
    );
    assert_eq!(goes(&plan, "10.1.1.1"), Some(Target::Device));
    assert_eq!(goes(&plan, "172.17.0.2"), None, "the containers' bridge");
    let losses = plan.clashes.iter().filter(|clash| clash.is_loss()).count();
    assert_eq!(losses, 1, "{:?}", plan.clashes);
}

// PROTOCOL SM-DV-5
#[test]
fn a_default_route_of_the_host_is_left_alone_and_halves_of_it_are_taken() {
    let host = [route("0.0.0.0/0"), lan("192.168.1.0/24")];
    let plan = configured("10.9.0.1", 24, &["0.0.0.0/0"]).plan(&host, Moment::Start);
    assert_eq!(goes(&plan, "198.51.100.1"), None);
    let halves = ["0.0.0.0/1", "128.0.0.0/1"];
    let plan = configured("10.9.0.1", 24, &halves).plan(&host, Moment::Start);
    assert_eq!(goes(&plan, "198.51.100.1"), Some(Target::Device));
    for left in [
        "192.168.1.1",
        "224.0.0.251",
        "169.254.1.1",
        "255.255.255.255",
    ] {
        assert_eq!(goes(&plan, left), None, "{left}");
    }
}

#[test]
fn behind_every_lead_into_the_tunnel_there_is_a_refusal() {
    let plan = derived_node(&["10.100.3.4/32", "10.0.0.0/8"]).plan(&[], Moment::Start);
    let refused = |lead: &&Lead| {
        plan.leads.contains(&Lead {
            to: Target::Refused,
            ..**lead
        })
    };
    let leads = plan.leads.iter().filter(|lead| lead.to == Target::Device);
    assert!(leads.clone().count() > 3 && leads.clone().all(|lead| refused(&lead)));
}
