//! What both halves promise together, for streams of TCP and UDP.

use proptest::{collection::vec, prelude::*};

use super::super::*;
use super::model::{Between, Flow};
use super::{coalesce_all, split_all};

pub(super) const ACK: u8 = 0x10;
const ACK_PSH: u8 = 0x18;

pub(super) fn flow(flags: impl Strategy<Value = u8>) -> impl Strategy<Value = Flow> {
    let ip = (
        any::<bool>(),
        any::<u8>(),
        any::<u8>(),
        any::<bool>(),
        any::<u16>(),
    );
    let tcp = (
        any::<bool>(),
        any::<u16>(),
        any::<u32>(),
        any::<u32>(),
        any::<u16>(),
    );
    (ip, tcp, flags, vec(any::<[u8; 4]>(), 0..=10)).prop_map(
        |(
            (v6, tos, ttl, dont_fragment, id),
            (tcp, port, sequence, ack, window),
            flags,
            options,
        )| {
            Flow {
                v6,
                tcp,
                port,
                tos,
                ttl,
                dont_fragment,
                id,
                sequence,
                ack,
                window,
                flags,
                options,
                between: Between::default(),
            }
        },
    )
}

/// The same behind IPv4 options or IPv6 extension headers, as a device's own kernel may send them.
fn wrapped(flow: impl Strategy<Value = Flow>) -> impl Strategy<Value = Flow> {
    let extensions = prop::sample::subsequence(vec![0u8, 43, 60], 0..=3);
    (flow, 0usize..=10, any::<bool>(), extensions).prop_map(
        |(mut flow, words, source_route, extensions)| {
            flow.between = match flow.v6 {
                true => Between::ipv6_extensions(&extensions, flow.protocol()),
                false => Between::ipv4_options(words, source_route),
            };
            // More headers than the kernel makes a super-packet of.
            flow.options.truncate((128 - flow.transport_at() - 20) / 4);
            flow
        },
    )
}

/// Payload and GSO size: at most 64 segments and 64 KB.
fn cut() -> impl Strategy<Value = (Vec<u8>, usize)> {
    (
        1usize..1400,
        1usize..=46,
        any::<prop::sample::Index>(),
        any::<u64>(),
    )
        .prop_map(|(gso_size, segments, last, seed)| {
            let len = (segments - 1) * gso_size + 1 + last.index(gso_size);
            let bytes = (0..len as u64).map(|at| (seed.wrapping_mul(at + 1) >> 32) as u8);
            (bytes.collect(), gso_size)
        })
}

