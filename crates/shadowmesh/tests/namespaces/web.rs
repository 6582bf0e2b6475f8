//! Where UDP does not pass, nodes reach each other by WebSocket over TLS, through a proxy if need be.
//!
//! ```text
//!  n1 ── NAT router ── n2          n2 has a TCP listener; the router drops UDP, or forwards nothing
//! ```

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh::lab::config::RelaySettings;
use shadowmesh::lab::{Family, LabNode, PORT, wait_until};
use shadowmesh_io::lab::{NatBox, NatBoxConfig, NatBoxKind, privileged};
use shadowmesh_io::netns::Netns;
use tempfile::TempDir;

use crate::support::REACHABLE_MAX;

/// The network between n2 and the router, and the one behind the router.
const OUTSIDE: [u8; 3] = [198, 51, 100];
const INSIDE: [u8; 3] = [10, 7, 1];
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ROUTER_INSIDE: Ipv4Addr = Ipv4Addr::new(10, 7, 1, 1);
const PROXY_PORT: u16 = 3128;
/// A second router's networks, for two nodes that have nothing in common but a relay.
const OUTSIDE_2: [u8; 3] = [203, 0, 113];
const INSIDE_2: [u8; 3] = [10, 7, 2];

const TAKES_STREAMS: &str = "[web]\nlisten = [\"0.0.0.0:443\"]\n";

/// Two nodes and the router between them; prints what they said if the test fails.
struct WebLab {
    client: LabNode,
    server: LabNode,
    router: Arc<NatBox>,
    _directory: TempDir,
}

impl WebLab {
    fn build(udp_blocked: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [inside, outside] = [Netns::new().unwrap(), Netns::new().unwrap()];
        let mut config = NatBoxConfig::new(NatBoxKind::PortRestricted);
        config.udp_blocked = udp_blocked;
        let router = NatBox::new(&config, &outside, OUTSIDE).unwrap();
        router.attach(&inside, INSIDE).unwrap();
        let [a, b, c] = INSIDE;
        let client = node(&directory, "n1", inside, Ipv4Addr::new(a, b, c, 2));
        let mut server = node(&directory, "n2", outside, SERVER);
        server.settings.more = TAKES_STREAMS.into();
        Self {
            client,
            server,
            router: Arc::new(router),
            _directory: directory,
        }
    }

    /// Starts n2, then n1 with these sections; how long n1 took to reach n2, from the start of its process.
    fn bring_up(&mut self, more: &str) -> Duration {
        let mut client = self.client.as_peer(Family::V4);
        client.addresses.clear();
        self.server.configure(&[client]).unwrap();
        let mut server = self.server.as_peer(Family::V4);
        server.web = Some(format!("https://{SERVER}"));
        self.client.settings.more = more.into();
        self.client.configure(&[server]).unwrap();
        self.server.start().unwrap();
        listens(&self.server);
        self.client.start().unwrap();
        self.reached(REACHABLE_MAX)
    }

    fn reached(&self, limit: Duration) -> Duration {
        // The router forwards no IPv6: only the tunnel does.
        let target = self.server.overlay_v6().into();
        let took = self.client.ping_until_answered(target, limit);
        took.expect("n1 reaches n2")
    }

