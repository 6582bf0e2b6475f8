//! What the kernel does with the queues of a device, and the device without offload.

#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use shadowmesh_io::lab::privileged;
use shadowmesh_io::netlink::Handle;
use shadowmesh_io::netns::Netns;
use shadowmesh_io::poll::{self, Watch};
use shadowmesh_io::tun::{Offloads, READ_LEN_MAX, Tun, TunError, TunOptions};

const HEADER: [u8; 10] = [0; 10];
const PATIENCE: Duration = Duration::from_secs(5);
const FLOWS: u16 = 64;
const FIRST_PORT: u16 = 20_000;

fn options(name: Option<&str>, queues: usize, offload: bool) -> TunOptions<'_> {
    TunOptions {
        name,
        mtu: 1420,
        queues,
        offload,
    }
}

fn device(netns: &Netns, queues: usize, offload: bool) -> Tun {
    netns.run(|| {
        let tun = Tun::open(&options(None, queues, offload)).unwrap();
        let handle = Handle::new().unwrap();
        handle
            .add_address(tun.index(), "10.100.1.5".parse().unwrap(), 16)
            .unwrap();
        tun
    })
}

/// Reads until every one of `FLOWS` sent something; returns by which queue, for each source port, and
/// one packet of each.
fn read_flows(tun: &Tun) -> BTreeMap<u16, (usize, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut buffer = vec![0; READ_LEN_MAX];
    let start = Instant::now();
    while found.len() < FLOWS.into() {
        assert!(start.elapsed() < PATIENCE, "{} flows only", found.len());
        for (number, queue) in tun.queues().iter().enumerate() {
            match queue.read(&mut buffer) {
                Ok(len) => {
                    let packet = &buffer[HEADER.len()..len];
                    if packet[0] == 0x45 && packet[9] == 17 {
                        let port = u16::from_be_bytes([packet[20], packet[21]]);
                        found.insert(port, (number, packet.to_vec()));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    found
}

/// The packet with its addresses and ports turned round and no checksum.
fn answer(packet: &[u8]) -> Vec<u8> {
    let mut back = packet.to_vec();
    back[12..16].copy_from_slice(&packet[16..20]);
    back[16..20].copy_from_slice(&packet[12..16]);
    back[20..22].copy_from_slice(&packet[22..24]);
    back[22..24].copy_from_slice(&packet[20..22]);
    back[26..28].fill(0);
    back
}

// PROTOCOL SM-DV-3
#[test]
fn a_flow_stays_on_its_queue_whoever_writes_its_answers_in_namespaces() {
    privileged(
        "a_flow_stays_on_its_queue_whoever_writes_its_answers_in_namespaces",
        || {
            let netns = Netns::new().unwrap();
            let tun = device(&netns, 4, true);
            assert_eq!(tun.queues().len(), 4);
            let sockets: Vec<UdpSocket> = netns.run(|| {
                let ports = FIRST_PORT..FIRST_PORT + FLOWS;
                ports
                    .map(|port| UdpSocket::bind(("10.100.1.5", port)).unwrap())
                    .collect()
            });
            let send = || {
                for socket in &sockets {
                    socket.send_to(b"out", "10.100.1.6:7000").unwrap();
                }
                read_flows(&tun)
            };
            let before = send();
            let used: std::collections::BTreeSet<_> = before.values().map(|(q, _)| *q).collect();
            assert_eq!(used.len(), 4, "64 flows use every queue");
            for (_, packet) in before.values() {
                let back = answer(packet);
                let written = [IoSlice::new(&HEADER), IoSlice::new(&back)];
                tun.write_vectored(&written).unwrap();
            }
            for socket in &sockets {
                socket.set_read_timeout(Some(PATIENCE)).unwrap();
                assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 3, "the answer came");
            }
            for (port, (queue, _)) in send() {
                assert_eq!(queue, before[&port].0, "flow {port} moved");
            }
        },
    );
}

#[test]
fn a_device_with_several_queues_is_shared_with_nobody_in_namespaces() {
    privileged(
        "a_device_with_several_queues_is_shared_with_nobody_in_namespaces",
        || {
            Netns::new().unwrap().run(|| {
                let held = Tun::open(&options(Some("mine"), 2, true)).unwrap();
                for queues in [1, 2, 16] {
                    let error = Tun::open(&options(Some("mine"), queues, true))
                        .err()
                        .expect("another has it");
                    assert!(error.to_string().contains("device.name"), "{error}");
                }
                let error = Tun::open(&options(Some("mine"), 2, true)).err().unwrap();
                assert!(matches!(error, TunError::Exists { .. }), "{error:?}");
                drop(held);
                let many = Tun::open(&options(Some("mine"), 16, true)).unwrap();
                assert_eq!(many.queues().len(), 16);
                drop(many);
                assert!(Handle::new().unwrap().link_by_name("mine").is_err());
            });
        },
    );
}

#[test]
fn a_device_without_offload_passes_single_packets_both_ways_in_namespaces() {
    privileged(
        "a_device_without_offload_passes_single_packets_both_ways_in_namespaces",
        || {
            let netns = Netns::new().unwrap();
            let tun = device(&netns, 4, false);
            assert_eq!((tun.name(), tun.queues().len()), ("shadow0", 1));
            assert_eq!(tun.offloads(), Offloads::NONE);
            let socket = netns.run(|| UdpSocket::bind("10.100.1.5:7000").unwrap());
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"out", "10.100.1.6:7000").unwrap();
            let mut buffer = vec![1; READ_LEN_MAX];
            let packet = loop {
                poll::wait(&mut [Watch::readable(&tun)], Some(PATIENCE)).unwrap();
                let len = tun.read(&mut buffer).unwrap();
                assert_eq!(buffer[..10], HEADER, "nothing is left to do");
                if buffer[10] == 0x45 {
                    break buffer[10..len].to_vec();
                }
            };
            assert_eq!(&packet[28..], b"out");
            let error = tun.read(&mut buffer).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WouldBlock);

            // In one piece and in two.
            let back = answer(&packet);
            for cut in [back.len(), 28] {
                let (head, tail) = back.split_at(cut);
                let mut slices = vec![IoSlice::new(&HEADER), IoSlice::new(head)];
                slices.extend((!tail.is_empty()).then(|| IoSlice::new(tail)));
                assert_eq!(tun.write_vectored(&slices).unwrap(), 10 + back.len());
                let mut received = [0; 8];
                let len = socket.recv(&mut received).unwrap();
                assert_eq!(&received[..len], b"out");
            }
            let mut unfinished = HEADER;
            unfinished[0] = 1;
            let slices = [IoSlice::new(&unfinished), IoSlice::new(&back)];
            let error = tun.write_vectored(&slices).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            drop(tun);
            assert!(
                netns
                    .run(|| Handle::new().unwrap().link_by_name("shadow0"))
                    .is_err()
            );
        },
    );
}
