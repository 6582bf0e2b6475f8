//! The hot path piece by piece, for `cargo xtask instructions` to count under callgrind.
//!
//! Each case is one function of [`counted_case`], which is what the counting starts and stops at; what
//! it does stands in [`work`]. Everything else is preparation and is not counted. Two nodes of the
//! simulated world have a session, so that keys, snapshots and addresses are real ones, and addresses
//! the same in every run.
//!
//! With the name of a case it does that one; without, it prints one line for each: its name and how many
//! items it handles.

use std::hint::black_box;
use std::io::IoSlice;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use shadowmesh_sim::packet;
use shadowmesh_sim::world::{HostConfig, World};
use shadowmesh_vpn::fair_queue::{FairQueue, Limits, Size};
use shadowmesh_vpn::{Inbound, RouteTable, Snapshot};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::offload::{Coalescer, IOV_LEN_MAX, Split, VNET_HDR_LEN, VnetHdr};
use shadowmesh_wire::prefix::IpPrefix;
use shadowmesh_wire::sealed::{HEADER_LEN, OVERHEAD};

/// An inner packet of full size on a path of 1500 bytes, and a small one.
const FULL: usize = 1420;
const SMALL: usize = 64;
/// Frames of a large GSO send.
const FRAMES: usize = 46;
/// Lookups and verdicts.
const TIMES: usize = 1000;
/// Payload of a segment; with the longest headers it is a little less than a full packet.
const SEGMENT: usize = 1340;

fn main() {
    let chosen = Chosen(std::env::args().nth(1));
    for (cipher, speeds) in [("aes", [2, 1]), ("chacha", [1, 2])] {
        for len in [FULL, SMALL] {
            frames(&chosen, &format!("{cipher}_{len}"), speeds, len);
        }
    }
    verdicts(&chosen);
    routes(&chosen);
    for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        super_packets(&chosen, v6, tcp);
    }
    fair_queue(&chosen);
}

/// The case that is to run; none to list them all.
struct Chosen(Option<String>);

impl Chosen {
    fn is(&self, name: &str, items: usize) -> bool {
        if self.0.is_none() {
            println!("{name} {items}");
        }
        self.0.as_deref() == Some(name)
    }
}

/// What the counting starts and stops at. A call from one of these into another would stop it early,
/// and so would a closure here.
mod counted_case {
    use super::*;

    #[inline(never)]
    pub fn seal(pair: &Pair, frames: &mut [Vec<u8>]) {
        work::seal(pair, frames);
    }

    #[inline(never)]
    pub fn open(pair: &Pair, frames: &mut [Vec<u8>]) {
        work::open(pair, frames);
    }

    #[inline(never)]
    pub fn outbound(pair: &Pair, packet: &[u8]) {
        work::outbound(pair, packet);
    }

    #[inline(never)]
    pub fn inbound(pair: &Pair, packet: &[u8]) {
        work::inbound(pair, packet);
    }

    #[inline(never)]
    pub fn route(table: &RouteTable<usize>, addresses: &[IpAddr]) {
        work::route(table, addresses);
    }

    #[inline(never)]
    pub fn split(header: VnetHdr, packet: &mut [u8], out: &mut [u8]) {
        work::split(header, packet, out);
    }

    #[inline(never)]
    pub fn coalesce(coalescer: &mut Coalescer, buffer: &[u8], lens: &[usize]) {
        work::coalesce(coalescer, buffer, lens);
    }

    #[inline(never)]
    pub fn queue(queue: &mut FairQueue<usize>, now: Instant) {
        work::queue(queue, now);
    }
}

mod work {
    use super::*;

    pub fn seal(pair: &Pair, frames: &mut [Vec<u8>]) {
        let outbound = pair
            .from
            .outbound(&pair.packet)
            .expect("there is a session");
        let first = outbound.sealer.reserve(frames.len() as u64);
        let first = first.expect("the epoch is young");
        for (counter, frame) in (first..).zip(frames) {
            outbound.sealer.seal(counter, frame);
        }
    }

    pub fn open(pair: &Pair, frames: &mut [Vec<u8>]) {
        let mut packets = 0;
        let datagrams = frames.iter_mut().map(Vec::as_mut_slice);
        pair.to.inbound_run(datagrams, |verdict, _| {
            packets += usize::from(matches!(verdict, Inbound::Packet { .. }));
        });
        assert_eq!(
            packets, FRAMES,
            "every frame opens and may go to the device"
        );
    }

