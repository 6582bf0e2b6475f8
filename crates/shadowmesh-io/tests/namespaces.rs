//! The crate against the real kernel: devices, sockets and routes in network namespaces that each
//! test makes and that vanish with it. Runs as root or, elsewhere, in a user namespace.

#![cfg(target_os = "linux")]

use std::io::{IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use shadowmesh_io::lab::{Capture, Echo, Frame, MemorySink, SpoofedFlood, privileged};
use shadowmesh_io::netlink::{Handle, Refusal, Route};
use shadowmesh_io::netns::{self, Netns};
use shadowmesh_io::poll::{self, Waker, Watch};
use shadowmesh_io::tun::{READ_LEN_MAX, Tun, TunError};
use shadowmesh_io::udp::{RecvBatch, SendFault, Transmit, UdpLink};

const VNET_HDR_LEN: usize = 10;
const PATIENCE: Duration = Duration::from_secs(10);

/// Two namespaces joined by a cable, `10.9.0.1` and `fd09::1` here, `.2` and `::2` there.
struct Pair {
    here: Netns,
    there: Netns,
}

impl Pair {
    fn new() -> Self {
        let (here, there) = (Netns::new().unwrap(), Netns::new().unwrap());
        here.run(|| {
            let handle = Handle::new().unwrap();
            handle.create_veth("here", "there").unwrap();
            let end = handle.link_by_name("there").unwrap();
            handle.move_to_netns(end.index, &there).unwrap();
        });
        for (netns, name, number) in [(&here, "here", 1), (&there, "there", 2)] {
            netns.run(|| {
                let handle = Handle::new().unwrap();
                let link = handle.link_by_name(name).unwrap();
                handle.set_up(link.index).unwrap();
                for (address, prefix_len) in [(four(number), 24), (six(number), 64)] {
                    handle.add_address(link.index, address, prefix_len).unwrap();
                }
            });
        }
        for (netns, name) in [(&here, "here"), (&there, "there")] {
            netns.run(|| {
                let handle = Handle::new().unwrap();
                let link = handle.link_by_name(name).unwrap();
                handle.wait_for_carrier(link.index, PATIENCE).unwrap();
            });
        }
        Self { here, there }
    }
}

/// Expedited forwarding (RFC 3246), in its place in the traffic class.
const EF: u8 = 46 << 2;

fn four(number: u16) -> IpAddr {
    format!("10.9.0.{number}").parse().unwrap()
}

fn six(number: u16) -> IpAddr {
    format!("fd09::{number}").parse().unwrap()
}

fn transmit(remote: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
    Transmit {
        remote,
        local_ip: None,
        traffic_class: 0,
        may_fragment: false,
        segment_size,
        contents,
    }
}

/// Waits until the link has something and receives it.
fn receive(link: &UdpLink, batch: &mut RecvBatch) {
    let mut watches = [Watch::readable(link)];
    assert_eq!(
        poll::wait(&mut watches, Some(PATIENCE)).unwrap(),
        1,
        "nothing arrived"
    );
    link.recv_batch(batch).unwrap();
}

#[test]
fn a_gso_run_arrives_as_the_same_datagrams_in_few_buffers_over_both_families() {
    privileged(
        "a_gso_run_arrives_as_the_same_datagrams_in_few_buffers_over_both_families",
        || {
            let pair = Pair::new();
            for address in [four, six] {
                let sender = pair
                    .here
                    .run(|| UdpLink::bind(SocketAddr::new(address(1), 0)).unwrap());
                let receiver = pair
                    .there
                    .run(|| UdpLink::bind(SocketAddr::new(address(2), 0)).unwrap());
                assert!(sender.max_gso_segments() > 1, "this kernel has GSO");
                // 150 datagrams are more than one GSO run, and the last is shorter.
                let contents: Vec<u8> = (0..150 * 1400 - 77).map(|at| (at % 251) as u8).collect();
                let run = Transmit {
                    local_ip: Some(address(1)),
                    traffic_class: EF | 2,
                    ..transmit(receiver.local_addr(), &contents, Some(1400))
                };
                sender.send(&run).unwrap();

                let (mut batch, mut arrived, mut buffers) = (RecvBatch::new(), Vec::new(), 0);
                while arrived.len() < contents.len() {
                    receive(&receiver, &mut batch);
                    for (meta, bytes) in batch.iter_mut() {
                        assert_eq!(meta.remote, sender.local_addr());
                        assert_eq!(meta.local_ip, Some(address(2)));
                        assert_eq!(meta.ecn, Some(2));
                        assert!(bytes.len() <= 1400 || meta.stride == 1400, "{meta:?}");
                        arrived.extend_from_slice(bytes);
                        buffers += 1;
                    }
                }
                assert!(arrived == contents, "bytes changed on the way");
                assert!(buffers < 50, "GRO gave {buffers} buffers for 150 datagrams");
            }
        },
    );
}

#[test]
fn too_big_a_datagram_is_refused_not_fragmented_and_does_not_cost_the_offload() {
    privileged(
        "too_big_a_datagram_is_refused_not_fragmented_and_does_not_cost_the_offload",
        || {
            let pair = Pair::new();
            for address in [four, six] {
                let sender = pair
                    .here
                    .run(|| UdpLink::bind(SocketAddr::new(address(1), 0)).unwrap());
                let remote = SocketAddr::new(address(2), 9);
                let segments = sender.max_gso_segments();
                let contents = vec![0; 6000];
                for size in [None, Some(2000)] {
                    let error = sender.send(&transmit(remote, &contents, size)).unwrap_err();
                    assert_eq!(
                        SendFault::of(&error),
                        SendFault::TooBig,
                        "{size:?}: {error}"
                    );
                }
                assert_eq!(sender.max_gso_segments(), segments);
            }
        },
    );
}

#[test]
fn a_send_without_route_is_unreachable_and_from_a_foreign_address_is_told_so() {
    privileged(
        "a_send_without_route_is_unreachable_and_from_a_foreign_address_is_told_so",
        || {
            let pair = Pair::new();
            let link = pair
                .here
                .run(|| UdpLink::bind("0.0.0.0:0".parse().unwrap()).unwrap());
            let nowhere = transmit("192.0.2.1:9".parse().unwrap(), b"x", None);
            let error = link.send(&nowhere).unwrap_err();
            assert_eq!(SendFault::of(&error), SendFault::Unreachable, "{error}");
            // For a source address that is not ours IPv4 says the same and IPv6 says what it means.
            for (address, bind, fault) in [
                (
                    four as fn(u16) -> IpAddr,
                    "0.0.0.0:0",
                    SendFault::Unreachable,
                ),
                (six, "[::]:0", SendFault::LocalAddressGone),
            ] {
                let link = pair
                    .here
                    .run(|| UdpLink::bind(bind.parse().unwrap()).unwrap());
                let neighbour = transmit(SocketAddr::new(address(2), 9), b"x", None);
                link.send(&neighbour).unwrap();
                let foreign = Transmit {
                    local_ip: Some(address(77)),
                    ..neighbour
                };
                let error = link.send(&foreign).unwrap_err();
                assert_eq!(SendFault::of(&error), fault, "{error}");
            }
        },
    );
}

#[test]
fn addresses_and_routes_come_and_go_and_refusals_say_why() {
    privileged(
        "addresses_and_routes_come_and_go_and_refusals_say_why",
        || {
            Netns::new().unwrap().run(|| {
                let handle = Handle::new().unwrap();
                handle.create_veth("left", "right").unwrap();
                let left = handle.link_by_name("left").unwrap();
                assert_eq!(
                    (left.kind.as_deref(), left.up, left.mtu),
                    (Some("veth"), false, 1500)
                );
                assert!(left.ethernet.is_some());
                handle.set_mtu(left.index, 1400).unwrap();
                handle.set_up(left.index).unwrap();
                let left = handle.link_by_index(left.index).unwrap();
                assert_eq!((left.up, left.carrier, left.mtu), (true, false, 1400));
                let error = handle
                    .wait_for_carrier(left.index, Duration::from_millis(20))
                    .unwrap_err();
                assert!(error.to_string().contains("no carrier"), "{error}");

                let prefixes =
                    ["10.50.0.0/16", "fd50::/32"].map(|text| text.split_once('/').unwrap());
                for ((prefix, length), address) in prefixes.into_iter().zip([four(1), six(1)]) {
                    let length_of_address = if address.is_ipv4() { 24 } else { 64 };
                    handle
                        .add_address(left.index, address, length_of_address)
                        .unwrap();
                    let mine = |handle: &Handle| {
                        let all = handle.addresses().unwrap();
                        all.iter()
                            .any(|found| found.address == address && found.index == left.index)
                    };
                    assert!(mine(&handle));
                    let again = handle
                        .add_address(left.index, address, length_of_address)
                        .unwrap_err();
                    assert_eq!(again.refusal(), Some(Refusal::Exists), "{again}");

                    let route = Route::to_device(
                        prefix.parse().unwrap(),
                        length.parse().unwrap(),
                        left.index,
                    );
                    handle.add_route(&route).unwrap();
                    let listed = handle.routes().unwrap().into_iter();
                    let ours: Vec<_> = listed
                        .filter(|found| found.protocol == route.protocol)
                        .collect();
                    assert_eq!(ours.len(), 1, "{ours:?}");
                    assert_eq!(
                        (ours[0].destination, ours[0].prefix_len),
                        (route.destination, route.prefix_len)
                    );
                    assert_eq!(ours[0].index, Some(left.index));
                    handle.del_route(&route).unwrap();
                    let gone = handle.del_route(&route).unwrap_err();
                    assert_eq!(gone.refusal(), Some(Refusal::NotThere), "{gone}");
                    assert!(gone.to_string().contains(prefix), "{gone}");

                    handle
                        .del_address(left.index, address, length_of_address)
                        .unwrap();
                    assert!(!mine(&handle));
                }
                let error = handle.set_up(9999).unwrap_err();
                assert_eq!(error.refusal(), Some(Refusal::NoSuchDevice), "{error}");
                handle.delete_link(left.index).unwrap();
                assert!(
                    handle.link_by_name("right").is_err(),
                    "the other end goes too"
                );
            });
        },
    );
}

#[test]
fn a_route_through_a_next_hop_carries_pings_between_machines_that_share_no_cable() {
    privileged(
        "a_route_through_a_next_hop_carries_pings_between_machines_that_share_no_cable",
        || {
            let pair = Pair::new();
            let far: IpAddr = "10.77.0.1".parse().unwrap();
            pair.there.run(|| {
                let handle = Handle::new().unwrap();
                handle.create_bridge("far").unwrap();
                let bridge = handle.link_by_name("far").unwrap();
                assert_eq!(bridge.kind.as_deref(), Some("bridge"));
                handle.set_up(bridge.index).unwrap();
                handle.add_address(bridge.index, far, 32).unwrap();
                handle.create_veth("port", "plug").unwrap();
                let port = handle.link_by_name("port").unwrap();
                handle.set_master(port.index, Some(bridge.index)).unwrap();
                assert_eq!(
                    handle.link_by_name("port").unwrap().master,
                    Some(bridge.index)
                );
            });
            let echo = Echo {
                target: far,
                count: 5,
                interval: Duration::from_millis(1),
                timeout: Duration::from_millis(300),
                payload_len: 16,
            };
            pair.here.run(|| {
                let before = echo.run().unwrap();
                assert_eq!((before.refused, before.received), (5, 0), "no route yet");
                let handle = Handle::new().unwrap();
                let unreachable = Route::via(far, 32, "10.200.0.1".parse().unwrap());
                let error = handle.add_route(&unreachable).unwrap_err();
                assert!(error.to_string().contains("via 10.200.0.1"), "{error}");
                handle.add_route(&Route::via(far, 32, four(2))).unwrap();
                assert_eq!(echo.run().unwrap().received, 5);
            });
        },
    );
}

#[test]
fn every_ping_is_counted_once_over_both_families_and_silence_is_loss() {
    privileged(
        "every_ping_is_counted_once_over_both_families_and_silence_is_loss",
        || {
            let pair = Pair::new();
            let echo = Echo {
                target: four(2),
                count: 300,
                interval: Duration::from_millis(1),
                timeout: Duration::from_secs(2),
                payload_len: 56,
            };
            for target in [four(2), six(2)] {
                let report = pair.here.run(|| Echo { target, ..echo }.run()).unwrap();
                assert_eq!(
                    (report.sent, report.received, report.duplicates),
                    (300, 300, 0)
                );
                assert!(
                    report.quantile(0.5).unwrap() < Duration::from_millis(100),
                    "{report:?}"
                );
            }
            pair.there
                .set_sysctl("net.ipv4.icmp_echo_ignore_all", "1")
                .unwrap();
            let timeout = Duration::from_millis(100);
            let report = pair
                .here
                .run(|| {
                    Echo {
                        count: 10,
                        timeout,
                        ..echo
                    }
                    .run()
                })
                .unwrap();
            assert_eq!((report.sent, report.received), (10, 0));
        },
    );
}

// PROTOCOL SM-DV-2
#[test]
fn a_tun_device_hands_over_packets_takes_them_back_and_is_gone_with_its_owner() {
    privileged(
        "a_tun_device_hands_over_packets_takes_them_back_and_is_gone_with_its_owner",
        || {
            let netns = Netns::new().unwrap();
            let tun = netns.run(|| Tun::create(None, 1420).unwrap());
            assert_eq!(tun.name(), "shadow0");
            assert!(tun.offloads().tcp);
            netns.run(|| {
                let handle = Handle::new().unwrap();
                let link = handle.link_by_name("shadow0").unwrap();
                assert_eq!((link.index, link.mtu, link.up), (tun.index(), 1420, true));
                assert_eq!(link.kind.as_deref(), Some("tun"));
                let addresses = handle.addresses().unwrap();
                let own = addresses.iter().filter(|found| found.index == tun.index());
                assert_eq!(own.count(), 0, "no link-local address");
                handle
                    .add_address(tun.index(), "10.100.1.5".parse().unwrap(), 16)
                    .unwrap();
            });

            let socket = netns.run(|| UdpSocket::bind("10.100.1.5:7000").unwrap());
            socket.send_to(b"out", "10.100.1.6:7000").unwrap();
            let out = read_packet(&tun, |packet| packet[9] == 17);
            assert_eq!(out[12..20], [10, 100, 1, 5, 10, 100, 1, 6]);
            assert_eq!(&out[28..], b"out");

            // The same packet back, addresses and payload turned round; checksum 0 means none.
            let mut back = out[..28].to_vec();
            back[12..20].copy_from_slice(&[10, 100, 1, 6, 10, 100, 1, 5]);
            back[26..28].copy_from_slice(&[0, 0]);
            let written = tun
                .write_vectored(&[
                    IoSlice::new(&[0; VNET_HDR_LEN]),
                    IoSlice::new(&back),
                    IoSlice::new(b"aye"),
                ])
                .unwrap();
            assert_eq!(written, VNET_HDR_LEN + 31);
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut buffer = [0; 64];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(
                (&buffer[..length], from.to_string().as_str()),
                (&b"aye"[..], "10.100.1.6:7000")
            );

            drop(tun);
            assert!(
                netns
                    .run(|| Handle::new().unwrap().link_by_name("shadow0"))
                    .is_err()
            );
        },
    );
}

#[test]
fn an_answer_that_comes_later_than_the_next_request_ends_the_wait_for_one() {
    let name = "an_answer_that_comes_later_than_the_next_request_ends_the_wait_for_one";
    privileged(name, || {
        let netns = Netns::new().unwrap();
        let tun = netns.run(|| Tun::create(None, 1420).unwrap());
        let target: IpAddr = "10.100.1.6".parse().unwrap();
        let echo = Echo {
            target,
            count: 1,
            interval: Duration::from_millis(10),
            timeout: Duration::ZERO,
            payload_len: 56,
        };
        let late = 20 * echo.interval;
        // No address, no route and nobody who answers.
        let nobody = netns.run(|| echo.until_answered(late));
        assert_eq!(nobody.unwrap(), None);
        netns.run(|| {
            let handle = Handle::new().unwrap();
            let own = "10.100.1.5".parse().unwrap();
            handle.add_address(tun.index(), own, 16).unwrap();
        });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut packet = read_packet(&tun, |packet| packet[9] == 1 && packet[20] == 8);
                std::thread::sleep(late);
                // The request as its answer: addresses turned round, type 0, and the checksum corrected
                // by what changed (RFC 1624).
                packet[12..20].rotate_left(4);
                packet[20] = 0;
                let sum = u16::from_be_bytes([packet[22], packet[23]]);
                let (sum, carry) = sum.overflowing_add(8 << 8);
                let sum = sum + u16::from(carry);
                packet[22..24].copy_from_slice(&sum.to_be_bytes());
                let header = [0; VNET_HDR_LEN];
                tun.write_vectored(&[IoSlice::new(&header), IoSlice::new(&packet)])
                    .unwrap();
            });
            let took = netns.run(|| echo.until_answered(PATIENCE)).unwrap();
            assert!(took.expect("an answer") >= late, "{took:?}");
        });
    });
}

