use std::path::Path;
use std::time::Duration;

use super::facts::{Facts, UdpAnswer, WayOut, WebAnswer};
use super::*;
use crate::admin::report::{
    AddressKind, AddressReport, CopiedIdentity, DoctorReport, PathKind, PathReport, PeerReport,
    PeerState, RelayReport, WayReport, WayState,
};
use crate::config::{self, tests::id};

const OWN: &str = "192.168.1.5:4433";
const OUTSIDE: &str = "203.0.113.9:4433";

fn path(kind: PathKind) -> PathReport {
    PathReport {
        kind,
        remote: (kind == PathKind::Direct).then(|| "198.51.100.1:4433".parse().unwrap()),
        relay: (kind == PathKind::Relay).then(|| id(9)),
        relay_name: None,
        local: None,
        rtt_us: Some(12_345),
        mtu: Some(1478),
    }
}

fn peer(name: &str, kind: Option<PathKind>, observed: Option<&str>) -> PeerReport {
    PeerReport {
        id: id(if name == "vps" { 1 } else { 2 }),
        name: Some(name.into()),
        state: match kind {
            Some(_) => PeerState::Up,
            None => PeerState::Connecting,
        },
        problem: None,
        path: kind.map(path),
        epoch: None,
        cipher: None,
        data_plane: None,
        allowed_ips: Vec::new(),
        traffic: Default::default(),
        session_age_ms: None,
        key_age_ms: None,
        resumed: None,
        observed: observed.map(|at| at.parse().unwrap()),
        copied: None,
    }
}

#[test]
fn one_identity_on_two_machines_is_named_before_anything_else() {
    for copied in [CopiedIdentity::Theirs, CopiedIdentity::Ours] {
        for kind in [None, Some(PathKind::Direct), Some(PathKind::Relay)] {
            let mut facts = facts();
            node(&mut facts).peers[0] = PeerReport {
                copied: Some(copied),
                ..peer("vps", kind, None)
            };
            let found = &peers::findings(&facts)[0];
            assert_eq!(found.level, Level::Bad);
            assert_eq!(found.says, copied.says());
            assert!(found.next.as_ref().unwrap().contains("move `identity`"));
        }
    }
}

fn relay(observed: Option<&str>) -> RelayReport {
    RelayReport {
        id: id(9),
        name: None,
        state: PeerState::Up,
        problem: None,
        path: Some(path(PathKind::Direct)),
        observed: observed.map(|at| at.parse().unwrap()),
    }
}

/// A node at home with peers `vps` and `laptop` and a relay, all well.
fn facts() -> Facts {
    let text = format!(
        "{}[[relay.use]]\nid = \"{}\"\naddresses = [\"198.51.100.9:4433\"]\n",
        config::tests::two_peers(),
        id(9)
    );
    let mut node = DoctorReport::default();
    node.node.device.addresses = vec!["10.100.1.5/16".into()];
    node.peers = vec![
        peer("vps", Some(PathKind::Direct), Some(OUTSIDE)),
        peer("laptop", Some(PathKind::Direct), Some(OUTSIDE)),
    ];
    node.node.relays = vec![relay(Some(OUTSIDE))];
    node.node.addresses = vec![AddressReport {
        address: OWN.parse().unwrap(),
        kind: AddressKind::Host,
        seen_by: 0,
    }];
    Facts {
        config: config::parse(Path::new("t.toml"), &text).unwrap(),
        node: Some(node),
        udp: vec![UdpAnswer {
            whom: "vps".into(),
            address: "192.0.2.7:4433".parse().unwrap(),
            took: Some(Duration::from_millis(20)),
        }],
        hairpin: None,
        announced: Vec::new(),
        ways_out: [WayOut {
            public: true,
            route: true,
        }; 2],
        web: Vec::new(),
        proxy: None,
        clock_behind: None,
    }
}

fn about(findings: &[Finding], about: &str) -> Finding {
    let found = findings.iter().find(|finding| finding.about == about);
    found
        .unwrap_or_else(|| panic!("{about}: {findings:?}"))
        .clone()
}

