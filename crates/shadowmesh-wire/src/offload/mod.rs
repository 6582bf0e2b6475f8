//! Super-packets of the TUN device: split on the way out, coalesce on the way in.
//!
//! With offloads on, the kernel hands a TUN device packets of up to 64 KB whose checksums are not
//! finished, each behind a virtio header that says how to cut it (TSO, USO); and it takes packets
//! merged the same way back (GRO). One system call then moves some forty packets, and that decides
//! the throughput of the tunnel. This module is the cutting and the merging, as pure functions:
//!
//! - [`Split`] copies each segment once, from the buffer the device was read into straight into the
//!   place where it will be sealed.
//! - [`Coalescer`] copies no payload at all: it makes lists of ranges into the buffer that the
//!   datagrams were received into, and rewrites only headers.
//!
//! What both hold to is that the offload can not be seen: the packets that leave the far device are
//! those that a device without offloads would have carried. So every checksum is verified before a
//! merge (merging would otherwise repair a broken packet), and only packets that the kernel's own
//! segmentation would make out of one are merged into one.
//!
//! Sources: virtio 1.2 §5.1.6; Linux `include/uapi/linux/virtio_net.h`, `net/ipv4/tcp_offload.c`
//! and `udp_offload.c` for what the kernel does with the same fields.

mod coalesce;
mod split;
mod vnet;

#[cfg(test)]
mod tests;

use crate::checksum;

pub use coalesce::{Coalescer, IOV_LEN_MAX, Pieces, Write};
pub use split::{Split, SplitError};
pub use vnet::{GsoType, VNET_HDR_LEN, VnetHdr};

/// Longest IPv4 packet: the total length field has 16 bits. (IPv6 could carry 40 bytes more; the
/// kernel's GSO limit does not.)
const PACKET_LEN_MAX: usize = u16::MAX as usize;

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM_AT: usize = 16;
/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM_AT: usize = 6;
/// Bytes of a TCP header without options.
const TCP_HEADER_LEN_MIN: usize = 20;
/// Bytes of a UDP header.
const UDP_HEADER_LEN: usize = 8;

/// TCP flags, byte 13 of the header.
mod tcp_flag {
    pub(super) const FIN: u8 = 0x01;
    pub(super) const PSH: u8 = 0x08;
    pub(super) const ACK: u8 = 0x10;
    pub(super) const CWR: u8 = 0x80;
}

/// Writes a big endian field of two bytes.
#[inline]
fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Reads a big endian field of two bytes.
#[inline]
fn get_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads a big endian field of four bytes.
#[inline]
fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads a big endian field of sixteen bytes.
#[inline]
fn get_u128(bytes: &[u8], at: usize) -> u128 {
    let mut field = [0; 16];
    field.copy_from_slice(&bytes[at..at + 16]);
    u128::from_be_bytes(field)
}
