//! The models: a flow that builds each packet whole, and the plain path that cuts a super-packet, both
//! field by field with checksums added word by word. They share nothing with the code under test.

use super::super::VnetHdr;

/// A flow of packets that differ only in what a stream makes differ. The model: it builds each
/// packet whole, field by field, with a checksum added word by word.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub(super) v6: bool,
    pub(super) tcp: bool,
    pub(super) port: u16,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) dont_fragment: bool,
    pub(super) id: u16,
    pub(super) sequence: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
    pub(super) flags: u8,
    /// TCP options, in words.
    pub(super) options: Vec<[u8; 4]>,
    /// What stands between the IP header and the transport header.
    pub(super) between: Between,
}

/// IPv4 options or IPv6 extension headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Between {
    /// The bytes, whole words of IPv4 or whole headers of IPv6.
    bytes: Vec<u8>,
    /// "Next header" of the IPv6 header, when that is not the transport's.
    first: Option<u8>,
    /// Where the packet goes in the end, if the header names only the next stop: the transport's
    /// checksum is over this (RFC 8200 §8.1, RFC 9293 §3.1).
    last_stop: Option<Vec<u8>>,
}

impl Between {
    /// IPv4 options in words: no-operation bytes, or, with `source_route`, a loose source route.
    pub(super) fn ipv4_options(words: usize, source_route: bool) -> Self {
        if source_route {
            let stop = vec![10, 100, 9, 9];
            let bytes = [&[131, 7, 4], stop.as_slice(), &[0]].concat();
            return Self {
                bytes,
                first: None,
                last_stop: Some(stop),
            };
        }
        Self {
            bytes: vec![1; words * 4],
            ..Self::default()
        }
    }

    /// IPv6 extension headers of these types, the last of which names `transport`: hop-by-hop options
    /// (0), routing (43), authentication (51), destination options (60).
    pub(super) fn ipv6_extensions(types: &[u8], transport: u8) -> Self {
        let mut between = Self {
            first: types.first().copied(),
            ..Self::default()
        };
        for (at, kind) in types.iter().enumerate() {
            between.bytes.push(*types.get(at + 1).unwrap_or(&transport));
            match kind {
                43 => {
                    let stop: Vec<u8> = (200..216).collect();
                    between.bytes.extend([2, 0, 1, 0, 0, 0, 0]);
                    between.bytes.extend(&stop);
                    between.last_stop = Some(stop);
                }
                // RFC 4302: length in words, less two; index, sequence number, 12 bytes of value.
                51 => between.bytes.extend([
                    4, 0, 0, 0, 0, 7, 9, 0, 0, 0, 1, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5,
                ]),
                // Five bytes of padding behind type and length.
                _ => between.bytes.extend([0, 1, 4, 0, 0, 0, 0]),
            }
        }
        between
    }
}

impl Flow {
    pub(super) fn transport_at(&self) -> usize {
        (if self.v6 { 40 } else { 20 }) + self.between.bytes.len()
    }

    fn transport_header_len(&self) -> usize {
        if self.tcp {
            20 + self.options.len() * 4
        } else {
            8
        }
    }

    pub(super) fn header_len(&self) -> usize {
        self.transport_at() + self.transport_header_len()
    }

    /// The packet that carries `payload`, which begins at byte `offset` of the flow and is packet
    /// `number`.
    pub(super) fn packet(
        &self,
        number: usize,
        offset: usize,
        payload: &[u8],
        flags: u8,
    ) -> Vec<u8> {
        let mut packet = self.unfinished(number, offset, payload, flags);
        self.finish_checksum(&mut packet);
        packet
    }

    /// Writes the transport checksum that is right for the packet as it stands.
    pub(super) fn finish_checksum(&self, packet: &mut [u8]) {
        let at = self.transport_at() + self.checksum_offset();
        packet[at..at + 2].fill(0);
        let sum = self.pseudo_sum(packet.len()) + plain_sum(&packet[self.transport_at()..]);
        let checksum = match !plain_fold(sum) {
            0 if !self.tcp => 0xffff,
            checksum => checksum,
        };
        packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }

    /// A packet of another protocol between the same hosts.
    pub(super) fn other(&self, protocol: u8, number: usize, body: &[u8]) -> Vec<u8> {
        let mut packet = self.ip_header(number, self.transport_at() + body.len());
        packet[if self.v6 { 6 } else { 9 }] = protocol;
        finish_ip_header(&mut packet);
        packet.extend(body);
        packet
    }

