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
mod tests;
