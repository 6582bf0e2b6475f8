//! Routing tables of our own, and the rules that lead there.
//!
//! Nothing of ours is in the main table. Two tables hold what leads into the tunnel, and everything but the
//! underlay is looked up there first; what is in neither goes the host's way:
//!
//! ```text
//! 5181  from this host by UDP from our port   -> main       two, and only where the host filters strictly
//! 5182  all but the underlay's mark           -> 8300+2n    prefixes of peers
//! 5183  all but the underlay's mark           -> 8301+2n    networks of our own addresses
//! ```
//!
//! So the underlay has a way of its own: a peer may be outside in the very network that it leads to, and the
//! default route may lead into the tunnel one day. And a network of the host never decides where a packet
//! for a peer goes.
//!
//! A kernel without policy routing has the main table only; then our routes are in it, as they are
//! without tables everywhere, and a peer inside a network that it leads to is not reached.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use shadowmesh_io::netlink::{
    Handle, NetlinkError, ROUTE_PROTOCOL, Refusal, Route, RouteKind, Rule, TABLE_MAIN,
};
use shadowmesh_io::underlay;
use shadowmesh_wire::prefix::IpPrefix;

use super::claims::{Lead, Part, Plan, Target};
use super::ground;

/// The first table of ours.
const FIRST_TABLE: u32 = 8300;
/// Limit: nodes on one host.
const NODES_MAX: u32 = 64;
/// Behind every other entry for the same prefix; the kernel's own for IPv6 are 1024.
const METRIC_REFUSED: u32 = 0x7fff_ffff;

/// Which tables are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routing {
    /// These two, of peers and of networks.
    Apart([u32; 2]),
    /// The main one.
    Main,
}

impl Routing {
    /// Pairs of tables that nobody uses, the best first; none where tables or marks are not to be had.
    /// Nothing is set: another node may be about to take the same.
    pub fn choices(netlink: &Handle, ipv6: bool) -> Result<Vec<Self>, NetlinkError> {
        let marks = underlay::udp_socket(Ipv4Addr::LOCALHOST.into());
        if !marks.is_ok_and(|socket| underlay::mark(&socket)) {
            return Ok(Vec::new());
        }
        let mut used: BTreeSet<u32> = netlink.routes()?.iter().map(|route| route.table).collect();
        for ipv6 in versions(ipv6) {
            match netlink.rules(ipv6) {
                Ok(rules) => used.extend(rules.iter().map(|rule| rule.table)),
                Err(error) if error.refusal() == Some(Refusal::NotSupported) => {
                    return Ok(Vec::new());
                }
                Err(error) => return Err(error),
            }
        }
        let pairs = (0..NODES_MAX).map(|n| [FIRST_TABLE + 2 * n, FIRST_TABLE + 2 * n + 1]);
        let free = pairs.filter(|pair| !pair.iter().any(|table| used.contains(table)));
        Ok(free.map(Self::Apart).collect())
    }

    /// Whether the underlay has a way of its own.
    pub fn is_apart(self) -> bool {
        matches!(self, Self::Apart(_))
    }

    /// The tables that are ours alone.
    pub fn tables(self) -> Vec<u32> {
        match self {
            Self::Apart(tables) => tables.to_vec(),
            Self::Main => Vec::new(),
        }
    }

    /// The rules that lead to the tables. `ports`: ours for UDP, where the host filters strictly.
    pub fn rules(self, ipv6: bool, first: u32, ports: &[u16]) -> Vec<Rule> {
        let Self::Apart([peers, networks]) = self else {
            return Vec::new();
        };
        let port = |port: &u16| {
            let mark = underlay::MARK;
            [
                Rule::own_udp_port(ipv6, first, TABLE_MAIN, *port),
                Rule::marked_udp_port(ipv6, first, TABLE_MAIN, *port, mark),
            ]
        };
        let all = |priority, table| Rule::all_but_mark(ipv6, priority, table, underlay::MARK);
        // There is no such filter for IPv6.
        let ports = ports.iter().filter(|_| !ipv6).flat_map(port);
        ports
            .chain([all(first + 1, peers), all(first + 2, networks)])
            .collect()
    }

    /// The routes of a plan.
    pub fn routes(self, plan: &Plan, device: u32) -> Vec<Route> {
        let leads = plan.leads.iter();
        match self {
            Self::Apart([peers, networks]) => leads
                .map(|lead| match lead.part {
                    Part::Peers => route(lead, peers, device),
                    Part::Networks => route(lead, networks, device),
                })
                .collect(),
            // An address comes with a route to its own network; prefixes inside one need no other. And what
            // leads into the tunnel is refused nowhere else: the kernel's choice is by length alone.
            Self::Main => leads
                .filter(|lead| lead.part == Part::Peers && !is_connected(plan, &lead.prefix))
                .filter(|lead| match lead.to {
                    Target::Device => true,
                    Target::Refused => !plan.leads.contains(&Lead {
                        to: Target::Device,
                        ..**lead
                    }),
                    Target::Host => false,
                })
                .map(|lead| route(lead, TABLE_MAIN, device))
                .collect(),
        }
    }
}

