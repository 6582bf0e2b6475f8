//! Where UDP does not pass, nodes reach each other by WebSocket over TLS, through a proxy if need be.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::thread;
use std::time::Duration;

use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh::lab::config::RelaySettings;
use shadowmesh::lab::web::{self, Passes, SERVER, TAKES_STREAMS, WebLab};
use shadowmesh::lab::{Family, LabNode, PORT, wait_until};
use shadowmesh_io::lab::{NatBox, NatBoxConfig, NatBoxKind, privileged};
use shadowmesh_io::netlink::Handle;
use shadowmesh_io::netns::Netns;
use tempfile::TempDir;

use crate::support::REACHABLE_MAX;

/// Another address behind the router.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 7, 1, 77);
/// So long a stream may be silent before that alone ends it (SM-WS-6).
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A laboratory that prints what its nodes said if the test fails.
struct TestWebLab {
    lab: WebLab,
    _directory: TempDir,
}

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_shadowmesh"))
}

impl TestWebLab {
    fn build(passes: Passes) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            lab: WebLab::build(program(), directory.path(), passes).unwrap(),
            _directory: directory,
        }
    }

    /// As [`WebLab::bring_up`]; both then say that they are joined by a stream.
    fn bring_up(&mut self, more: &str) {
        let brought = self.lab.bring_up(more, REACHABLE_MAX);
        let took = brought.unwrap_or_else(|error| {
            let seen = [&self.lab.client, &self.lab.server]
                .into_iter()
                .flat_map(|node: &LabNode| ["peers", "status"].map(|verb| node.query(verb, &[])));
            panic!("{error}: {:#?}", seen.collect::<Vec<_>>())
        });
        println!("reached {took:?} after the start");
        self.both_say_web();
    }

    fn both_say_web(&self) {
        let web = || {
            self.kinds()
                .iter()
                .all(|kind| kind.as_deref() == Some("web"))
        };
        assert!(wait_until(REACHABLE_MAX, web), "{:?}", self.kinds());
    }
}

impl Deref for TestWebLab {
    type Target = WebLab;

    fn deref(&self) -> &WebLab {
        &self.lab
    }
}

impl DerefMut for TestWebLab {
    fn deref_mut(&mut self) -> &mut WebLab {
        &mut self.lab
    }
}

impl Drop for TestWebLab {
    fn drop(&mut self) {
        if thread::panicking() {
            show_logs(&[&self.lab.client, &self.lab.server]);
        }
    }
}

fn show_logs(nodes: &[&LabNode]) {
    for node in nodes {
        println!("--- {}\n{}", node.name, node.log());
    }
}

#[test]
fn where_udp_is_dropped_nodes_reach_each_other_by_websocket() {
    let name = "web::where_udp_is_dropped_nodes_reach_each_other_by_websocket";
    privileged(name, || {
        let mut lab = TestWebLab::build(Passes::NoUdp);
        lab.bring_up("");
        // It carries long packets and many of them, both ways, and nothing is changed.
        for (from, to) in [(&lab.client, &lab.server), (&lab.server, &lab.client)] {
            let target = to.overlay_v6().into();
            let amount = Amount::Bytes(32 << 20);
            let report = bulk::transfer(&from.netns, &to.netns, target, amount).unwrap();
            assert!(report.intact, "{report:?}");
        }
    });
}

#[test]
fn a_stream_that_ended_is_opened_again() {
    privileged("web::a_stream_that_ended_is_opened_again", || {
        let mut lab = TestWebLab::build(Passes::NoUdp);
        lab.bring_up("");
        lab.server.kill().unwrap();
        thread::sleep(Duration::from_secs(1));
        lab.server.start().unwrap();
        let took = lab.reached(2 * REACHABLE_MAX).unwrap();
        println!("reached again {took:?} after the other's restart");
        lab.both_say_web();
    });
}

// PROTOCOL SM-WS-6
#[test]
fn a_stream_that_led_from_an_address_that_is_gone_is_opened_again_before_its_silence_tells() {
    let name = "web::a_stream_that_led_from_an_address_that_is_gone_is_opened_again_before_its_silence_tells";
    privileged(name, || {
        let mut lab = TestWebLab::build(Passes::NoUdp);
        lab.bring_up("");
        lab.client.netns.run(|| {
            let netlink = Handle::new().unwrap();
            let routes = netlink.routes().unwrap();
            let way_out = routes.into_iter().find(|route| route.via.is_some());
            let way_out = way_out.expect("the router leads out");
            let uplink = way_out.index.expect("it has a device");
            let old = lab.client.underlay_v4.into();
            netlink.del_address(uplink, old, 24).unwrap();
            netlink.add_address(uplink, ELSEWHERE.into(), 24).unwrap();
            netlink.add_route(&way_out).unwrap();
        });
        let took = lab.reached(SILENCE_MAX / 2).unwrap();
        println!("reached again {took:?} after the change of address");
        lab.both_say_web();
    });
}

#[test]
fn a_node_that_has_only_a_proxy_reaches_its_peer_through_it() {
    let name = "web::a_node_that_has_only_a_proxy_reaches_its_peer_through_it";
    privileged(name, || {
        let mut lab = TestWebLab::build(Passes::Nothing);
        let proxy = lab.start_proxy().unwrap();
        lab.bring_up(&format!("[web]\nproxy = \"http://{}\"\n", proxy.address));
        lab.client.kill().unwrap();
        assert_eq!(proxy.finish().unwrap(), format!("{SERVER}:443"));
    });
}

