//! Super-packets: whatever is cut into segments and merged again splits into the same segments, and
//! whatever a peer sends passes the coalescer as it came.
//!
//! The first byte chooses what the rest is. Raw packets hardly ever have a right checksum, so the
//! other way lets `Split` make the packets to be merged, out of super-packets that have, by choice, the
//! sum of their pseudo-header in the checksum field, as the kernel leaves it there.

#![no_main]

use std::io::IoSlice;

use libfuzzer_sys::fuzz_target;
use shadowmesh_wire::offload::{Coalescer, IOV_LEN_MAX, Split, VNET_HDR_LEN, VnetHdr};

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else {
        return;
    };
    let mut packets = Vec::new();
    for piece in pieces(rest) {
        if choice & 1 == 0 {
            packets.push(piece.to_vec());
        } else if let (Some(header), Some(packet)) =
            (VnetHdr::parse(piece), piece.get(VNET_HDR_LEN..))
        {
            let mut packet = packet.to_vec();
            if choice & 2 == 0 {
                leave_pseudo_sum(&header, &mut packet);
            }
            packets.extend(split(header, &packet));
        }
    }
    let mut delivered = Vec::new();
    for (header, packet) in coalesce(&packets) {
        match header == VnetHdr::default() {
            true => delivered.push(packet),
            false => delivered.extend(split(header, &packet)),
        }
    }
    // Packets of different flows may change places, and IPv4 ids that mean nothing may change.
    for packet in packets.iter_mut().chain(&mut delivered) {
        forget_id(packet);
    }
    packets.sort();
    delivered.sort();
    assert_eq!(packets, delivered);
});

/// Pieces behind a length of two bytes each, as far as the input goes.
fn pieces(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((len, behind)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*len)).min(behind.len());
        let (piece, behind) = behind.split_at(len);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn split(header: VnetHdr, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut packet = packet.to_vec();
    let mut segments = Vec::new();
    if let Ok(mut split) = Split::new(header, &mut packet) {
        let mut out = vec![0; split.segment_len_max()];
        while let Some(len) = split.write_next(&mut out) {
            segments.push(out[..len].to_vec());
        }
        assert_eq!(segments.len(), split.count());
    }
    segments
}

/// What the kernel leaves in the checksum field: addresses, protocol and length, folded.
fn leave_pseudo_sum(header: &VnetHdr, packet: &mut [u8]) {
    let start = usize::from(header.csum_start);
    let at = start + usize::from(header.csum_offset);
    let addresses = match packet.first().map(|byte| byte >> 4) {
        Some(6) => 8..40,
        _ => 12..20,
    };
    if packet.len() < at + 2 || packet.len() < addresses.end {
        return;
    }
    let protocol = if header.csum_offset == 6 { 17 } else { 6 };
    let words = packet[addresses].chunks(2);
    let mut sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum::<u32>()
        + protocol
        + (packet.len() - start) as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
}

fn coalesce(packets: &[Vec<u8>]) -> Vec<(VnetHdr, Vec<u8>)> {
    let buffer = packets.concat();
    let mut coalescer = Coalescer::new(true);
    let mut at = 0;
    for packet in packets {
        coalescer.push(at, packet);
        at += packet.len();
    }
    let mut iov = [IoSlice::new(&[]); IOV_LEN_MAX];
    let mut writes = Vec::new();
    for write in coalescer.finish() {
        let len = write.gather(&buffer, &mut iov);
        let packet: Vec<u8> = iov[1..len]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        let header = VnetHdr::parse(write.vnet()).expect("a write begins with a virtio header");
        writes.push((header, packet));
    }
    writes
}

/// With "don't fragment" the id has no meaning (RFC 6864), and with it goes the header checksum. All
/// ones there is the other form of zero: whoever writes the id anew writes zero, so such a packet has to
/// come through as it is.
fn forget_id(packet: &mut [u8]) {
    if packet.len() >= 20
        && packet[10..12] != [0xff, 0xff]
        && packet[0] == 0x45
        && packet[6] & 0x40 != 0
    {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
}