proptest! {
    // PROTOCOL SM-DV-1
    #[test]
    fn split_gives_what_the_plain_path_gives(
        flow in wrapped(flow(any::<u8>())),
        (payload, gso_size) in cut(),
    ) {
        let (header, packet) = flow.super_packet(&payload, gso_size);
        prop_assert_eq!(split_all(header, &packet), flow.plain_path(&payload, gso_size));
    }

    // PROTOCOL SM-DV-1
    #[test]
    fn coalesce_gives_back_the_super_packet_that_was_split(
        flow in flow(prop_oneof![Just(ACK), Just(ACK_PSH)]),
        (payload, gso_size) in cut(),
    ) {
        let segments = flow.plain_path(&payload, gso_size);
        let writes = coalesce_all(&mut Coalescer::new(true), &segments);
        let expected = match segments.len() {
            1 => (VnetHdr::default(), segments[0].clone()),
            _ => flow.super_packet(&payload, gso_size),
        };
        prop_assert_eq!(writes, vec![expected]);
    }

    // PROTOCOL SM-DV-1
    #[test]
    fn an_unfinished_checksum_is_finished(
        flow in wrapped(flow(any::<u8>())),
        payload in vec(any::<u8>(), 0..1400),
    ) {
        let (header, packet) = flow.super_packet(&payload, 1);
        let header = VnetHdr { gso_type: 0, gso_size: 0, ..header };
        let segments = split_all(header, &packet);
        let mut expected = flow.packet(0, 0, &payload, flow.flags);
        let at = flow.transport_at() + flow.checksum_offset();
        // Like the kernel, in its other form for TCP too.
        if expected[at..at + 2] == [0, 0] {
            expected[at..at + 2].fill(0xff);
        }
        prop_assert_eq!(segments, vec![expected]);
    }

    // PROTOCOL SM-DV-1
    #[test]
    fn any_mixture_of_packets_passes_unchanged_and_in_order(
        mixture in vec((any::<prop::sample::Index>(), 0u8..12, any::<prop::sample::Index>()), 0..150),
        merge_udp: bool,
    ) {
        let packets = mix(&mixture);
        let mut coalescer = Coalescer::new(merge_udp);
        // Twice, because the second batch reuses what the first left.
        for _ in 0..2 {
            let mut delivered = Vec::new();
            for (header, packet) in coalesce_all(&mut coalescer, &packets) {
                delivered.extend(split_all(header, &packet));
            }
            for port in 1..=MIXED_FLOWS {
                let of_flow = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
                    packets.iter().filter(|packet| port_of(packet) == port).cloned().collect()
                };
                prop_assert_eq!(of_flow(&delivered), of_flow(&packets));
            }
        }
    }

    #[test]
    fn any_bytes_pass_split_and_coalesce_without_panic(
        header: [u8; VNET_HDR_LEN],
        mut packets in vec(vec(any::<u8>(), 0..120), 1..6),
        versions in vec(prop_oneof![Just(0x45u8), Just(0x60), Just(0x46)], 6),
        protocols in vec(prop_oneof![Just(6u8), Just(17), any::<u8>()], 6),
        small: bool,
    ) {
        for (packet, (version, protocol)) in packets.iter_mut().zip(versions.iter().zip(&protocols)) {
            if packet.len() > 20 {
                packet[0] = *version;
                packet[9] = *protocol;
                packet[6] = if *version == 0x60 { *protocol } else { 0 };
            }
        }
        let delivered: Vec<Vec<u8>> =
            coalesce_all(&mut Coalescer::new(true), &packets).into_iter().map(|(_, packet)| packet).collect();
        prop_assert_eq!(&delivered, &packets);
        let mut header = VnetHdr::parse(&header).unwrap();
        if small {
            header.gso_type %= 6;
            header.csum_start %= 64;
            header.csum_offset = [6, 16][usize::from(header.csum_offset % 2)];
            header.flags |= 1;
        }
        for packet in &mut packets {
            let Ok(mut split) = Split::new(header, packet) else { continue };
            let mut out = vec![0; split.segment_len_max()];
            while split.write_next(&mut out).is_some() {}
        }
    }
}

const MIXED_FLOWS: u16 = 20;

/// Packets of twenty flows; each entry chooses a flow, what is odd about the packet, and a length.
/// More flows than runs can be open, so runs are closed early too.
fn mix(entries: &[(prop::sample::Index, u8, prop::sample::Index)]) -> Vec<Vec<u8>> {
    let mut flows: Vec<(Flow, usize, usize)> = (1..=MIXED_FLOWS).map(mixed_flow).collect();
    // Half of all packets belong to three flows, as in life.
    let choose = |at: usize| {
        if at.is_multiple_of(2) {
            at / 2 % 3
        } else {
            at / 2
        }
    };
    let mut packets = Vec::new();
    for (flow, oddity, len) in entries {
        let (flow, number, offset) = &mut flows[choose(flow.index(usize::from(MIXED_FLOWS) * 2))];
        let payload = vec![*number as u8; [100, 100, 100, 37, 0][len.index(5)]];
        let mut flags = if flow.tcp { ACK } else { 0 };
        match oddity {
            1 => flags |= 0x08,
            2 => flags |= 0x01,
            3 => flags |= 0x40,
            4 => flow.tos ^= 1,
            5 => flow.window ^= 1,
            6 => *offset += 1,
            7 => flow.ack += 1,
            _ => {}
        }
        let mut packet = flow.packet(*number, *offset, &payload, flags);
        match oddity {
            8 => *packet.last_mut().unwrap() ^= 1,
            9 if !flow.v6 => packet[10] ^= 1,
            _ => {}
        }
        *number += 1;
        *offset += payload.len();
        packets.push(packet);
    }
    packets
}

