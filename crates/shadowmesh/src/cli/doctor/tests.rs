use std::path::Path;
use std::time::Duration;

use super::facts::{Facts, UdpAnswer, WayOut, WebAnswer};
use super::host::HostFacts;
use super::*;
use crate::admin::report::{
    AddressKind, CallerReport, CandidateReport, CopiedIdentity, DoctorReport, PathKind, PathReport,
    PeerCause, PeerReport, PeerState, RelayReport, WayReport, WayState,
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
        cause: None,
        seen_age_ms: None,
        handshake_age_ms: None,
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
        observed_second: None,
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
    node.node.candidates = vec![CandidateReport {
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
            is_closed: false,
            is_unreachable: false,
            is_guess: false,
        }],
        node_is_locked: false,
        host: HostFacts {
            may_make_devices: true,
            ..HostFacts::default()
        },
        own: Some(id(7)),
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
    assert!(peers.iter().all(|f| f.level == Level::Ok), "{peers:?}");
    assert!(
        about(&peers, "vps")
            .says
            .contains("direct 198.51.100.1:4433")
    );
    assert!(
        about(&network, "UDP")
            .says
            .contains("a node answers at 192.0.2.7:4433, the address of vps")
    );
    assert!(
        about(&network, "NAT")
            .says
            .contains("everybody sees 203.0.113.9:4433")
    );
}

#[test]
fn it_fits_the_terminal() {
    let mut facts = facts();
    node(&mut facts).peers[1] = peer("laptop", None, None);
    crate::cli::snapshots::hold("doctor", |width| {
        text(&network::findings(&facts), width) + "\n" + &text(&peers::findings(&facts), width)
    });
}