#[test]
fn whoever_wants_only_web_traffic_sends_no_udp() {
    privileged("web::whoever_wants_only_web_traffic_sends_no_udp", || {
        let mut lab = TestWebLab::build(Passes::All);
        lab.bring_up("[web]\nuse = \"always\"\n");
        let sent = lab
            .client
            .netns
            .run(|| fs::read_to_string("/proc/thread-self/net/snmp"));
        assert_eq!(udp_sent(&sent.unwrap()), Some(0));
    });
}

/// Datagrams that a namespace sent, of its `net/snmp`.
fn udp_sent(snmp: &str) -> Option<u64> {
    let mut rows = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let column = rows
        .next()?
        .split(' ')
        .position(|name| name == "OutDatagrams")?;
    rows.next()?.split(' ').nth(column)?.parse().ok()
}

/// The networks of two routers, outside and inside.
const NETWORKS: [([u8; 3], [u8; 3]); 2] =
    [([198, 51, 100], [10, 7, 1]), ([203, 0, 113], [10, 7, 2])];

/// n1 has TCP only and n2 a NAT router; what they have in common is a relay, n3.
#[test]
fn a_peer_without_a_listener_is_reached_over_a_relay_that_has_one() {
    let name = "web::a_peer_without_a_listener_is_reached_over_a_relay_that_has_one";
    privileged(name, || {
        let directory = tempfile::tempdir().unwrap();
        let node = |name, netns, address| {
            web::node(program(), directory.path(), name, netns, address).unwrap()
        };
        let outside = Netns::new().unwrap();
        let behind_router = |name, (network, inside): ([u8; 3], [u8; 3]), udp_blocked| {
            let [a, b, c] = inside;
            let mut config = NatBoxConfig::new(NatBoxKind::PortRestricted);
            config.udp_blocked = udp_blocked;
            let router = NatBox::new(&config, &outside, network).unwrap();
            let inside = Netns::new().unwrap();
            router.attach(&inside, [a, b, c]).unwrap();
            (node(name, inside, Ipv4Addr::new(a, b, c, 2)), router)
        };
        // The routers last as long as this.
        let (mut n1, _router_1) = behind_router("n1", NETWORKS[0], true);
        let (mut n2, _router_2) = behind_router("n2", NETWORKS[1], false);
        let mut n3 = node("n3", outside, SERVER);
        let id = n3.id;
        n3.settings.relays_at_mbit = Some(1000);
        n3.settings.more = TAKES_STREAMS.into();
        n1.settings.more = format!("[[relay.use]]\nid = \"{id}\"\nweb = \"https://{SERVER}\"\n");
        let [a, b, c] = NETWORKS[1].0;
        n2.settings.relays = vec![RelaySettings {
            id,
            addresses: vec![SocketAddr::new(Ipv4Addr::new(a, b, c, 1).into(), PORT)],
            web: None,
        }];
        let as_peer = |node: &LabNode| {
            let mut peer = node.as_peer(Family::V4);
            peer.addresses.clear();
            peer
        };
        n3.configure(&[]).unwrap();
        n1.configure(&[as_peer(&n2)]).unwrap();
        n2.configure(&[as_peer(&n1)]).unwrap();
        n3.start().unwrap();
        web::await_listener(&n3).unwrap();
        n2.start().unwrap();
        n1.start().unwrap();
        let target = n2.overlay_v6().into();
        let took = n1.ping_until_answered(target, REACHABLE_MAX);
        if took.is_none() {
            show_logs(&[&n1, &n2, &n3]);
        }
        println!(
            "reached over the relay {:?} after the start",
            took.expect("n1 reaches n2")
        );
        assert_eq!(web::kind(&n1).as_deref(), Some("relay"));
        let report = bulk::transfer(&n1.netns, &n2.netns, target, Amount::Bytes(8 << 20));
        assert!(report.unwrap().intact);
    });
}

/// The niceness of each thread of a process, by the thread's name.
fn niceness(pid: u32) -> Vec<(String, i32)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let one = |thread: fs::DirEntry| {
        let name = fs::read_to_string(thread.path().join("comm")).ok()?;
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        // After the name in parentheses: the third field of the line and those that follow (proc(5)).
        let nice = stat.rsplit(") ").next()?.split(' ').nth(19 - 3)?;
        Some((name.trim().to_owned(), nice.parse().ok()?))
    };
    threads.filter_map(|thread| one(thread.ok()?)).collect()
}

// PROTOCOL SM-WS-9
#[test]
fn handshakes_of_strangers_are_done_on_an_ordinary_thread_and_streams_on_another() {
    let name = "web::handshakes_of_strangers_are_done_on_an_ordinary_thread_and_streams_on_another";
    privileged(name, || {
        let mut lab = TestWebLab::build(Passes::NoUdp);
        lab.bring_up("");
        for node in [&lab.client, &lab.server] {
            let threads = niceness(node.pid().unwrap());
            let nice = |name: &str| {
                let found = threads.iter().find(|(thread, _)| thread == name);
                found.map(|(_, nice)| *nice)
            };
            assert_eq!(nice("web"), Some(0), "{threads:?}");
            // Where this may not be asked for, all are alike.
            assert!(nice("streams").is_some_and(|nice| nice <= 0), "{threads:?}");
        }
    });
}