fn is_connected(plan: &Plan, prefix: &IpPrefix) -> bool {
    let networks = plan.addresses.iter();
    let mut networks = networks.map(|(address, len)| IpPrefix::containing(*address, *len));
    networks.any(|network| network.len() <= prefix.len() && network.contains(prefix.addr()))
}

/// One version, or both.
pub fn versions(ipv6: bool) -> impl Iterator<Item = bool> {
    [false, true].into_iter().take(1 + usize::from(ipv6))
}

fn route(lead: &Lead, table: u32, device: u32) -> Route {
    let (destination, prefix_len) = (lead.prefix.addr(), lead.prefix.len());
    let route = Route {
        table,
        ..Route::to_device(destination, prefix_len, device)
    };
    let nowhere = |kind| Route {
        index: None,
        kind,
        ..route
    };
    match lead.to {
        Target::Device => route,
        Target::Refused => Route {
            metric: Some(METRIC_REFUSED),
            ..nowhere(RouteKind::Unreachable)
        },
        Target::Host => nowhere(RouteKind::Throw),
    }
}

/// What makes two routes the same to us: the kernel fills in the rest.
pub type RouteKey = (u32, IpAddr, u8, RouteKind);

/// What a route is known by.
pub fn key(route: &Route) -> RouteKey {
    (route.table, route.destination, route.prefix_len, route.kind)
}

/// Which routes and rules are a run's, by what it has written down.
#[derive(Debug, Clone, Copy)]
pub struct Marks<'a> {
    /// Our tables; none: the main one.
    pub tables: &'a [u32],
    /// Ports for which there may be rules.
    pub ports: &'a [u16],
    /// Prefixes that may be in the main table.
    pub prefixes: &'a [(IpAddr, u8)],
    /// The device.
    pub device: u32,
}

impl Marks<'_> {
    /// Whether a route is.
    pub fn is_ours(&self, route: &Route) -> bool {
        let in_main = route.table == TABLE_MAIN
            && self
                .prefixes
                .contains(&(route.destination, route.prefix_len))
            && (route.kind != RouteKind::Unicast || route.index == Some(self.device));
        let in_tables = self.tables.contains(&route.table);
        let is_place = match self.tables.is_empty() {
            true => in_main,
            false => in_tables,
        };
        route.protocol == ROUTE_PROTOCOL && is_place
    }

    /// Whether a rule is.
    pub fn is_our_rule(&self, rule: &Rule) -> bool {
        let by_port = rule.protocol == ROUTE_PROTOCOL
            && rule
                .own_udp_port
                .is_some_and(|port| self.ports.contains(&port));
        ground::is_nodes(rule) && self.tables.contains(&rule.table) || by_port
    }

    /// Takes away every route and rule that is ours. What is gone already is no error.
    pub fn take_away(&self, netlink: &Handle) {
        for ipv6 in versions(true) {
            let rules = netlink.rules(ipv6).unwrap_or_default();
            for rule in rules.iter().filter(|rule| self.is_our_rule(rule)) {
                if let Err(error) = netlink.del_rule(rule) {
                    tracing::debug!(%error, "a rule was already gone");
                }
            }
        }
        let routes = netlink.routes().unwrap_or_default();
        for route in routes.iter().filter(|route| self.is_ours(route)) {
            if let Err(error) = netlink.del_route(route) {
                tracing::debug!(%error, "a route was already gone");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::claims::{Moment, Wanted};
    use shadowmesh_wire::PeerId;

    fn routes(routing: Routing, prefixes: &[&str]) -> Vec<Route> {
        let own = [
            ("10.100.1.5".parse().unwrap(), 16),
            ("fd00::5".parse().unwrap(), 64),
        ];
        let peers = prefixes
            .iter()
            .map(|text| (text.parse().unwrap(), String::new()));
        let wanted = Wanted::new(&PeerId::from_bytes([1; 32]), &own, peers);
        routing.routes(&wanted.plan(&[], Moment::Start), 7)
    }

    const PREFIXES: [&str; 4] = [
        "10.100.7.7/32",
        "192.168.9.0/24",
        "10.0.0.0/8",
        "fd00::9/128",
    ];

    #[test]
    fn in_the_main_table_only_prefixes_outside_our_own_networks_need_a_route() {
        let routes = routes(Routing::Main, &PREFIXES);
        let found: Vec<_> = routes
            .iter()
            .map(|r| (r.destination, r.prefix_len))
            .collect();
        let expected = [
            ("10.0.0.0".parse().unwrap(), 8),
            ("192.168.9.0".parse().unwrap(), 24),
        ];
        assert_eq!(found, expected);
        assert!(routes.iter().all(|route| route.index == Some(7)));
    }

    // PROTOCOL SM-DV-4
    #[test]
    fn in_tables_of_our_own_every_prefix_leads_to_the_device_and_then_nowhere() {
        let routes = routes(Routing::Apart([8300, 8301]), &PREFIXES);
        let into = routes.iter().filter(|route| route.index == Some(7));
        assert_eq!(into.count(), PREFIXES.len() + 2);
        let refused = routes.iter().filter(|r| r.kind == RouteKind::Unreachable);
        assert_eq!(refused.count(), PREFIXES.len() + 2);
        assert!(routes.iter().all(|route| route.table >= 8300));
    }
}
