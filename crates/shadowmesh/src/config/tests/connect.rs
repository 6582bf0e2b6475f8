//! `[relay]`, `[[relay.use]]`, `[paths]`, `[metrics]` and `web`.

use shadowmesh_net::RelayAllow;

use super::*;

#[test]
fn the_documented_relay_paths_and_metrics_read_as_written() {
    let text = format!(
        r#"
[relay]
enabled = true
allow = "any"
clients_max = 1000
clients_per_source = 300
client_mbit = 1000
[[relay.use]]
id = "{}"
addresses = ["203.0.113.5:4433"]
web = "https://relay.example"
[[relay.use]]
id = "{}"
web = "https://[2001:db8::7]:8443/"
[paths]
retry_interval = "90s"
health_check_interval = "20s"
connect_timeout = "2s"
port_mapping = false
lan_discovery = true
[metrics]
listen = "127.0.0.1:9464"
[[peer]]
id = "{}"
web = "https://VPS.example:4443"
"#,
        id(7),
        id(8),
        id(9)
    );
    let config = parse_text(&text).unwrap();
    assert!(config.relay.enabled);
    assert_eq!(config.relay.clients_per_source, 300);
    assert_eq!(config.relay.allow, RelayAllow::Any);
    let [first, second] = &config.relay.uses[..] else {
        panic!("{:?}", config.relay.uses)
    };
    assert_eq!(first.id, PeerId::from_bytes([7; 32]));
    assert_eq!(first.addresses, ["203.0.113.5:4433".parse().unwrap()]);
    let web = "https://relay.example".parse().unwrap();
    assert_eq!(first.web, Some(web));
    let second = second.web.as_ref().unwrap();
    assert_eq!(second.host(), "2001:db8::7");
    assert_eq!(second.to_string(), "https://[2001:db8::7]:8443");
    assert_eq!(config.paths.retry_interval, Duration::from_secs(90));
    assert!(!config.paths.port_mapping && config.paths.lan_discovery);
    assert_eq!(
        config.metrics.listen,
        Some("127.0.0.1:9464".parse().unwrap())
    );
    let web = config.peers[0].web.as_ref().unwrap();
    assert_eq!(web.to_string(), "https://vps.example:4443");
}

#[test]
fn without_a_word_about_them_paths_are_kept_up_and_nothing_is_relayed_or_served() {
    let config = parse_text("").unwrap();
    assert!(!config.relay.enabled);
    assert_eq!(config.relay.uses, []);
    assert_eq!(config.metrics.listen, None);
    assert!(config.paths.port_mapping && config.paths.lan_discovery);
    let timers = [
        config.paths.retry_interval,
        config.paths.health_check_interval,
        config.paths.connect_timeout,
    ];
    assert_eq!(timers.map(|time| time.as_secs()), [60, 30, 5]);
}

#[test]
fn the_promised_name_of_a_timer_beats_the_usual_one_and_both_are_known() {
    let both = variables(&[
        ("SHADOWMESH_PATHS_RETRY_INTERVAL", "20s"),
        ("SHADOWMESH_P2P_RETRY_INTERVAL", "30s"),
        ("SHADOWMESH_PATHS_CONNECT_TIMEOUT", "3s"),
    ]);
    let loaded = load(&Sources {
        variables: both,
        ..Default::default()
    })
    .unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    assert_eq!(loaded.config.paths.retry_interval, Duration::from_secs(30));
    assert_eq!(loaded.config.paths.connect_timeout, Duration::from_secs(3));

    let wrong = variables(&[("SHADOWMESH_P2P_RETRY_INTERVAL", "60")]);
    let error = load(&Sources {
        variables: wrong,
        ..Default::default()
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("SHADOWMESH_P2P_RETRY_INTERVAL"), "{error}");
    assert!(error.contains("no unit; write 60s"), "{error}");
}

#[test]
fn what_is_wrong_with_a_relay_is_told_with_its_line() {
    let used = |rest: &str| format!("[[relay.use]]\nid = \"{}\"\n{rest}", id(3));
    for (text, line, hint) in [
        (used(""), 1, "nothing says where this relay is"),
        ("[[relay.use]]\nweb = \"https://r\"\n".into(), 1, "no `id`"),
        (
            used("web = \"https://r\"\nadresses = []\n"),
            4,
            "did you mean `addresses`?",
        ),
        (
            used("addresses = [\"r:1\"]\n"),
            3,
            "host names are not looked up",
        ),
        (
            used("web = \"http://r\"\n"),
            3,
            "it must begin with https://",
        ),
        (
            used("web = \"https://r/x\"\n"),
            3,
            "nothing may follow the host and port",
        ),
        (used("web = \"https://[::1]4\"\n"), 3, "the port must be"),
        ("[relay]\nallow = \"all\"\n".into(), 2, "expected \"any\""),
        (
            "[relay]\nenabled = \"yes\"\n".into(),
            2,
            "expected true or false",
        ),
        ("[relay]\nclients_max = 0\n".into(), 2, "from 1 to 10000"),
        (
            "[relay]\nclients_per_source = 10001\n".into(),
            2,
            "from 1 to 10000",
        ),
        ("[relay]\nuse = 1\n".into(), 2, "[[relay.use]]"),
        (
            "[paths]\nretry_interval = \"999ms\"\n".into(),
            2,
            "\"1s\" to \"60m\"",
        ),
        ("[metrics]\nlisten = \"here\"\n".into(), 2, "a port alone"),
        ("[metric]\n".into(), 1, "did you mean `metrics`?"),
    ] {
        let (at, _, message) = problem(&text);
        assert_eq!(at, line, "{message}");
        assert!(message.contains(hint), "{hint}: {message}");
    }
    let twice = used("addresses = [\"1.2.3.4:5\"]\n").repeat(2);
    assert!(problem(&twice).2.contains("stands twice"));
}

#[test]
fn a_relay_that_is_a_peer_too_is_written_once_with_its_address() {
    let text = format!("{}[[relay.use]]\nid = \"{}\"\n", two_peers(), id(1));
    assert!(parse_text(&text).is_ok());
    let own = PeerId::from_bytes([3; 32]);
    let loaded = load(&Sources {
        flags: vec![("--relay-use", format!("id={own},addresses=1.2.3.4:5"))],
        ..Default::default()
    });
    let mut loaded = loaded.unwrap();
    let notes = loaded.check_against(&own).unwrap();
    assert!(notes[0].contains("is this machine itself"), "{notes:?}");
    assert!(notes[0].contains("flag --relay-use"), "{notes:?}");
    assert!(loaded.config.relay.uses.is_empty());
}

#[test]
fn one_address_may_have_a_quarter_of_the_clients_unless_somebody_says_otherwise() {
    for (text, share) in [
        ("[relay]\n", 250),
        ("[relay]\nclients_max = 100\n", 25),
        ("[relay]\nclients_max = 1\n", 1),
        ("[relay]\nclients_max = 100\nclients_per_source = 90\n", 90),
    ] {
        assert_eq!(parse_text(text).unwrap().relay.clients_per_source, share);
    }
}
