//! Packets that are damaged before they enter the tunnel: they leave it as damaged as they came, and
//! the far kernel finds out.
//!
//! They are put onto the sender's device among good packets of the same stream, so that the good ones
//! are merged around them, and looked for on the receiver's device.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use shadowmesh::lab::{DEVICE, Family, LabNode, wait_until};
use shadowmesh_io::lab::{Capture, Injector, MemorySink};

use crate::support::in_lab;

const PACKETS: u32 = 600;
/// Of every nine packets the last two are damaged, so that runs of seven can form between.
const ROUND: u32 = 9;
const PAYLOAD_LEN: usize = 200;
const PORT: u16 = 5555;

fn is_damaged(number: u32) -> bool {
    number % ROUND >= ROUND - 2
}

/// Where the damage is: the three take turns.
fn damage(packet: &mut [u8], transport_at: usize, checksum_at: usize, number: u32) {
    match number % 3 {
        0 => packet[transport_at + checksum_at] ^= 0x10,
        1 => *packet.last_mut().expect("it has a payload") ^= 1,
        // In two places at once, by different amounts.
        _ => {
            packet[transport_at + checksum_at + 1] ^= 4;
            *packet.last_mut().expect("it has a payload") ^= 3;
        }
    }
}

/// Packet `number` of a TCP or UDP stream, checksums right, built byte by byte.
fn packet(source: IpAddr, target: IpAddr, tcp: bool, number: u32) -> Vec<u8> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.extend((4..PAYLOAD_LEN).map(|at| (at as u32 * 31 + number) as u8));
    let mut transport = [1234u16.to_be_bytes(), PORT.to_be_bytes()].concat();
    if tcp {
        transport.extend((1000 + number * PAYLOAD_LEN as u32).to_be_bytes());
        transport.extend([0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    } else {
        transport.extend([0, (PAYLOAD_LEN + 8) as u8, 0, 0]);
    }
    transport.extend(payload);
    let protocol = if tcp { 6 } else { 17 };
    let addresses = match (source, target) {
        (IpAddr::V4(a), IpAddr::V4(b)) => [a.octets().to_vec(), b.octets().to_vec()].concat(),
        (IpAddr::V6(a), IpAddr::V6(b)) => [a.octets().to_vec(), b.octets().to_vec()].concat(),
        _ => unreachable!("both have the same version"),
    };
    let pseudo = [&addresses[..], &[0, protocol, 0, transport.len() as u8]].concat();
    let checksum = !sum(&[&pseudo[..], &transport].concat());
    let at = checksum_at(tcp);
    transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = Vec::new();
    if target.is_ipv6() {
        packet.extend([0x60, 0, 0, 0, 0, transport.len() as u8, protocol, 64]);
        packet.extend(addresses);
    } else {
        let id = (number as u16).to_be_bytes();
        let total_len = (20 + transport.len() as u16).to_be_bytes();
        packet.extend([0x45, 0, total_len[0], total_len[1], id[0], id[1], 0, 0]);
        packet.extend([64, protocol, 0, 0]);
        packet.extend(addresses);
        let checksum = !sum(&packet);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    packet.extend(transport);
    packet
}

fn checksum_at(tcp: bool) -> usize {
    if tcp { 16 } else { 6 }
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The checksum errors that the kernel of a node has found, of all protocols and both IP versions.
fn checksum_errors(node: &LabNode) -> u64 {
    let (four, six) = node.netns.run(|| {
        let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
        (read("snmp"), read("snmp6"))
    });
    let lines: Vec<&str> = four.lines().collect();
    let of_four = lines.chunks(2).flat_map(|pair| {
        let names = pair[0].split_whitespace();
        names.zip(pair[1].split_whitespace())
    });
    let of_six = six.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?))
    });
    of_four
        .chain(of_six)
        .filter(|(name, _)| name.ends_with("InCsumErrors"))
        .filter_map(|(_, count)| count.parse::<u64>().ok())
        .sum()
}

/// What was seen on the receiver's device: packets that came alone, payloads that came merged.
#[derive(Default)]
struct Seen {
    alone: Vec<Vec<u8>>,
    merged: Vec<Vec<u8>>,
}

impl Seen {
    fn of(sink: &MemorySink, header_len: usize, target: IpAddr) -> Self {
        let mut seen = Self::default();
        for frame in sink.frames().filter(|frame| !frame.outgoing) {
            let to = match target {
                IpAddr::V4(target) => frame.bytes.get(16..20) == Some(&target.octets()),
                IpAddr::V6(target) => frame.bytes.get(24..40) == Some(&target.octets()),
            };
            // The kernels' own packets are shorter.
            if !to || frame.bytes.len() < header_len + PAYLOAD_LEN {
                continue;
            }
            match frame.segment_size {
                None => seen.alone.push(frame.bytes.to_vec()),
                Some(size) => {
                    let payloads = frame.bytes[header_len..].chunks(size.into());
                    seen.merged.extend(payloads.map(<[u8]>::to_vec));
                }
            }
        }
        seen
    }
}

