//! What the node may take of the host's address space, decided before anything is set.
//!
//! The node wants addresses with networks of their own, and a route for each prefix of a peer. The host
//! may be in such a network already. The rules, in words:
//!
//! - A network the host is in is never taken. Where the network of our own address is one, or a part of
//!   one, at the start, the node has no address of that IP version, and says so.
//! - Whoever hands out networks on a LAN does not switch the overlay off: the derived IPv6 network, which
//!   nobody has by chance, always keeps its address, and a running node keeps all. Only the network around
//!   the address is the host's then.
//! - The more specific wins: a network of the host inside a wider prefix of a peer stays the host's, and a
//!   narrower prefix of a peer inside the host's network leads into the tunnel.
//! - A peer's prefix of one address is always ours: what is meant for it never leaves in the clear, not
//!   even where the node has no address of that version. Then it is refused.
//!
//! Here is no system call: a function from what is wanted and what is there to what is to be set. It is
//! asked again whenever the host's networks change.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use shadowmesh_wire::PeerId;
use shadowmesh_wire::overlay::derived;
use shadowmesh_wire::prefix::IpPrefix;

/// Limit: networks of the host that are left out of wider prefixes of ours. A router with the routes of the
/// internet is not asked to lead a part of it into a tunnel.
const LEFT_MAX: usize = 1024;
/// Limit: the same with those that the host is in, which routes of others must not push out.
const LEFT_CONNECTED_MAX: usize = 2 * LEFT_MAX;
/// Peers that are named where many are concerned.
const NAMED_MAX: usize = 3;

/// No host sends these to a peer, however wide the peer's prefix is: link-local (RFC 3927, RFC 4291),
/// multicast, broadcast.
const NEVER: [(&str, u8); 5] = [
    ("169.254.0.0", 16),
    ("224.0.0.0", 4),
    ("255.255.255.255", 32),
    ("fe80::", 10),
    ("ff00::", 8),
];

/// What the node wants.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    own: Vec<OwnNetwork>,
    peers: Vec<(IpPrefix, String)>,
}

/// An address of ours and the network it is in.
#[derive(Debug, Clone, Copy)]
struct OwnNetwork {
    address: IpAddr,
    len: u8,
    /// From the PeerId, so nobody has chosen this network for this host.
    derived: bool,
}

/// A network that the host reaches without us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNetwork {
    /// Its prefix.
    pub prefix: IpPrefix,
    /// The device that leads there.
    pub device: String,
    /// The host is in it: it has an address there, or needs no router.
    pub connected: bool,
}

/// When it is asked, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the node has anything.
    Start,
    /// The node has routing tables of its own, and has addresses of these IP versions.
    Running {
        /// It has an IPv4 address.
        ipv4: bool,
        /// It has an IPv6 address.
        ipv6: bool,
    },
    /// There is the main table only: an address brings its network along, and has no peers beside it.
    MainTable,
}

/// What is to be set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Addresses of the device, with the length of their networks.
    pub addresses: Vec<(IpAddr, u8)>,
    /// What our routing tables say.
    pub leads: BTreeSet<Lead>,
    /// Networks of the host within what we would take, which stay the host's.
    pub left: Vec<IpPrefix>,
    /// Where the two do not go together, for people.
    pub clashes: Vec<Clash>,
}

/// An entry of our routing tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lead {
    /// In which table.
    pub part: Part,
    /// For which destinations.
    pub prefix: IpPrefix,
    /// Where to.
    pub to: Target,
}

/// Several nodes on one host share the networks of their own addresses, and have peers of their own. So the
/// prefixes of peers, of all nodes, are asked before the networks around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The prefixes of peers.
    Peers,
    /// The networks of our own addresses.
    Networks,
}

/// Where an entry leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Into the tunnel.
    Device,
    /// Nowhere; the sender is told. Behind every entry into the tunnel there is one of these, so that
    /// nothing leaves in the clear while the device is down.
    Refused,
    /// To where the host leads it without us.
    Host,
}

