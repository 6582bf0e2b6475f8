use super::*;

/// The text of a PeerId nobody holds the keys of.
pub(crate) fn id(n: u8) -> String {
    PeerId::from_bytes([n; 32]).to_string()
}

/// A configuration with peers `vps` and `laptop`.
pub(crate) fn two_peers() -> String {
    format!(
        "[[peer]]\nid = \"{}\"\nname = \"vps\"\naddress = [\"192.0.2.7:4433\"]\n\
         [[peer]]\nid = \"{}\"\nname = \"laptop\"\n",
        id(1),
        id(2)
    )
}

fn parse_text(text: &str) -> Result<Config, ConfigError> {
    parse(Path::new("t.toml"), text)
}

/// The only problem of a text, as (line, column, whole message).
fn problem(text: &str) -> (usize, usize, String) {
    let error = parse_text(text).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    let at = error.problems[0].origin.position().unwrap();
    (at.line, at.column, error.to_string())
}

fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, text)| (name.to_string(), text.to_string()))
        .collect()
}

#[test]
fn the_documented_example_reads_as_written() {
    let text = format!(
        r#"
[node]
state_dir = "/var/lib/shadowmesh"
listen = ["0.0.0.0:4433", "[::]:4433"]
[device]
mode = "tun"
name = "shadow0"
address = ["10.100.1.5/16"]
mtu = 1420
dscp = "hide"
[session]
rekey_interval = "2m"
cipher = "auto"
[[peer]]
id = "{}"
address = ["192.0.2.7:4433"]
allowed_ips = ["10.100.1.6/32"]
name = "vps"
"#,
        id(7)
    );
    let config = parse_text(&text).unwrap();
    assert_eq!(config.node.state_dir, Path::new("/var/lib/shadowmesh"));
    assert_eq!(config.node.listen.len(), 2);
    assert_eq!(config.device.name.as_deref(), Some("shadow0"));
    assert_eq!(config.device.address[0].to_string(), "10.100.1.5/16");
    assert_eq!(config.device.mtu, 1420);
    assert_eq!(config.device.dscp, OuterDscp::Hide);
    assert_eq!(config.session.rekey_interval, Duration::from_secs(120));
    assert_eq!(config.session.cipher, CipherChoice::Auto);
    assert_eq!(config.peers[0].id, PeerId::from_bytes([7; 32]));
    assert_eq!(
        config.peers[0].allowed_ips,
        ["10.100.1.6/32".parse().unwrap()]
    );
}

#[test]
// PROTOCOL SM-OV-1 SM-OV-2
fn an_empty_file_gives_defaults_and_peers_own_their_derived_addresses() {
    let config = parse_text("").unwrap();
    assert_eq!(config.node.state_dir, Path::new(STATE_DIR_DEFAULT));
    assert_eq!(config.device.mtu, MTU_DEFAULT);
    assert_eq!(config.peers, []);

    let peer = &parse_text(&two_peers()).unwrap().peers[0];
    assert_eq!(peer.allowed_ips, derived_prefixes(&peer.id));
}

#[test]
fn an_unknown_key_names_line_valid_keys_and_the_likely_one() {
    let (line, column, text) = problem("[session]\n  rekey_intervall = \"2m\"\n");
    assert_eq!((line, column), (2, 3));
    assert!(
        text.contains("unknown key `rekey_intervall` in [session]"),
        "{text}"
    );
    assert!(text.contains("did you mean `rekey_interval`?"), "{text}");
    assert!(
        text.contains("valid keys in [session]: rekey_interval, cipher, data_plane"),
        "{text}"
    );
    assert!(text.contains("t.toml:2:3"), "{text}");
}

#[test]
fn a_key_in_the_wrong_section_is_sent_home() {
    let (line, _, text) = problem("[node]\nmtu = 1400\n");
    assert_eq!(line, 2);
    assert!(text.contains("`mtu` belongs to [device]"), "{text}");
    let (line, _, text) = problem("listen = []\n");
    assert_eq!(line, 1);
    assert!(text.contains("`listen` belongs to [node]"), "{text}");
    let (_, _, text) = problem("[peers]\n");
    assert!(text.contains("did you mean `peer`?"), "{text}");
}

