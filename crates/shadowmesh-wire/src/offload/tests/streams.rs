//! Random streams of everything that IP carries, with everything wrong that can be: whatever goes into
//! the coalescer comes out of the plain path again, byte for byte, and each stream in its order.
//!
//! What comes out is cut by the model and not by [`Split`], and the model writes right checksums: so a
//! packet whose checksum was wrong and that was merged all the same comes out as another packet, and is
//! missed.

use std::collections::{BTreeMap, VecDeque};

use proptest::{collection::vec, prelude::*, sample::Index};

use super::super::*;
use super::merging::{ACK, mixed_flow};
use super::model::{
    Between, Flow, finish_ip_header, number_at, plain_fold, plain_split, plain_sum,
};
use super::{coalesce_all, split_all};

/// What is odd about one packet.
#[derive(Debug, Clone)]
enum Oddity {
    None,
    // In the transport header, with a right checksum.
    Flags(u8),
    Reserved(u8),
    Urgent(u16),
    Window(u16),
    Ack(u32),
    OptionByte(Index, u8),
    Gap(i32),
    Again,
    // In the IP header, with a right checksum.
    TrafficClass(u8),
    HopLimit(u8),
    FlowLabel(u8),
    DontFragment,
    Id(u16),
    // Shapes of whole packets.
    Fragment(u16),
    Truncated(Index),
    Trailing(u8),
    LengthField(i16),
    UdpLengthField(i16),
    UdpWithoutChecksum,
    // Damage.
    Flip(Index),
    Bytes(Index, Vec<u8>),
    /// Two words change places: every checksum stays right.
    Swap(Index, Index),
    /// One word up, another down by as much: likewise.
    Compensated(Index, Index, u16),
    Checksum(u16),
    HeaderChecksum(u16),
    /// The checksum is zero, and stands there in the other form of zero.
    OtherZero,
    HeaderOtherZero,
}

fn oddity() -> impl Strategy<Value = Oddity> {
    let header = prop_oneof![
        any::<u8>().prop_map(Oddity::Flags),
        (1u8..16).prop_map(Oddity::Reserved),
        any::<u16>().prop_map(Oddity::Urgent),
        any::<u16>().prop_map(Oddity::Window),
        any::<u32>().prop_map(Oddity::Ack),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Oddity::OptionByte(at, byte)),
        (-3000i32..3000).prop_map(Oddity::Gap),
        Just(Oddity::Again),
        any::<u8>().prop_map(Oddity::TrafficClass),
        any::<u8>().prop_map(Oddity::HopLimit),
        any::<u8>().prop_map(Oddity::FlowLabel),
        Just(Oddity::DontFragment),
        any::<u16>().prop_map(Oddity::Id),
    ];
    let shape = prop_oneof![
        prop_oneof![Just(0x2000u16), 1u16..0x3fff].prop_map(Oddity::Fragment),
        any::<Index>().prop_map(Oddity::Truncated),
        (1u8..40).prop_map(Oddity::Trailing),
        (-40i16..40).prop_map(Oddity::LengthField),
        (-40i16..40).prop_map(Oddity::UdpLengthField),
        Just(Oddity::UdpWithoutChecksum),
    ];
    let damage = prop_oneof![
        any::<Index>().prop_map(Oddity::Flip),
        (any::<Index>(), vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Oddity::Bytes(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Oddity::Swap(a, b)),
        (any::<Index>(), any::<Index>(), any::<u16>())
            .prop_map(|(a, b, by)| Oddity::Compensated(a, b, by)),
        any::<u16>().prop_map(Oddity::Checksum),
        any::<u16>().prop_map(Oddity::HeaderChecksum),
        Just(Oddity::OtherZero),
        Just(Oddity::HeaderOtherZero),
    ];
    prop_oneof![6 => Just(Oddity::None), 2 => header, 1 => shape, 2 => damage]
}

/// One packet to send: of which stream, how long, what is odd.
type Step = (Index, Index, Oddity);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec((any::<Index>(), any::<Index>(), oddity()), 0..150)
}

/// Payload lengths; equal ones merge.
const LENS: [usize; 8] = [100, 100, 100, 100, 101, 37, 1, 0];

/// TCP, UDP, ICMP and what else there is, over both IP versions, plain and behind other headers.
struct Stream {
    flow: Flow,
    /// Not TCP or UDP but this protocol.
    other: Option<u8>,
    number: usize,
    offset: usize,
}