/// Reads packets until one fits (the kernel also sends router solicitations and the like).
fn read_packet(tun: &Tun, fits: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut buffer = vec![0; READ_LEN_MAX];
    let start = Instant::now();
    loop {
        assert!(
            start.elapsed() < PATIENCE,
            "the device handed over nothing that fits"
        );
        match tun.read(&mut buffer) {
            Ok(length) if fits(&buffer[VNET_HDR_LEN..length]) => {
                return buffer[VNET_HDR_LEN..length].to_vec();
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                poll::wait(&mut [Watch::readable(tun)], Some(PATIENCE)).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_tun_name_that_is_taken_is_explained_with_the_way_out() {
    privileged(
        "a_tun_name_that_is_taken_is_explained_with_the_way_out",
        || {
            Netns::new().unwrap().run(|| {
                let held = Tun::create(Some("mine"), 1420).unwrap();
                let error = Tun::create(Some("mine"), 1420)
                    .err()
                    .expect("another holds it");
                assert!(matches!(error, TunError::Busy { .. }), "{error:?}");
                assert!(error.to_string().contains("choose another name"), "{error}");
                drop(held);
                Tun::create(Some("mine"), 1420).unwrap();

                Handle::new().unwrap().create_bridge("bridge0").unwrap();
                let error = Tun::create(Some("bridge0"), 1420)
                    .err()
                    .expect("not a TUN device");
                assert!(matches!(error, TunError::OtherKind { .. }), "{error:?}");
            });
        },
    );
}

#[test]
fn tcp_super_packets_cross_two_tun_devices_unsegmented() {
    privileged(
        "tcp_super_packets_cross_two_tun_devices_unsegmented",
        || {
            let devices = [1, 2].map(|number| {
                let netns = Netns::new().unwrap();
                let tun = netns.run(|| Tun::create(Some("tun0"), 1420).unwrap());
                netns.run(|| {
                    let handle = Handle::new().unwrap();
                    handle.add_address(tun.index(), four(number), 24).unwrap();
                });
                (netns, tun)
            });
            let [(here, left), (there, right)] = &devices;
            let (stop, largest) = (Waker::new().unwrap(), AtomicUsize::new(0));
            let data: Vec<u8> = (0..8 << 20).map(|at: u32| (at % 251) as u8).collect();
            std::thread::scope(|scope| {
                scope.spawn(|| carry(left, right, &stop, &largest));
                scope.spawn(|| carry(right, left, &stop, &largest));
                let listener = there.run(|| TcpListener::bind((four(2), 80)).unwrap());
                let reader = scope.spawn(move || {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut arrived = Vec::new();
                    stream.read_to_end(&mut arrived).map(|_| arrived)
                });
                let mut stream = here.run(|| TcpStream::connect((four(2), 80)).unwrap());
                stream.write_all(&data).unwrap();
                drop(stream);
                let arrived = reader.join().unwrap().unwrap();
                stop.wake();
                assert!(arrived == data, "bytes changed on the way");
            });
            let largest = largest.load(Ordering::Relaxed);
            assert!(
                largest > 10_000,
                "the largest packet had {largest} bytes: no offload"
            );
        },
    );
}

/// Passes packets on as they are, offload header included, until woken.
fn carry(from: &Tun, to: &Tun, stop: &Waker, largest: &AtomicUsize) {
    let mut buffer = vec![0; READ_LEN_MAX];
    loop {
        match from.read(&mut buffer) {
            Ok(length) => {
                largest.fetch_max(length - VNET_HDR_LEN, Ordering::Relaxed);
                let (header, packet) = buffer[..length].split_at(VNET_HDR_LEN);
                // A full queue loses the packet, as any link may; TCP sends it again.
                let _ = to.write_vectored(&[IoSlice::new(header), IoSlice::new(packet)]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let mut watches = [Watch::readable(from), Watch::readable(stop)];
                poll::wait(&mut watches, None).unwrap();
                if watches[1].is_ready() {
                    return;
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_capture_sees_every_datagram_of_a_run_cut_as_on_the_wire() {
    privileged(
        "a_capture_sees_every_datagram_of_a_run_cut_as_on_the_wire",
        || {
            let pair = Pair::new();
            let sender = pair
                .here
                .run(|| UdpLink::bind(SocketAddr::new(four(1), 0)).unwrap());
            let receiver = pair
                .there
                .run(|| UdpLink::bind(SocketAddr::new(four(2), 0)).unwrap());
            let capture = pair
                .there
                .run(|| Capture::start("there", MemorySink::new(1 << 24)).unwrap());
            let contents: Vec<u8> = (0..40 * 1000 - 300).map(|at| (at / 1000) as u8).collect();
            sender
                .send(&transmit(receiver.local_addr(), &contents, Some(1000)))
                .unwrap();
            receive(&receiver, &mut RecvBatch::new());
            let (sink, stats) = capture.stop().unwrap();
            assert_eq!((stats.lost, sink.forgotten()), (0, 0));
            let datagrams: Vec<_> = sink
                .frames()
                .flat_map(|frame: Frame<'_>| {
                    assert!(frame.ethernet);
                    frame.udp_datagrams().collect::<Vec<_>>()
                })
                .filter(|datagram| datagram.destination == receiver.local_addr())
                .collect();
            assert_eq!(datagrams.len(), 40);
            for (number, datagram) in datagrams.iter().enumerate() {
                assert_eq!(datagram.source, sender.local_addr());
                assert_eq!(
                    datagram.payload.len(),
                    if number == 39 { 700 } else { 1000 }
                );
                assert!(datagram.payload.iter().all(|&byte| byte == number as u8));
            }
        },
    );
}

#[test]
fn a_spoofed_flood_keeps_its_rate_and_claims_its_sources() {
    privileged(
        "a_spoofed_flood_keeps_its_rate_and_claims_its_sources",
        || {
            let pair = Pair::new();
            // Answers to forged sources have nowhere to go; the forged datagrams must still come in.
            for name in ["all", "there"] {
                let setting = format!("net.ipv4.conf.{name}.rp_filter");
                pair.there.set_sysctl(&setting, "0").unwrap();
            }
            let destination: SocketAddrV4 = "10.9.0.2:4433".parse().unwrap();
            let receiver = pair
                .there
                .run(|| UdpLink::bind(destination.into()).unwrap());
            let flood = SpoofedFlood {
                destination,
                rate: 20_000,
                duration: Duration::from_millis(500),
            };
            let source = |number: u64| {
                SocketAddrV4::new([198, 18, (number >> 8) as u8, number as u8].into(), 1024)
            };
            let report = std::thread::scope(|scope| {
                let sending = scope.spawn(|| {
                    pair.here.run(|| {
                        flood.run(&AtomicBool::new(false), |number, payload| {
                            payload.extend_from_slice(&number.to_be_bytes());
                            source(number)
                        })
                    })
                });
                let (mut batch, mut received) = (RecvBatch::new(), 0);
                while received < 10_000 {
                    receive(&receiver, &mut batch);
                    for (meta, bytes) in batch.iter_mut() {
                        for datagram in bytes.chunks(meta.stride) {
                            let number = u64::from_be_bytes(datagram.try_into().unwrap());
                            assert_eq!(meta.remote, source(number).into());
                            received += 1;
                        }
                    }
                }
                sending.join().unwrap().unwrap()
            });
            assert_eq!((report.sent, report.refused), (10_000, 0));
            assert!(report.elapsed >= Duration::from_millis(500), "{report:?}");
            assert!(report.elapsed < Duration::from_secs(5), "{report:?}");
        },
    );
}

#[test]
fn work_and_programs_run_inside_a_namespace_and_the_caller_stays_outside() {
    privileged(
        "work_and_programs_run_inside_a_namespace_and_the_caller_stays_outside",
        || {
            let own = || std::fs::read_link("/proc/thread-self/ns/net").unwrap();
            let netns = Netns::new().unwrap();
            let outside = own();
            let inside = netns.run(own);
            assert_ne!(inside, outside);
            assert_eq!(own(), outside, "only the helper thread moved");

            let mut child = netns
                .spawn(Command::new("sleep").arg("30").stdout(Stdio::null()))
                .unwrap();
            let theirs = std::fs::read_link(format!("/proc/{}/ns/net", child.id())).unwrap();
            assert_eq!(theirs, inside);
            assert_eq!(Netns::of_process(child.id()).unwrap().run(own), inside);
            child.kill().unwrap();
            child.wait().unwrap();

            netns.set_sysctl("net.ipv4.ip_forward", "1").unwrap();
            let setting = netns.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward"));
            assert_eq!(setting.unwrap().trim(), "1");
            // The loopback device of a new namespace is up.
            let socket = netns.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
            socket
                .send_to(b"self", socket.local_addr().unwrap())
                .unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 4);
        },
    );
}

#[test]
fn a_panic_inside_a_namespace_reaches_the_caller() {
    privileged("a_panic_inside_a_namespace_reaches_the_caller", || {
        let netns = Netns::new().unwrap();
        let result = std::panic::catch_unwind(|| netns.run(|| -> () { panic!("inside") }));
        let panic = result.expect_err("the panic was swallowed");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"inside"));
    });
}

#[test]
fn a_user_namespace_makes_its_child_root_and_able_to_make_network_namespaces() {
    let mut command = Command::new("unshare");
    command.args(["--net", "id", "-u"]);
    match netns::in_user_namespace(&mut command).output() {
        Ok(output) => assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "0",
            "{output:?}"
        ),
        // A hardened machine refuses; then the refusal must be the kernel's, and clear.
        Err(error) => {
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::PermissionDenied,
                "{error}"
            );
            eprintln!("NOT RUN: this machine allows no user namespaces: {error}");
        }
    }
}