/// Something of the host's and something of ours that do not go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clash {
    /// No address of this IP version is set.
    VersionOff {
        /// The address and network of ours.
        own: (IpAddr, u8),
        /// The host's.
        host: HostNetwork,
        /// Some of the peers that are not reached by this version.
        peers: Vec<String>,
    },
    /// The network around an address of ours is the host's; peers are reached by their own prefixes.
    NetworkLeft {
        /// The address and network of ours.
        own: (IpAddr, u8),
        /// The host's.
        host: HostNetwork,
    },
    /// More networks of the host are inside than can be left out; all that is not left out is refused.
    Crowded {
        /// Whose: a peer's, or our own.
        whose: String,
        /// What would lead there.
        prefix: IpPrefix,
    },
    /// A peer's prefix is a network of the host, and stays that.
    PrefixLeft {
        /// Whose.
        peer: String,
        /// The host's.
        host: HostNetwork,
    },
    /// A part of what leads to a peer, or of our own network, stays the host's.
    PartLeft {
        /// Whose: a peer's, or our own.
        whose: String,
        /// What leads there.
        prefix: IpPrefix,
        /// The host's.
        host: HostNetwork,
    },
    /// A part of a network that the host is in leads into the tunnel.
    PartTaken {
        /// Whose: a peer's, or our own.
        whose: String,
        /// What leads there.
        prefix: IpPrefix,
        /// The host's.
        host: HostNetwork,
    },
}

impl Wanted {
    /// `addresses` are all of the node's, `peers` the prefixes with the names of those who have them.
    pub fn new(
        own: &PeerId,
        addresses: &[(IpAddr, u8)],
        peers: impl IntoIterator<Item = (IpPrefix, String)>,
    ) -> Self {
        let derived = derived(own);
        let own = addresses.iter().map(|&(address, len)| OwnNetwork {
            address,
            len,
            derived: derived.contains(&(address, len)),
        });
        Self {
            own: own.collect(),
            peers: peers.into_iter().collect(),
        }
    }

    /// The same without one IP version, which this host does not have.
    pub fn without_ipv6(&self) -> Self {
        Self {
            own: self
                .own
                .iter()
                .filter(|own| own.address.is_ipv4())
                .copied()
                .collect(),
            peers: self
                .peers
                .iter()
                .filter(|(prefix, _)| prefix.addr().is_ipv4())
                .cloned()
                .collect(),
        }
    }

    /// The addresses that are wanted.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        self.own.iter().map(|own| (own.address, own.len))
    }

    /// The prefixes of peers.
    pub fn prefixes(&self) -> impl Iterator<Item = IpPrefix> {
        self.peers.iter().map(|(prefix, _)| *prefix)
    }

    /// Whether no address is wanted.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    // PROTOCOL SM-DV-5
    /// What is to be set on a host with these networks.
    pub fn plan(&self, host: &[HostNetwork], moment: Moment) -> Plan {
        let mut plan = Plan::default();
        for ipv4 in [true, false] {
            self.plan_version(ipv4, host, moment, &mut plan);
        }
        plan.left.sort_unstable();
        plan
    }

    fn plan_version(&self, ipv4: bool, host: &[HostNetwork], moment: Moment, plan: &mut Plan) {
        let host: Vec<&HostNetwork> = connected_first(ipv4, host).collect();
        let own = self.own.iter().filter(|own| own.address.is_ipv4() == ipv4);
        let own: Vec<&OwnNetwork> = own.collect();
        let mut yielding = own.iter().filter(|own| own.yields(moment));
        let taken = yielding.find_map(|own| {
            let by = host.iter().find(|network| own.is_taken_by(network))?;
            Some((*own, *by))
        });
        if let Some((own, host)) = taken {
            plan.clashes.push(Clash::VersionOff {
                own: (own.address, own.len),
                host: host.clone(),
                peers: self.named(ipv4),
            });
            plan.leave(host);
        } else {
            plan.addresses
                .extend(own.iter().map(|own| (own.address, own.len)));
            for own in &own {
                plan.take_own(own, &host);
            }
        }
        let is_on = taken.is_none() && !own.is_empty();
        for (prefix, peer) in &self.peers {
            if prefix.addr().is_ipv4() == ipv4 {
                plan.take(Part::Peers, *prefix, peer, &host, is_on);
            }
        }
    }

    fn named(&self, ipv4: bool) -> Vec<String> {
        let peers = self.peers.iter();
        let mut named: Vec<String> = peers
            .filter(|(prefix, _)| prefix.addr().is_ipv4() == ipv4)
            .map(|(_, peer)| peer.clone())
            .collect();
        named.dedup();
        let more = named.len().saturating_sub(NAMED_MAX);
        named.truncate(NAMED_MAX);
        if more > 0 {
            named.push(format!("{more} more"));
        }
        named
    }
}

