//! What the kernel's NAT does, as sockets see it: the namespace lab's boxes have the mapping and
//! filtering that their names promise.

#![cfg(target_os = "linux")]

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use shadowmesh_io::lab::{Echo, NatBox, NatBoxConfig, NatBoxKind, privileged};
use shadowmesh_io::netlink::nftables::{Action, Batch, Hook, Nftables};
use shadowmesh_io::netlink::{Handle, Refusal, Route};
use shadowmesh_io::netns::Netns;

/// How long to wait for what must come, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for what must not. The whole network is on this machine; what came later still would
/// be found by the next look at the same socket.
const SILENCE: Duration = Duration::from_millis(150);
const LOOPBACK_INDEX: u32 = 1;
const PORT: u16 = 4433;
const NETWORK: [u8; 3] = [198, 19, 1];
const HOME: [u8; 3] = [192, 168, 1];
const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 2);
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)];

/// An internet with three sockets (two of them on one address), a box, and a host behind it.
struct Lab {
    internet: Netns,
    nat_box: NatBox,
    host: Netns,
    /// One address, the same with another port, another address.
    servers: [UdpSocket; 3],
    client: UdpSocket,
}

impl Lab {
    fn new(config: &NatBoxConfig) -> Self {
        let internet = internet();
        let nat_box = NatBox::new(config, &internet, NETWORK).unwrap();
        let host = Netns::new().unwrap();
        nat_box.attach(&host, HOME).unwrap();
        let [one, two] = ADDRESSES;
        let servers = [(one, 1000), (one, 1001), (two, 1000)]
            .map(|address| socket(&internet, address.into()));
        let client = socket(&host, (HOST, PORT).into());
        Self {
            internet,
            nat_box,
            host,
            servers,
            client,
        }
    }

    fn of(kind: NatBoxKind) -> Self {
        Self::new(&NatBoxConfig::new(kind))
    }

    /// Where a datagram of the host to each server seems to come from.
    fn mapped(&self) -> [SocketAddr; 3] {
        [0, 1, 2].map(|at| seen_by(&self.client, &self.servers[at]).expect("UDP passes"))
    }

    /// Datagrams of the servers to an outside endpoint reach the host, or do not, as expected.
    fn assert_comes_in(&self, outside: SocketAddr, expected: [bool; 3], what: &str) {
        for (server, expected) in self.servers.iter().zip(expected) {
            let arrived = arrives(server, outside, &self.client, expected);
            assert_eq!(arrived, expected, "{what}: {outside} from {server:?}");
        }
    }
}

fn internet() -> Netns {
    let internet = Netns::new().unwrap();
    internet.run(|| {
        let handle = Handle::new().unwrap();
        for address in ADDRESSES {
            handle
                .add_address(LOOPBACK_INDEX, address.into(), 32)
                .unwrap();
        }
    });
    internet
}

fn socket(netns: &Netns, address: SocketAddr) -> UdpSocket {
    netns.run(|| UdpSocket::bind(address).unwrap())
}

/// Where a datagram seems to come from; `None` if it does not arrive.
fn seen_by(from: &UdpSocket, to: &UdpSocket) -> Option<SocketAddr> {
    from.send_to(b"out", to.local_addr().unwrap()).unwrap();
    received(to, PATIENCE)
}

fn arrives(from: &UdpSocket, destination: SocketAddr, at: &UdpSocket, expected: bool) -> bool {
    from.send_to(b"in", destination).unwrap();
    let found = received(at, if expected { PATIENCE } else { SILENCE });
    assert!(found.is_none_or(|remote| remote == from.local_addr().unwrap()));
    found.is_some()
}

fn received(socket: &UdpSocket, wait: Duration) -> Option<SocketAddr> {
    socket.set_read_timeout(Some(wait)).unwrap();
    match socket.recv_from(&mut [0; 16]) {
        Ok((_, remote)) => Some(remote),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("{error}"),
    }
}

fn outside(port: u16) -> SocketAddr {
    (Ipv4Addr::new(198, 19, 1, 2), port).into()
}