/// What is said of the network about one thing.
fn all_about(facts: &Facts, about: &str) -> Vec<Finding> {
    let mut found = network::findings(facts);
    found.retain(|finding| finding.about == about);
    found
}

fn node(facts: &mut Facts) -> &mut DoctorReport {
    facts.node.as_mut().unwrap()
}

#[test]
fn where_all_is_well_every_peer_is_good_and_nothing_bad() {
    let facts = facts();
    let (network, peers) = (network::findings(&facts), peers::findings(&facts));
    assert!(network.iter().all(|f| f.level != Level::Bad), "{network:?}");
    assert!(peers.iter().all(|f| f.level == Level::Good), "{peers:?}");
    assert!(
        about(&peers, "vps")
            .says
            .contains("direct 198.51.100.1:4433")
    );
    assert!(
        about(&network, "UDP")
            .says
            .contains("vps at 192.0.2.7:4433")
    );
    assert!(
        about(&network, "NAT")
            .says
            .contains("everybody sees 203.0.113.9:4433")
    );
}

#[test]
fn the_kind_of_nat_is_told_by_what_several_see() {
    for (seen, level, says) in [
        ([OWN, OWN], Level::Good, "none"),
        ([OUTSIDE, OUTSIDE], Level::Good, "everybody sees"),
        ([OUTSIDE, "203.0.113.9:1"], Level::Note, "symmetric"),
        (
            [OUTSIDE, "203.0.113.8:1"],
            Level::Note,
            "different addresses",
        ),
    ] {
        let mut facts = facts();
        node(&mut facts).node.relays.clear();
        for (peer, at) in node(&mut facts).peers.iter_mut().zip(seen) {
            peer.observed = Some(at.parse().unwrap());
        }
        let found = about(&network::findings(&facts), "NAT");
        assert_eq!(found.level, level, "{found:?}");
        assert!(found.says.contains(says), "{found:?}");
    }
    let mut facts = facts();
    for peer in &mut node(&mut facts).peers {
        peer.path = Some(path(PathKind::Relay));
    }
    let found = about(&network::findings(&facts), "NAT");
    assert!(found.says.contains("only one tells"), "{found:?}");
    assert!(found.next.unwrap().contains("second relay"));
}

#[test]
fn a_network_without_udp_is_told_from_one_without_anything() {
    let mut facts = facts();
    facts.udp[0].took = None;
    facts.node = None;
    let dead = about(&network::findings(&facts), "UDP");
    assert_eq!(dead.level, Level::Bad);
    assert!(dead.next.unwrap().contains("firewall"));

    facts.web.push(WebAnswer {
        whom: "relay".into(),
        url: "https://relay.example".into(),
        opened: Ok(Duration::from_millis(50)),
    });
    let blocked = about(&network::findings(&facts), "UDP");
    assert!(blocked.says.contains("blocks UDP"), "{blocked:?}");

    facts.web.clear();
    facts.ways_out = [WayOut::default(); 2];
    let nothing = about(&network::findings(&facts), "UDP");
    assert!(nothing.next.unwrap().contains("no default route"));

    facts.udp.clear();
    let nobody = about(&network::findings(&facts), "UDP");
    assert_eq!(nobody.level, Level::Note);
}

#[test]
fn a_relayed_peer_says_what_became_of_its_addresses_and_what_helps() {
    let mut facts = facts();
    let way = |state| WayReport {
        path: path(PathKind::Direct),
        state,
    };
    node(&mut facts).peers[0].path = Some(path(PathKind::Relay));
    for (states, says) in [
        (vec![], "neither side knows an address"),
        (
            vec![WayState::Untried; 2],
            "2 addresses of it are being tried",
        ),
        (
            vec![WayState::Unanswered; 3],
            "3 addresses of it were tried and none answers; tried again every 1 min 0 s",
        ),
        (vec![WayState::Broken], "1 address of it answered once"),
        (
            vec![WayState::Unanswered, WayState::Proven],
            "moves there shortly",
        ),
    ] {
        node(&mut facts).ways = vec![states.iter().copied().map(way).collect()];
        let found = about(&peers::findings(&facts), "vps");
        assert_eq!(found.level, Level::Note, "{found:?}");
        assert!(found.says.contains(says), "{found:?}");
        assert!(found.says.contains("relay sm1"), "{found:?}");
        let helps = states.contains(&WayState::Unanswered) || states.contains(&WayState::Broken);
        assert_eq!(found.next.is_some(), helps, "{found:?}");
    }
}