fn streams() -> Vec<Stream> {
    let stream = |port: u16, v6: bool, tcp: bool| {
        let (mut flow, ..) = mixed_flow(port);
        (flow.v6, flow.tcp) = (v6, tcp);
        Stream {
            flow,
            other: None,
            number: 0,
            offset: 0,
        }
    };
    let mut streams = Vec::new();
    // Plain ones, with and without DF (even and odd ports), and TCP without options.
    for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        for _ in 0..2 {
            streams.push(stream(streams.len() as u16 + 1, v6, tcp));
        }
    }
    streams[0].flow.options.clear();
    streams[2].flow.options.clear();
    let mut behind = |v6: bool, tcp: bool, between: Between| {
        let mut stream = stream(streams.len() as u16 + 1, v6, tcp);
        stream.flow.between = between;
        streams.push(stream);
    };
    behind(false, true, Between::ipv4_options(1, false));
    behind(false, false, Between::ipv4_options(10, false));
    behind(false, true, Between::ipv4_options(0, true));
    for types in [&[0][..], &[60], &[43], &[51], &[0, 60, 43]] {
        behind(true, true, Between::ipv6_extensions(types, 6));
        behind(true, false, Between::ipv6_extensions(types, 17));
    }
    for (v6, protocol) in [(false, 1), (true, 58), (false, 47), (true, 132)] {
        let mut stream = stream(streams.len() as u16 + 1, v6, true);
        stream.other = Some(protocol);
        streams.push(stream);
    }
    streams
}

impl Stream {
    fn next(&mut self, len: usize, oddity: &Oddity) -> Vec<u8> {
        let payload: Vec<u8> = (0..len).map(|at| (self.number * 7 + at) as u8).collect();
        let packet = match self.other {
            Some(protocol) => self.flow.other(protocol, self.number, &payload),
            None => self.segment(payload, oddity),
        };
        self.number += 1;
        self.offset = self.offset.wrapping_add(len);
        damaged(packet, self.flow.transport_at(), oddity)
    }

    /// The segment with what is odd about it and has to be under the checksum.
    fn segment(&mut self, mut payload: Vec<u8>, oddity: &Oddity) -> Vec<u8> {
        let mut flow = self.flow.clone();
        let mut flags = if flow.tcp { ACK } else { 0 };
        match oddity {
            Oddity::Flags(other) => flags = *other,
            Oddity::Window(by) => flow.window ^= by,
            Oddity::Ack(by) => flow.ack = flow.ack.wrapping_add(*by),
            Oddity::OptionByte(at, byte) if !flow.options.is_empty() => {
                flow.options[at.index(3)][3] = *byte;
            }
            Oddity::Gap(by) => self.offset = self.offset.wrapping_add_signed(*by as isize),
            Oddity::Again => self.offset = self.offset.wrapping_sub(payload.len()),
            Oddity::TrafficClass(by) => flow.tos ^= by,
            Oddity::HopLimit(by) => flow.ttl ^= by,
            Oddity::DontFragment => flow.dont_fragment ^= true,
            Oddity::Id(by) => flow.id = flow.id.wrapping_add(*by),
            Oddity::OtherZero if payload.len() >= 2 => {
                // With its own checksum as two bytes of the payload the sum becomes zero.
                payload[..2].fill(0);
                let packet = flow.packet(self.number, self.offset, &payload, flags);
                let at = flow.transport_at() + flow.checksum_offset();
                payload[..2].copy_from_slice(&packet[at..at + 2]);
            }
            _ => {}
        }
        let mut packet = flow.packet(self.number, self.offset, &payload, flags);
        let at = flow.transport_at();
        match oddity {
            Oddity::Reserved(bits) if flow.tcp => packet[at + 12] |= bits,
            Oddity::Urgent(urgent) if flow.tcp => {
                packet[at + 18..at + 20].copy_from_slice(&urgent.to_be_bytes());
            }
            Oddity::FlowLabel(by) if flow.v6 => packet[3] ^= by,
            _ => return self.last_word(packet, oddity),
        }
        flow.finish_checksum(&mut packet);
        packet
    }

    /// What is odd about the checksum itself.
    fn last_word(&self, mut packet: Vec<u8>, oddity: &Oddity) -> Vec<u8> {
        let at = self.flow.transport_at() + self.flow.checksum_offset();
        match oddity {
            Oddity::UdpLengthField(by) if !self.flow.tcp => {
                let len = number_at(&packet, at - 2, 2) as u16;
                let len = len.wrapping_add_signed(*by).to_be_bytes();
                packet[at - 2..at].copy_from_slice(&len);
                self.flow.finish_checksum(&mut packet);
            }
            Oddity::UdpWithoutChecksum if !self.flow.tcp => packet[at..at + 2].fill(0),
            Oddity::Checksum(by) => {
                let checksum = number_at(&packet, at, 2) as u16 ^ by;
                packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            }
            Oddity::OtherZero if packet[at..at + 2] == [0, 0] => packet[at..at + 2].fill(0xff),
            _ => {}
        }
        packet
    }
}