#[test]
fn cones_keep_one_mapping_and_let_in_whom_their_kind_says() {
    privileged(
        "cones_keep_one_mapping_and_let_in_whom_their_kind_says",
        || {
            for (kind, strangers) in [
                (NatBoxKind::FullCone(HOST), [true, true, true]),
                (NatBoxKind::AddressRestricted(HOST), [true, true, false]),
                (NatBoxKind::PortRestricted, [true, false, false]),
                (NatBoxKind::Persistent, [true, false, false]),
            ] {
                let lab = Lab::of(kind.clone());
                let first = seen_by(&lab.client, &lab.servers[0]);
                assert_eq!(first, Some(outside(PORT)), "{kind:?}");
                lab.assert_comes_in(outside(PORT), strangers, &format!("{kind:?}"));
                assert_eq!(lab.mapped(), [outside(PORT); 3], "{kind:?}");
                lab.assert_comes_in(outside(PORT), [true; 3], &format!("{kind:?}"));
            }
        },
    );
}

#[test]
fn a_box_with_hairpin_leads_its_outside_address_back_in_and_others_do_not() {
    privileged(
        "a_box_with_hairpin_leads_its_outside_address_back_in_and_others_do_not",
        || {
            for (kind, turns_round) in [
                (NatBoxKind::Hairpin(HOST), true),
                (NatBoxKind::FullCone(HOST), false),
                (NatBoxKind::PortRestricted, false),
            ] {
                let lab = Lab::of(kind.clone());
                assert_eq!(lab.mapped(), [outside(PORT); 3], "{kind:?}");
                let other = socket(&lab.host, (HOST, 1000).into());
                other.send_to(b"round", outside(PORT)).unwrap();
                let wait = if turns_round { PATIENCE } else { SILENCE };
                let seen = received(&lab.client, wait);
                let router = Ipv4Addr::new(192, 168, 1, 1);
                let expected = turns_round.then(|| (router, 1000).into());
                assert_eq!(seen, expected, "{kind:?}");
                // The answer comes from where the question went.
                if let Some(seen) = seen {
                    lab.client.send_to(b"back", seen).unwrap();
                    assert_eq!(received(&other, PATIENCE), Some(outside(PORT)));
                }
                // From outside it is an open door as before.
                if kind != NatBoxKind::PortRestricted {
                    lab.assert_comes_in(outside(PORT), [true; 3], &format!("{kind:?}"));
                }
            }
        },
    );
}

#[test]
fn a_symmetric_box_gives_each_remote_another_port_and_lets_in_answers_only() {
    privileged(
        "a_symmetric_box_gives_each_remote_another_port_and_lets_in_answers_only",
        || {
            for kind in [
                NatBoxKind::SymmetricSequential(5000..=5999),
                NatBoxKind::Random,
                NatBoxKind::FullyRandom,
            ] {
                let lab = Lab::of(kind.clone());
                let mapped = lab.mapped();
                let [a, b, c] = mapped.map(|address| {
                    assert_eq!(address.ip(), lab.nat_box.outside());
                    i32::from(address.port())
                });
                let steps = [b - a, c - b];
                if let NatBoxKind::SymmetricSequential(_) = kind {
                    assert_eq!(steps, [1, 1], "{mapped:?}");
                } else {
                    assert!(a != b && b != c && c != a, "{kind:?}: {mapped:?}");
                    // Both by chance: once in a billion.
                    assert_ne!(steps, [1, 1], "{kind:?}: {mapped:?}");
                }
                for (at, outside) in mapped.into_iter().enumerate() {
                    let only_it = [0, 1, 2].map(|server| server == at);
                    lab.assert_comes_in(outside, only_it, &format!("{kind:?}"));
                }
                assert_eq!(lab.mapped(), mapped, "{kind:?}: a mapping changed");
            }
        },
    );
}

#[test]
fn a_router_keeps_addresses_and_lets_all_in() {
    privileged("a_router_keeps_addresses_and_lets_all_in", || {
        let lab = Lab::of(NatBoxKind::Router);
        // The internet must know the way: no translation hides the network inside.
        lab.internet.run(|| {
            let inside = Ipv4Addr::new(192, 168, 1, 0).into();
            let route = Route::via(inside, 24, lab.nat_box.outside().into());
            Handle::new().unwrap().add_route(&route).unwrap();
        });
        let own = lab.client.local_addr().unwrap();
        lab.assert_comes_in(own, [true; 3], "router");
        assert_eq!(lab.mapped(), [own; 3]);
    });
}