impl OwnNetwork {
    fn network(&self) -> IpPrefix {
        IpPrefix::containing(self.address, self.len)
    }

    // PROTOCOL SM-DV-5
    /// Whether the address is given up where its network is taken. A router advertisement or a DHCP answer
    /// could take it from a running node, and the derived IPv6 network is no other's but on purpose.
    fn yields(&self, moment: Moment) -> bool {
        match moment {
            Moment::MainTable => true,
            Moment::Running { ipv4: true, .. } if self.address.is_ipv4() => false,
            Moment::Running { ipv6: true, .. } if self.address.is_ipv6() => false,
            Moment::Start | Moment::Running { .. } => !self.is_derived_v6(),
        }
    }

    fn is_derived_v6(&self) -> bool {
        self.derived && self.address.is_ipv6()
    }

    /// Whether our network is not ours to have, because of this one of the host's.
    fn is_taken_by(&self, host: &HostNetwork) -> bool {
        let own = self.network();
        if host.prefix.len() == 0 || !overlap(&own, &host.prefix) {
            return false;
        }
        let inside = host.prefix.len() >= own.len();
        if self.derived {
            // A host in a part of it is, most likely, reached from the rest of it as well.
            return host.connected || inside;
        }
        host.prefix == own || inside && host.prefix.contains(self.address)
    }
}

impl Plan {
    /// Leads the network of an address of ours into the tunnel, unless it is the host's.
    fn take_own(&mut self, own: &OwnNetwork, host: &[&HostNetwork]) {
        let network = own.network();
        let is_taken = |host: &&&HostNetwork| match own.is_derived_v6() {
            // Parts of it are left out.
            true => host.prefix == network,
            false => own.is_taken_by(host),
        };
        let Some(by) = host.iter().find(is_taken) else {
            return self.take(Part::Networks, network, "this node", host, true);
        };
        self.leave(by);
        self.clashes.push(Clash::NetworkLeft {
            own: (own.address, own.len),
            host: (*by).clone(),
        });
    }

    /// Notes a network that stays the host's. False where there are too many.
    fn leave(&mut self, host: &HostNetwork) -> bool {
        if self.left.contains(&host.prefix) {
            return true;
        }
        let max = match host.connected {
            true => LEFT_CONNECTED_MAX,
            false => LEFT_MAX,
        };
        let has_room = self.left.len() < max;
        if has_room {
            self.left.push(host.prefix);
        }
        has_room
    }

    /// Leads a prefix into the tunnel, or refuses it, and leaves the host what is the host's.
    fn take(&mut self, part: Part, prefix: IpPrefix, whose: &str, host: &[&HostNetwork], on: bool) {
        let is_one_address = prefix == IpPrefix::host(prefix.addr());
        let mut is_crowded = false;
        for network in host.iter().filter(|host| overlap(&host.prefix, &prefix)) {
            let (whose, host) = (whose.to_owned(), (*network).clone());
            if is_one_address || host.prefix.len() < prefix.len() {
                // A default route and a way over a router are meant to have exceptions.
                if host.connected && on {
                    self.clashes.push(Clash::PartTaken {
                        whose,
                        prefix,
                        host,
                    });
                }
                continue;
            }
            let has_room = self.leave(&host);
            if host.prefix == prefix {
                self.clashes.push(Clash::PrefixLeft { peer: whose, host });
                return;
            }
            if !has_room {
                is_crowded = true;
                continue;
            }
            let left = Lead {
                part,
                prefix: host.prefix,
                to: Target::Host,
            };
            if self.leads.insert(left) && host.connected {
                self.clashes.push(Clash::PartLeft {
                    whose,
                    prefix,
                    host,
                });
            }
        }
        if is_crowded {
            let whose = whose.to_owned();
            self.clashes.push(Clash::Crowded { whose, prefix });
        }
        for (text, len) in NEVER {
            let address = text.parse().expect("the constants above are addresses");
            let never = IpPrefix::containing(address, len);
            if never.len() > prefix.len() && prefix.contains(address) {
                let to = Target::Host;
                self.leads.insert(Lead {
                    part,
                    prefix: never,
                    to,
                });
            }
        }
        let to = Target::Refused;
        self.leads.insert(Lead { part, prefix, to });
        if on && !is_crowded {
            let to = Target::Device;
            self.leads.insert(Lead { part, prefix, to });
        }
    }
}

