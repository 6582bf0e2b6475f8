//! Listening on an address that the host does not have yet.
//!
//! An address may come after the program that listens on it: by DHCP, by a cable plugged in, by a tunnel
//! brought up later, or at the end of IPv6's search for duplicates. Linux lets a socket be bound ahead of
//! it (`IP_FREEBIND`, ip(7), and its IPv6 twin), without any right, and then it hears what comes as soon
//! as the address is there. So nothing has to be tried again. Sending is another matter: the kernel
//! answers with EINVAL, as it does for much else, so who sends asks [`is_here`] first.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Binds a socket, ahead of its address where that is not there yet; whether it is.
pub fn bind(socket: &Socket, address: SocketAddr) -> io::Result<bool> {
    match socket.bind(&address.into()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            // What says why is the first answer.
            if may_be_ahead(socket, address).is_err() || socket.bind(&address.into()).is_err() {
                return Err(error);
            }
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(target_os = "linux")]
fn may_be_ahead(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => socket.set_freebind_v6(true),
    }
}

#[cfg(not(target_os = "linux"))]
fn may_be_ahead(_: &Socket, _: SocketAddr) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A TCP socket that listens and does not block; and whether its address is there.
pub fn listen(address: SocketAddr, backlog: i32) -> io::Result<(TcpListener, bool)> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // As with UDP: `[::]` and `0.0.0.0` are bound side by side.
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    let is_here = bind(&socket, address)?;
    socket.listen(backlog)?;
    Ok((socket.into(), is_here))
}

/// Whether the host has this address now. True where that cannot be found out.
pub fn is_here(ip: IpAddr) -> bool {
    let bound = UdpSocket::bind((ip, 0));
    !bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_socket_may_be_bound_ahead_of_its_address_and_a_port_that_is_taken_stays_taken() {
        // RFC 5737 and RFC 3849: for documentation, nobody has them.
        for absent in ["192.0.2.77:0", "[2001:db8::77]:0"] {
            let absent: SocketAddr = absent.parse().unwrap();
            let (_listener, is_here) = listen(absent, 1).unwrap();
            assert!(!is_here && !super::is_here(absent.ip()), "{absent}");
        }
        let (first, is_here) = listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        assert!(is_here && super::is_here("127.0.0.1".parse().unwrap()));
        let taken = listen(first.local_addr().unwrap(), 1).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