    pub fn outbound(pair: &Pair, packet: &[u8]) {
        for _ in 0..TIMES {
            assert!(pair.from.outbound(black_box(packet)).is_ok());
        }
    }

    pub fn inbound(pair: &Pair, packet: &[u8]) {
        for _ in 0..TIMES {
            let verdict = pair.to.inbound_packet(&pair.sender, black_box(packet));
            assert!(verdict.is_ok());
        }
    }

    pub fn route(table: &RouteTable<usize>, addresses: &[IpAddr]) {
        for address in addresses {
            assert!(table.get(*black_box(address)).is_some());
        }
    }

    pub fn split(header: VnetHdr, packet: &mut [u8], out: &mut [u8]) {
        let mut split = Split::new(header, packet).expect("a super-packet as the kernel makes it");
        let len_max = split.segment_len_max();
        let mut at = 0;
        while at + len_max <= out.len()
            && let Some(len) = split.write_next(&mut out[at..at + len_max])
        {
            at += len;
        }
    }

    pub fn coalesce(coalescer: &mut Coalescer, buffer: &[u8], lens: &[usize]) {
        let mut at = 0;
        for len in lens {
            coalescer.push(at, &buffer[at..at + len]);
            at += len;
        }
        let mut iov = [IoSlice::new(&[]); IOV_LEN_MAX];
        let mut writes = 0;
        for write in coalescer.finish() {
            black_box(write.gather(buffer, &mut iov));
            writes += 1;
        }
        assert_eq!(writes, 1, "all segments become one packet again");
    }

    pub fn queue(queue: &mut FairQueue<usize>, now: Instant) {
        let size = Size {
            bytes: FULL as u32,
            memory: 2048,
            segments: 1,
            ecn_capable: false,
        };
        for item in 0..TIMES {
            // Eight flows, hashes far apart.
            let hash = (item % 8) as u64 * 0x1111;
            queue.push(hash, item, size, now, &mut |_, _, _| ());
        }
        let mut taken = 0;
        while queue.pop(now, &mut |_, _, _| ()).is_some() {
            taken += 1;
        }
        assert_eq!(taken, TIMES, "nothing waits long enough to be lost");
    }
}

/// Two nodes with a session, as their data threads see it.
struct Pair {
    from: Arc<Snapshot>,
    to: Arc<Snapshot>,
    sender: PeerId,
    /// From one to the other.
    packet: Vec<u8>,
}

impl Pair {
    /// The speeds that both claim decide the cipher.
    fn with_speeds(cipher_speeds: [u32; 2]) -> Self {
        let mut world = World::new(7);
        let (a, b) = world.pair(HostConfig {
            cipher_speeds,
            ..HostConfig::default()
        });
        assert!(world.settle(a, b), "two honest hosts on a good link meet");
        let addresses = (world.ipv4(a), world.ipv4(b));
        Self {
            sender: world.host(a).id(),
            from: world.with_node(a, |node, _| node.snapshot()),
            to: world.with_node(b, |node, _| node.snapshot()),
            packet: packet::numbered(addresses.0, addresses.1, 1, FULL),
        }
    }

    /// Frames that are ready to be sealed, each with an inner packet of `len` bytes.
    fn frames(&self, len: usize) -> Vec<Vec<u8>> {
        let mut frame = vec![0; OVERHEAD + len];
        frame[HEADER_LEN] = InnerType::IpPacket as u8;
        let packet = &mut frame[HEADER_LEN + 1..][..len];
        packet.copy_from_slice(&self.packet[..len]);
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        vec![frame; FRAMES]
    }
}

fn frames(chosen: &Chosen, name: &str, speeds: [u32; 2], len: usize) {
    let seal = chosen.is(&format!("seal_{name}"), FRAMES);
    let open = chosen.is(&format!("open_{name}"), FRAMES);
    if seal || open {
        let pair = Pair::with_speeds(speeds);
        let mut frames = pair.frames(len);
        if seal {
            counted_case::seal(&pair, &mut frames);
        } else {
            work::seal(&pair, &mut frames);
            counted_case::open(&pair, &mut frames);
        }
    }
}

fn verdicts(chosen: &Chosen) {
    if chosen.is("outbound_verdict", TIMES) {
        let pair = Pair::with_speeds([2, 1]);
        counted_case::outbound(&pair, &pair.packet);
    }
    if chosen.is("inbound_verdict", TIMES) {
        let pair = Pair::with_speeds([2, 1]);
        counted_case::inbound(&pair, &pair.packet);
    }
}