#[test]
fn the_kind_of_nat_is_told_by_what_several_see() {
    for (seen, level, says) in [
        ([OWN, OWN], Level::Ok, "none"),
        ([OUTSIDE, OUTSIDE], Level::Ok, "everybody sees"),
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
    // The one relay tells by its second port.
    for (second, level, says) in [
        (OUTSIDE, Level::Ok, "everybody sees"),
        ("203.0.113.9:1", Level::Note, "symmetric"),
    ] {
        node(&mut facts).node.relays[0].observed_second = Some(second.parse().unwrap());
        let found = about(&network::findings(&facts), "NAT");
        assert_eq!(found.level, level, "{found:?}");
        assert!(found.says.contains(says), "{found:?}");
    }
}

#[test]
fn a_relay_that_is_connected_is_not_called_none_wherever_it_was_named() {
    let mut facts = facts();
    // On the command line, say.
    facts.config.relay.uses.clear();
    let all = network::findings(&facts);
    let named = all.iter().filter(|found| found.about.contains("relay"));
    let said: Vec<&str> = named.map(|found| &*found.says).collect();
    assert!(
        said.len() == 1 && said[0].starts_with("connected"),
        "{said:?}"
    );
    node(&mut facts).node.relays.clear();
    assert!(
        about(&network::findings(&facts), "relays")
            .says
            .starts_with("none")
    );
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

/// What is changed before one asks, and the beginnings of what is said first and advised.
type Wrong = (&'static str, fn(&mut Facts), &'static str, &'static str);

/// The peer `vps` has no session; its node answers nothing unless a set-up says so.
fn apart(facts: &mut Facts) {
    facts.udp[0].took = None;
    node(facts).node.relays.clear();
    node(facts).peers[0] = peer("vps", None, None);
    node(facts).peers[0].cause = Some(PeerCause::NoAnswer);
    node(facts).peers[0].problem = Some("no answer".into());
}

fn caller(address: &str) -> CallerReport {
    CallerReport {
        id: id(5),
        address: address.parse().unwrap(),
        age_ms: 12_000,
        count: 3,
    }
}

#[test]
fn every_wrong_set_up_of_a_peer_has_one_verdict_that_names_its_cause() {
    let all: [Wrong; 11] = [
        (
            "wrong port",
            |facts| {
                facts.udp[0].is_closed = true;
                facts.udp.push(UdpAnswer {
                    address: "192.0.2.7:4434".parse().unwrap(),
                    took: Some(Duration::from_millis(1)),
                    is_closed: false,
                    is_guess: true,
                    ..facts.udp[0].clone()
                });
            },
            "nothing answers at 192.0.2.7:4433, but a node answers at 192.0.2.7:4434",
            "write that in the [[peer]] of vps",
        ),
        (
            "dead host",
            |facts| facts.udp[0].is_unreachable = true,
            "no machine answers at 192.0.2.7",
            "switch it on",
        ),
        (
            "no node there",
            |facts| facts.udp[0].is_closed = true,
            "the machine 192.0.2.7 is there, but no program has UDP port 4433",
            "start the node there",
        ),
        (
            "firewall",
            |_| (),
            "nothing comes back from 192.0.2.7:4433",
            "is that machine on, does its node run (`shadowmesh status` there), and does the firewall there let UDP 4433",
        ),
        (
            "another machine's id",
            |facts| facts.udp[0].took = Some(Duration::from_millis(1)),
            "a node answers at 192.0.2.7:4433, but not to this PeerId",
            "write the id that `shadowmesh id` prints",
        ),
        (
            "refused",
            |facts| {
                facts.udp[0].took = Some(Duration::from_millis(1));
                node(facts).peers[0].cause = Some(PeerCause::Refused);
            },
            "it refuses this machine",
            "add this block to the configuration there",
        ),
        (
            "wrong id here",
            |facts| {
                facts.udp[0].took = Some(Duration::from_millis(1));
                node(facts).node.refused_callers = vec![caller("192.0.2.7:4433")];
            },
            "a node at 192.0.2.7 calls this one as sm1",
            "if that is vps, write this",
        ),
        (
            "a stranger who calls from elsewhere",
            |facts| {
                facts.udp[0].took = Some(Duration::from_millis(1));
                node(facts).node.refused_callers = vec![caller("198.51.100.77:4433")];
            },
            "a node answers at 192.0.2.7:4433, but not to this PeerId",
            "write the id",
        ),
        (
            "stopped",
            |facts| {
                facts.udp[0].is_closed = true;
                node(facts).peers[0].cause = Some(PeerCause::Stopped);
                node(facts).peers[0].seen_age_ms = Some(7_000);
            },
            "stopped there: its node said goodbye 7 s ago",
            "start it there",
        ),
        (
            "no common cipher",
            |facts| {
                facts.udp[0].took = Some(Duration::from_millis(1));
                node(facts).peers[0].cause = Some(PeerCause::Said);
                node(facts).peers[0].problem = Some("no cipher that both allow".into());
            },
            "no cipher that both allow",
            "",
        ),
        (
            "the first call",
            |facts| {
                facts.udp[0].took = Some(Duration::from_millis(1));
                node(facts).peers[0].cause = None;
            },
            "a node answers at 192.0.2.7:4433, and the first call is under way",
            "ask again",
        ),
    ];
    for (name, change, says, next) in all {
        let mut facts = facts();
        apart(&mut facts);
        change(&mut facts);
        let found = about(&peers::findings(&facts), "vps");
        assert!(found.says.starts_with(says), "{name}: {found:?}");
        assert!(
            found.next.as_ref().unwrap().starts_with(next),
            "{name}: {found:?}"
        );
        let blocks = ["refused", "wrong port", "wrong id here"];
        assert_eq!(
            found.block.is_some(),
            blocks.contains(&name),
            "{name}: {found:?}"
        );
        // No line of the network contradicts it: another peer is reached, so UDP is not to blame.
        let udp = about(&network::findings(&facts), "UDP");
        assert_ne!(udp.level, Level::Bad, "{name}: {udp:?}");
    }
}

#[test]
fn what_refuses_us_is_told_with_a_block_that_is_a_configuration() {
    let mut facts = facts();
    apart(&mut facts);
    node(&mut facts).peers[0].cause = Some(PeerCause::Refused);
    let block = about(&peers::findings(&facts), "vps").block.unwrap();
    let config = config::parse(Path::new("t.toml"), &block).unwrap();
    assert_eq!(config.peers[0].id.to_string(), id(7));
    assert_eq!(config.peers[0].address, [OWN.parse().unwrap()]);

    node(&mut facts).node.refused_callers = vec![caller("192.0.2.7:4433")];
    let callers = about(&network::findings(&facts), "callers");
    let config = config::parse(Path::new("t.toml"), &callers.block.unwrap()).unwrap();
    assert_eq!(config.peers[0].id.to_string(), id(5));
}

#[test]
fn a_peer_without_an_address_waits_and_one_that_was_heard_and_is_not_now_is_silent() {
    let mut facts = facts();
    node(&mut facts).peers[1] = peer("laptop", None, None);
    node(&mut facts).node.relays.clear();
    let found = about(&peers::findings(&facts), "laptop");
    assert_eq!(found.level, Level::Note);
    assert!(found.says.starts_with("waits for its call"), "{found:?}");
    assert!(found.next.unwrap().contains("[[relay.use]]"));
    assert!(found.block.unwrap().contains(OWN));

    // Nobody knows where it is, so a refused caller may be it.
    node(&mut facts).node.refused_callers = vec![caller("198.51.100.77:1")];
    let found = about(&peers::findings(&facts), "laptop");
    assert!(found.says.contains("calls this one as sm1"), "{found:?}");

    node(&mut facts).peers[0].state = PeerState::Silent;
    node(&mut facts).peers[0].seen_age_ms = Some(9_000);
    let found = about(&peers::findings(&facts), "vps");
    assert_eq!(found.level, Level::Bad);
    assert!(
        found
            .says
            .starts_with("silent: nothing has come back for 9 s"),
        "{found:?}"
    );
}

#[test]
fn without_a_node_all_is_not_well_and_it_tells_who_answers() {
    let mut facts = facts();
    facts.node = None;
    let network = network::findings(&facts);
    let found = about(&network, "node");
    assert_eq!(found.level, Level::Bad);
    assert!(found.next.unwrap().contains("shadowmesh up"));
    assert!(!network.iter().any(|finding| finding.about == "NAT"));
    let peers = peers::findings(&facts);
    let vps = about(&peers, "vps");
    assert_eq!(vps.level, Level::Note);
    assert!(vps.says.contains("a node answers at"), "{vps:?}");
    assert_eq!(about(&peers, "laptop").level, Level::Note);
    facts.udp[0].took = None;
    assert_eq!(about(&peers::findings(&facts), "vps").level, Level::Bad);
    facts.node_is_locked = true;
    let found = about(&network::findings(&facts), "node");
    assert_eq!(found.level, Level::Note);
    assert!(found.next.unwrap().contains("sudo"));
}

#[test]
fn a_bare_relay_is_told_whether_others_can_reach_it_and_nothing_of_ways() {
    let mut facts = facts();
    *node(&mut facts) = DoctorReport::default();
    facts.config.peers.clear();
    let own = |address: &str| CandidateReport {
        address: address.parse().unwrap(),
        kind: AddressKind::Host,
        seen_by: 0,
    };
    node(&mut facts).node.candidates = vec![own(OWN)];
    let found = network::findings(&facts);
    let names: Vec<&str> = found.iter().map(|finding| &*finding.about).collect();
    assert_eq!(names, ["relay", "address"]);
    assert_eq!(found[1].level, Level::Note);
    node(&mut facts)
        .node
        .candidates
        .push(own("198.51.100.5:4433"));
    let found = about(&network::findings(&facts), "address");
    assert_eq!(
        (found.level, &*found.says),
        (Level::Ok, "198.51.100.5:4433 is public")
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
    let text = text(&network, Width(None));
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
    node(&mut facts).node.candidates.push(CandidateReport {
        address: "203.0.113.9:61000".parse().unwrap(),
        kind: AddressKind::Mapped,
        seen_by: 0,
    });
    let found = port_mapping(&facts).unwrap();
    assert_eq!(found.level, Level::Ok);
    assert!(found.says.contains("203.0.113.9:61000"), "{found:?}");
}

#[test]
// PROTOCOL SM-PA-15
fn an_announced_address_is_good_where_somebody_sees_it_or_it_answers_and_doubtful_elsewhere() {
    let mut facts = facts();
    let announced = |facts: &Facts| all_about(facts, "announced").pop();
    assert_eq!(announced(&facts), None);
    facts.config.node.announce = vec![OUTSIDE.parse().unwrap()];
    assert_eq!(announced(&facts).unwrap().level, Level::Ok);
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
        is_closed: false,
        is_unreachable: false,
        is_guess: false,
    }];
    assert_eq!(announced(&facts).unwrap().level, Level::Ok);
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
    assert_eq!(hairpin(&facts).unwrap().level, Level::Ok);
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
    assert_eq!((good.level, bad.level), (Level::Ok, Level::Note));
    for found in [good, bad] {
        assert!(
            found.says.contains("through http://proxy:3128"),
            "{found:?}"
        );
    }
    assert!(bad.says.contains("connection refused"), "{bad:?}");
    assert!(bad.next.as_ref().unwrap().contains("HTTPS_PROXY"));
}