#[test]
fn a_wrong_value_names_the_exact_element_and_what_is_expected() {
    let (line, column, text) = problem("[node]\nlisten = [\"0.0.0.0:4433\",\n  \"::1\"]\n");
    assert_eq!((line, column), (3, 3));
    assert!(text.contains("no port; write [::1]:4433"), "{text}");
    let (_, _, text) = problem("[node]\nlisten = [\"[100::7]:1\"]\n");
    assert!(text.contains("100::/64 is for discarding"), "{text}");
    let (_, _, text) = problem("[session]\ncipher = \"aes-256-gmc\"\n");
    assert!(text.contains("did you mean `aes-256-gcm`?"), "{text}");
    assert!(
        text.contains("expected \"auto\", \"aes-256-gcm\" or"),
        "{text}"
    );
    let (_, column, text) = problem("[device]\nmtu = \"1420\"\n");
    assert_eq!(column, 7);
    assert!(
        text.contains("expected a number from 1280 to 9000"),
        "{text}"
    );
    let (_, _, text) = problem("[[peer]]\nid = \"sm1qqq\"\n");
    assert!(text.contains("expected a PeerId"), "{text}");
}

#[test]
fn an_address_that_cannot_work_says_how_it_is_written() {
    let what = |address: &str| {
        let id = PeerId::from_bytes([7; 32]);
        problem(&format!(
            "[[peer]]\nid = \"{id}\"\naddress = [\"{address}\"]\n"
        ))
        .2
    };
    let inside = shadowmesh_wire::overlay::derived_ipv4(&PeerId::from_bytes([7; 32]));
    for (address, hint) in [
        ("2001:db8::7:4433", "write [2001:db8::7]:4433"),
        ("2001:db8::7", "write [2001:db8::7]:4433"),
        ("192.0.2.7", "write 192.0.2.7:4433"),
        (&format!("{inside}:4433"), "inside the mesh"),
    ] {
        assert!(what(address).contains(hint), "{address}: {}", what(address));
    }
}

#[test]
fn text_that_is_not_toml_names_the_place() {
    let (line, _, text) = problem("[node]\nlisten = [\n[device]\n");
    assert!(line >= 2, "{text}");
    assert!(text.contains("not valid TOML"), "{text}");
}

#[test]
fn all_problems_are_told_at_once() {
    let error = parse_text("[node]\nlissen = 1\n[device]\nmtu = 5\n[[peer]]\nname = \"a\"\n");
    assert_eq!(error.unwrap_err().problems.len(), 3);
}

#[test]
// PROTOCOL SM-EP-4
fn limits_hold_at_their_edges() {
    let ok = |text: &str| parse_text(text).is_ok();
    for (interval, valid) in [
        ("9999ms", false),
        ("10s", true),
        ("60m", true),
        ("1h", true),
        ("3601s", false),
    ] {
        let text = format!("[session]\nrekey_interval = \"{interval}\"\n");
        assert_eq!(ok(&text), valid, "{interval}");
    }
    for (mtu, valid) in [
        (1279, false),
        (1280, true),
        (9000, true),
        (9001, false),
        (-1, false),
    ] {
        assert_eq!(ok(&format!("[device]\nmtu = {mtu}\n")), valid, "{mtu}");
    }
    assert!(ok("[device]\nname = \"fifteen-letters\"\n"));
    assert!(!ok("[device]\nname = \"sixteen-letters-\"\n"));
    assert!(!ok("[device]\nname = \"a/b\"\n"));
    assert!(!ok("[device]\naddress = [\"10.0.0.1/33\"]\n"));
    assert!(!ok("[device]\naddress = [\"0.0.0.0/8\"]\n"));
    assert!(!ok("[node]\nlisten = []\n"));
    assert!(!ok("[node]\nlisten = [\"0.0.0.0:1\", \"0.0.0.0:1\"]\n"));
}

