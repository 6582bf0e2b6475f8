//! What the doctor says of networks that are known: each finding against what was built.

use serde_json::Value;
use shadowmesh::lab::internet::INSIDE;
use shadowmesh::lab::{LabNode, wait_until};
use shadowmesh_io::lab::{NatBoxConfig, NatBoxKind};

use crate::support::{REACHABLE_MAX, in_internet};

/// What was found about one thing: how it is, what is said, and what is advised.
fn finding(said: &Value, about: &str) -> Option<(String, String, String)> {
    let all = said["network"].as_array().expect("a list");
    let found = all.iter().find(|finding| finding["about"] == about)?;
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Some((text("level"), text("says"), text("next")))
}

/// That something was found to be of that level, with these words in it.
fn assert_says(said: &Value, about: &str, level: &str, words: &str) {
    let found = finding(said, about).unwrap_or_else(|| panic!("nothing about {about}: {said:#}"));
    assert!(
        found.0 == level && found.1.contains(words),
        "{found:?}\n{said:#}"
    );
}

fn assert_silent(said: &Value, about: &str) {
    assert_eq!(finding(said, about), None, "{said:#}");
}

/// What the doctor says as soon as it says this about NAT: two relays must have told what they see.
fn once_told(node: &LabNode, nat: &str) -> Value {
    let mut said = Value::Null;
    let told = wait_until(REACHABLE_MAX, || {
        said = node.doctor().unwrap();
        finding(&said, "NAT").is_some_and(|found| found.1.contains(nat))
    });
    assert!(told, "never {nat:?}: {said:#}");
    said
}

/// How many relays the doctor speaks of in that tone.
fn relays(said: &Value, level: &str, words: &str) -> usize {
    let all = said["network"].as_array().expect("a list").iter();
    let fits = |finding: &&Value| {
        let about = finding["about"].as_str().unwrap_or_default();
        let says = finding["says"].as_str().unwrap_or_default();
        about.starts_with("relay sm1") && finding["level"] == level && says.contains(words)
    };
    all.filter(fits).count()
}

#[test]
fn an_open_machine_and_a_router_that_turns_datagrams_round_are_told_as_such() {
    let name = "doctor::an_open_machine_and_a_router_that_turns_datagrams_round_are_told_as_such";
    in_internet(name, |internet| {
        internet.start_relays().unwrap();
        let hairpin = [NatBoxConfig::new(NatBoxKind::Hairpin(INSIDE))];
        let mut pair = internet.test_pair([&[], &hairpin]);
        pair.start().unwrap();
        pair.meet(REACHABLE_MAX, REACHABLE_MAX)
            .direct
            .expect("straight");
        let [open, behind] = &pair.nodes;

        let own = format!("none: others see {}:4433", open.underlay_v4);
        let said = once_told(open, &own);
        assert_says(&said, "NAT", "ok", &own);
        assert_says(&said, "UDP", "ok", "the address of relay sm1");
        assert_says(&said, "web", "ok", "answers at https://");
        assert_eq!(relays(&said, "ok", "connected, direct"), 2, "{said:#}");
        // Both would be about a router, and there is none.
        assert_silent(&said, "port mapping");
        assert_silent(&said, "hairpin");
        assert_silent(&said, "clock");
        assert_eq!(said["peers"][0]["level"], "ok", "{said:#}");
        assert_eq!(said["ok"], true, "{said:#}");

        let outside = pair.boxes[1][0].outside();
        let seen = format!("a kind one: everybody sees {outside}:4433");
        let said = once_told(behind, &seen);
        assert_says(&said, "NAT", "ok", &seen);
        assert_says(&said, "hairpin", "ok", "back in");
        assert_says(&said, "port mapping", "note", "not asked for");
        assert_eq!(said["ok"], true, "{said:#}");
    });
}