/// Of one IP version, those that the host is in before those that it only knows a way to.
fn connected_first(ipv4: bool, host: &[HostNetwork]) -> impl Iterator<Item = &HostNetwork> {
    let of_version = move |network: &&HostNetwork| network.prefix.addr().is_ipv4() == ipv4;
    let connected = host.iter().filter(|network| network.connected);
    let routed = host.iter().filter(|network| !network.connected);
    connected.chain(routed).filter(of_version)
}

fn overlap(one: &IpPrefix, other: &IpPrefix) -> bool {
    one.contains(other.addr()) || other.contains(one.addr())
}

impl Clash {
    /// Whether something that was asked for is not there.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::VersionOff { .. }
            | Self::NetworkLeft { .. }
            | Self::Crowded { .. }
            | Self::PrefixLeft { .. } => true,
            Self::PartLeft { .. } | Self::PartTaken { .. } => false,
        }
    }

    /// What the user can do about it.
    pub fn next_step(&self) -> String {
        match self {
            Self::VersionOff { own, .. } | Self::NetworkLeft { own, .. } => {
                let elsewhere = match own.0 {
                    IpAddr::V4(_) => "10.222.0.1/24",
                    IpAddr::V6(_) => "fd22:2222::1/64",
                };
                format!(
                    "set `address` in [device] to a free network, such as [\"{elsewhere}\"], and \
                     `allowed_ips` of this node on its peers to match; or go on with the other IP version"
                )
            }
            Self::Crowded { .. } => "narrow the prefix to what the peer is to have".into(),
            Self::PrefixLeft { .. } => "take it out of the peer's allowed_ips, or move one of the two \
                                        networks; addresses of it (/32, /128) can be led to the peer"
                .into(),
            Self::PartLeft { .. } | Self::PartTaken { .. } => {
                "nothing, if that is meant; else narrow the prefix".into()
            }
        }
    }
}

