//! Links, addresses and routes as the kernel writes them: fixed headers and their attributes.

use std::net::IpAddr;

use super::message::{self, Request, attributes, u16_at, u32_at};
use super::{Address, Link, ROUTE_PROTOCOL, Route, RouteKind, TABLE_MAIN};

pub(super) const REQUEST: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
pub(super) const CREATE: u16 = REQUEST | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// `IF_OPER_UP` of linux/if.h. (`IFF_RUNNING` will not do: it is also set while the state is still
/// unknown.)
const OPERATIONAL: u8 = 6;

/// Drivers whose devices carry packets inside others (`IFLA_INFO_KIND`). `tun` is TUN and TAP, so what VPN
/// programs make; the Ethernet ones have no hardware type that would tell them from a card.
const TUNNEL_KINDS: &[&str] = &[
    "tun",
    "wireguard",
    "amneziawg",
    "ovpn",
    "ovpn-dco",
    "ipip",
    "ip6tnl",
    "sit",
    "gre",
    "gretap",
    "ip6gre",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "vti",
    "vti6",
    "xfrm",
    "vxlan",
    "geneve",
    "bareudp",
    "gtp",
    "ppp",
];
/// Hardware types of such devices (linux/if_arp.h), for drivers that have another name or none. (Devices
/// without a link layer are some too, where they have one other end: other VPN programs, modems.)
const TUNNEL_HARDWARE: &[u16] = &[
    libc::ARPHRD_TUNNEL,
    libc::ARPHRD_TUNNEL6,
    libc::ARPHRD_SIT,
    libc::ARPHRD_IPGRE,
    ARPHRD_IP6GRE,
    libc::ARPHRD_PPP,
];

/// Of linux/if_arp.h; the library lacks it.
const ARPHRD_IP6GRE: u16 = 823;

/// Flags of an address that is not to be used for anything new.
const NOT_READY: u32 = libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED | libc::IFA_F_DEPRECATED;

/// `struct ifinfomsg`: family, padding, type, index, flags, mask of the flags to change.
pub(super) fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

pub(super) fn change_link(index: u32) -> Request {
    Request::new(libc::RTM_NEWLINK, REQUEST, &link_header(index, 0, 0))
}

pub(super) fn new_link(name: &str) -> Request {
    Request::new(libc::RTM_NEWLINK, CREATE, &link_header(0, 0, 0)).text(libc::IFLA_IFNAME, name)
}

pub(super) fn parse_link(body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index: u32_at(body, 4)?,
        name: String::new(),
        mtu: 0,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: false,
        kind: None,
        master: None,
        ethernet: None,
        tunnel: false,
    };
    let hardware = u16_at(body, 2)?;
    let ethernet = hardware == libc::ARPHRD_ETHER;
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = message::text(value),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            libc::IFLA_OPERSTATE => link.carrier = value == [OPERATIONAL],
            libc::IFLA_MASTER => link.master = u32_at(value, 0),
            libc::IFLA_ADDRESS if ethernet => link.ethernet = value.try_into().ok(),
            libc::IFLA_LINKINFO => {
                let info = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = info.map(|(_, value)| message::text(value));
            }
            _ => {}
        }
    }
    let kind = link.kind.as_deref().unwrap_or_default();
    link.tunnel = TUNNEL_KINDS.contains(&kind)
        || TUNNEL_HARDWARE.contains(&hardware)
        || hardware == libc::ARPHRD_NONE && flags & libc::IFF_POINTOPOINT as u32 != 0;
    Some(link)
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }) as u8
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index.
pub(super) fn address_request(
    kind: u16,
    flags: u16,
    index: u32,
    address: IpAddr,
    prefix_len: u8,
) -> Request {
    let mut header = [0; 8];
    header[0] = family(address);
    header[1] = prefix_len;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    Request::new(kind, flags, &header)
        .address(libc::IFA_LOCAL, address)
        .address(libc::IFA_ADDRESS, address)
}