#[test]
fn a_peer_stands_once_and_owns_its_name() {
    let (line, _, text) = problem(&format!(
        "[[peer]]\nid = \"{0}\"\n[[peer]]\nid = \"{0}\"\n",
        id(1)
    ));
    assert_eq!(line, 4);
    assert!(text.contains("stands twice"), "{text}");
    assert!(text.contains("first at t.toml:1:"), "{text}");

    let (line, _, text) = problem(&two_peers().replace("laptop", "vps"));
    assert_eq!(line, 7);
    assert!(text.contains("two peers are named `vps`"), "{text}");

    let (line, _, text) = problem(&two_peers().replace("laptop", "handshake"));
    assert_eq!(line, 7);
    assert!(text.contains("`bench handshake`"), "{text}");
}

#[test]
// PROTOCOL SM-OV-3
fn two_peers_cannot_own_one_address() {
    let text = format!(
        "[[peer]]\nid = \"{}\"\nname = \"vps\"\nallowed_ips = [\"10.1.0.0/16\"]\n\
         [[peer]]\nid = \"{}\"\nallowed_ips = [\"10.2.0.1/32\", \"10.1.2.3/32\"]\n",
        id(1),
        id(2)
    );
    let (line, column, text) = problem(&text);
    assert_eq!((line, column), (7, 31));
    assert!(
        text.contains("10.1.2.3/32 overlaps 10.1.0.0/16 of peer vps"),
        "{text}"
    );
}

#[test]
// PROTOCOL SM-OV-1
fn derived_ipv4_addresses_that_collide_name_the_way_out() {
    let mut other = [9; 32];
    (other[7], other[15]) = (1, 1);
    let other = PeerId::from_bytes(other);
    let text = format!("[[peer]]\nid = \"{}\"\n[[peer]]\nid = \"{other}\"\n", id(1));
    let (line, _, text) = problem(&text);
    assert_eq!(line, 4);
    assert!(
        text.contains("give this peer another with allowed_ips"),
        "{text}"
    );
}

#[test]
fn a_peer_address_of_a_family_nobody_listens_on_is_refused() {
    let text = format!(
        "[node]\nlisten = [\"0.0.0.0:4433\"]\n[[peer]]\nid = \"{}\"\n\
         address = [\"192.0.2.7:1\", \"[2001:db8::7]:1\"]\n",
        id(1)
    );
    let (line, column, text) = problem(&text);
    assert_eq!((line, column), (5, 27));
    assert!(text.contains("add \"[::]:4433\" to node.listen"), "{text}");
}

#[test]
fn the_node_itself_is_no_peer_and_its_addresses_cannot_be_a_peers() {
    let own = PeerId::from_bytes([9; 32]);
    let own_ip = shadowmesh_wire::overlay::derived_ipv4(&own);
    let loaded = load(&Sources {
        flags: vec![("--peer", format!("id={own}"))],
        ..Default::default()
    });
    let mut loaded = loaded.unwrap();
    let notes = loaded.check_against(&own).unwrap();
    assert!(notes[0].contains("is this machine itself"), "{notes:?}");
    assert!(notes[0].contains("flag --peer"), "{notes:?}");
    assert_eq!((notes.len(), loaded.config.peers.len()), (1, 0));

    let loaded = load(&Sources {
        flags: vec![("--peer", format!("id={},allowed_ips={own_ip}/32", id(1)))],
        ..Default::default()
    });
    let error = loaded.unwrap().check_against(&own).unwrap_err();
    assert!(
        error.to_string().contains("is an address of this node"),
        "{error}"
    );
}

