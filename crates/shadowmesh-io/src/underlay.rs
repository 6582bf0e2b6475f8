//! The mark of the underlay: what carries the tunnel is told from what the tunnel carries.
//!
//! A host may lead the very network to a peer in which that peer is found outside. So that datagrams to
//! the peer do not take the way through the tunnel that they are to build, every socket of ours to the
//! outside carries a mark, and the rule that leads packets into the tunnel leaves out what is marked.
//! The kernel never writes a mark on the wire.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

/// The mark, the same for all nodes of a host: none may travel inside another by accident. Beside the
/// bits that others test alone: Kubernetes 0xc000, Tailscale 0xff0000, Calico 0xffff0000, AWS 0x80.
pub const MARK: u32 = 0x830;

/// Marks a socket that carries the underlay. It takes `CAP_NET_ADMIN`; a program without it, such as a
/// relay, has set no routes that its datagrams could fall into, and goes on without a mark.
pub fn mark(socket: &impl AsFd) -> bool {
    let marked = try_mark(socket);
    if let Err(error) = &marked {
        tracing::debug!(%error, "a socket of the underlay carries no mark");
    }
    marked.is_ok()
}

#[cfg(target_os = "linux")]
fn try_mark(socket: &impl AsFd) -> io::Result<()> {
    let mark = MARK as libc::c_int;
    crate::sys::set_option(socket, libc::SOL_SOCKET, libc::SO_MARK, mark)
}

#[cfg(not(target_os = "linux"))]
fn try_mark(_socket: &impl AsFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A UDP socket of the underlay at a port of its own, of the version of `towards`, unconnected.
pub fn udp_socket(towards: IpAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match towards {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    mark(&socket);
    Ok(socket)
}

/// The address from which the underlay sends to `remote`; `None` where no route leads there. Connecting
/// a UDP socket sends nothing, it only looks the route up.
pub fn source_towards(remote: SocketAddr) -> Option<IpAddr> {
    let socket = udp_socket(remote.ip()).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
