//! What a middlebox does, as values: each field is a behaviour that RFC 4787 gives a name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// RFC 4787, REQ-5: a mapping must not expire in less than two minutes.
const LIFETIME: Duration = Duration::from_secs(120);
/// Where home routers keep their machines.
const HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 0);
/// Where carriers keep their customers (RFC 6598).
const CARRIER: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 0);
/// RFC 4787, REQ-3: well-known ports are not given away.
const PORTS: RangeInclusive<u16> = 1024..=65_535;

/// How much of the remote address a decision looks at (RFC 4787, sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// Nothing: one answer for all remotes.
    EndpointIndependent,
    /// The remote address, not its port.
    AddressDependent,
    /// Address and port.
    AddressAndPortDependent,
}

/// A remote as a [`Dependence`] sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    Anywhere,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

impl Dependence {
    pub(super) fn scope(self, remote: SocketAddr) -> Scope {
        match self {
            Self::EndpointIndependent => Scope::Anywhere,
            Self::AddressDependent => Scope::Address(remote.ip()),
            Self::AddressAndPortDependent => Scope::Endpoint(remote),
        }
    }
}

/// Which outside port a new mapping gets (RFC 4787, section 4.2). Parity is kept by nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAllocation {
    /// The inside port if it is free, else the next free one above it.
    Preserving,
    /// The next free one above the last that was given.
    Sequential,
    /// Any free one.
    Random,
}

/// Which packets keep a mapping alive (RFC 4787, section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Only those from inside.
    Outbound,
    /// Those from outside too.
    BothWays,
}

/// How long the box remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// A mapping, and each permission to answer, ends when nothing refreshed it for so long.
    pub lifetime: Duration,
    /// What refreshes.
    pub refresh: Refresh,
}

/// Two minutes, refreshed from both sides, as Linux does for a conversation.
impl Default for Memory {
    fn default() -> Self {
        Self {
            lifetime: LIFETIME,
            refresh: Refresh::BothWays,
        }
    }
}

/// Translation of IPv4 addresses to one outside address.
#[derive(Clone, Debug)]
pub struct Nat {
    /// When an inside endpoint keeps its mapping for another remote.
    pub mapping: Dependence,
    /// Whose datagrams come in through a mapping.
    pub filtering: Dependence,
    /// Which outside port a mapping gets.
    pub allocation: PortAllocation,
    /// The outside ports there are, so also the limit of mappings.
    pub ports: RangeInclusive<u16>,
    /// Whether inside hosts reach each other by their outside addresses (RFC 4787, section 6).
    pub hairpin: bool,
    /// How long it remembers.
    pub memory: Memory,
    /// The /24 its inside hosts live in.
    pub inside: Ipv4Addr,
}

/// Inspection of traffic that is not translated: IPv6, and IPv4 of a box without [`Nat`].
#[derive(Clone, Copy, Debug)]
pub struct Firewall {
    /// Whose datagrams are answers to what went out.
    pub filtering: Dependence,
    /// How long it remembers what went out.
    pub memory: Memory,
}

/// Which UDP passes at all, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpRule {
    /// Any.
    Any,
    /// None.
    Blocked,
    /// Only with these remotes.
    Listed(Vec<Listed>),
}

/// A remote that a firewall lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its address; `None` is any.
    pub ip: Option<IpAddr>,
    /// Its port; `None` is any.
    pub port: Option<u16>,
}

impl UdpRule {
    pub(super) fn passes(&self, remote: SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Blocked => false,
            Self::Listed(list) => list.iter().any(|entry| {
                entry.ip.is_none_or(|ip| ip == remote.ip())
                    && entry.port.is_none_or(|port| port == remote.port())
            }),
        }
    }
}

/// A box between hosts and the network outside.
#[derive(Clone, Debug)]
pub struct BoxProfile {
    /// How IPv4 is translated, if it is. A translated packet is filtered by the translation alone.
    pub nat: Option<Nat>,
    /// What is asked of the rest; `None` routes everything.
    pub firewall: Option<Firewall>,
    /// Which UDP passes at all.
    pub udp: UdpRule,
}

impl BoxProfile {
    /// A home router with this mapping and filtering that keeps the ports it can, and the usual
    /// stateful firewall for IPv6.
    pub fn home(mapping: Dependence, filtering: Dependence) -> Self {
        Self {
            nat: Some(Nat {
                mapping,
                filtering,
                allocation: PortAllocation::Preserving,
                ports: PORTS,
                hairpin: false,
                memory: Memory::default(),
                inside: HOME,
            }),
            ..Self::stateful_firewall()
        }
    }

