//! Split and coalesce of `shadowmesh-wire` against the real kernel.
//!
//! Two devices in two namespaces, and between them, in place of a tunnel, what a tunnel does to
//! packets: super-packets read from one device are split, the segments are merged again and written
//! to the other. The kernel is the judge: it refuses virtio headers that contradict their packet,
//! verifies the checksum of every packet that was not merged, and hands the application the bytes.
//! Unfinished checksums it believes without looking; so merged packets are also compared with the
//! super-packets that the kernel made of the same data.

#![cfg(target_os = "linux")]

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shadowmesh_io::lab::privileged;
use shadowmesh_io::netlink::Handle;
use shadowmesh_io::netns::Netns;
use shadowmesh_io::poll::{self, Watch};
use shadowmesh_io::tun::{READ_LEN_MAX, Tun};
use shadowmesh_io::udp::{Transmit, UdpLink};
use shadowmesh_wire::offload::{Coalescer, GsoType, IOV_LEN_MAX, Split, VNET_HDR_LEN, VnetHdr};

const MTU: u32 = 1420;
const PATIENCE: Duration = Duration::from_secs(10);
const TCP_BYTES: usize = 8 << 20;
const UDP_DATAGRAMS: usize = 40;
const UDP_DATAGRAM_LEN: usize = 1000;

// PROTOCOL SM-DV-1
#[test]
fn streams_and_datagrams_cross_two_devices_split_and_merged_and_no_checksum_is_wrong() {
    privileged(
        "streams_and_datagrams_cross_two_devices_split_and_merged_and_no_checksum_is_wrong",
        || {
            let (here, there) = (Netns::new().unwrap(), Netns::new().unwrap());
            let devices = [device(&here, 1), device(&there, 2)];
            let stop = AtomicBool::new(false);
            let seen = std::thread::scope(|scope| {
                let cable = scope.spawn(|| Cable::new(&devices).run(&stop));
                for address in [four, six] {
                    carry_a_stream(&here, &there, address(2));
                    carry_datagrams(&here, &there, address(1), address(2));
                }
                stop.store(true, Ordering::Relaxed);
                cable.join().unwrap()
            });
            let mut kinds = vec![GsoType::Tcp4, GsoType::Tcp6];
            if devices.iter().all(|device| device.offloads().udp) {
                kinds.push(GsoType::UdpL4);
            }
            for kind in kinds {
                assert!(
                    seen.as_the_kernel_made.contains(&kind),
                    "{kind:?}: {seen:?}"
                );
            }
            for netns in [&here, &there] {
                assert_eq!(netns.run(checksum_errors), 0);
            }
        },
    );
}

fn device(netns: &Netns, number: u16) -> Tun {
    netns.run(|| {
        let tun = Tun::create(None, MTU).unwrap();
        let handle = Handle::new().unwrap();
        for (address, prefix_len) in [(four(number), 24), (six(number), 64)] {
            handle
                .add_address(tun.index(), address, prefix_len)
                .unwrap();
        }
        tun
    })
}

fn four(number: u16) -> IpAddr {
    format!("10.8.0.{number}").parse().unwrap()
}

fn six(number: u16) -> IpAddr {
    format!("fd08::{number}").parse().unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn carry_a_stream(here: &Netns, there: &Netns, target: IpAddr) {
    let listener = there.run(|| TcpListener::bind(SocketAddr::new(target, 0)).unwrap());
    let target = listener.local_addr().unwrap();
    let mut stream = here.run(|| TcpStream::connect_timeout(&target, PATIENCE).unwrap());
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let sent = pattern(TCP_BYTES);
    let received = std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let mut received = Vec::new();
            accepted.read_to_end(&mut received).unwrap();
            received
        });
        stream.write_all(&sent).unwrap();
        drop(stream);
        receiver.join().unwrap()
    });
    assert!(received == sent, "{target}: other bytes came out");
}

fn carry_datagrams(here: &Netns, there: &Netns, source: IpAddr, target: IpAddr) {
    let sender = here.run(|| UdpLink::bind(SocketAddr::new(source, 0)).unwrap());
    let receiver = there.run(|| UdpSocket::bind(SocketAddr::new(target, 0)).unwrap());
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    // The last datagram is shorter.
    let contents = pattern(UDP_DATAGRAMS * UDP_DATAGRAM_LEN - 123);
    let run = Transmit {
        remote: receiver.local_addr().unwrap(),
        local_ip: None,
        traffic_class: 0,
        may_fragment: false,
        segment_size: Some(UDP_DATAGRAM_LEN),
        contents: &contents,
    };
    sender.send(&run).unwrap();
    let mut buffer = [0; 2000];
    for expected in contents.chunks(UDP_DATAGRAM_LEN) {
        let len = receiver.recv(&mut buffer).unwrap();
        assert!(
            buffer[..len] == *expected,
            "{target}: another datagram came out"
        );
    }
}