pub(super) fn mixed_flow(port: u16) -> (Flow, usize, usize) {
    let flow = Flow {
        v6: port.is_multiple_of(3),
        tcp: !port.is_multiple_of(4),
        port,
        tos: 0,
        ttl: 64,
        dont_fragment: port.is_multiple_of(2),
        id: port.wrapping_mul(4000),
        sequence: u32::MAX - 500,
        ack: 1,
        window: 500,
        flags: ACK,
        options: vec![[1, 1, 8, 10], [0, 0, 0, 1], [0, 0, 0, 2]],
        between: Between::default(),
    };
    (flow, 0, 0)
}

fn port_of(packet: &[u8]) -> u16 {
    get_u16(packet, if packet[0] >> 4 == 6 { 40 } else { 20 })
}

/// Segments of one plain flow with `change` made to the model before one of them.
fn changed(v6: bool, tcp: bool, change: impl Fn(&mut Flow)) -> Vec<Vec<u8>> {
    let (mut flow, ..) = mixed_flow(if v6 { 3 } else { 1 });
    flow.tcp = tcp;
    let first = flow.packet(0, 0, &[1; 100], ACK);
    change(&mut flow);
    vec![first, flow.packet(1, 100, &[2; 100], flow.flags)]
}

fn merges(packets: &[Vec<u8>]) -> bool {
    coalesce_all(&mut Coalescer::new(true), packets).len() < packets.len()
}

// PROTOCOL SM-DV-1
#[test]
fn packets_that_differ_in_what_segmentation_keeps_equal_are_not_merged() {
    for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        assert!(merges(&changed(v6, tcp, |_| ())));
        assert!(
            !merges(&changed(v6, tcp, |flow| flow.tos ^= 2)),
            "TOS or traffic class"
        );
        assert!(
            !merges(&changed(v6, tcp, |flow| flow.ttl -= 1)),
            "TTL or hop limit"
        );
        assert!(!merges(&changed(v6, tcp, |flow| flow.port += 1)), "port");
        assert_eq!(
            merges(&changed(v6, tcp, |flow| flow.dont_fragment ^= true)),
            v6,
            "DF"
        );
        assert_eq!(
            merges(&changed(v6, tcp, |flow| flow.id += 1)),
            v6,
            "id without DF"
        );
    }
    for v6 in [false, true] {
        assert!(
            !merges(&changed(v6, true, |flow| flow.ack += 1)),
            "acknowledgement"
        );
        assert!(
            !merges(&changed(v6, true, |flow| flow.window += 1)),
            "window"
        );
        assert!(
            !merges(&changed(v6, true, |flow| flow.sequence += 1)),
            "sequence"
        );
        assert!(
            !merges(&changed(v6, true, |flow| flow.options[2][3] ^= 1)),
            "options"
        );
        assert!(
            !merges(&changed(v6, true, |flow| flow.options.clear())),
            "data offset"
        );
        for flag in [0x01, 0x02, 0x04, 0x20, 0x40, 0x80] {
            assert!(
                !merges(&changed(v6, true, |flow| flow.flags = ACK | flag)),
                "flag {flag:#x}"
            );
        }
        assert!(!merges(&changed(v6, true, |flow| flow.flags = 0)), "no ACK");
    }
}

// PROTOCOL SM-DV-1
#[test]
fn ids_may_be_constant_when_fragments_are_forbidden() {
    let (mut flow, ..) = mixed_flow(2);
    assert!(flow.dont_fragment);
    let first = flow.packet(0, 0, &[1; 100], ACK);
    flow.id -= 1;
    assert!(merges(&[first, flow.packet(1, 100, &[2; 100], ACK)]));
}

// PROTOCOL SM-DV-1
#[test]
fn a_flipped_bit_anywhere_is_never_repaired_by_a_merge() {
    for (v6, tcp) in [(false, true), (true, true), (false, false), (true, false)] {
        let good = changed(v6, tcp, |_| ());
        for damaged in 0..2 {
            for bit in 0..good[damaged].len() * 8 {
                let mut packets = good.clone();
                packets[damaged][bit / 8] ^= 1 << (bit % 8);
                // Not covered by any checksum, and so free to change: IPv6 flow label, traffic
                // class and hop limit. They still have to be equal.
                let delivered: Vec<Vec<u8>> = coalesce_all(&mut Coalescer::new(true), &packets)
                    .into_iter()
                    .flat_map(|(header, packet)| split_all(header, &packet))
                    .collect();
                assert_eq!(delivered, packets, "packet {damaged} bit {bit}");
            }
        }
    }
}