pub(super) fn parse_address(body: &[u8]) -> Option<Address> {
    let (mut local, mut address) = (None, None);
    let mut flags = u32::from(*body.get(2)?);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            // All of them; the header has room for eight only.
            libc::IFA_FLAGS => flags = u32_at(value, 0)?,
            libc::IFA_LOCAL => local = message::address(value),
            libc::IFA_ADDRESS => address = message::address(value),
            _ => {}
        }
    }
    // On point-to-point devices IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL otherwise.
    Some(Address {
        index: u32_at(body, 4)?,
        address: local.or(address)?,
        prefix_len: body[1],
        ready: flags & NOT_READY == 0,
    })
}

/// `struct rtmsg`: family, destination length, source length, TOS, table, protocol, scope, type,
/// flags.
pub(super) fn route_request(kind: u16, flags: u16, route: &Route) -> Request {
    let is_unicast = route.kind == RouteKind::Unicast;
    let scope = if route.via.is_some() || route.destination.is_ipv6() || !is_unicast {
        libc::RT_SCOPE_UNIVERSE
    } else {
        libc::RT_SCOPE_LINK
    };
    let mut header = [0; 12];
    header[0] = family(route.destination);
    header[1] = route.prefix_len;
    // Tables above 255 fit only into the attribute, which always counts.
    header[4] = u8::try_from(route.table).unwrap_or(0);
    header[5] = route.protocol;
    header[6] = scope;
    header[7] = match route.kind {
        RouteKind::Unicast => libc::RTN_UNICAST,
        RouteKind::Unreachable => libc::RTN_UNREACHABLE,
        RouteKind::Throw => libc::RTN_THROW,
    };
    let mut request = Request::new(kind, flags, &header).number(libc::RTA_TABLE, route.table);
    if route.prefix_len > 0 {
        request = request.address(libc::RTA_DST, route.destination);
    }
    if let Some(via) = route.via {
        request = request.address(libc::RTA_GATEWAY, via);
    }
    if let Some(index) = route.index {
        request = request.number(libc::RTA_OIF, index);
    }
    match route.metric {
        Some(metric) => request.number(libc::RTA_PRIORITY, metric),
        None => request,
    }
}

/// Which route would be taken to a destination by what carries `mark`.
pub(super) fn route_lookup(destination: IpAddr, mark: u32) -> Request {
    let mut header = [0; 12];
    header[0] = family(destination);
    header[1] = if destination.is_ipv4() { 32 } else { 128 };
    let flags = libc::NLM_F_REQUEST as u16;
    Request::new(libc::RTM_GETROUTE, flags, &header)
        .address(libc::RTA_DST, destination)
        .number(libc::RTA_MARK, mark)
}

pub(super) fn parse_route(body: &[u8]) -> Option<Route> {
    let header = body.first_chunk::<12>()?;
    // Of those that lead nowhere only our own matter.
    let kind = match header[7] {
        libc::RTN_UNICAST => RouteKind::Unicast,
        libc::RTN_UNREACHABLE if header[5] == ROUTE_PROTOCOL => RouteKind::Unreachable,
        libc::RTN_THROW if header[5] == ROUTE_PROTOCOL => RouteKind::Throw,
        _ => return None,
    };
    let unspecified = match libc::c_int::from(header[0]) {
        libc::AF_INET => IpAddr::from([0; 4]),
        libc::AF_INET6 => IpAddr::from([0; 16]),
        _ => return None,
    };
    let mut route = Route {
        destination: unspecified,
        prefix_len: header[1],
        index: None,
        via: None,
        metric: None,
        table: u32::from(header[4]),
        protocol: header[5],
        kind,
    };
    for (kind, value) in attributes(&body[12..]) {
        match kind {
            libc::RTA_DST => route.destination = message::address(value)?,
            libc::RTA_GATEWAY => route.via = message::address(value),
            libc::RTA_OIF => route.index = u32_at(value, 0),
            libc::RTA_PRIORITY => route.metric = u32_at(value, 0),
            libc::RTA_TABLE => route.table = u32_at(value, 0).unwrap_or(TABLE_MAIN),
            _ => {}
        }
    }
    Some(route)
}
