//! Another VPN joins the same two machines: what goes through it is far, however near its addresses look.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shadowmesh::lab::{Family, LabNode, PORT, wait_until, wiring};
use shadowmesh_io::netlink::Handle;
use shadowmesh_io::tun::{READ_LEN_MAX, Tun};

use crate::support::{REACHABLE_MAX, TestLab, in_lab};

/// What the other VPN takes, one way.
const DELAY: Duration = Duration::from_millis(150);
/// The port of its own datagrams.
const VPN_PORT: u16 = 7000;

fn public(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, number)
}

fn within_vpn(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, 9, number)
}

/// A VPN of two ends, which passes on what it gets when it has had it for a while.
struct OtherVpn {
    stop: Arc<AtomicBool>,
    /// Bytes that it was given.
    bytes: Arc<AtomicU64>,
    ends: Vec<JoinHandle<()>>,
}

impl OtherVpn {
    fn between(nodes: &[LabNode]) -> Self {
        let mut vpn = Self {
            stop: Arc::default(),
            bytes: Arc::default(),
            ends: Vec::new(),
        };
        for (node, (ours, theirs)) in nodes.iter().zip([(1, 2), (2, 1)]) {
            let (tun, socket) = node.netns.run(|| {
                let netlink = Handle::new().unwrap();
                let tun = Tun::create(Some("vpn0"), 1300).unwrap();
                let own = within_vpn(ours).into();
                netlink.add_address(tun.index(), own, 24).unwrap();
                netlink.set_up(tun.index()).unwrap();
                let socket = UdpSocket::bind((public(ours), VPN_PORT)).unwrap();
                socket.connect((public(theirs), VPN_PORT)).unwrap();
                socket.set_nonblocking(true).unwrap();
                (tun, socket)
            });
            let (stop, bytes) = (Arc::clone(&vpn.stop), Arc::clone(&vpn.bytes));
            let end = thread::spawn(move || {
                let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
                let mut buffer = vec![0; READ_LEN_MAX];
                while !stop.load(Ordering::Relaxed) {
                    while let Ok(len) = tun.read(&mut buffer) {
                        bytes.fetch_add(len as u64, Ordering::Relaxed);
                        waiting.push_back((Instant::now() + DELAY, buffer[..len].to_vec()));
                    }
                    while waiting.front().is_some_and(|(at, _)| *at <= Instant::now()) {
                        let (_, packet) = waiting.pop_front().unwrap();
                        let _ = socket.send(&packet);
                    }
                    while let Ok(len) = socket.recv(&mut buffer) {
                        let _ = tun.write_vectored(&[IoSlice::new(&buffer[..len])]);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
            vpn.ends.push(end);
        }
        vpn
    }
}

impl Drop for OtherVpn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for end in self.ends.drain(..) {
            let _ = end.join();
        }
    }
}

/// Two nodes with public addresses alone, which list each other at an address of that kind.
fn prepare(lab: &TestLab, listed: fn(u8) -> Ipv4Addr) -> OtherVpn {
    for (node, number) in lab.nodes.iter().zip(1..) {
        node.netns.run(|| {
            let netlink = Handle::new().unwrap();
            let cable = netlink.link_by_name(wiring::CABLE).unwrap().index;
            for old in netlink.addresses().unwrap() {
                let is_ours = [node.underlay_v4.into(), IpAddr::from(node.underlay_v6)];
                if is_ours.contains(&old.address) {
                    netlink
                        .del_address(cable, old.address, old.prefix_len)
                        .unwrap();
                }
            }
            netlink
                .add_address(cable, public(number).into(), 24)
                .unwrap();
        });
    }
    for (node, other, number) in [(0, 1, 2), (1, 0, 1)] {
        let mut peer = lab.nodes[other].as_peer(Family::V4);
        peer.addresses = vec![SocketAddr::new(listed(number).into(), PORT)];
        lab.nodes[node].configure(&[peer]).unwrap();
    }
    OtherVpn::between(&lab.nodes)
}

/// Where each of the two sends to.
fn remotes(lab: &TestLab) -> Vec<Option<IpAddr>> {
    let way = |(node, other): (&LabNode, &LabNode)| Some(node.path_to(&other.id)?.remote?.ip());
    let [one, other] = &lab.nodes[..] else {
        panic!("there are two nodes");
    };
    [(one, other), (other, one)].map(way).into()
}

// PROTOCOL SM-PA-5
// PROTOCOL SM-PA-6
#[test]
fn peers_that_reach_each_other_straight_do_not_go_through_another_vpn() {
    let name = "other_vpn::peers_that_reach_each_other_straight_do_not_go_through_another_vpn";
    in_lab(name, 2, |lab| {
        let vpn = prepare(lab, public);
        lab.start_all().unwrap();
        lab.wait_until_reachable(REACHABLE_MAX).unwrap();
        // A search tells the other addresses at once, and an answer by the other VPN takes two delays.
        for _ in 0..30 {
            thread::sleep(DELAY);
            let straight = [2, 1].map(|number| Some(public(number).into()));
            assert_eq!(remotes(lab), straight);
        }
        let carried = vpn.bytes.load(Ordering::Relaxed);
        println!("the other VPN was given {carried} bytes");
        assert!(carried < 50_000, "{carried} bytes by the other VPN");
    });
}

// PROTOCOL SM-PA-5
#[test]
fn peers_that_met_in_another_vpn_find_the_straight_way_and_take_it() {
    let name = "other_vpn::peers_that_met_in_another_vpn_find_the_straight_way_and_take_it";
    in_lab(name, 2, |lab| {
        let _vpn = prepare(lab, within_vpn);
        lab.start_all().unwrap();
        lab.wait_until_reachable(REACHABLE_MAX).unwrap();
        let straight = [2, 1].map(|number| Some(public(number).into()));
        let moved = wait_until(REACHABLE_MAX, || remotes(lab) == straight);
        assert!(moved, "{:?}", remotes(lab));
    });
}