/// The packet with what is wrong with it as a whole.
fn damaged(mut packet: Vec<u8>, transport_at: usize, oddity: &Oddity) -> Vec<u8> {
    let v6 = packet[0] >> 4 == 6;
    // Words of the transport, which its checksum adds up.
    let words = (packet.len() - transport_at) / 2;
    let word = |at: &Index| transport_at + at.index(words.max(1)) * 2;
    match oddity {
        Oddity::Fragment(bits) if !v6 => {
            packet[6..8].copy_from_slice(&bits.to_be_bytes());
            finish_ip_header(&mut packet);
        }
        Oddity::Fragment(bits) => {
            let header = [
                packet[6],
                0,
                (bits >> 5) as u8,
                (bits << 3) as u8 | 1,
                0,
                0,
                0,
                9,
            ];
            packet[6] = 44;
            packet.splice(40..40, header);
            let len = (packet.len() - 40) as u16;
            packet[4..6].copy_from_slice(&len.to_be_bytes());
        }
        Oddity::Truncated(at) => packet.truncate(at.index(packet.len())),
        Oddity::Trailing(len) => packet.extend(vec![0xaa; usize::from(*len)]),
        Oddity::LengthField(by) => {
            let at = if v6 { 4 } else { 2 };
            let len = (number_at(&packet, at, 2) as u16).wrapping_add_signed(*by);
            packet[at..at + 2].copy_from_slice(&len.to_be_bytes());
            finish_ip_header(&mut packet);
        }
        Oddity::Flip(bit) => {
            let bit = bit.index(packet.len() * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
        }
        Oddity::Bytes(at, bytes) => {
            let at = at.index(packet.len());
            for (old, new) in packet[at..].iter_mut().zip(bytes) {
                *old = *new;
            }
        }
        Oddity::Swap(a, b) if words > 0 => {
            let (a, b) = (word(a), word(b));
            packet.swap(a, b);
            packet.swap(a + 1, b + 1);
        }
        Oddity::Compensated(a, b, by) if words > 0 && word(a) != word(b) => {
            for (at, by) in [(word(a), *by), (word(b), !by)] {
                let sum = plain_fold(number_at(&packet, at, 2) + u32::from(by));
                packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            }
        }
        Oddity::HeaderChecksum(by) if !v6 => {
            let checksum = number_at(&packet, 10, 2) as u16 ^ by;
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        Oddity::HeaderOtherZero if !v6 => {
            packet[4..6].fill(0);
            finish_ip_header(&mut packet);
            let id = [packet[10], packet[11]];
            packet[4..6].copy_from_slice(&id);
            packet[10..12].fill(0xff);
        }
        _ => {}
    }
    packet
}

/// What tells a stream from others, as far as the packet is long enough to say it.
fn key(packet: &[u8], transport_at: usize) -> Option<Vec<u8>> {
    let v6 = packet.first()? >> 4 == 6;
    let addresses = packet.get(if v6 { 8..40 } else { 12..20 })?;
    let ports = packet.get(transport_at..transport_at + 4)?;
    let protocol = packet[if v6 { 6 } else { 9 }];
    Some(
        [
            &[packet[0] & if v6 { 0xf0 } else { 0xff }, protocol],
            addresses,
            ports,
        ]
        .concat(),
    )
}

/// The one exception of SM-DV-1: with "don't fragment" the IPv4 id may be another, and so the header
/// checksum, if it was right.
fn without_id(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let right = packet.len() >= 20
        && packet[0] == 0x45
        && plain_fold(plain_sum(&packet[..20])) == 0xffff
        && packet[10..12] != [0xff, 0xff];
    if right && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

/// Sends what the steps say and returns each packet with its stream, where its place in the stream
/// counts.
fn send(steps: &[Step]) -> Vec<(Option<usize>, Vec<u8>)> {
    let mut streams = streams();
    let count = streams.len();
    let mut packets = Vec::new();
    for (choice, len, oddity) in steps {
        // Two of three packets belong to the streams that can be merged.
        let number = match choice.index(count * 3) {
            rare if rare < count => rare,
            common => common % 8,
        };
        let stream = &mut streams[number];
        let packet = stream.next(LENS[len.index(LENS.len())], oddity);
        let at = stream.flow.transport_at();
        let untouched = streams_key(number).is_some_and(|own| key(&packet, at) == Some(own));
        packets.push((untouched.then_some(number), packet));
    }
    packets
}

fn streams_key(number: usize) -> Option<Vec<u8>> {
    let stream = &mut streams()[number];
    let at = stream.flow.transport_at();
    // Other protocols have no ports there; their packets come one by one whatever they are.
    stream
        .other
        .is_none()
        .then(|| key(&stream.next(1, &Oddity::None), at))?
}

/// Pushes the packets through the coalescer and the model, and judges what comes out.
fn judge(
    sent: &[(Option<usize>, Vec<u8>)],
    coalescer: &mut Coalescer,
) -> Result<usize, TestCaseError> {
    let packets: Vec<Vec<u8>> = sent.iter().map(|(_, packet)| packet.clone()).collect();
    let writes = coalesce_all(coalescer, &packets);
    let mut waiting: BTreeMap<Vec<u8>, VecDeque<usize>> = BTreeMap::new();
    for (number, packet) in packets.iter().enumerate() {
        waiting
            .entry(without_id(packet))
            .or_default()
            .push_back(number);
    }
    let mut newest: BTreeMap<usize, usize> = BTreeMap::new();
    for (header, packet) in &writes {
        for packet in plain_split(header, packet) {
            let numbers = waiting.get_mut(&without_id(&packet));
            let Some(number) = numbers.and_then(VecDeque::pop_front) else {
                return Err(TestCaseError::fail(format!("nobody sent {packet:02x?}")));
            };
            if let Some(stream) = sent[number].0 {
                let before = newest.insert(stream, number);
                prop_assert!(before <= Some(number), "{before:?} before {number}");
            }
        }
    }
    let missing: usize = waiting.values().map(VecDeque::len).sum();
    prop_assert_eq!(missing, 0);
    Ok(packets.len() - writes.len())
}

proptest! {
    // PROTOCOL SM-DV-1
    #[test]
    fn whatever_is_received_reaches_the_device_byte_for_byte_and_in_order(
        steps in steps(),
        merge_udp: bool,
    ) {
        let sent = send(&steps);
        let mut coalescer = Coalescer::new(merge_udp);
        // Twice, because the second batch reuses what the first left.
        for _ in 0..2 {
            judge(&sent, &mut coalescer)?;
        }
    }

    // PROTOCOL SM-DV-1
    #[test]
    fn damage_to_any_packet_of_a_run_comes_out_as_it_went_in(
        stream in 0usize..8,
        oddities in vec(prop_oneof![3 => Just(Oddity::None), 1 => oddity()], 2..20),
    ) {
        let mut streams = streams();
        let sent: Vec<_> = oddities
            .iter()
            .map(|oddity| (None, streams[stream].next(100, oddity)))
            .collect();
        judge(&sent, &mut Coalescer::new(true))?;
    }

    // PROTOCOL SM-DV-1
    #[test]
    fn what_the_device_gives_whole_is_sent_as_it_is(steps in steps()) {
        for (_, packet) in send(&steps) {
            prop_assert_eq!(split_all(VnetHdr::default(), &packet), vec![packet]);
        }
    }
}

/// The properties above would hold of a coalescer that never merges.
#[test]
fn streams_with_nothing_odd_are_merged() {
    for (stream, merges) in (0..streams().len()).map(|stream| (stream, stream < 8)) {
        let mut streams = streams();
        let sent: Vec<_> = (0..10)
            .map(|_| (Some(stream), streams[stream].next(100, &Oddity::None)))
            .collect();
        let saved = judge(&sent, &mut Coalescer::new(true)).unwrap();
        assert_eq!(saved, if merges { 9 } else { 0 }, "stream {stream}");
    }
}

// PROTOCOL SM-DV-1
#[test]
fn the_other_form_of_a_zero_checksum_is_kept() {
    for (number, oddity) in [
        (0, Oddity::OtherZero),
        (2, Oddity::OtherZero),
        (1, Oddity::HeaderOtherZero),
    ] {
        let mut stream = streams().remove(number);
        let sent: Vec<_> = [Oddity::None, oddity.clone(), Oddity::None]
            .iter()
            .map(|oddity| (Some(number), stream.next(100, oddity)))
            .collect();
        let saved = judge(&sent, &mut Coalescer::new(true)).unwrap();
        assert_eq!(saved, 0, "{oddity:?}");
    }
}