#[test]
fn a_peer_that_is_not_reached_is_bad_and_says_what_to_look_at() {
    let mut facts = facts();
    node(&mut facts).peers[0] = peer("vps", None, None);
    node(&mut facts).peers[0].problem = Some("no answer".into());
    let found = about(&peers::findings(&facts), "vps");
    assert_eq!(found.level, Level::Bad);
    assert!(found.next.unwrap().contains("same relay"));

    node(&mut facts).node.relays[0].path = None;
    node(&mut facts).node.relays[0].state = PeerState::Connecting;
    let found = about(&peers::findings(&facts), "vps");
    assert!(found.next.unwrap().contains("UDP 4433"));
    let network = network::findings(&facts);
    assert!(
        network
            .iter()
            .any(|f| f.about.starts_with("relay sm1") && f.level == Level::Bad)
    );

    // Nobody ever told where the laptop is.
    node(&mut facts).peers[1] = peer("laptop", None, None);
    let found = about(&peers::findings(&facts), "laptop");
    assert_eq!(found.level, Level::Note);
    assert!(found.next.unwrap().contains("[[relay.use]]"));
}

#[test]
fn without_a_node_it_says_so_and_tells_who_answers() {
    let mut facts = facts();
    facts.node = None;
    let network = network::findings(&facts);
    let found = about(&network, "node");
    assert!(found.next.unwrap().contains("shadowmesh up"));
    assert!(!network.iter().any(|finding| finding.about == "NAT"));
    let peers = peers::findings(&facts);
    assert_eq!(about(&peers, "vps").level, Level::Good);
    assert_eq!(about(&peers, "laptop").level, Level::Note);
    facts.udp[0].took = None;
    assert_eq!(about(&peers::findings(&facts), "vps").level, Level::Bad);
}

#[test]
fn a_bare_relay_is_told_whether_others_can_reach_it_and_nothing_of_ways() {
    let mut facts = facts();
    *node(&mut facts) = DoctorReport::default();
    facts.config.peers.clear();
    let own = |address: &str| AddressReport {
        address: address.parse().unwrap(),
        kind: AddressKind::Host,
        seen_by: 0,
    };
    node(&mut facts).node.addresses = vec![own(OWN)];
    let found = network::findings(&facts);
    let names: Vec<&str> = found.iter().map(|finding| &*finding.about).collect();
    assert_eq!(names, ["relay", "address"]);
    assert_eq!(found[1].level, Level::Note);
    node(&mut facts)
        .node
        .addresses
        .push(own("198.51.100.5:4433"));
    let found = about(&network::findings(&facts), "address");
    assert_eq!(
        (found.level, &*found.says),
        (Level::Good, "198.51.100.5:4433 is public")
    );
}

#[test]
fn a_clock_behind_and_a_narrow_path_are_told() {
    let mut facts = facts();
    facts.clock_behind = Some(Duration::from_secs(7200));
    node(&mut facts).peers[1].path.as_mut().unwrap().mtu = Some(1280);
    let network = network::findings(&facts);
    assert_eq!(about(&network, "clock").level, Level::Bad);
    let mtu = about(&network, "MTU");
    assert!(mtu.says.contains("laptop carries 1280"), "{mtu:?}");
    let text = text(&network);
    assert!(text.contains("BAD   clock"), "{text}");
    assert!(text.contains("next: set it"), "{text}");
}