    /// The same with only the pseudo-header in the checksum field, as the kernel leaves it.
    pub(super) fn unfinished(
        &self,
        number: usize,
        offset: usize,
        payload: &[u8],
        flags: u8,
    ) -> Vec<u8> {
        let total_len = self.header_len() + payload.len();
        let mut packet = self.ip_header(number, total_len);
        let transport_len = (total_len - self.transport_at()) as u16;
        packet.extend(self.port.to_be_bytes());
        packet.extend(5201u16.to_be_bytes());
        let pseudo = plain_fold(self.pseudo_sum(total_len)).to_be_bytes();
        if self.tcp {
            packet.extend(self.sequence.wrapping_add(offset as u32).to_be_bytes());
            packet.extend(self.ack.to_be_bytes());
            packet.extend([(self.transport_header_len() / 4 * 16) as u8, flags]);
            packet.extend(self.window.to_be_bytes());
            packet.extend(pseudo);
            packet.extend([0, 0]);
            packet.extend(self.options.iter().flatten());
        } else {
            packet.extend(transport_len.to_be_bytes());
            packet.extend(pseudo);
        }
        packet.extend(payload);
        packet
    }

    pub(super) fn checksum_offset(&self) -> usize {
        if self.tcp { 16 } else { 6 }
    }

    pub(super) fn protocol(&self) -> u8 {
        if self.tcp { 6 } else { 17 }
    }

    fn addresses(&self) -> Vec<u8> {
        if self.v6 {
            (100..132).collect()
        } else {
            vec![10, 100, 1, 5, 10, 100, 1, 6]
        }
    }

    fn ip_header(&self, number: usize, total_len: usize) -> Vec<u8> {
        let mut header = Vec::new();
        if self.v6 {
            header.extend([0x60 | self.tos >> 4, self.tos << 4, 0, 7]);
            header.extend(((total_len - 40) as u16).to_be_bytes());
            header.extend([self.between.first.unwrap_or(self.protocol()), self.ttl]);
            header.extend(self.addresses());
            header.extend(&self.between.bytes);
        } else {
            header.extend([0x45 + (self.between.bytes.len() / 4) as u8, self.tos]);
            header.extend((total_len as u16).to_be_bytes());
            header.extend(self.id.wrapping_add(number as u16).to_be_bytes());
            header.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
            header.extend([self.ttl, self.protocol(), 0, 0]);
            header.extend(self.addresses());
            header.extend(&self.between.bytes);
            finish_ip_header(&mut header);
        }
        header
    }

    fn pseudo_sum(&self, total_len: usize) -> u32 {
        let mut addresses = self.addresses();
        if let Some(stop) = &self.between.last_stop {
            let kept = addresses.len() - stop.len();
            addresses[kept..].copy_from_slice(stop);
        }
        plain_sum(&addresses)
            + u32::from(self.protocol())
            + (total_len - self.transport_at()) as u32
    }

    /// The super-packet and its virtio header, as a kernel with offloads would give them.
    pub(super) fn super_packet(&self, payload: &[u8], gso_size: usize) -> (VnetHdr, Vec<u8>) {
        let header = VnetHdr {
            flags: 1,
            gso_type: match (self.tcp, self.v6) {
                (true, false) => 1,
                (true, true) => 4,
                (false, _) => 5,
            },
            hdr_len: self.header_len() as u16,
            gso_size: gso_size as u16,
            csum_start: self.transport_at() as u16,
            csum_offset: self.checksum_offset() as u16,
        };
        (header, self.unfinished(0, 0, payload, self.flags))
    }

    /// What a kernel without offloads would give.
    pub(super) fn plain_path(&self, payload: &[u8], gso_size: usize) -> Vec<Vec<u8>> {
        let chunks: Vec<&[u8]> = payload.chunks(gso_size).collect();
        let packet = |(number, chunk): (usize, &&[u8])| {
            let mut flags = self.flags;
            if number + 1 < chunks.len() {
                flags &= !0x09; // FIN, PSH
            }
            if number > 0 {
                flags &= !0x80; // CWR
            }
            self.packet(number, number * gso_size, chunk, flags)
        };
        chunks.iter().enumerate().map(packet).collect()
    }
}

pub(super) fn plain_sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
        .sum()
}

