//! The virtio header in front of every packet of a TUN device opened with `IFF_VNET_HDR`.
//!
//! Fields are little endian, as virtio 1 has them; `shadowmesh-io` tells the kernel so
//! (`TUNSETVNETLE`).

/// Bytes of the header (`struct virtio_net_hdr`, without the buffer count of its later forms).
pub const VNET_HDR_LEN: usize = 10;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field holds only the pseudo-header sum.
const FLAG_NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_ECN` shares the byte of the GSO type.
const GSO_TYPE_MASK: u8 = 0x7f;

/// How a super-packet is to be cut (`VIRTIO_NET_HDR_GSO_*`, without the ECN bit).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GsoType {
    /// Not a super-packet.
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either; every segment a datagram of its own (USO).
    UdpL4,
    /// Anything else, such as the old UDP fragmentation offload, which we never ask for.
    Other(u8),
}

/// `struct virtio_net_hdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHdr {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`; [`Self::gso`] reads it.
    pub gso_type: u8,
    /// Bytes of all headers. A hint: the kernel may state less or more, so [`crate::offload::Split`]
    /// does not read it.
    pub hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Where the transport header starts.
    pub csum_start: u16,
    /// Where in the transport header the checksum stands.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// Takes the header off the front of what was read from the device.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1] =
            *bytes.first_chunk::<VNET_HDR_LEN>()?;
        Some(Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
        })
    }

    /// The header as the device wants it.
    #[inline]
    pub fn to_bytes(&self) -> [u8; VNET_HDR_LEN] {
        let [h0, h1] = self.hdr_len.to_le_bytes();
        let [g0, g1] = self.gso_size.to_le_bytes();
        let [s0, s1] = self.csum_start.to_le_bytes();
        let [o0, o1] = self.csum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, g0, g1, s0, s1, o0, o1]
    }

    /// What kind of super-packet this is, the ECN bit aside.
    #[inline]
    pub fn gso(&self) -> GsoType {
        match self.gso_type & GSO_TYPE_MASK {
            0 => GsoType::None,
            1 => GsoType::Tcp4,
            4 => GsoType::Tcp6,
            5 => GsoType::UdpL4,
            other => GsoType::Other(other),
        }
    }

    /// Whether the checksum is unfinished.
    #[inline]
    pub fn needs_csum(&self) -> bool {
        self.flags & FLAG_NEEDS_CSUM != 0
    }

    /// The header of a merged packet. A merged packet always leaves its checksum to the kernel.
    pub(super) fn merged(
        gso: GsoType,
        transport_at: usize,
        hdr_len: usize,
        gso_size: usize,
    ) -> Self {
        let (gso_type, csum_offset) = match gso {
            GsoType::None => (0, 0),
            GsoType::Tcp4 => (1, super::TCP_CHECKSUM_AT),
            GsoType::Tcp6 => (4, super::TCP_CHECKSUM_AT),
            GsoType::UdpL4 => (5, super::UDP_CHECKSUM_AT),
            GsoType::Other(other) => (other, 0),
        };
        Self {
            flags: FLAG_NEEDS_CSUM,
            gso_type,
            hdr_len: hdr_len as u16,
            gso_size: gso_size as u16,
            csum_start: transport_at as u16,
            csum_offset: csum_offset as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_round_trip(bytes: [u8; VNET_HDR_LEN], rest: Vec<u8>) {
            let mut read = bytes.to_vec();
            read.extend(rest);
            let header = VnetHdr::parse(&read).unwrap();
            prop_assert_eq!(header.to_bytes(), bytes);
            prop_assert_eq!(VnetHdr::parse(&read[..VNET_HDR_LEN - 1]), None);
        }
    }

    #[test]
    fn the_ecn_bit_does_not_hide_the_type() {
        let header = VnetHdr {
            gso_type: 0x81,
            ..VnetHdr::default()
        };
        assert_eq!(header.gso(), GsoType::Tcp4);
    }
}