/// A thousand peers with a network of each IP version, and a thousand destinations among them.
fn routes(chosen: &Chosen) {
    for (name, v6) in [("route_v4", false), ("route_v6", true)] {
        if !chosen.is(name, TIMES) {
            continue;
        }
        let prefix = |peer: usize| -> IpPrefix {
            let text = match v6 {
                true => format!("fd00:0:0:{peer:x}::/64"),
                false => format!("10.{}.{}.0/24", peer / 256, peer % 256),
            };
            text.parse().expect("a prefix")
        };
        let table = RouteTable::new((0..TIMES).map(|peer| (prefix(peer), peer)));
        let table = table.expect("no prefix stands there twice");
        let addresses: Vec<IpAddr> = (0..TIMES)
            .map(|number| prefix(number * 7 % TIMES).addr())
            .collect();
        counted_case::route(&table, &addresses);
    }
}

/// A super-packet cut into its segments, and the segments merged again.
fn super_packets(chosen: &Chosen, v6: bool, tcp: bool) {
    let name = match (tcp, v6) {
        (true, false) => "tcp4",
        (true, true) => "tcp6",
        (false, false) => "udp4",
        (false, true) => "udp6",
    };
    let split = chosen.is(&format!("split_{name}"), FRAMES);
    let coalesce = chosen.is(&format!("coalesce_{name}"), FRAMES);
    if !split && !coalesce {
        return;
    }
    let (header, mut packet) = super_packet(v6, tcp);
    let segment = usize::from(header.hdr_len) + SEGMENT;
    let mut out = vec![0; FRAMES * segment];
    if split {
        return counted_case::split(header, &mut packet, &mut out);
    }
    work::split(header, &mut packet, &mut out);
    // The first batch makes the vectors grow.
    let mut coalescer = Coalescer::new(true);
    work::coalesce(&mut coalescer, &out, &[segment; FRAMES]);
    counted_case::coalesce(&mut coalescer, &out, &[segment; FRAMES]);
}

/// As the kernel makes it, with the sum of the pseudo-header where the checksum will be.
fn super_packet(v6: bool, tcp: bool) -> (VnetHdr, Vec<u8>) {
    let at = if v6 { 40 } else { 20 };
    let (headers, protocol, checksum_at) = match tcp {
        true => (at + 20, 6, 16),
        false => (at + 8, 17, 6),
    };
    let len = headers + FRAMES * SEGMENT;
    let mut packet = vec![0; len];
    let len_less = |less: usize| ((len - less) as u16).to_be_bytes();
    // Every address is made of one byte, and so every word of it.
    let words = if v6 {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&len_less(40));
        packet[6..8].copy_from_slice(&[protocol, 64]);
        packet[8..40].fill(7);
        16 * 0x0707
    } else {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&len_less(0));
        packet[6] = 0x40;
        packet[8..10].copy_from_slice(&[64, protocol]);
        packet[12..20].fill(10);
        4 * 0x0a0a
    };
    if tcp {
        packet[at + 12..at + 14].copy_from_slice(&[0x50, 0x10]);
    } else {
        packet[at + 4..at + 6].copy_from_slice(&len_less(at));
    }
    for (at, byte) in packet[headers..].iter_mut().enumerate() {
        *byte = (at * 31) as u8;
    }
    let pseudo = words + u32::from(protocol) + (len - at) as u32;
    let pseudo = ((pseudo & 0xffff) + (pseudo >> 16)) as u16;
    packet[at + checksum_at..][..2].copy_from_slice(&pseudo.to_be_bytes());
    let mut header = [0; VNET_HDR_LEN];
    header[0] = 1;
    header[1] = match (tcp, v6) {
        (true, false) => 1,
        (true, true) => 4,
        (false, _) => 5,
    };
    let fields = [headers, SEGMENT, at, checksum_at];
    for (place, field) in header[2..].chunks_mut(2).zip(fields) {
        place.copy_from_slice(&(field as u16).to_le_bytes());
    }
    (VnetHdr::parse(&header).expect("it is long enough"), packet)
}

fn fair_queue(chosen: &Chosen) {
    if !chosen.is("fair_queue", TIMES) {
        return;
    }
    let mut world = World::new(8);
    let (a, _) = world.pair(HostConfig::default());
    let now = world.with_node(a, |_, now| now);
    let mut queue = FairQueue::new(Limits {
        items: TIMES,
        memory: TIMES * 2048,
    });
    counted_case::queue(&mut queue, now);
}
