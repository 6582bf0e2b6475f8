//! The bound UDP sockets and the streams, and which of them leads to an address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use shadowmesh_io::poll::{self, Watch};
use shadowmesh_io::udp::{SendFault, Transmit, UdpLink};
use shadowmesh_net::SECOND_SOCKET;
use shadowmesh_wire::way::Way;

use super::extra::ExtraLinks;
use super::streams::{Kind, StreamTable};

/// How long a sender waits for room in a socket's buffer before it drops a run. Longer than the
/// buffer takes to drain at 1 Gbit/s: a wait is back-pressure on the device, a drop is a lost packet.
pub const FULL_WAIT: Duration = Duration::from_millis(100);

/// The number of the sockets at which we listen.
const LISTENING: u16 = 0;

/// All sockets and streams of the node. Shared by every thread: a UDP socket needs no lock.
pub struct Links {
    links: Vec<UdpLink>,
    /// Whether anything is sent by UDP.
    sends: bool,
    streams: StreamTable,
    /// Those that were opened to send from.
    extra: ExtraLinks,
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
            extra: ExtraLinks::new()?,
        })
    }

    /// The sockets.
    pub fn iter(&self) -> impl Iterator<Item = &UdpLink> {
        self.links.iter()
    }

    /// The sockets that were opened to send from.
    pub fn extra(&self) -> &ExtraLinks {
        &self.extra
    }

    /// Opens the second port of a relay: the one after the first at which we listen by IPv4, which a firewall can
    /// be told of, or any if that is taken. `None`: there is none.
    // PROTOCOL SM-RL-10
    pub fn open_second(&self) -> Option<u16> {
        let first = self.links.iter().map(UdpLink::local_addr);
        let first = first.filter(|_| self.sends).find(SocketAddr::is_ipv4)?;
        let next = first.port().checked_add(1).unwrap_or(0);
        let ports = [next, 0].into_iter();
        let mut opened = ports.map(|port| {
            let at = SocketAddr::new(first.ip(), port);
            self.extra.open_at(SECOND_SOCKET, at)
        });
        match opened.find_map(Result::ok) {
            Some(link) => Some(link.local_addr().port()),
            None => {
                tracing::warn!(
                    "no second UDP port; clients with this relay alone do not learn their NAT's kind"
                );
                None
            }
        }
    }

    /// What was really bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.links.iter().map(UdpLink::local_addr).collect()
    }

    /// Looks for the addresses at which we listen: those that the host does not have now.
    pub fn absent(&self) -> Vec<SocketAddr> {
        let absent = self.links.iter().filter(|link| !link.look());
        absent.map(UdpLink::local_addr).collect()
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
            let same =
                |link: &&UdpLink| link.is_here() && link.local_addr().is_ipv4() == remote.is_ipv4();
            self.links.iter().filter(same)
        };
        family()
            .find(|link| Some(link.local_addr().ip()) == local_ip)
            .or_else(|| family().next())
    }

    /// Sends a run, waiting for room no longer than `patience` if the socket's buffer is full. A stream may be
    /// far slower than the other peers' ways, so nobody waits for one. HOT PATH.
    pub fn send_within(
        &self,
        socket: u16,
        transmit: Transmit<'_>,
        patience: Duration,
    ) -> Result<(), SendFault> {
        if let Way::Stream(id) = Way::of(transmit.remote) {
            return self.streams.send(id, &transmit, Kind::Data);
        }
        if socket != LISTENING {
            let link = self.extra.find(socket, transmit.remote);
            return send_on(&*link.ok_or(SendFault::Unreachable)?, transmit, patience);
        }
        let link = self
            .towards(transmit.remote, transmit.local_ip)
            .ok_or(SendFault::Unreachable)?;
        send_on(link, transmit, patience)
    }

    /// Sends without ever waiting, for the control thread. A socket that is no listening one is opened
    /// when it is first sent from.
    pub fn send_now(&self, socket: u16, transmit: &Transmit<'_>) -> Result<(), SendFault> {
        if let Way::Stream(id) = Way::of(transmit.remote) {
            return self.streams.send(id, transmit, Kind::Control);
        }
        let link = self
            .towards(transmit.remote, transmit.local_ip)
            .ok_or(SendFault::Unreachable)?;
        if socket == LISTENING {
            return send_at_once(link, transmit);
        }
        let (extra, local) = (&self.extra, link.local_addr().ip());
        match extra.open(socket, transmit.remote, local) {
            Ok(link) => send_at_once(&link, transmit),
            Err(error) => Err(SendFault::of(&error)),
        }
    }
}

