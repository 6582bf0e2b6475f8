//! UDP multicast that stays on the local network.
//!
//! A [`Group`] is one socket for one group, IPv4 or IPv6. Which devices it is heard and sent on is
//! said by their numbers, so that a machine with several networks speaks on each of them. Whoever is heard
//! can be answered alone, from the same port. Datagrams leave with TTL 1 and go over no router; several
//! programs of one machine may hold the same group, and then the last one gets the answers.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::underlay;

/// A nonblocking socket for a multicast group.
pub struct Group {
    socket: UdpSocket,
    group: SocketAddr,
}

impl Group {
    /// Opens a socket for the group, joined on no device yet.
    pub fn open(group: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        underlay::mark(&socket);
        // To every address: what is sent to one of ours alone is heard too.
        let any = match group {
            SocketAddr::V4(_) => {
                socket.set_multicast_ttl_v4(1)?;
                socket.set_ttl_v4(1)?;
                IpAddr::from([0u8; 4])
            }
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_multicast_hops_v6(1)?;
                socket.set_unicast_hops_v6(1)?;
                IpAddr::from([0u8; 16])
            }
        };
        only_joined(&socket, group)?;
        socket.bind(&SocketAddr::new(any, group.port()).into())?;
        Ok(Self {
            socket: socket.into(),
            group,
        })
    }

    /// Hears the group on a device; it may do so already.
    pub fn join(&self, index: u32) -> io::Result<()> {
        let socket = socket2::SockRef::from(&self.socket);
        let joined = match self.group.ip() {
            IpAddr::V4(group) => {
                socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))
            }
            IpAddr::V6(group) => socket.join_multicast_v6(&group, index),
        };
        match joined {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
            other => other,
        }
    }

    /// Sends a datagram to the group on a device.
    pub fn send(&self, index: u32, datagram: &[u8]) -> io::Result<()> {
        let target = match self.group {
            SocketAddr::V4(_) => {
                send_on_v4(&self.socket, index)?;
                self.group
            }
            SocketAddr::V6(group) => {
                socket2::SockRef::from(&self.socket).set_multicast_if_v6(index)?;
                SocketAddrV6::new(*group.ip(), group.port(), 0, index).into()
            }
        };
        self.socket.send_to(datagram, target).map(drop)
    }

    /// Sends a datagram to one of those that were heard, and to nobody else.
    pub fn answer(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, to).map(drop)
    }

    /// Receives a datagram and whose it is; `WouldBlock` when nothing waits. Over IPv6 only what came
    /// from a link-local address is to be believed to be of the local network.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer)
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Not also what other sockets of this machine have joined, or joined on other devices.
#[cfg(target_os = "linux")]
fn only_joined(socket: &Socket, group: SocketAddr) -> io::Result<()> {
    const NO: libc::c_int = 0;
    let (level, option) = match group {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MULTICAST_ALL),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_ALL),
    };
    match crate::sys::set_option(socket, level, option, NO) {
        // An old kernel has it for IPv4 only; what comes beside is another datagram of the same kind.
        Err(_) if group.is_ipv6() => Ok(()),
        other => other,
    }
}

/// Elsewhere that is how it is.
#[cfg(not(target_os = "linux"))]
fn only_joined(_socket: &Socket, _group: SocketAddr) -> io::Result<()> {
    Ok(())
}

/// By number and not, as elsewhere, by address: a device may have none.
#[cfg(target_os = "linux")]
fn send_on_v4(socket: &UdpSocket, index: u32) -> io::Result<()> {
    let any = libc::in_addr { s_addr: 0 };
    let device = libc::ip_mreqn {
        imr_multiaddr: any,
        imr_address: any,
        imr_ifindex: index as libc::c_int,
    };
    crate::sys::set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, device)
}

/// Nobody here knows how on this platform.
#[cfg(not(target_os = "linux"))]
fn send_on_v4(_socket: &UdpSocket, _index: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
