//! What the kernel believes the MTU of a path to be.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::sys;

/// A UDP socket that lets nothing be fragmented and learns path MTUs from ICMP, as a program does
/// that does its own path MTU discovery (ip(7), `IP_MTU_DISCOVER`).
pub struct PathMtuProbe {
    socket: UdpSocket,
    /// Level and option by which to ask for the MTU.
    option: (libc::c_int, libc::c_int),
}

impl PathMtuProbe {
    /// A socket in the calling thread's namespace, connected to the discard port of `target`.
    pub fn towards(target: IpAddr) -> io::Result<Self> {
        const DISCARD: u16 = 9;
        let (any, level, discover, value, option): (IpAddr, _, _, _, _) = match target {
            IpAddr::V4(_) => (
                std::net::Ipv4Addr::UNSPECIFIED.into(),
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                libc::IP_PMTUDISC_DO,
                libc::IP_MTU,
            ),
            IpAddr::V6(_) => (
                std::net::Ipv6Addr::UNSPECIFIED.into(),
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_DO,
                libc::IPV6_MTU,
            ),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        sys::set_option(&socket, level, discover, value)?;
        socket.connect(SocketAddr::new(target, DISCARD))?;
        Ok(Self {
            socket,
            option: (level, option),
        })
    }

    /// Sends a datagram that makes an IP packet of `ip_len` bytes; false when the kernel knows
    /// already that it is too long.
    pub fn send(&self, ip_len: usize) -> io::Result<bool> {
        let headers = if self.option.0 == libc::IPPROTO_IP {
            28
        } else {
            48
        };
        match self.socket.send(&vec![0; ip_len - headers]) {
            Ok(_) => Ok(true),
            // Nobody listens on the other side, and its kernel said so.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the kernel believes now, bytes of the largest IP packet.
    pub fn mtu(&self) -> io::Result<u32> {
        let (level, option) = self.option;
        let mtu: libc::c_int = sys::get_option(&self.socket, level, option, 0)?;
        Ok(mtu.unsigned_abs())
    }
}
