//! Both halves against models that build and cut every packet from nothing.

mod merging;
mod model;
mod streams;

use std::{io::IoSlice, ops::Range};

use super::*;

fn split_all(header: VnetHdr, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut packet = packet.to_vec();
    let mut split = Split::new(header, &mut packet).unwrap();
    let mut out = vec![0xee; split.segment_len_max()];
    let mut segments = Vec::new();
    while let Some(len) = split.write_next(&mut out) {
        segments.push(out[..len].to_vec());
    }
    assert_eq!(segments.len(), split.count());
    segments
}

/// A receive buffer with the packets in it, some bytes apart as in sealed frames.
fn receive(packets: &[Vec<u8>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let mut buffer = Vec::new();
    let mut ranges = Vec::new();
    for packet in packets {
        buffer.extend([0xcc; 30]);
        ranges.push(buffer.len()..buffer.len() + packet.len());
        buffer.extend(packet);
    }
    (buffer, ranges)
}

/// What the device is given: header and packet of every write.
fn coalesce_all(coalescer: &mut Coalescer, packets: &[Vec<u8>]) -> Vec<(VnetHdr, Vec<u8>)> {
    let (buffer, ranges) = receive(packets);
    for range in ranges {
        coalescer.push(range.start, &buffer[range]);
    }
    let mut iov = [IoSlice::new(&[]); IOV_LEN_MAX];
    let mut writes = Vec::new();
    for write in coalescer.finish() {
        let len = write.gather(&buffer, &mut iov);
        let packet: Vec<u8> = iov[1..len]
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        writes.push((VnetHdr::parse(&iov[0]).unwrap(), packet));
    }
    writes
}