#[test]
fn hosts_with_the_same_port_share_the_outside_port_until_they_write_to_the_same_remote() {
    privileged(
        "hosts_with_the_same_port_share_the_outside_port_until_they_write_to_the_same_remote",
        || {
            let lab = Lab::of(NatBoxKind::PortRestricted);
            let neighbour = Netns::new().unwrap();
            lab.nat_box.attach(&neighbour, [192, 168, 2]).unwrap();
            let other = socket(&neighbour, (Ipv4Addr::new(192, 168, 2, 2), PORT).into());
            assert_eq!(seen_by(&lab.client, &lab.servers[0]), Some(outside(PORT)));
            // Linux tells flows apart by their remotes; the simulated world does not do this.
            assert_eq!(seen_by(&other, &lab.servers[2]), Some(outside(PORT)));
            let shared = seen_by(&other, &lab.servers[0]).expect("UDP passes");
            assert_ne!(shared, outside(PORT));
            assert_eq!(shared.ip(), lab.nat_box.outside());
            assert!(arrives(&lab.servers[0], shared, &other, true));
            assert!(arrives(&lab.servers[0], outside(PORT), &lab.client, true));
            assert!(arrives(&lab.servers[2], outside(PORT), &other, true));
        },
    );
}

#[test]
fn an_uninvited_datagram_costs_a_host_its_port_only_where_the_box_takes_it_in() {
    privileged(
        "an_uninvited_datagram_costs_a_host_its_port_only_where_the_box_takes_it_in",
        || {
            for input_open in [false, true] {
                let lab = Lab::new(&NatBoxConfig {
                    input_open,
                    ..NatBoxConfig::new(NatBoxKind::PortRestricted)
                });
                assert!(!arrives(&lab.servers[0], outside(PORT), &lab.client, false));
                let mapped = seen_by(&lab.client, &lab.servers[0]).expect("UDP passes");
                assert_eq!(mapped == outside(PORT), !input_open, "{mapped}");
            }
        },
    );
}

#[test]
fn mappings_end_with_their_lifetime_or_when_the_box_forgets() {
    privileged(
        "mappings_end_with_their_lifetime_or_when_the_box_forgets",
        || {
            let lab = Lab::new(&NatBoxConfig {
                udp_lifetime: Duration::from_secs(2),
                ..NatBoxConfig::new(NatBoxKind::FullyRandom)
            });
            let first = seen_by(&lab.client, &lab.servers[0]).expect("UDP passes");
            assert!(arrives(&lab.servers[0], first, &lab.client, true));
            // Kept alive for longer than a lifetime, from outside alone.
            for _ in 0..4 {
                std::thread::sleep(Duration::from_millis(700));
                assert!(arrives(&lab.servers[0], first, &lab.client, true));
            }
            std::thread::sleep(Duration::from_millis(3100));
            assert!(!arrives(&lab.servers[0], first, &lab.client, false));

            let second = seen_by(&lab.client, &lab.servers[0]).expect("UDP passes");
            assert_ne!(second, first);
            lab.nat_box.forget().unwrap();
            assert!(!arrives(&lab.servers[0], second, &lab.client, false));
            let third = seen_by(&lab.client, &lab.servers[0]).expect("UDP passes");
            assert_ne!(third, second);
            assert!(arrives(&lab.servers[0], third, &lab.client, true));
        },
    );
}

