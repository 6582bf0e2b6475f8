//! Where neighbours can be.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use shadowmesh_io::netlink::{Address, Link};
use shadowmesh_wire::beacon;
use shadowmesh_wire::prefix::IpPrefix;

/// Limit: networks that are spoken on.
pub const DEVICES_MAX: usize = 16;
/// Limit: addresses of ours on these devices. One has a few.
const OWN_MAX: usize = 64;

/// Our own networks.
#[derive(Default)]
pub struct Near {
    /// The devices spoken on. Limit: [`DEVICES_MAX`].
    devices: BTreeSet<u32>,
    /// Our addresses there, and the networks that are reached directly from them. Limit: [`OWN_MAX`].
    own: Vec<Own>,
}

struct Own {
    device: u32,
    ip: IpAddr,
    network: IpPrefix,
}

impl Near {
    /// What is spoken on and heard: Ethernet that passes packets, without tunnels, of which that numbered
    /// `without` is our own. Another VPN is no local network, however much it looks like one.
    // PROTOCOL SM-LD-1
    pub fn of(links: &[Link], addresses: &[Address], without: u32) -> Self {
        let speaks = |link: &&Link| {
            let is_lan = link.ethernet.is_some() && !link.tunnel;
            link.up && link.carrier && is_lan && link.index != without
        };
        let devices: BTreeSet<u32> = links
            .iter()
            .filter(speaks)
            .take(DEVICES_MAX)
            .map(|link| link.index)
            .collect();
        let own = addresses
            .iter()
            .filter(|own| is_spoken_from(own.address) && devices.contains(&own.index))
            .take(OWN_MAX)
            .map(|own| Own {
                device: own.index,
                ip: own.address,
                network: IpPrefix::containing(own.address, own.prefix_len),
            })
            .collect();
        Self { devices, own }
    }

    /// The devices to speak on.
    pub fn devices(&self) -> impl Iterator<Item = u32> + '_ {
        self.devices.iter().copied()
    }

    /// Whether a source is on one of our networks and speaks from the port for this. A socket of a multicast
    /// group also gets what routers brought from afar, and what is sent to us.
    // PROTOCOL SM-LD-3
    pub fn has(&self, source: SocketAddr) -> bool {
        let is_near = match source {
            SocketAddr::V4(source) => {
                let ip = (*source.ip()).into();
                self.own.iter().any(|own| own.network.contains(ip))
            }
            SocketAddr::V6(source) => {
                source.ip().is_unicast_link_local() && self.devices.contains(&source.scope_id())
            }
        };
        is_near && source.port() == beacon::PORT
    }

    /// From which addresses we speak to a neighbour: one, as a rule.
    pub fn towards(&self, neighbour: SocketAddr) -> impl Iterator<Item = IpAddr> + '_ {
        let faces = move |own: &&Own| match neighbour {
            SocketAddr::V4(to) => own.network.contains((*to.ip()).into()),
            SocketAddr::V6(to) => own.ip.is_ipv6() && own.device == to.scope_id(),
        };
        self.own.iter().filter(faces).map(|own| own.ip)
    }
}

/// Over IPv6 neighbours are spoken to from link-local addresses.
fn is_spoken_from(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddrV6};

    use super::*;

    // PROTOCOL SM-LD-3
    #[test]
    fn only_who_is_in_a_network_of_a_link_spoken_on_is_heard_and_over_ipv6_the_link_itself() {
        let link = |index, up, ethernet| Link {
            index,
            name: format!("link{index}"),
            mtu: 1500,
            up,
            carrier: true,
            ethernet,
            kind: None,
            master: None,
            tunnel: false,
        };
        let (ethernet, tunnel) = (Some([2, 0, 0, 0, 0, 1]), 9);
        let links = [
            link(1, true, ethernet),
            link(2, false, ethernet),
            link(3, true, None),
            link(tunnel, true, ethernet),
        ];
        let address = |index, address: &str, prefix_len| Address {
            index,
            address: address.parse().unwrap(),
            prefix_len,
            ready: true,
        };
        let addresses = [
            address(1, "192.0.2.1", 25),
            address(1, "2001:db8::1", 64),
            address(2, "198.51.100.1", 24),
            address(3, "203.0.113.1", 24),
            address(tunnel, "10.100.1.1", 16),
        ];
        let near = Near::of(&links, &addresses, tunnel);
        let heard = |source: &str| near.has(source.parse().unwrap());
        let towards = |source: &str| near.towards(source.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(towards("192.0.2.7:21077"), [IpAddr::from([192, 0, 2, 1])]);
        assert!(towards("198.51.100.2:21077").is_empty());
        assert!(heard("192.0.2.127:21077"));
        for far in [
            "192.0.2.128:21077",
            "198.51.100.2:21077",
            "203.0.113.2:21077",
            "10.100.1.2:21077",
            "[2001:db8::2]:21077",
            "192.0.2.127:53",
        ] {
            assert!(!heard(far), "{far}");
        }
        let on = |scope| {
            let ip = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
            near.has(SocketAddrV6::new(ip, 21_077, 0, scope).into())
        };
        assert!(on(1) && !on(2) && !on(tunnel));
    }
}