#[test]
fn a_mapped_port_is_told_with_its_address_and_its_absence_with_the_reason() {
    let mut facts = facts();
    let port_mapping = |facts: &Facts| all_about(facts, "port mapping").pop();
    facts.config.paths.port_mapping = true;
    let found = port_mapping(&facts).unwrap();
    assert_eq!(found.level, Level::Note);
    assert!(found.says.contains("gives none"), "{found:?}");
    facts.config.paths.port_mapping = false;
    let found = port_mapping(&facts).unwrap();
    assert!(found.says.contains("paths.port_mapping is false"));
    node(&mut facts).node.addresses.push(AddressReport {
        address: "203.0.113.9:61000".parse().unwrap(),
        kind: AddressKind::Mapped,
        seen_by: 0,
    });
    let found = port_mapping(&facts).unwrap();
    assert_eq!(found.level, Level::Good);
    assert!(found.says.contains("203.0.113.9:61000"), "{found:?}");
}

#[test]
// PROTOCOL SM-PA-15
fn an_announced_address_is_good_where_somebody_sees_it_or_it_answers_and_doubtful_elsewhere() {
    let mut facts = facts();
    let announced = |facts: &Facts| all_about(facts, "announced").pop();
    assert_eq!(announced(&facts), None);
    facts.config.node.announce = vec![OUTSIDE.parse().unwrap()];
    assert_eq!(announced(&facts).unwrap().level, Level::Good);
    let other: std::net::SocketAddr = "198.51.100.200:7".parse().unwrap();
    facts.config.node.announce = vec![other];
    let found = announced(&facts).unwrap();
    assert_eq!(found.level, Level::Note);
    assert!(
        found.says.contains("is the address still yours"),
        "{found:?}"
    );
    facts.announced = vec![UdpAnswer {
        whom: "ourselves".into(),
        address: other,
        took: Some(Duration::from_millis(1)),
    }];
    assert_eq!(announced(&facts).unwrap().level, Level::Good);
}

#[test]
// PROTOCOL SM-ST-1
fn what_the_node_says_of_itself_is_a_finding() {
    let mut facts = facts();
    node(&mut facts).node.notices = vec!["the state directory cannot be written".into()];
    let found = about(&network::findings(&facts), "notice");
    assert_eq!(found.level, Level::Note);
}

#[test]
fn a_router_that_turns_datagrams_round_is_told_and_where_nobody_tried_nothing_is_said() {
    let mut facts = facts();
    let hairpin = |facts: &Facts| all_about(facts, "hairpin").pop();
    assert_eq!(hairpin(&facts), None);
    facts.hairpin = Some(true);
    assert_eq!(hairpin(&facts).unwrap().level, Level::Good);
    facts.hairpin = Some(false);
    let found = hairpin(&facts).unwrap();
    assert_eq!(found.level, Level::Note);
    assert!(found.says.contains("LAN"), "{found:?}");
}

#[test]
fn each_stream_that_opens_or_does_not_is_told_with_the_proxy_between() {
    let mut facts = facts();
    let web = |facts: &Facts| all_about(facts, "web");
    let [none] = &web(&facts)[..] else {
        panic!("one finding: {:?}", web(&facts))
    };
    assert_eq!(none.level, Level::Note);
    assert!(none.says.contains("nobody could be reached"), "{none:?}");

    facts.proxy = Some("http://proxy:3128".into());
    for opened in [
        Ok(Duration::from_millis(5)),
        Err("connection refused".into()),
    ] {
        facts.web.push(WebAnswer {
            whom: "vps".into(),
            url: "https://vps.example".into(),
            opened,
        });
    }
    let [good, bad] = &web(&facts)[..] else {
        panic!("two findings: {:?}", web(&facts))
    };
    assert_eq!((good.level, bad.level), (Level::Good, Level::Note));
    for found in [good, bad] {
        assert!(
            found.says.contains("through http://proxy:3128"),
            "{found:?}"
        );
    }
    assert!(bad.says.contains("connection refused"), "{bad:?}");
    assert!(bad.next.as_ref().unwrap().contains("HTTPS_PROXY"));
}