    /// What each node says of its way to the other.
    fn kinds(&self) -> [Option<String>; 2] {
        [kind(&self.client), kind(&self.server)]
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

/// A node with one IPv4 address.
fn node(directory: &TempDir, name: &str, netns: Netns, address: Ipv4Addr) -> LabNode {
    let program = Path::new(env!("CARGO_BIN_EXE_shadowmesh"));
    let home = directory.path().join(name);
    let addresses = (address, Ipv6Addr::UNSPECIFIED);
    let mut node = LabNode::new(name.into(), netns, program, home, addresses).unwrap();
    node.settings.listen = vec![(Ipv4Addr::UNSPECIFIED, PORT).into()];
    node
}

fn listens(node: &LabNode) {
    let log = || node.log().contains("WebSocket over TLS on 0.0.0.0:443");
    assert!(wait_until(REACHABLE_MAX, log), "{} listens", node.name);
}

/// What a node says of its way to its first peer.
fn kind(node: &LabNode) -> Option<String> {
    let peers = node.query("peers", &[]).ok()?;
    Some(peers["peers"][0]["path"]["kind"].as_str()?.to_owned())
}

impl Drop for WebLab {
    fn drop(&mut self) {
        if thread::panicking() {
            for node in [&self.client, &self.server] {
                println!("--- {}\n{}", node.name, node.log());
            }
        }
    }
}

#[test]
fn where_udp_is_dropped_nodes_reach_each_other_by_websocket() {
    let name = "web::where_udp_is_dropped_nodes_reach_each_other_by_websocket";
    privileged(name, || {
        let mut lab = WebLab::build(true);
        let took = lab.bring_up("");
        println!("reached by WebSocket {took:?} after its start");
        lab.both_say_web();

        // It carries long packets and many of them, both ways, and nothing is changed.
        let pairs = [(&lab.client, &lab.server), (&lab.server, &lab.client)];
        for (from, to) in pairs {
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
        let mut lab = WebLab::build(true);
        lab.bring_up("");
        lab.server.kill().unwrap();
        thread::sleep(Duration::from_secs(1));
        lab.server.start().unwrap();
        let start = Instant::now();
        lab.reached(2 * REACHABLE_MAX);
        println!(
            "reached again {:?} after the other's restart",
            start.elapsed()
        );
        lab.both_say_web();
    });
}

#[test]
fn a_node_that_has_only_a_proxy_reaches_its_peer_through_it() {
    let name = "web::a_node_that_has_only_a_proxy_reaches_its_peer_through_it";
    privileged(name, || {
        let mut lab = WebLab::build(false);
        lab.router
            .netns()
            .set_sysctl("net.ipv4.ip_forward", "0")
            .unwrap();
        let proxy = Proxy::start(Arc::clone(&lab.router));
        let more = format!("[web]\nproxy = \"http://{}\"\n", proxy.address);
        thread::scope(|scope| {
            let serving = scope.spawn(|| proxy.serve_one());
            let took = lab.bring_up(&more);
            println!("reached through the proxy {took:?} after its start");
            lab.both_say_web();
            lab.client.kill().unwrap();
            let target = serving.join().unwrap().unwrap();
            assert_eq!(target, format!("{SERVER}:443"));
        });
    });
}

#[test]
fn whoever_wants_only_web_traffic_sends_no_udp() {
    privileged("web::whoever_wants_only_web_traffic_sends_no_udp", || {
        let mut lab = WebLab::build(false);
        lab.bring_up("[web]\nuse = \"always\"\n");
        lab.both_say_web();
        let sent = lab
            .client
            .netns
            .run(|| fs::read_to_string("/proc/thread-self/net/snmp"));
        assert_eq!(udp_sent(&sent.unwrap()), Some(0));
    });
}

/// n1 has TCP only and n2 a NAT router; what they have in common is a relay, n3.
#[test]
fn a_peer_without_a_listener_is_reached_over_a_relay_that_has_one() {
    let name = "web::a_peer_without_a_listener_is_reached_over_a_relay_that_has_one";
    privileged(name, || {
        let directory = tempfile::tempdir().unwrap();
        let outside = Netns::new().unwrap();
        let networks = [(OUTSIDE, INSIDE, true), (OUTSIDE_2, INSIDE_2, false)];
        // The routers last as long as this.
        let behind = networks.map(|(network, [a, b, c], udp_blocked)| {
            let mut config = NatBoxConfig::new(NatBoxKind::PortRestricted);
            config.udp_blocked = udp_blocked;
            let router = NatBox::new(&config, &outside, network).unwrap();
            let inside = Netns::new().unwrap();
            router.attach(&inside, [a, b, c]).unwrap();
            let name = if udp_blocked { "n1" } else { "n2" };
            let address = Ipv4Addr::new(a, b, c, 2);
            (node(&directory, name, inside, address), router)
        });
        let [(mut n1, _router_1), (mut n2, _router_2)] = behind;
        let mut n3 = node(&directory, "n3", outside, SERVER);
        n3.settings.relays_at_mbit = Some(1000);
        n3.settings.more = TAKES_STREAMS.into();
        n3.configure(&[]).unwrap();
        let id = n3.id;
        n1.settings.more = format!("[[relay.use]]\nid = \"{id}\"\nweb = \"https://{SERVER}\"\n");
        let [a, b, c] = OUTSIDE_2;
        n2.settings.relays = vec![RelaySettings {
            id,
            addresses: vec![SocketAddr::new(Ipv4Addr::new(a, b, c, 1).into(), PORT)],
        }];
        let as_peer = |node: &LabNode| {
            let mut peer = node.as_peer(Family::V4);
            peer.addresses.clear();
            peer
        };
        n1.configure(&[as_peer(&n2)]).unwrap();
        n2.configure(&[as_peer(&n1)]).unwrap();
        n3.start().unwrap();
        listens(&n3);
        n2.start().unwrap();
        n1.start().unwrap();
        let target = n2.overlay_v6().into();
        let took = n1.ping_until_answered(target, REACHABLE_MAX);
        if took.is_none() {
            for node in [&n1, &n2, &n3] {
                println!("--- {}\n{}", node.name, node.log());
            }
        }
        let took = took.expect("n1 reaches n2");
        println!("reached over the relay {took:?} after its start");
        assert_eq!(kind(&n1).as_deref(), Some("relay"));
        let report = bulk::transfer(&n1.netns, &n2.netns, target, Amount::Bytes(8 << 20));
        assert!(report.unwrap().intact);
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

/// The smallest HTTP proxy there is.
struct Proxy {
    /// It runs on the router.
    router: Arc<NatBox>,
    listener: TcpListener,
    address: SocketAddr,
}

impl Proxy {
    fn start(router: Arc<NatBox>) -> Self {
        let address = SocketAddr::new(IpAddr::V4(ROUTER_INSIDE), PROXY_PORT);
        let listener = router.netns().run(|| TcpListener::bind(address)).unwrap();
        Self {
            router,
            listener,
            address,
        }
    }

    /// One connection, until either side ends it; returns where it led.
    fn serve_one(&self) -> io::Result<String> {
        // A test that fails must not wait here for ever.
        self.listener.set_nonblocking(true)?;
        let mut arrival = Err(io::ErrorKind::TimedOut.into());
        wait_until(REACHABLE_MAX, || {
            arrival = self.listener.accept();
            arrival.is_ok()
        });
        let (mut client, _) = arrival?;
        client.set_nonblocking(false)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        assert!(head.starts_with("CONNECT "), "{head}");
        let mut server = self.router.netns().run(|| TcpStream::connect(&target))?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
        let outwards = thread::spawn(move || {
            let _ = io::copy(&mut from_client, &mut to_server);
            let _ = to_server.shutdown(std::net::Shutdown::Write);
        });
        let _ = io::copy(&mut server, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
        let _ = outwards.join();
        Ok(target)
    }
}