/// Checksum errors of the namespace of the calling thread, over all protocols.
fn checksum_errors() -> u64 {
    let four = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let six = std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
    let lines: Vec<&str> = four.lines().collect();
    let of_four = lines.chunks(2).flat_map(|pair| {
        let names = pair[0].split_whitespace();
        names.zip(pair[1].split_whitespace())
    });
    let of_six = six
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    of_four
        .chain(of_six)
        .filter(|(name, _)| name.ends_with("InCsumErrors"))
        .map(|(_, count)| count.trim().parse::<u64>().unwrap())
        .sum()
}

/// Kinds of super-packets that came out of a merge, and those among them that equal, headers
/// included, one that the kernel made. (The others joined the data of two.)
#[derive(Debug, Default)]
struct Seen {
    merged: Vec<GsoType>,
    as_the_kernel_made: Vec<GsoType>,
}

struct Cable<'a> {
    devices: &'a [Tun; 2],
    coalescer: Coalescer,
    read: Vec<u8>,
    /// Stands for the receive buffer of the far side.
    segments: Vec<u8>,
    ranges: Vec<Range<usize>>,
    /// Super-packets of the batch as the kernel made them.
    made: Vec<(VnetHdr, Vec<u8>)>,
    seen: Seen,
}

impl<'a> Cable<'a> {
    fn new(devices: &'a [Tun; 2]) -> Self {
        Self {
            devices,
            coalescer: Coalescer::new(devices.iter().all(|device| device.offloads().udp)),
            read: vec![0; READ_LEN_MAX],
            segments: Vec::new(),
            ranges: Vec::new(),
            made: Vec::new(),
            seen: Seen::default(),
        }
    }

    fn run(mut self, stop: &AtomicBool) -> Seen {
        let [here, there] = self.devices;
        while !stop.load(Ordering::Relaxed) {
            let mut watches = [Watch::readable(here), Watch::readable(there)];
            poll::wait(&mut watches, Some(Duration::from_millis(50))).unwrap();
            self.carry(here, there);
            self.carry(there, here);
        }
        self.seen
    }

    fn carry(&mut self, from: &Tun, to: &Tun) {
        self.segments.clear();
        self.ranges.clear();
        self.made.clear();
        for _ in 0..32 {
            match from.read(&mut self.read) {
                Ok(len) => self.split(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("read: {error}"),
            }
        }
        for range in &self.ranges {
            self.coalescer
                .push(range.start, &self.segments[range.clone()]);
        }
        let mut iov = [IoSlice::new(&[]); IOV_LEN_MAX];
        for write in self.coalescer.finish() {
            let len = write.gather(&self.segments, &mut iov);
            to.write_vectored(&iov[..len])
                .expect("the kernel takes what was merged");
            let header = VnetHdr::parse(&iov[0]).unwrap();
            if header.gso() != GsoType::None {
                self.seen.merged.push(header.gso());
                let packet = iov[1..len]
                    .iter()
                    .flat_map(|slice| slice.to_vec())
                    .collect();
                if self.made.contains(&(without_hint(header), packet)) {
                    self.seen.as_the_kernel_made.push(header.gso());
                }
            }
        }
    }

    fn split(&mut self, len: usize) {
        let header = VnetHdr::parse(&self.read).unwrap();
        if header.gso() != GsoType::None {
            let packet = self.read[VNET_HDR_LEN..len].to_vec();
            self.made.push((without_hint(header), packet));
        }
        let mut split = Split::new(header, &mut self.read[VNET_HDR_LEN..len])
            .expect("a super-packet of the kernel");
        let segment_len_max = split.segment_len_max();
        assert!(segment_len_max <= MTU as usize);
        loop {
            let start = self.segments.len();
            self.segments.resize(start + segment_len_max, 0);
            let Some(len) = split.write_next(&mut self.segments[start..]) else {
                self.segments.truncate(start);
                return;
            };
            self.segments.truncate(start + len);
            self.ranges.push(start..start + len);
        }
    }
}

/// The kernel states as `hdr_len` how many bytes lie in the head of its buffer.
fn without_hint(header: VnetHdr) -> VnetHdr {
    VnetHdr {
        hdr_len: 0,
        ..header
    }
}