#[test]
fn variables_beat_the_file_and_flags_beat_both() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    std::fs::write(
        &path,
        "[device]\nmtu = 1300\nname = \"file\"\n[session]\ncipher = \"auto\"\n",
    )
    .unwrap();
    let sources = Sources {
        file: Some(path),
        variables: variables(&[
            ("SHADOWMESH_DEVICE_MTU", "1350"),
            ("SHADOWMESH_SESSION_CIPHER", "aes-256-gcm"),
            ("SHADOWMESH_NODE_LISTEN", "127.0.0.1:5, [::1]:5"),
            ("UNRELATED", "x"),
        ]),
        flags: vec![("--mtu", "1400".into())],
    };
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.config.device.mtu, 1400);
    assert_eq!(loaded.config.device.name.as_deref(), Some("file"));
    assert_eq!(loaded.config.session.cipher, CipherChoice::Aes256Gcm);
    assert_eq!(loaded.config.node.listen.len(), 2);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn every_key_has_a_variable_and_a_misspelt_one_is_warned_about() {
    let every = variables(&[
        ("SHADOWMESH_NODE_STATE_DIR", "/x"),
        ("SHADOWMESH_NODE_LISTEN", "0.0.0.0:1"),
        ("SHADOWMESH_NODE_ANNOUNCE", "203.0.113.5:1,10.0.0.5:2"),
        ("SHADOWMESH_DEVICE_MODE", "tun"),
        ("SHADOWMESH_DEVICE_NAME", "a"),
        ("SHADOWMESH_DEVICE_ADDRESS", "10.9.9.9/24"),
        ("SHADOWMESH_DEVICE_MTU", "1280"),
        ("SHADOWMESH_SESSION_REKEY_INTERVAL", "10s"),
        ("SHADOWMESH_SESSION_CIPHER", "chacha20-poly1305"),
        ("SHADOWMESH_RELAY_ENABLED", "true"),
        ("SHADOWMESH_RELAY_ALLOW", &id(4)),
        ("SHADOWMESH_RELAY_CLIENTS_MAX", "5"),
        ("SHADOWMESH_RELAY_CLIENTS_PER_SOURCE", "4"),
        ("SHADOWMESH_RELAY_CLIENT_MBIT", "6"),
        (
            "SHADOWMESH_RELAY_USE",
            &format!(
                "id={},addresses=1.2.3.4:5; id={},web=https://r.example",
                id(5),
                id(6)
            ),
        ),
        ("SHADOWMESH_PATHS_PORT_MAPPING", "false"),
        ("SHADOWMESH_PATHS_LAN_DISCOVERY", "false"),
        ("SHADOWMESH_P2P_RETRY_INTERVAL", "7s"),
        ("SHADOWMESH_P2P_HEALTH_CHECK_INTERVAL", "8s"),
        ("SHADOWMESH_P2P_CONNECT_TIMEOUT", "9s"),
        ("SHADOWMESH_METRICS_LISTEN", "9464"),
        (
            "SHADOWMESH_PEER",
            &format!("id={}; id={},name=b,address=1.2.3.4:5", id(1), id(2)),
        ),
    ]);
    let loaded = load(&Sources {
        variables: every,
        ..Default::default()
    })
    .unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.node.state_dir, Path::new("/x"));
    assert_eq!(
        loaded.config.session.rekey_interval,
        Duration::from_secs(10)
    );
    assert_eq!(loaded.config.peers.len(), 2);
    assert_eq!(loaded.config.peers[1].name.as_deref(), Some("b"));
    let Config {
        relay,
        paths,
        metrics,
        ..
    } = loaded.config;
    assert!(relay.enabled);
    let listed = shadowmesh_net::RelayAllow::Listed([PeerId::from_bytes([4; 32])].into());
    assert_eq!(relay.allow, listed);
    assert_eq!((relay.clients_max, relay.client_mbit), (5, 6));
    assert_eq!(relay.clients_per_source, 4);
    assert_eq!(relay.uses.len(), 2);
    assert_eq!(
        relay.uses[1].web.as_ref().unwrap().to_string(),
        "https://r.example"
    );
    assert!(!paths.port_mapping && !paths.lan_discovery);
    let timers = [
        paths.retry_interval,
        paths.health_check_interval,
        paths.connect_timeout,
    ];
    assert_eq!(timers.map(|time| time.as_secs()), [7, 8, 9]);
    let loopback = metrics.listen.unwrap();
    assert!(loopback.ip().is_loopback() && loopback.port() == 9464);

    let slip = variables(&[("SHADOWMESH_DEVICE_MTUU", "1")]);
    let loaded = load(&Sources {
        variables: slip,
        ..Default::default()
    })
    .unwrap();
    assert!(loaded.warnings[0].contains("did you mean SHADOWMESH_DEVICE_MTU?"));
}

