//! UDP multicast that stays on the local network.
//!
//! A [`Group`] is one socket for one group, IPv4 or IPv6. Which devices it is heard and sent on is
//! said by their numbers, so that a machine with several networks speaks on each of them. Datagrams
//! leave with TTL 1 and go over no router; several programs of one machine may hold the same group.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

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
        match group {
            // To the group's own address: what is sent to one of ours is none of its.
            SocketAddr::V4(_) => {
                socket.set_multicast_ttl_v4(1)?;
                socket.bind(&group.into())?;
            }
            // A group of link-local scope cannot be bound without naming a device.
            SocketAddr::V6(_) => {
                socket.set_only_v6(true)?;
                socket.set_multicast_hops_v6(1)?;
                let any = SocketAddr::new(IpAddr::from([0u8; 16]), group.port());
                socket.bind(&any.into())?;
            }
        }
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
