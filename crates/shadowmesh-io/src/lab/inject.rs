//! IP packets put onto a device as they are, right or wrong (`AF_PACKET`, packet(7)).

use std::io;
use std::os::fd::OwnedFd;

use crate::netlink;
use crate::sys;

/// Sends whole IP packets through a device without a link layer, such as a TUN device, past the
/// kernel's own IP: nothing is checked, filled in or offloaded.
pub struct Injector {
    socket: OwnedFd,
    index: libc::c_int,
}

impl Injector {
    /// Onto `device` of the calling thread's namespace.
    pub fn onto(device: &str) -> io::Result<Self> {
        let link = netlink::Handle::new()
            .and_then(|handle| handle.link_by_name(device))
            .map_err(io::Error::other)?;
        // Protocol 0: the socket receives nothing.
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        Ok(Self {
            socket,
            index: link.index as libc::c_int,
        })
    }

    /// Sends one packet.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let protocol = match packet.first().map(|byte| byte >> 4) {
            Some(6) => libc::ETH_P_IPV6,
            _ => libc::ETH_P_IP,
        };
        let mut address: libc::sockaddr_ll = sys::zeroed_address(libc::AF_PACKET);
        address.sll_protocol = (protocol as u16).to_be();
        address.sll_ifindex = self.index;
        sys::send_to(&self.socket, packet, &address).map(drop)
    }
}
