//! Which addresses of this host others may reach it at.

use std::net::IpAddr;

use super::{Address, Link};

/// An address at which others may reach this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnAddress {
    /// The address.
    pub ip: IpAddr,
    /// It is on a tunnel device of somebody else's, and such as means something only there: another VPN leads
    /// to it.
    pub tunnelled: bool,
}

/// Addresses at which others may reach this host, those of real devices first and those in other VPNs last:
/// of links that are up and pass packets, without those of the device numbered `without` (the tunnel's own).
/// Left out are loopback, link-local and multicast addresses, and what is tentative, deprecated or a
/// duplicate.
pub fn own_addresses(links: &[Link], addresses: &[Address], without: u32) -> Vec<OwnAddress> {
    let link = |address: &Address| links.iter().find(|link| link.index == address.index);
    let mut found: Vec<(bool, OwnAddress)> = addresses
        .iter()
        .filter(|address| address.ready && address.index != without && is_own(address.address))
        .filter_map(|address| Some((address, link(address)?)))
        .filter(|(_, link)| link.up && passes(link))
        .map(|(address, link)| {
            let ip = address.address;
            let tunnelled = link.tunnel && (!is_way_out(link) || !is_global(ip));
            (link.kind.is_some(), OwnAddress { ip, tunnelled })
        })
        .collect();
    // Stable: within all sorts the kernel's order stays.
    found.sort_by_key(|(made, own)| (own.tunnelled, *made));
    found.into_iter().map(|(_, own)| own).collect()
}

/// Tunnels by which hosts are on the internet at all: a dialled line, a modem, IPv6 over IPv4. A global
/// address there is the host's address and no VPN's.
fn is_way_out(link: &Link) -> bool {
    matches!(link.kind.as_deref(), None | Some("ppp" | "sit"))
}

/// Neither private (RFC 1918, RFC 4193) nor shared with others of a provider or a VPN (RFC 6598).
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            !(ip.is_private() || first == 100 && second & 0xc0 == 64)
        }
        IpAddr::V6(ip) => !ip.is_unique_local(),
    }
}

/// A device that has a carrier must have noticed one; a bridge without a port is an example of one
/// that has not. Devices without such a thing (TUN) never do.
fn passes(link: &Link) -> bool {
    link.carrier || matches!(link.kind.as_deref(), Some("tun" | "wireguard"))
}

fn is_own(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(address.is_loopback() || address.is_unspecified() || address.is_multicast() || is_link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: Option<&str>, carrier: bool) -> Link {
        Link {
            index,
            name: format!("link{index}"),
            mtu: 1500,
            up: true,
            carrier,
            kind: kind.map(str::to_owned),
            master: None,
            ethernet: None,
            tunnel: matches!(kind, Some("tun" | "wireguard" | "ppp")),
        }
    }

    fn address(index: u32, text: &str) -> Address {
        Address {
            index,
            address: text.parse().unwrap(),
            prefix_len: 24,
            ready: true,
        }
    }

    #[test]
    fn real_devices_come_first_and_what_nobody_can_reach_is_left_out() {
        let links = [
            link(1, None, false),
            link(2, Some("bridge"), false),
            link(3, Some("bridge"), true),
            link(4, None, true),
            link(5, Some("tun"), false),
            link(6, Some("tun"), false),
            Link {
                up: false,
                ..link(7, None, true)
            },
        ];
        let mut tentative = address(4, "2001:db8::9");
        tentative.ready = false;
        let addresses = [
            address(1, "127.0.0.1"),
            address(2, "172.17.0.1"),
            address(3, "192.168.9.1"),
            address(4, "192.0.2.4"),
            address(4, "fe80::4"),
            address(4, "169.254.1.1"),
            address(4, "2001:db8::4"),
            tentative,
            address(5, "10.100.0.5"),
            address(6, "10.9.9.6"),
            address(7, "192.0.2.7"),
            address(8, "192.0.2.8"),
        ];
        let found = own_addresses(&links, &addresses, 5);
        let expected = ["192.0.2.4", "2001:db8::4", "192.168.9.1", "10.9.9.6"];
        let found: Vec<IpAddr> = found.iter().map(|own| own.ip).collect();
        assert_eq!(found, expected.map(|text| text.parse::<IpAddr>().unwrap()));
    }

    // PROTOCOL SM-PA-5
    #[test]
    fn what_another_vpn_leads_to_comes_last_and_is_told_from_a_line_of_our_own() {
        let links = [
            link(1, Some("wireguard"), false),
            link(2, Some("tun"), false),
            link(3, Some("ppp"), true),
            link(4, Some("bridge"), true),
        ];
        let addresses = [
            address(1, "10.64.0.1"),
            address(2, "192.0.2.2"),
            address(3, "192.0.2.3"),
            address(3, "100.64.0.3"),
            address(4, "192.168.9.1"),
        ];
        let found = own_addresses(&links, &addresses, 5);
        let found: Vec<(String, bool)> = found
            .iter()
            .map(|own| (own.ip.to_string(), own.tunnelled))
            .collect();
        let expected = [
            ("192.0.2.3", false),
            ("192.168.9.1", false),
            ("10.64.0.1", true),
            ("192.0.2.2", true),
            ("100.64.0.3", true),
        ];
        assert_eq!(
            found,
            expected.map(|(ip, tunnelled)| (ip.to_owned(), tunnelled))
        );
    }
}