// PROTOCOL SM-DV-1
#[test]
fn a_merged_packet_keeps_to_64_segments_and_64_kilobytes() {
    let (flow, ..) = mixed_flow(1);
    for (payload_len, packets_in_first) in [(100, 64), (1380, 47), (30_000, 2)] {
        let payload = vec![7; payload_len];
        let packets: Vec<Vec<u8>> = (0..70)
            .map(|number| flow.packet(number, number * payload_len, &payload, ACK))
            .collect();
        let writes = coalesce_all(&mut Coalescer::new(true), &packets);
        assert_eq!(
            writes[0].1.len(),
            flow.header_len() + packets_in_first * payload_len
        );
        let all: Vec<Vec<u8>> = writes
            .iter()
            .flat_map(|(header, packet)| split_all(*header, packet))
            .collect();
        assert_eq!(all, packets);
    }
}

#[test]
fn udp_is_merged_only_when_the_device_takes_it() {
    let packets = changed(false, false, |_| ());
    assert_eq!(coalesce_all(&mut Coalescer::new(true), &packets).len(), 1);
    assert_eq!(coalesce_all(&mut Coalescer::new(false), &packets).len(), 2);
}

// PROTOCOL SM-DV-1
#[test]
fn nothing_overtakes_a_fragment() {
    let packets = changed(false, true, |_| ());
    let (flow, ..) = mixed_flow(1);
    let mut fragment = flow.packet(9, 0, &[3; 50], ACK);
    fragment[6] = 0x20;
    let packets = [packets[0].clone(), fragment, packets[1].clone()];
    let delivered: Vec<Vec<u8>> = coalesce_all(&mut Coalescer::new(true), &packets)
        .into_iter()
        .map(|(_, packet)| packet)
        .collect();
    assert_eq!(delivered, packets);
}

// PROTOCOL SM-DV-1
#[test]
fn a_udp_checksum_of_zero_is_written_as_ffff() {
    let (mut flow, ..) = mixed_flow(1);
    flow.tcp = false;
    let at = flow.header_len();
    // Two bytes that bring the sum to zero: what the checksum is without them.
    let without = flow.packet(0, 0, &[0; 100], 0);
    let mut payload = vec![0; 200];
    payload[..2].copy_from_slice(&without[at - 2..at]);
    let (header, packet) = flow.super_packet(&payload, 100);
    let segments = split_all(header, &packet);
    assert_eq!(get_u16(&segments[0], at - 2), 0xffff);
    assert_eq!(segments, flow.plain_path(&payload, 100));
}

#[test]
fn super_packets_that_contradict_their_header_are_refused() {
    let (flow, ..) = mixed_flow(1);
    let (good, packet) = flow.super_packet(&[1; 5000], 1000);
    let refused = |header: VnetHdr| Split::new(header, &mut packet.clone()).err();
    assert_eq!(refused(good), None);
    let contradiction = Some(SplitError::Header);
    assert_eq!(
        refused(VnetHdr {
            gso_size: 0,
            ..good
        }),
        contradiction
    );
    assert_eq!(refused(VnetHdr { flags: 0, ..good }), contradiction);
    assert_eq!(
        refused(VnetHdr {
            gso_type: 4,
            ..good
        }),
        contradiction
    );
    assert_eq!(
        refused(VnetHdr {
            gso_type: 5,
            ..good
        }),
        contradiction
    );
    assert_eq!(
        refused(VnetHdr {
            csum_start: 24,
            ..good
        }),
        contradiction
    );
    assert_eq!(
        refused(VnetHdr {
            csum_start: 9999,
            ..good
        }),
        contradiction
    );
    assert_eq!(
        refused(VnetHdr {
            csum_offset: 6,
            ..good
        }),
        contradiction
    );
    assert_eq!(
        refused(VnetHdr {
            gso_type: 3,
            ..good
        }),
        Some(SplitError::GsoType(3))
    );
    // The hint may say anything, and the ECN bit may be set.
    assert_eq!(
        refused(VnetHdr {
            hdr_len: 3,
            gso_type: 0x81,
            ..good
        }),
        None
    );
}
