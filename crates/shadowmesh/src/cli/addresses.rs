//! Addresses of this host, as others may reach it.

use std::net::IpAddr;

use shadowmesh_io::netlink::{self, Handle};

/// Addresses of this host at which others may reach it; none where the system does not tell.
pub fn host_addresses() -> Vec<IpAddr> {
    let ask = || {
        let netlink = Handle::new()?;
        let (links, addresses) = (netlink.links()?, netlink.addresses()?);
        // 0 is no device: there is none of ours to be left out.
        let own = netlink::own_addresses(&links, &addresses, 0);
        Ok::<_, netlink::NetlinkError>(own.into_iter().map(|own| own.ip).collect())
    };
    // Without, the user writes it; nothing depends on it here.
    ask().unwrap_or_default()
}

/// Whether the whole internet may route to it (RFC 6890), as far as relays can be there.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // RFC 6598: between a provider and its customers.
            let shared = a == 100 && (64..128).contains(&b);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || shared)
        }
        // Global unicast (RFC 4291 §2.4) is 2000::/3 today.
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_internet_does_not_route_is_not_public() {
        for private in [
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "fe80::1",
            "fd00::1",
            "::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
        for public in ["203.0.113.5", "100.128.0.1", "2001:db8::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }
}