#[test]
fn a_symmetric_nat_is_told_from_a_kind_one() {
    let name = "doctor::a_symmetric_nat_is_told_from_a_kind_one";
    in_internet(name, |internet| {
        internet.start_relays().unwrap();
        let random = [NatBoxConfig::new(NatBoxKind::FullyRandom)];
        let mut pair = internet.test_pair([&random, &random]);
        // Asked for, and the router has none to give.
        pair.nodes[0].settings.port_mapping = true;
        pair.configure().unwrap();
        pair.start().unwrap();
        let met = pair.meet(REACHABLE_MAX, std::time::Duration::ZERO);
        met.connected.expect("over a relay");
        let outside = pair.boxes[0][0].outside();
        let seen = format!("a symmetric one: {outside}, with another port for everybody");
        let said = once_told(&pair.nodes[0], &seen);
        assert_says(&said, "NAT", "note", &seen);
        let (_, _, next) = finding(&said, "NAT").unwrap();
        assert!(next.contains("forward UDP 4433"), "{next}");
        assert_says(&said, "UDP", "ok", "passes");
        assert_says(&said, "hairpin", "note", "does not lead");
        assert_says(&said, "port mapping", "note", "the router gives none");
        let peer = &said["peers"][0];
        assert_eq!(peer["level"], "note", "{said:#}");
        assert!(
            peer["says"].as_str().unwrap().contains("not direct"),
            "{said:#}"
        );
        assert_eq!(said["ok"], true, "{said:#}");
    });
}

#[test]
fn a_network_that_blocks_udp_is_told_while_a_stream_to_the_relay_carries_everything() {
    let name =
        "doctor::a_network_that_blocks_udp_is_told_while_a_stream_to_the_relay_carries_everything";
    in_internet(name, |internet| {
        internet.start_relays().unwrap();
        let open = NatBoxConfig::new(NatBoxKind::PortRestricted);
        let blocked = NatBoxConfig {
            udp_blocked: true,
            ..open.clone()
        };
        let mut pair = internet.test_pair([&[blocked], &[open]]);
        pair.start().unwrap();
        let met = pair.meet(REACHABLE_MAX, std::time::Duration::ZERO);
        met.connected.expect("over a relay");
        let node = &pair.nodes[0];
        let mut said = Value::Null;
        let both = wait_until(REACHABLE_MAX, || {
            said = node.doctor().unwrap();
            relays(&said, "ok", "connected, web") == 2
        });
        assert!(both, "{said:#}");
        assert_says(&said, "UDP", "bad", "this network blocks UDP");
        assert_says(&said, "NAT", "note", "unknown");
        assert_says(&said, "web", "ok", "answers at https://");
        assert_silent(&said, "hairpin");
        let peer = &said["peers"][0];
        assert_eq!(peer["level"], "note", "{said:#}");
        assert!(
            peer["says"].as_str().unwrap().contains("relay sm1"),
            "{said:#}"
        );
        assert_eq!(said["ok"], false, "{said:#}");
    });
}

#[test]
fn relays_that_answer_nothing_are_told_with_all_that_follows() {
    let name = "doctor::relays_that_answer_nothing_are_told_with_all_that_follows";
    in_internet(name, |internet| {
        let nat = [NatBoxConfig::new(NatBoxKind::PortRestricted)];
        let mut pair = internet.test_pair([&nat, &nat]);
        pair.start().unwrap();
        let said = pair.nodes[0].doctor().unwrap();
        // Their machines say that no program has the port: UDP itself may well pass.
        assert_says(&said, "UDP", "note", "none of 2 addresses");
        assert_says(&said, "NAT", "note", "unknown");
        assert_says(&said, "web", "note", "https://");
        assert_eq!(relays(&said, "bad", "not connected"), 2, "{said:#}");
        assert_silent(&said, "hairpin");
        assert_silent(&said, "port mapping");
        let peer = &said["peers"][0];
        assert_eq!(peer["level"], "note", "{said:#}");
        assert!(
            peer["next"].as_str().unwrap().contains("relay.use"),
            "{said:#}"
        );
        assert_eq!(said["ok"], false, "{said:#}");
    });
}
