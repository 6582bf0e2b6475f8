//! `sendmsg` with all that can be said beside the bytes: where from, the whole traffic class, and the
//! length of the segments that the kernel is to cut the bytes into.
//!
//! Ours and not quinn-udp's, which sets two bits of the traffic class and leaves the DSCP zero.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::SockAddr;

use super::Transmit;
use crate::sys;

/// Room for the three messages there can be: traffic class (24 bytes on 64-bit machines), segment
/// length (24) and the longer form of the address to send from (40).
const CONTROL_LEN: usize = 96;

/// Control messages one after the other, as `CMSG_NXTHDR` walks them.
#[repr(C, align(8))]
struct Control {
    bytes: [u8; CONTROL_LEN],
    len: usize,
}

/// Hands the first `length` bytes of `transmit` to the kernel. HOT PATH.
pub(super) fn send(socket: &UdpSocket, transmit: &Transmit<'_>, length: usize) -> io::Result<()> {
    let mut control = Control {
        bytes: [0; CONTROL_LEN],
        len: 0,
    };
    let class = libc::c_int::from(transmit.traffic_class);
    if transmit.remote.is_ipv4() {
        control.push(libc::IPPROTO_IP, libc::IP_TOS, class);
    } else {
        control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, class);
    }
    if let Some(segment) = transmit.segment_size.filter(|&size| size < length) {
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, segment as u16);
    }
    match transmit.local_ip {
        Some(IpAddr::V4(address)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(address)) => {
            let info = libc::in6_pktinfo {
                ipi6_ifindex: 0,
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
            };
            control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
        None => {}
    }
    send_message(socket, transmit, length, &mut control)
}

fn send_message(
    socket: &UdpSocket,
    transmit: &Transmit<'_>,
    length: usize,
    control: &mut Control,
) -> io::Result<()> {
    let remote = SockAddr::from(transmit.remote);
    let contents = &transmit.contents[..length];
    let mut slice = libc::iovec {
        iov_base: contents.as_ptr().cast_mut().cast(),
        iov_len: contents.len(),
    };
    // SAFETY: `msghdr` is integers and pointers, all of which may be zero.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = remote.as_ptr().cast_mut().cast();
    message.msg_namelen = remote.len();
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes.as_mut_ptr().cast();
    message.msg_controllen = control.len as _;
    sys::retry(|| {
        // SAFETY: every pointer of `message` comes with the length of a live value; the kernel only
        // reads them. The descriptor is open because the socket is borrowed.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    })
    .map(drop)
}

impl Control {
    /// Adds a message.
    fn push<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        // SAFETY: these only compute.
        let (header_len, space) = unsafe {
            let len = size_of::<T>() as libc::c_uint;
            (libc::CMSG_LEN(0) as usize, libc::CMSG_SPACE(len) as usize)
        };
        assert!(self.len + space <= CONTROL_LEN, "room for every message");
        // SAFETY: `cmsghdr` is plain integers.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = (header_len + size_of::<T>()) as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        // SAFETY: header and value lie within `space` bytes from `len` on, which the assertion found
        // inside the buffer. The buffer is aligned to 8 and every space is a multiple of the
        // alignment of `cmsghdr`, so the header is aligned; the value need not be.
        unsafe {
            let at = self.bytes.as_mut_ptr().add(self.len);
            at.cast::<libc::cmsghdr>().write(header);
            at.add(header_len).cast::<T>().write_unaligned(value);
        }
        self.len += space;
    }
}