pub(super) fn plain_fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Writes the right checksum into an IPv4 header; an IPv6 header has none.
pub(super) fn finish_ip_header(packet: &mut [u8]) {
    if packet[0] >> 4 == 4 {
        let len = usize::from(packet[0] & 0x0f) * 4;
        packet[10..12].fill(0);
        let checksum = !plain_fold(plain_sum(&packet[..len]));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// What the kernel's segmentation makes of a packet behind its virtio header, for packets without
/// extension headers: the reference that delivered packets are judged by.
pub(super) fn plain_split(header: &VnetHdr, packet: &[u8]) -> Vec<Vec<u8>> {
    if header.gso_type == 0 {
        assert_eq!(header.flags, 0, "what is not merged is written as it came");
        return vec![packet.to_vec()];
    }
    let v6 = packet[0] >> 4 == 6;
    let tcp = header.gso_type != 5;
    let at = if v6 { 40 } else { 20 };
    let header_len = at
        + if tcp {
            usize::from(packet[at + 12] >> 4) * 4
        } else {
            8
        };
    check_virtio(header, packet, (v6, tcp), (at, header_len));
    let count = (packet.len() - header_len).div_ceil(header.gso_size.into());
    let chunks = packet[header_len..].chunks(header.gso_size.into());
    chunks
        .enumerate()
        .map(|(number, chunk)| {
            let mut segment = [&packet[..header_len], chunk].concat();
            let offset = number * usize::from(header.gso_size);
            if tcp {
                let sequence = number_at(&segment, at + 4, 4).wrapping_add(offset as u32);
                segment[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
                if number + 1 < count {
                    segment[at + 13] &= !0x09;
                }
            }
            finish(&mut segment, number as u16, (v6, tcp), at);
            segment
        })
        .collect()
}

/// What the kernel checks of a merged packet, and what it believes without a check.
fn check_virtio(header: &VnetHdr, packet: &[u8], (v6, tcp): (bool, bool), at: (usize, usize)) {
    let (at, header_len) = at;
    let gso_type = match (tcp, v6) {
        (true, false) => 1,
        (true, true) => 4,
        (false, _) => 5,
    };
    let expected = VnetHdr {
        flags: 1,
        gso_type,
        hdr_len: header_len as u16,
        gso_size: header.gso_size,
        csum_start: at as u16,
        csum_offset: if tcp { 16 } else { 6 },
    };
    assert_eq!(*header, expected);
    assert!(packet.len() <= 65535 && packet.len() > header_len + usize::from(header.gso_size));
    let (length_at, length) = if v6 {
        (4, packet.len() - 40)
    } else {
        (2, packet.len())
    };
    assert_eq!(number_at(packet, length_at, 2) as usize, length);
    if !v6 {
        assert_eq!(plain_fold(plain_sum(&packet[..20])), 0xffff);
    }
    if !tcp {
        assert_eq!(number_at(packet, at + 4, 2) as usize, packet.len() - at);
    }
    let unfinished = number_at(packet, at + usize::from(expected.csum_offset), 2);
    assert_eq!(
        unfinished,
        u32::from(plain_fold(pseudo_of(packet, (v6, tcp), at)))
    );
}

/// Lengths, id and checksums of a segment.
fn finish(segment: &mut [u8], number: u16, (v6, tcp): (bool, bool), at: usize) {
    let len = segment.len();
    if v6 {
        segment[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    } else {
        let id = (number_at(segment, 4, 2) as u16).wrapping_add(number);
        segment[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        segment[4..6].copy_from_slice(&id.to_be_bytes());
        finish_ip_header(segment);
    }
    if !tcp {
        segment[at + 4..at + 6].copy_from_slice(&((len - at) as u16).to_be_bytes());
    }
    let checksum_at = at + if tcp { 16 } else { 6 };
    segment[checksum_at..checksum_at + 2].fill(0);
    let sum = pseudo_of(segment, (v6, tcp), at) + plain_sum(&segment[at..]);
    let checksum = match !plain_fold(sum) {
        0 if !tcp => 0xffff,
        checksum => checksum,
    };
    segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn pseudo_of(packet: &[u8], (v6, tcp): (bool, bool), at: usize) -> u32 {
    let addresses = if v6 { &packet[8..40] } else { &packet[12..20] };
    plain_sum(addresses) + if tcp { 6 } else { 17 } + (packet.len() - at) as u32
}

/// A big endian field.
pub(super) fn number_at(bytes: &[u8], at: usize, len: usize) -> u32 {
    let field = &bytes[at..at + len];
    field
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}
