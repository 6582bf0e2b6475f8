//! What the host is like beside us: its networks, the rules of others, how it checks where packets come from.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

use shadowmesh_io::netlink::{
    Address, Handle, Link, NetlinkError, ROUTE_PROTOCOL, Route, RouteKind, Rule, TABLE_MAIN,
};
use shadowmesh_io::underlay;
use shadowmesh_wire::prefix::IpPrefix;

use super::claims::HostNetwork;

/// Before which rules of others ours come: those of Tailscale begin at 5210, those of wg-quick are put
/// before everything that is there.
const PRIORITY_MAX: u32 = 5181;
/// Ours are three in a row.
const PRIORITIES: u32 = 3;

/// Links, addresses and routes of the host at one moment.
pub struct Ground {
    /// All devices.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<Address>,
    /// The unicast routes of all tables, and what else is of a node.
    pub routes: Vec<Route>,
}

impl Ground {
    /// Asks the kernel.
    pub fn take(netlink: &Handle) -> Result<Self, NetlinkError> {
        Ok(Self {
            links: netlink.links()?,
            addresses: netlink.addresses()?,
            routes: netlink.routes()?,
        })
    }

    /// The networks that the host reaches without a node of ours; `device` is ours too, if there is one.
    pub fn networks(&self, device: Option<u32>) -> Vec<HostNetwork> {
        let ours = self.devices_of_nodes(device);
        let foreign = |index: u32| {
            let mut links = self.links.iter().filter(|link| link.up);
            let link = links.find(|link| link.index == index && !ours.contains(&index))?;
            Some(link.name.clone())
        };
        let by_address = self.addresses.iter().filter_map(|address| {
            Some(HostNetwork {
                prefix: IpPrefix::containing(address.address, address.prefix_len),
                device: foreign(address.index)?,
                connected: true,
            })
        });
        let by_route = self.routes.iter().filter_map(|route| {
            let counts = route.table == TABLE_MAIN
                && route.protocol != ROUTE_PROTOCOL
                && route.kind == RouteKind::Unicast;
            // Several next hops have no device in front.
            let device = match route.index {
                Some(index) => foreign(index)?,
                None => "several devices".into(),
            };
            counts.then(|| HostNetwork {
                prefix: IpPrefix::containing(route.destination, route.prefix_len),
                device,
                connected: route.via.is_none() && route.index.is_some() && route.prefix_len > 0,
            })
        });
        let mut networks: Vec<HostNetwork> = Vec::new();
        let mut seen = BTreeSet::new();
        for network in by_address.chain(by_route) {
            if !is_everywhere(network.prefix.addr()) && seen.insert(network.prefix) {
                networks.push(network);
            }
        }
        networks
    }

    /// Ours, and those of other nodes on this host: their routes bear the same sign.
    fn devices_of_nodes(&self, device: Option<u32>) -> BTreeSet<u32> {
        let routes = self.routes.iter();
        let marked = routes
            .filter(|route| route.protocol == ROUTE_PROTOCOL && route.kind == RouteKind::Unicast);
        marked
            .filter_map(|route| route.index)
            .chain(device)
            .collect()
    }
}

/// On every host, and so nobody's network.
fn is_everywhere(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    address.is_loopback() || address.is_multicast() || is_link_local
}

/// Whether a rule is that of a node, ours or another on this host.
pub fn is_nodes(rule: &Rule) -> bool {
    rule.all_but_mark == Some(underlay::MARK)
}

/// The first of our priorities: before every rule that would take our packets first. Rules that choose by
/// address, device or mark keep their place: somebody has put them there for these packets.
pub fn first_priority(rules: &[Rule]) -> u32 {
    let foreign = rules.iter().filter(|rule| !is_nodes(rule));
    let catching = foreign.filter(|rule| rule.takes_unmarked && rule.priority > 0);
    let first = catching.map(|rule| rule.priority).min();
    let before = first.unwrap_or(u32::MAX).saturating_sub(PRIORITIES);
    before.clamp(1, PRIORITY_MAX)
}

/// Whether some device drops what comes in where the answer would not go out (RFC 3704, strict). The
/// greater of the two settings counts, and 1 is the strict one.
pub fn is_filtered_strictly(links: &[Link], device: u32) -> bool {
    let setting = |name: &str| -> u8 {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"));
        text.ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    let all = setting("all");
    let others = links
        .iter()
        .filter(|link| link.index != device && link.name != "lo");
    let mut settings = others.map(|link| setting(&link.name).max(all));
    settings.any(|setting| setting == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(priority: u32, takes_unmarked: bool) -> Rule {
        Rule {
            all_but_mark: None,
            protocol: 0,
            takes_unmarked,
            ..Rule::all_but_mark(false, priority, 52, 1)
        }
    }

    #[test]
    fn our_rules_come_before_those_that_would_take_everything() {
        let main = foreign(32766, true);
        assert_eq!(first_priority(&[main]), PRIORITY_MAX);
        let tailscale = [foreign(5210, false), foreign(5270, true), main];
        assert_eq!(first_priority(&tailscale), PRIORITY_MAX);
        // wg-quick, started after us.
        let ours = Rule::all_but_mark(false, PRIORITY_MAX, 8300, underlay::MARK);
        assert_eq!(first_priority(&[foreign(5180, true), ours, main]), 5177);
        assert_eq!(
            first_priority(&[foreign(100, false), ours, main]),
            PRIORITY_MAX
        );
        assert_eq!(first_priority(&[foreign(2, true), main]), 1);
    }
}