#[test]
fn a_box_behind_a_box_translates_twice() {
    privileged("a_box_behind_a_box_translates_twice", || {
        let internet = internet();
        let carrier = NatBoxConfig::new(NatBoxKind::FullyRandom);
        let carrier = NatBox::new(&carrier, &internet, NETWORK).unwrap();
        let home = NatBoxConfig::new(NatBoxKind::PortRestricted);
        let home = carrier.nest(&home, [100, 64, 1]).unwrap();
        let host = Netns::new().unwrap();
        home.attach(&host, HOME).unwrap();
        let server = socket(&internet, (ADDRESSES[0], 1000).into());
        let client = socket(&host, (HOST, PORT).into());
        let mapped = seen_by(&client, &server).expect("UDP passes");
        assert_eq!(mapped.ip(), carrier.outside());
        assert_ne!(mapped.port(), PORT, "the carrier gives random ports");
        assert!(arrives(&server, mapped, &client, true));
        // The network between the two: the home's own mapping keeps the port.
        let between = socket(carrier.netns(), (Ipv4Addr::new(100, 64, 1, 1), 1000).into());
        let seen = seen_by(&client, &between);
        assert_eq!(seen, Some((home.outside(), PORT).into()));
    });
}

#[test]
fn blocked_udp_and_dropped_icmp_types_do_not_pass_and_the_rest_does() {
    privileged(
        "blocked_udp_and_dropped_icmp_types_do_not_pass_and_the_rest_does",
        || {
            const ECHO_REQUEST: u8 = 8;
            const UNREACHABLE: u8 = 3;
            for (udp_blocked, icmp_dropped) in [
                (true, vec![]),
                (false, vec![ECHO_REQUEST]),
                (false, vec![UNREACHABLE]),
            ] {
                let config = NatBoxConfig {
                    udp_blocked,
                    icmp_dropped: icmp_dropped.clone(),
                    ..NatBoxConfig::new(NatBoxKind::PortRestricted)
                };
                let lab = Lab::new(&config);
                let server = lab.servers[0].local_addr().unwrap();
                lab.client.send_to(b"out", server).unwrap();
                let wait = if udp_blocked { SILENCE } else { PATIENCE };
                let passed = received(&lab.servers[0], wait).is_some();
                assert_eq!(passed, !udp_blocked, "{config:?}");
                let passes = !icmp_dropped.contains(&ECHO_REQUEST);
                let ping = Echo {
                    target: ADDRESSES[0].into(),
                    count: 3,
                    interval: Duration::from_millis(1),
                    timeout: if passes { PATIENCE } else { SILENCE },
                    payload_len: 16,
                };
                let echoed = lab.host.run(|| ping.run()).unwrap().received;
                assert_eq!(echoed, if passes { 3 } else { 0 }, "{config:?}");
                if !udp_blocked {
                    let expected = !icmp_dropped.contains(&UNREACHABLE);
                    let told = is_told_that_nobody_listens(&lab, expected);
                    assert_eq!(told, expected, "{config:?}");
                }
            }
        },
    );
}

/// A datagram to a closed port: does the refusal, an ICMP message, come back through the box?
fn is_told_that_nobody_listens(lab: &Lab, expected: bool) -> bool {
    let socket = lab.host.run(|| {
        let socket = UdpSocket::bind((HOST, 0)).unwrap();
        socket.connect((ADDRESSES[0], 9)).unwrap();
        socket
    });
    socket.send(b"?").unwrap();
    let wait = if expected { PATIENCE } else { SILENCE };
    socket.set_read_timeout(Some(wait)).unwrap();
    let answer = socket.recv(&mut [0; 16]);
    answer.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn a_batch_is_taken_whole_or_not_at_all_and_the_refusal_names_the_step() {
    privileged(
        "a_batch_is_taken_whole_or_not_at_all_and_the_refusal_names_the_step",
        || {
            Netns::new().unwrap().run(|| {
                let nftables = Nftables::new().unwrap();
                let batch = |chain| {
                    Batch::new()
                        .table("one")
                        .chain("one", "first", Hook::Forward)
                        .rule("one", chain, &[], Action::Drop)
                };
                let error = nftables.apply(batch("second")).unwrap_err();
                assert_eq!(error.refusal(), Some(Refusal::NotThere), "{error}");
                assert!(error.to_string().contains("add to one second"), "{error}");
                // Had the table stayed, its chain would be there now.
                let rule = Batch::new().rule("one", "first", &[], Action::Drop);
                let error = nftables.apply(rule).unwrap_err();
                assert_eq!(error.refusal(), Some(Refusal::NotThere), "{error}");
                nftables.apply(batch("first")).unwrap();
            });
        },
    );
}
