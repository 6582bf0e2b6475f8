//! The bound UDP sockets and the streams, and which of them leads to an address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use shadowmesh_io::poll::{self, Watch};
use shadowmesh_io::udp::{SendFault, Transmit, UdpLink};
use shadowmesh_wire::way::Way;

use super::streams::{Kind, StreamTable};

/// How long a sender waits for room in a socket's buffer before it drops a run. Longer than the
/// buffer takes to drain at 1 Gbit/s: a wait is back-pressure on the device, a drop is a lost packet.
const FULL_WAIT: Duration = Duration::from_millis(100);

/// All sockets and streams of the node. Shared by every thread: a UDP socket needs no lock.
pub struct Links {
    links: Vec<UdpLink>,
    /// Whether anything is sent by UDP.
    sends: bool,
    streams: StreamTable,
}

impl Links {
    /// Binds every address, in the given order. On a machine without IPv6 the wildcard `[::]`, which
    /// stands in the default configuration, is left out if there is anything else to bind.
    ///
    /// `sends`: they are sent from. Without it only streams lead anywhere.
    pub fn bind(addresses: &[SocketAddr], sends: bool) -> io::Result<Self> {
        let can_skip = !has_ipv6() && addresses.iter().any(SocketAddr::is_ipv4);
        let is_wanted = |address: &&SocketAddr| {
            let skipped = can_skip && address.is_ipv6() && address.ip().is_unspecified();
            if skipped {
                tracing::warn!(%address, "this machine has no IPv6; not listening there");
            }
            !skipped
        };
        let links = addresses.iter().filter(is_wanted);
        let links = links.map(|address| UdpLink::bind(*address));
        Ok(Self {
            links: links.collect::<io::Result<_>>()?,
            sends,
            streams: StreamTable::default(),
        })
    }

    /// The sockets.
    pub fn iter(&self) -> impl Iterator<Item = &UdpLink> {
        self.links.iter()
    }

    /// What was really bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.links.iter().map(UdpLink::local_addr).collect()
    }

    /// The streams that stand now.
    pub fn streams(&self) -> &StreamTable {
        &self.streams
    }

    /// Datagrams that the kernel dropped because we were too slow, over all sockets; zero where it
    /// does not say.
    pub fn receive_drops(&self) -> u64 {
        let drops = self
            .links
            .iter()
            .filter_map(|link| link.receive_drops().ok());
        drops.map(u64::from).sum()
    }

    /// The socket for a remote address: of its family, and the one bound to `local_ip` if any is.
    /// A handful of sockets, so a scan beats a table.
    fn towards(&self, remote: SocketAddr, local_ip: Option<IpAddr>) -> Option<&UdpLink> {
        if !self.sends {
            return None;
        }
        let family = || {
            let same = |link: &&UdpLink| link.local_addr().is_ipv4() == remote.is_ipv4();
            self.links.iter().filter(same)
        };
        family()
            .find(|link| Some(link.local_addr().ip()) == local_ip)
            .or_else(|| family().next())
    }

    /// Sends a run, waiting a little for room if the socket's buffer is full. For the sender thread,
    /// which has nothing better to do: the device's queue then fills and slows the applications down. A
    /// stream may be far slower than the other peers' ways, so nobody waits for one.
    /// HOT PATH.
    pub fn send_patiently(&self, transmit: Transmit<'_>) -> Result<(), SendFault> {
        self.send_within(transmit, FULL_WAIT)
    }

    /// As [`send_patiently`](Self::send_patiently), waiting for room no longer than `patience`. HOT PATH.
    pub fn send_within(&self, transmit: Transmit<'_>, patience: Duration) -> Result<(), SendFault> {
        if let Way::Stream(id) = Way::of(transmit.remote) {
            return self.streams.send(id, &transmit, Kind::Data);
        }
        let link = self
            .towards(transmit.remote, transmit.local_ip)
            .ok_or(SendFault::Unreachable)?;
        let mut rest = transmit;
        while !rest.contents.is_empty() {
            match link.try_send(&rest) {
                Ok(len) => rest.contents = &rest.contents[len..],
                Err(error) if SendFault::of(&error) == SendFault::Full => {
                    wait_for_room(link, patience)?;
                }
                Err(error) => return Err(SendFault::of(&error)),
            }
        }
        Ok(())
    }

    /// Sends without ever waiting, for the control thread.
    pub fn send_now(&self, transmit: &Transmit<'_>) -> Result<(), SendFault> {
        if let Way::Stream(id) = Way::of(transmit.remote) {
            return self.streams.send(id, transmit, Kind::Control);
        }
        let link = self
            .towards(transmit.remote, transmit.local_ip)
            .ok_or(SendFault::Unreachable)?;
        link.send(transmit).map_err(|error| SendFault::of(&error))
    }
}

/// The kernel was built or started without IPv6 when it does not list its addresses.
fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

fn wait_for_room(link: &UdpLink, patience: Duration) -> Result<(), SendFault> {
    match poll::wait(&mut [Watch::writable(link)], Some(patience)) {
        Ok(1..) => Ok(()),
        _ => Err(SendFault::Full),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_chosen_by_family_and_then_by_local_address() {
        let bind = ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"].map(|a| a.parse().unwrap());
        let links = Links::bind(&bind, true).unwrap();
        let chosen = |remote: &str, local: Option<&str>| {
            let local = local.map(|text| text.parse().unwrap());
            let link = links.towards(remote.parse().unwrap(), local);
            link.map(|link| link.local_addr().ip().to_string())
        };
        assert_eq!(chosen("127.0.0.9:1", None).unwrap(), "127.0.0.1");
        assert_eq!(
            chosen("127.0.0.9:1", Some("127.0.0.2")).unwrap(),
            "127.0.0.2"
        );
        assert_eq!(chosen("[::1]:1", None).unwrap(), "::1");
        let only_v6 = Links::bind(&bind[2..], true).unwrap();
        assert!(
            only_v6
                .towards("127.0.0.9:1".parse().unwrap(), None)
                .is_none()
        );
    }
}