#[test]
fn an_error_names_the_variable_or_flag_it_came_from() {
    let wrong = variables(&[("SHADOWMESH_DEVICE_MTU", "much")]);
    let error = load(&Sources {
        variables: wrong,
        ..Default::default()
    })
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("environment variable SHADOWMESH_DEVICE_MTU"),
        "{error}"
    );
    let flags = vec![("--peer", "id=sm1,colour=red".to_string())];
    let error = load(&Sources {
        flags,
        ..Default::default()
    })
    .unwrap_err();
    assert!(
        error.to_string().contains("unknown key `colour`"),
        "{error}"
    );
    assert!(error.to_string().contains("flag --peer"), "{error}");
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    assert!(load(&Sources::default()).is_ok());
    let missing = Sources {
        file: Some("/nonexistent/a.toml".into()),
        ..Default::default()
    };
    let error = load(&missing).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/a.toml"), "{error}");
}

#[test]
fn a_relative_state_dir_is_meant_from_the_file() {
    let config = parse(
        Path::new("/etc/mesh/a.toml"),
        "[node]\nstate_dir = \"state\"\n",
    )
    .unwrap();
    assert_eq!(config.node.state_dir, Path::new("/etc/mesh/state"));
}

#[test]
fn a_peer_is_found_by_name_id_and_address() {
    let config = parse_text(&two_peers()).unwrap();
    let vps = &config.peers[0];
    assert_eq!(config.find_peer("vps"), Some(vps));
    assert_eq!(config.find_peer(&vps.id.to_string()), Some(vps));
    assert_eq!(
        config.find_peer(&vps.allowed_ips[0].addr().to_string()),
        Some(vps)
    );
    assert_eq!(config.find_peer("192.0.2.7"), None);
}

#[test]
fn a_running_node_is_found_although_its_configuration_has_become_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    let sources = Sources {
        file: Some(path.clone()),
        ..Default::default()
    };
    std::fs::write(
        &path,
        "[node]\nstate_dir = \"/here\"\n[device]\nmtu = 1\ncolour = 2\n",
    )
    .unwrap();
    assert!(load(&sources).is_err());
    assert_eq!(load_state_dir(&sources).unwrap(), Path::new("/here"));

    std::fs::write(&path, "[node\n").unwrap();
    assert!(load_state_dir(&sources).is_err());
    let sources = Sources {
        flags: vec![("--state-dir", "/there".into())],
        ..sources
    };
    assert_eq!(load_state_dir(&sources).unwrap(), Path::new("/there"));
}

mod connect;
mod web;

// PROTOCOL SM-PA-15
#[test]
fn what_is_announced_is_an_address_that_others_can_send_to() {
    let announce = |list: &str| parse_text(&format!("[node]\nannounce = [{list}]\n"));
    let good = announce("\"203.0.113.5:4433\", \"10.0.0.5:1\", \"[2001:db8::5]:2\"").unwrap();
    assert_eq!(good.node.announce.len(), 3);
    assert!(parse_text("").unwrap().node.announce.is_empty());
    for bad in [
        "203.0.113.5:0",
        "0.0.0.0:1",
        "[::]:1",
        "224.0.0.1:1",
        "[ff02::1]:1",
        "255.255.255.255:1",
        "127.0.0.1:1",
        "203.0.113.5",
        "vps.example:1",
    ] {
        assert!(announce(&format!("\"{bad}\"")).is_err(), "{bad}");
    }
    let many: Vec<String> = (1..=5).map(|n| format!("\"203.0.113.5:{n}\"")).collect();
    assert!(announce(&many.join(", ")).is_err());
    assert!(announce("\"1.2.3.4:5\", \"1.2.3.4:5\"").is_err());
}