    /// A carrier's NAT for many customers, as RFC 6888 wants it: one mapping for all remotes,
    /// hairpinning, and ports that nobody can count on.
    pub fn carrier() -> Self {
        let filtering = Dependence::AddressAndPortDependent;
        Self::home(Dependence::EndpointIndependent, filtering)
            .allocating(PortAllocation::Random)
            .hairpinning(true)
            .inside(CARRIER)
    }

    /// A firewall that translates nothing and lets only answers in.
    pub fn stateful_firewall() -> Self {
        Self {
            nat: None,
            firewall: Some(Firewall {
                filtering: Dependence::AddressAndPortDependent,
                memory: Memory::default(),
            }),
            udp: UdpRule::Any,
        }
    }

    /// The same box with other outside ports.
    pub fn allocating(mut self, allocation: PortAllocation) -> Self {
        self.nat_mut().allocation = allocation;
        self
    }

    /// The same box with hairpinning on or off.
    pub fn hairpinning(mut self, hairpin: bool) -> Self {
        self.nat_mut().hairpin = hairpin;
        self
    }

    /// The same box with only these outside ports.
    pub fn with_ports(mut self, ports: RangeInclusive<u16>) -> Self {
        self.nat_mut().ports = ports;
        self
    }

    /// The same box with another /24 inside.
    pub fn inside(mut self, inside: Ipv4Addr) -> Self {
        self.nat_mut().inside = inside;
        self
    }

    /// The same box with another memory, for translated traffic and for the rest.
    pub fn remembering(mut self, memory: Memory) -> Self {
        if let Some(nat) = &mut self.nat {
            nat.memory = memory;
        }
        if let Some(firewall) = &mut self.firewall {
            firewall.memory = memory;
        }
        self
    }

    /// The same box with another rule for all UDP.
    pub fn with_udp(self, udp: UdpRule) -> Self {
        Self { udp, ..self }
    }

    fn nat_mut(&mut self) -> &mut Nat {
        self.nat.as_mut().expect("a box that translates")
    }

    /// Whether packets of that IP version change their address here.
    pub(crate) fn translates(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() && self.nat.is_some()
    }
}

/// The kinds of connection to the internet that the grid of pairs is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NatKind {
    /// A public address, nothing in between.
    Open,
    /// One mapping for all remotes, and all of them may use it.
    FullCone,
    /// One mapping; addresses that were written to may use it.
    AddressRestricted,
    /// One mapping; endpoints that were written to may use it.
    PortRestricted,
    /// A mapping for each remote endpoint, with consecutive ports.
    SymmetricSequential,
    /// A mapping for each remote endpoint, with ports that nobody can guess.
    SymmetricRandom,
    /// A port-restricted home router behind a carrier's NAT.
    Double,
    /// A home router that lets no UDP through.
    UdpBlocked,
}

impl NatKind {
    /// All of them, in the order of the grid.
    pub const ALL: [Self; 8] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::SymmetricSequential,
        Self::SymmetricRandom,
        Self::Double,
        Self::UdpBlocked,
    ];

    /// Short lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::SymmetricSequential => "symmetric sequential",
            Self::SymmetricRandom => "symmetric random",
            Self::Double => "double NAT",
            Self::UdpBlocked => "UDP blocked",
        }
    }

    /// The boxes between the internet and a host of that kind, the outermost first.
    pub fn boxes(self) -> Vec<BoxProfile> {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        let cone = |filtering| BoxProfile::home(EndpointIndependent, filtering);
        let symmetric = BoxProfile::home(AddressAndPortDependent, AddressAndPortDependent);
        match self {
            Self::Open => vec![],
            Self::FullCone => vec![cone(EndpointIndependent)],
            Self::AddressRestricted => vec![cone(AddressDependent)],
            Self::PortRestricted => vec![cone(AddressAndPortDependent)],
            Self::SymmetricSequential => vec![symmetric.allocating(PortAllocation::Sequential)],
            Self::SymmetricRandom => vec![symmetric.allocating(PortAllocation::Random)],
            Self::Double => vec![BoxProfile::carrier(), cone(AddressAndPortDependent)],
            Self::UdpBlocked => vec![cone(AddressAndPortDependent).with_udp(UdpRule::Blocked)],
        }
    }
}
