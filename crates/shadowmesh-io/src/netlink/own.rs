//! Which addresses of this host others may reach it at.

use std::net::IpAddr;

use super::{Address, Link};

/// Addresses at which others may reach this host, those of real devices first: of links that are up
/// and pass packets, without those of the device numbered `without` (the tunnel's own). Left out are
/// loopback, link-local and multicast addresses, and what is tentative, deprecated or a duplicate.
pub fn own_addresses(links: &[Link], addresses: &[Address], without: u32) -> Vec<IpAddr> {
    let link = |address: &Address| links.iter().find(|link| link.index == address.index);
    let mut found: Vec<(bool, IpAddr)> = addresses
        .iter()
        .filter(|address| address.ready && address.index != without && is_own(address.address))
        .filter_map(|address| Some((address, link(address)?)))
        .filter(|(_, link)| link.up && passes(link))
        .map(|(address, link)| (link.kind.is_some(), address.address))
        .collect();
    // Stable: within both sorts the kernel's order stays.
    found.sort_by_key(|(made, _)| *made);
    found.into_iter().map(|(_, address)| address).collect()
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
        assert_eq!(found, expected.map(|text| text.parse::<IpAddr>().unwrap()));
    }
}