#[test]
fn a_list_of_addresses_has_one_name_in_every_section_and_what_others_call_it_is_understood() {
    let text = format!(
        "[device]\naddresses = [\"10.100.1.5/16\"]\n\
         [[relay.use]]\nid = \"{0}\"\naddress = [\"203.0.113.5:4433\"]\n\
         [[peer]]\nid = \"{1}\"\naddresses = [\"192.0.2.7:4433\"]\n",
        id(3),
        id(1)
    );
    let config = parse_text(&text).unwrap();
    assert_eq!(config.device.address.len(), 1);
    assert_eq!(config.relay.uses[0].addresses.len(), 1);
    assert_eq!(config.peers[0].address.len(), 1);
    let both = format!("{text}address = [\"192.0.2.8:4433\"]\n");
    assert!(problem(&both).2.contains("by both of its names"));

    let peer = |line: &str| format!("[[peer]]\nid = \"{}\"\n{line}\n", id(1));
    for (text, meant) in [
        (
            peer("endpoint = \"192.0.2.7:4433\""),
            "did you mean `address`?",
        ),
        (peer("public_key = \"x\""), "did you mean `id`?"),
        (peer("adress = []"), "did you mean `address`?"),
        (peer("listen = []"), "`listen` belongs to [node]"),
        (
            "[relay]\naddresses = []\n".into(),
            "`addresses` belongs to [device]",
        ),
        (
            "[node]\nendpoint = \"x\"\n".into(),
            "did you mean `address` in [device]?",
        ),
        (
            "[node]\nallowed_ips = []\n".into(),
            "`allowed_ips` belongs to [[peer]]",
        ),
        (
            "[device]\nrekey_intervall = \"2m\"\n".into(),
            "did you mean `rekey_interval` in [session]?",
        ),
        (
            "allowed_ips = []\n".into(),
            "`allowed_ips` belongs to [[peer]]",
        ),
    ] {
        let message = problem(&text).2;
        assert!(message.contains(meant), "{meant}: {message}");
    }
    let flag = load(&Sources {
        flags: vec![("--peer", format!("id={},endpoint=192.0.2.7:4433", id(1)))],
        ..Default::default()
    });
    assert!(
        flag.unwrap_err()
            .to_string()
            .contains("did you mean `address`?")
    );
}

#[test]
fn a_file_that_lists_every_machine_is_valid_on_each_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    std::fs::write(&path, two_peers()).unwrap();
    for own in [1, 2] {
        let sources = Sources {
            file: Some(path.clone()),
            ..Default::default()
        };
        let mut loaded = load(&sources).unwrap();
        let notes = loaded
            .check_against(&PeerId::from_bytes([own; 32]))
            .unwrap();
        assert_eq!(notes.len(), 1, "{notes:?}");
        let left: Vec<String> = loaded
            .config
            .peers
            .iter()
            .map(|peer| peer.id.to_string())
            .collect();
        assert_eq!(left, [id(3 - own)]);
    }
}

#[test]
fn the_whole_internet_as_a_peers_own_is_warned_about_as_long_as_the_default_route_is_left_alone() {
    for all in ["0.0.0.0/0", "::/0"] {
        let loaded = load(&Sources {
            flags: vec![(
                "--peer",
                format!("id={},name=exit,allowed_ips={all}", id(1)),
            )],
            ..Default::default()
        });
        let warnings = loaded.unwrap().warnings;
        assert!(
            warnings[0].contains("the default route is left alone"),
            "{warnings:?}"
        );
        assert!(
            warnings[0].contains(all) && warnings[0].contains("exit"),
            "{warnings:?}"
        );
    }
}

#[test]
fn a_bare_relay_has_none_of_the_files_peers_and_admits_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    let text = format!("[relay]\nallow = [\"{}\"]\n{}", id(5), two_peers());
    std::fs::write(&path, text).unwrap();
    let sources = Sources {
        file: Some(path),
        ..Default::default()
    };
    let mut loaded = load(&sources).unwrap();
    loaded.for_bare_relay();
    assert!(loaded.config.peers.is_empty());
    let RelayAllow::Listed(ids) = &loaded.config.relay.allow else {
        panic!("a list")
    };
    assert_eq!(ids.len(), 3);
}