fn damaged_packets_stay_damaged(from: &LabNode, to: &LabNode, family: Family, tcp: bool) {
    let (source, target): (IpAddr, IpAddr) = match family {
        Family::V4 => (from.overlay_v4().into(), to.overlay_v4().into()),
        Family::V6 => (from.overlay_v6().into(), to.overlay_v6().into()),
    };
    let transport_at = if target.is_ipv6() { 40 } else { 20 };
    let header_len = transport_at + if tcp { 20 } else { 8 };
    let socket = to
        .netns
        .run(|| UdpSocket::bind(SocketAddr::new(target, PORT)).unwrap());
    let errors_before = checksum_errors(to);
    let capture = to
        .netns
        .run(|| Capture::start(DEVICE, MemorySink::new(16 << 20)).unwrap());
    let sent: Vec<Vec<u8>> = (0..PACKETS)
        .map(|number| {
            let mut packet = packet(source, target, tcp, number);
            if is_damaged(number) {
                damage(&mut packet, transport_at, checksum_at(tcp), number);
            }
            packet
        })
        .collect();
    let received = std::thread::scope(|scope| {
        let program = scope.spawn(|| program_receives(&socket));
        from.netns.run(|| inject(&sent));
        program.join().unwrap()
    });
    let damaged = u64::from((0..PACKETS).map(|n| u32::from(is_damaged(n))).sum::<u32>());
    let found = || checksum_errors(to) - errors_before >= damaged;
    wait_until(Duration::from_secs(2), found);
    let (sink, _) = capture.stop().unwrap();
    let seen = Seen::of(&sink, header_len, target);

    let case = format!("{family:?}, tcp {tcp}");
    assert_eq!(checksum_errors(to) - errors_before, damaged, "{case}");
    assert!(
        seen.merged.len() > PACKETS as usize / 4,
        "{case}: hardly anything was merged"
    );
    for (number, packet) in (0..).zip(&sent) {
        let alone = seen.alone.contains(packet);
        if is_damaged(number) {
            assert!(alone, "{case}: damaged packet {number} came out otherwise");
            // Neither as it is nor as it was before.
            for payload in [&packet[header_len..], &original(packet, number)[..]] {
                let merged = seen.merged.iter().any(|seen| seen == payload);
                assert!(!merged, "{case}: damaged packet {number} was merged");
            }
        } else {
            let merged = seen.merged.iter().any(|seen| *seen == packet[header_len..]);
            assert!(alone || merged, "{case}: packet {number} is missing");
        }
    }
    assert!(
        seen.alone.iter().all(|packet| sent.contains(packet)),
        "{case}"
    );
    let good: Vec<Vec<u8>> = (0..)
        .zip(&sent)
        .filter(|(number, _)| !tcp && !is_damaged(*number))
        .map(|(_, packet)| packet[header_len..].to_vec())
        .collect();
    let (got, all) = (received.len(), good.len());
    assert!(received == good, "{case}: a program got {got} of {all}");
}

/// Puts packets onto the device, a few at a time.
fn inject(packets: &[Vec<u8>]) {
    let injector = Injector::onto(DEVICE).unwrap();
    for batch in packets.chunks(60) {
        for packet in batch {
            injector.send(packet).unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a program reads from the socket; of UDP the kernel looks at checksums only now.
fn program_receives(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let patience = Duration::from_millis(300);
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 2000];
    let mut datagrams = Vec::new();
    while let Ok(len) = socket.recv(&mut buffer) {
        datagrams.push(buffer[..len].to_vec());
    }
    datagrams
}

/// The payload that a damaged packet had.
fn original(packet: &[u8], number: u32) -> Vec<u8> {
    let mut payload = packet[packet.len() - PAYLOAD_LEN..].to_vec();
    let by = [0, 1, 3][(number % 3) as usize];
    *payload.last_mut().expect("it is not empty") ^= by;
    payload
}

// PROTOCOL SM-DV-1
#[test]
fn a_packet_with_a_bad_checksum_is_never_repaired_by_a_merge() {
    let name = "damage::a_packet_with_a_bad_checksum_is_never_repaired_by_a_merge";
    in_lab(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        let [from, to] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        for family in [Family::V4, Family::V6] {
            for tcp in [true, false] {
                damaged_packets_stay_damaged(from, to, family, tcp);
            }
        }
    });
}