/// Sends a run, waiting for room no longer than `patience`. HOT PATH.
fn send_on(link: &UdpLink, transmit: Transmit<'_>, patience: Duration) -> Result<(), SendFault> {
    let mut rest = transmit;
    while !rest.contents.is_empty() {
        match link.try_send(&rest) {
            Ok(len) => rest.contents = &rest.contents[len..],
            Err(error) if SendFault::of(&error) == SendFault::Full => {
                wait_for_room(link, patience)?;
            }
            Err(error) if let Some(ip) = rest.local_ip.filter(|_| is_about_source(&error)) => {
                tracing::trace!(%ip, "an address of ours is gone");
                rest.local_ip = None;
            }
            Err(error) => return Err(SendFault::of(&error)),
        }
    }
    Ok(())
}

/// Sends a run or fails.
fn send_at_once(link: &UdpLink, transmit: &Transmit<'_>) -> Result<(), SendFault> {
    let sent = match link.send(transmit) {
        Err(error) if transmit.local_ip.is_some() && is_about_source(&error) => {
            link.send(&Transmit {
                local_ip: None,
                ..transmit.clone()
            })
        }
        sent => sent,
    };
    sent.map_err(|error| SendFault::of(&error))
}

/// Whether the address to send from may be the trouble: the host has moved, and another will do.
fn is_about_source(error: &io::Error) -> bool {
    matches!(
        SendFault::of(error),
        SendFault::LocalAddressGone | SendFault::Unreachable
    )
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
    use shadowmesh_io::udp::RecvBatch;

    /// A datagram sent to the first socket of `to`.
    fn datagram(to: &Links, local_ip: Option<IpAddr>) -> Transmit<'static> {
        Transmit {
            remote: to.addresses()[0],
            local_ip,
            traffic_class: 0,
            may_fragment: false,
            segment_size: None,
            contents: b"x",
        }
    }

    /// Where the next datagram came from.
    fn source(links: &Links) -> SocketAddr {
        let link = &links.links[0];
        let ready = poll::wait(&mut [Watch::readable(link)], Some(Duration::from_secs(5)));
        assert_eq!(ready.unwrap(), 1, "nothing came");
        let mut batch = RecvBatch::new();
        link.recv_batch(&mut batch).unwrap();
        let (from, _) = batch.iter_mut().next().unwrap();
        from.remote
    }

    fn on_loopback() -> Links {
        Links::bind(&["127.0.0.1:0".parse().unwrap()], true).unwrap()
    }

    #[test]
    fn control_opens_a_further_socket_and_data_threads_send_from_it_until_it_is_closed() {
        let (from, to) = (on_loopback(), on_loopback());
        let unopened = from.send_within(5, datagram(&to, None), FULL_WAIT);
        assert_eq!(unopened, Err(SendFault::Unreachable));
        from.send_now(5, &datagram(&to, None)).unwrap();
        let opened = source(&to);
        assert_ne!(opened, from.addresses()[0]);
        from.send_within(5, datagram(&to, None), FULL_WAIT).unwrap();
        assert_eq!(source(&to), opened);
        from.send_within(LISTENING, datagram(&to, None), FULL_WAIT)
            .unwrap();
        assert_eq!(source(&to), from.addresses()[0]);
        from.extra().close_all_but(&[]).unwrap();
        let closed = from.send_within(5, datagram(&to, None), FULL_WAIT);
        assert_eq!(closed, Err(SendFault::Unreachable));
    }

    #[test]
    fn where_the_address_to_send_from_is_gone_another_is_taken() {
        let (from, to) = (on_loopback(), on_loopback());
        let gone = Some("203.0.113.77".parse().unwrap());
        from.send_now(LISTENING, &datagram(&to, gone)).unwrap();
        assert_eq!(source(&to), from.addresses()[0]);
        from.send_within(LISTENING, datagram(&to, gone), FULL_WAIT)
            .unwrap();
        assert_eq!(source(&to), from.addresses()[0]);
    }

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