impl fmt::Display for HostNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.connected {
            true => "is in the network",
            false => "has a route to",
        };
        write!(f, "this machine {how} {} by {}", self.prefix, self.device)
    }
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VersionOff { own, host, peers } => {
                let version = if own.0.is_ipv4() { "IPv4" } else { "IPv6" };
                write!(
                    f,
                    "{host}, which overlaps the overlay's {} of this node's address {}: the overlay has no \
                     {version} here",
                    IpPrefix::containing(own.0, own.1),
                    own.0,
                )?;
                match peers.is_empty() {
                    true => Ok(()),
                    false => write!(
                        f,
                        ", and {version} packets to {} are refused",
                        peers.join(", ")
                    ),
                }
            }
            Self::NetworkLeft { own, host } => {
                let network = IpPrefix::containing(own.0, own.1);
                write!(
                    f,
                    "{host}, which overlaps the overlay's {network} of this node's address {}: only what is \
                     in allowed_ips of a peer leads into the tunnel there",
                    own.0,
                )
            }
            Self::Crowded { whose, prefix } => {
                write!(
                    f,
                    "this machine has routes to more than {LEFT_MAX} networks within {prefix} of {whose} and \
                     other prefixes: packets to {prefix} are refused"
                )
            }
            Self::PrefixLeft { peer, host } => {
                write!(
                    f,
                    "{host}, which is in allowed_ips of {peer}: it is not led there"
                )
            }
            Self::PartLeft {
                whose,
                prefix,
                host,
            } => {
                write!(
                    f,
                    "{host}, which stays so though {prefix} of {whose} holds it"
                )
            }
            Self::PartTaken {
                whose,
                prefix,
                host,
            } => {
                write!(f, "{host}, of which {prefix} belongs to {whose}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: [u8; 32] = [7; 32];
    const RUNNING: Moment = Moment::Running {
        ipv4: true,
        ipv6: true,
    };

    fn prefix(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    fn lan(text: &str) -> HostNetwork {
        HostNetwork {
            prefix: prefix(text),
            device: "eth0".into(),
            connected: true,
        }
    }

    fn route(text: &str) -> HostNetwork {
        HostNetwork {
            connected: false,
            ..lan(text)
        }
    }

    /// The derived addresses, 10.100.7.7/16 and one in fd53:4d65:7368::/48, and these prefixes of a peer.
    fn derived_node(peer: &[&str]) -> Wanted {
        let own = PeerId::from_bytes(OWN);
        node(&derived(&own), peer)
    }

    fn node(addresses: &[(IpAddr, u8)], peer: &[&str]) -> Wanted {
        let peers = peer.iter().map(|text| (prefix(text), "b".to_owned()));
        Wanted::new(&PeerId::from_bytes(OWN), addresses, peers)
    }

    fn configured(address: &str, len: u8, peer: &[&str]) -> Wanted {
        node(&[(address.parse().unwrap(), len)], peer)
    }

    /// Where a packet goes that no rule before ours has taken.
    fn goes(plan: &Plan, to: &str) -> Option<Target> {
        let to: IpAddr = to.parse().unwrap();
        for part in [Part::Peers, Part::Networks] {
            let leads = plan.leads.iter().filter(|lead| lead.part == part);
            let matching = leads.filter(|lead| lead.prefix.contains(to));
            // Into the tunnel before nowhere, as their metrics say.
            let best = matching.min_by_key(|lead| (u8::MAX - lead.prefix.len(), lead.to));
            if let Some(lead) = best.filter(|lead| lead.to != Target::Host) {
                return Some(lead.to);
            }
        }
        None
    }

    // PROTOCOL SM-DV-5
    #[test]
    fn on_a_host_elsewhere_everything_is_taken_and_nothing_is_said() {
        let plan = derived_node(&["10.100.3.4/32", "172.20.0.0/16"])
            .plan(&[lan("192.168.1.0/24"), route("0.0.0.0/0")], Moment::Start);
        assert_eq!((plan.addresses.len(), &plan.clashes[..]), (2, &[][..]));
        for inside in ["10.100.3.4", "172.20.1.1", "10.100.9.9"] {
            assert_eq!(goes(&plan, inside), Some(Target::Device), "{inside}");
        }
        assert_eq!(goes(&plan, "192.168.1.7"), None);
    }

    // PROTOCOL SM-DV-5
    #[test]
    fn where_the_host_is_in_the_derived_network_or_a_part_of_it_there_is_ipv6_only() {
        for taken in [
            "10.100.0.0/16",
            "10.100.32.0/20",
            "10.0.0.0/8",
            "10.100.7.7/32",
        ] {
            let plan = derived_node(&["10.100.3.4/32", "fd53:4d65:7368::9/128"])
                .plan(&[lan(taken)], Moment::Start);
            assert_eq!(plan.addresses.len(), 1, "{taken}");
            assert!(plan.addresses[0].0.is_ipv6());
            assert_eq!(
                goes(&plan, "10.100.3.4"),
                Some(Target::Refused),
                "{taken}: never in clear"
            );
            assert_eq!(goes(&plan, "10.100.32.9"), None, "{taken}: the host's");
            assert_eq!(goes(&plan, "fd53:4d65:7368::9"), Some(Target::Device));
            let [clash] = &plan.clashes[..] else {
                panic!("{:?}", plan.clashes);
            };
            assert!(clash.is_loss());
            let said = clash.to_string();
            for named in [taken, "eth0", "10.100.7.7", "IPv4", "b"] {
                assert!(said.contains(named), "{said}");
            }
            assert!(clash.next_step().contains("[device]"));
            assert_eq!(plan.left, [prefix(taken)]);
        }
    }

    // PROTOCOL SM-DV-5
    #[test]
    fn no_network_that_a_router_advertises_takes_the_derived_ipv6_address() {
        let peer = "fd53:4d65:7368:1::9";
        for taken in [
            "fd53:4d65:7368:1::/64",
            "fd53:4d65:7368::/48",
            "fd53::/16",
            "fd53:4d65:7368:1::9/128",
        ] {
            for moment in [Moment::Start, RUNNING] {
                let plan = derived_node(&["fd53:4d65:7368:1::9/128"]).plan(&[lan(taken)], moment);
                assert_eq!(plan.addresses.len(), 2, "{taken}");
                assert_eq!(goes(&plan, peer), Some(Target::Device), "{taken}");
            }
        }
        let plan = derived_node(&[]).plan(&[lan("fd53:4d65:7368:1::/64")], RUNNING);
        assert_eq!(goes(&plan, "fd53:4d65:7368:1::1"), None);
        assert_eq!(goes(&plan, "fd53:4d65:7368:2::1"), Some(Target::Device));
        let plan = derived_node(&[]).plan(&[lan("fd53:4d65:7368::/48")], RUNNING);
        assert_eq!(goes(&plan, "fd53:4d65:7368:2::1"), None);
    }

    // PROTOCOL SM-DV-5
    #[test]
    fn a_network_that_a_running_node_comes_to_takes_neither_its_address_nor_a_peers() {
        let nodes = [
            derived_node(&["10.100.3.4/32"]),
            configured("10.100.7.7", 16, &["10.100.3.4/32"]),
        ];
        for (node, taken) in nodes.iter().flat_map(|node| {
            let all = [
                lan("10.100.0.0/16"),
                lan("10.100.7.0/24"),
                lan("10.100.7.7/32"),
            ];
            all.map(|taken| (node, taken))
        }) {
            let plan = node.plan(std::slice::from_ref(&taken), RUNNING);
            assert_eq!(plan.addresses, node.addresses().collect::<Vec<_>>());
            assert_eq!(goes(&plan, "10.100.3.4"), Some(Target::Device), "{taken}");
            assert_eq!(goes(&plan, "10.100.7.1"), None, "{taken}: the host's");
            assert!(
                matches!(&plan.clashes[0], clash @ Clash::NetworkLeft { .. } if clash.is_loss()),
                "{:?}",
                plan.clashes
            );
            // What it never had it does not come to have there.
            let (ipv4, ipv6) = (false, true);
            let plan = node.plan(std::slice::from_ref(&taken), Moment::Running { ipv4, ipv6 });
            assert!(plan.addresses.iter().all(|(address, _)| address.is_ipv6()));
            assert_eq!(goes(&plan, "10.100.3.4"), Some(Target::Refused), "{taken}");
            // An address in the main table brings its network along.
            let plan = node.plan(std::slice::from_ref(&taken), Moment::MainTable);
            assert!(plan.addresses.iter().all(|(address, _)| address.is_ipv6()));
            assert_eq!(goes(&plan, "10.100.3.4"), Some(Target::Refused), "{taken}");
        }
    }

    // PROTOCOL SM-DV-5
    #[test]
    fn six_hundred_peers_take_no_network_of_the_host_along() {
        let peers: Vec<String> = (0..600u32)
            .map(|n| format!("10.7.{}.{}/32", n / 256, n % 256))
            .chain(["192.168.0.0/16".into()])
            .collect();
        let peers: Vec<&str> = peers.iter().map(String::as_str).collect();
        let host = [lan("192.168.1.0/24")];
        let plan = configured("10.9.0.1", 24, &peers).plan(&host, Moment::Start);
        assert_eq!(goes(&plan, "192.168.1.1"), None);
        assert_eq!(goes(&plan, "192.168.2.1"), Some(Target::Device));
        assert!(
            matches!(&plan.clashes[..], [Clash::PartLeft { .. }]),
            "{:?}",
            plan.clashes
        );
    }

    // PROTOCOL SM-DV-5
    #[test]
    fn a_prefix_with_more_networks_inside_than_can_be_left_out_is_refused() {
        let mut host: Vec<HostNetwork> = (0..2000u32)
            .map(|n| route(&format!("10.{}.{}.0/24", n / 256, n % 256)))
            .collect();
        host.extend([lan("10.200.1.0/24"), lan("172.16.5.0/24")]);
        let peers = ["10.0.0.0/8", "172.16.0.0/12"];
        let plan = configured("192.168.9.1", 24, &peers).plan(&host, Moment::Start);
        assert_eq!(plan.left.len(), LEFT_MAX + 1);
        assert_eq!(goes(&plan, "10.200.1.1"), None, "the host is in it");
        assert_eq!(goes(&plan, "172.16.5.1"), None, "and in that");
        assert_eq!(goes(&plan, "172.16.6.1"), Some(Target::Device));
        assert_eq!(goes(&plan, "10.201.0.1"), Some(Target::Refused));
        let crowded = plan
            .clashes
            .iter()
            .find(|clash| matches!(clash, Clash::Crowded { .. }));
        assert!(crowded.is_some_and(|clash| clash.is_loss()));
    }

    // PROTOCOL SM-DV-5
    #[test]
    fn an_address_that_somebody_chose_gives_way_only_to_the_same_network_or_one_it_lies_in() {
        let chosen = configured("10.9.0.1", 16, &[]);
        for (host, goes_on) in [
            ("10.9.0.0/16", false),
            ("10.9.0.0/24", false),
            ("10.9.5.0/24", true),
            ("10.0.0.0/8", true),
            ("10.100.0.0/16", true),
        ] {
            let plan = chosen.plan(&[lan(host)], Moment::Start);
            assert_eq!(!plan.addresses.is_empty(), goes_on, "{host}");
        }
        let plan = chosen.plan(&[lan("10.9.5.0/24")], Moment::Start);
        assert_eq!(goes(&plan, "10.9.5.7"), None);
        assert_eq!(goes(&plan, "10.9.6.7"), Some(Target::Device));
    }

    // PROTOCOL SM-DV-5
    #[test]
    fn a_network_of_the_host_inside_a_peers_prefix_stays_the_hosts() {
        let peer = ["10.0.0.0/8", "10.0.5.9/32", "172.17.0.0/16"];
        let host = [
            lan("10.0.5.0/24"),
            route("10.20.0.0/16"),
            lan("172.17.0.0/16"),
            route("0.0.0.0/0"),
        ];
        let plan = configured("192.168.9.1", 24, &peer).plan(&host, Moment::Start);
        assert_eq!(goes(&plan, "10.0.5.1"), None, "the gateway");
        assert_eq!(
            goes(&plan, "10.20.1.1"),
            None,
            "a route of the administrator's"
        );
        assert_eq!(
            goes(&plan, "10.0.5.9"),
            Some(Target::Device),
            "one address of a peer"
        );
        assert_eq!(goes(&plan, "10.1.1.1"), Some(Target::Device));
        assert_eq!(goes(&plan, "172.17.0.2"), None, "the containers' bridge");
        let losses = plan.clashes.iter().filter(|clash| clash.is_loss()).count();
        assert_eq!(losses, 1, "{:?}", plan.clashes);
    }

    // PROTOCOL SM-DV-5
    #[test]
    fn a_default_route_of_the_host_is_left_alone_and_halves_of_it_are_taken() {
        let host = [route("0.0.0.0/0"), lan("192.168.1.0/24")];
        let plan = configured("10.9.0.1", 24, &["0.0.0.0/0"]).plan(&host, Moment::Start);
        assert_eq!(goes(&plan, "198.51.100.1"), None);
        let halves = ["0.0.0.0/1", "128.0.0.0/1"];
        let plan = configured("10.9.0.1", 24, &halves).plan(&host, Moment::Start);
        assert_eq!(goes(&plan, "198.51.100.1"), Some(Target::Device));
        for left in [
            "192.168.1.1",
            "224.0.0.251",
            "169.254.1.1",
            "255.255.255.255",
        ] {
            assert_eq!(goes(&plan, left), None, "{left}");
        }
    }

    #[test]
    fn behind_every_lead_into_the_tunnel_there_is_a_refusal() {
        let plan = derived_node(&["10.100.3.4/32", "10.0.0.0/8"]).plan(&[], Moment::Start);
        let refused = |lead: &&Lead| {
            plan.leads.contains(&Lead {
                to: Target::Refused,
                ..**lead
            })
        };
        let leads = plan.leads.iter().filter(|lead| lead.to == Target::Device);
        assert!(leads.clone().count() > 3 && leads.clone().all(|lead| refused(&lead)));
    }
}
