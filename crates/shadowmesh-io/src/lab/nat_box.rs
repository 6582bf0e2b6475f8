//! A NAT router made of the kernel's own parts: a namespace that forwards, and nftables.
//!
//! What the kernel gives for each kind, as the tests in `tests/nat.rs` see it from sockets:
//!
//! | kind | made of | mapping | who comes in |
//! |---|---|---|---|
//! | router | nothing | addresses stay | all |
//! | full cone | masquerade, and all UDP from outside to one host | one for all remotes, port kept | all |
//! | hairpin | the same for UDP to the outside address from inside | as above | all, that host itself too |
//! | address-restricted | the same, forwarded only from addresses written to | as above | those |
//! | port-restricted | masquerade | as above while the port is free | answers |
//! | symmetric sequential | masquerade to counted ports | one for each remote endpoint | answers |
//! | symmetric random | masquerade `random` or `fully-random` | one for each remote endpoint | answers |
//!
//! Where Linux differs from the behaviours of RFC 4787, and from the simulated world:
//! - it tracks flows, not mappings. Two inside hosts with the same inside port *share* the outside port
//!   as long as they write to different remotes; on the same remote the second gets a random port.
//! - the cones with static rules serve one inside host.
//! - an uninvited datagram that reaches the router itself becomes a flow too, and then the inside
//!   host's own flow to that remote loses its port. Real routers drop such datagrams, so this one does
//!   unless told otherwise.
//! - there is no hairpin but in the kind of that name: masquerading looks at what leaves by the outside
//!   device only.
//! - `persistent` changes nothing here: a router has one outside address.
//!
//! Double NAT is a box whose outside network is another box. IPv6 is not forwarded.

use std::io;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::netlink::nftables::{Action, Batch, Hook, Match, Nftables, PortChoice};
use crate::netlink::{Handle, NetlinkError, Route};
use crate::netns::Netns;

/// The box's device towards the internet.
const OUTSIDE: &str = "outside";
/// The hosts' device towards the box.
const UPLINK: &str = "uplink";
/// Name of the table, and of the set of addresses that were written to.
const TABLE: &str = "nat_box";
const WRITTEN_TO: &str = "written_to";
/// The prefix length of every network here.
const PREFIX_LEN: u8 = 24;
/// The kernel looks for carriers once a second at least.
const CARRIER_WAIT: Duration = Duration::from_secs(5);
const UDP: u8 = 17;

/// What a box does with addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatBoxKind {
    /// Nothing: it routes.
    Router,
    /// UDP from anybody to the outside address goes to this inside host.
    FullCone(Ipv4Addr),
    /// The same from this host itself, which then sees the router as the sender (RFC 4787, section 6).
    Hairpin(Ipv4Addr),
    /// As the full cone, but only from addresses that somebody inside wrote to.
    AddressRestricted(Ipv4Addr),
    /// What the kernel does by itself.
    PortRestricted,
    /// The same, asked for by the flag `persistent`.
    Persistent,
    /// A new outside port for each flow, counted up in this range and round.
    SymmetricSequential(RangeInclusive<u16>),
    /// One port forwarded by hand to this host; what goes out gets ports as from [`Self::FullyRandom`], so
    /// nobody sees that one.
    Forwarded(Ipv4Addr, u16),
    /// A new outside port for each flow, by the flag `random`.
    Random,
    /// The same, by the flag `fully-random`.
    FullyRandom,
}

/// What a box does.
#[derive(Clone, Debug)]
pub struct NatBoxConfig {
    /// With addresses.
    pub kind: NatBoxKind,
    /// Whether uninvited datagrams reach the box itself, which then refuses them by ICMP.
    pub input_open: bool,
    /// Whether it drops all UDP.
    pub udp_blocked: bool,
    /// ICMP types that it neither forwards nor sends.
    pub icmp_dropped: Vec<u8>,
    /// How long a UDP flow is remembered, answered or not; the kernel's smallest is a second.
    pub udp_lifetime: Duration,
}

impl NatBoxConfig {
    /// A box of that kind that drops nothing more and remembers for two minutes.
    pub fn new(kind: NatBoxKind) -> Self {
        Self {
            kind,
            input_open: false,
            udp_blocked: false,
            icmp_dropped: Vec::new(),
            udp_lifetime: Duration::from_secs(120),
        }
    }
}

/// A NAT router in a namespace of its own.
pub struct NatBox {
    netns: Netns,
    outside: Ipv4Addr,
}

impl NatBox {
    /// A box with a cable to `internet`, where its network (the first three bytes, a /24 that nobody
    /// else has there) appears as device `nat` and the third byte. The other end is .1 and the box's
    /// way to everywhere, the box is .2.
    pub fn new(config: &NatBoxConfig, internet: &Netns, network: [u8; 3]) -> io::Result<Self> {
        let netns = Netns::new()?;
        let device = format!("nat{}", network[2]);
        plug_in((internet, &device), (&netns, OUTSIDE), network)?;
        for netns in [internet, &netns] {
            netns.set_sysctl("net.ipv4.ip_forward", "1")?;
        }
        let nat_box = Self {
            netns,
            outside: host_address(network, 2),
        };
        let rules = rules(config, nat_box.outside);
        nat_box.with_nftables(|nftables| nftables.apply(rules))?;
        let seconds = config.udp_lifetime.as_secs().max(1).to_string();
        for setting in ["udp_timeout", "udp_timeout_stream"] {
            let name = format!("net.netfilter.nf_conntrack_{setting}");
            nat_box.netns.set_sysctl(&name, &seconds)?;
        }
        Ok(nat_box)
    }

    /// Puts a host (or the namespace of another box) inside: .2 of a network that no other host of
    /// this box has; its way to everywhere is .1, this box.
    pub fn attach(&self, host: &Netns, network: [u8; 3]) -> io::Result<()> {
        let device = format!("inside{}", network[2]);
        plug_in((&self.netns, &device), (host, UPLINK), network)
    }

    /// A box behind this one: double NAT. Its network is one inside of this box.
    pub fn nest(&self, config: &NatBoxConfig, network: [u8; 3]) -> io::Result<Self> {
        Self::new(config, &self.netns, network)
    }

    /// Where it is.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its address outside.
    pub fn outside(&self) -> Ipv4Addr {
        self.outside
    }

    /// Forgets all mappings, as a reboot would.
    pub fn forget(&self) -> io::Result<()> {
        self.with_nftables(Nftables::forget_connections)
    }

    fn with_nftables(
        &self,
        act: impl FnOnce(&Nftables) -> Result<(), NetlinkError> + Send,
    ) -> io::Result<()> {
        self.netns
            .run(|| act(&Nftables::new()?))
            .map_err(io::Error::other)
    }
}

fn rules(config: &NatBoxConfig, outside: Ipv4Addr) -> Batch {
    let mut batch = Batch::new().table(TABLE);
    let chains = [
        ("prerouting", Hook::TranslateIn),
        ("postrouting", Hook::TranslateOut),
        ("input", Hook::Input),
        ("forward", Hook::Forward),
        ("output", Hook::Output),
    ];
    for (name, hook) in chains {
        batch = batch.chain(TABLE, name, hook);
    }
    let from_outside = [Match::InDevice(OUTSIDE), Match::Protocol(UDP)];
    if !config.input_open {
        batch = batch.rule(TABLE, "input", &from_outside, Action::Drop);
    }
    if config.udp_blocked {
        batch = batch.rule(TABLE, "forward", &[Match::Protocol(UDP)], Action::Drop);
    }
    for kind in &config.icmp_dropped {
        for chain in ["forward", "output"] {
            batch = batch.rule(TABLE, chain, &[Match::IcmpType(*kind)], Action::Drop);
        }
    }
    if let NatBoxKind::FullCone(host)
    | NatBoxKind::Hairpin(host)
    | NatBoxKind::AddressRestricted(host) = config.kind
    {
        batch = batch.rule(TABLE, "prerouting", &from_outside, Action::SendTo(host));
    }
    if let NatBoxKind::Forwarded(host, port) = config.kind {
        let to_port = [
            from_outside[0],
            from_outside[1],
            Match::DestinationPort(port),
        ];
        batch = batch.rule(TABLE, "prerouting", &to_port, Action::SendTo(host));
    }
    if let NatBoxKind::Hairpin(host) = config.kind {
        let to_outside = [Match::Destination(outside), Match::Protocol(UDP)];
        let to_itself = [Match::Source(host), Match::Destination(host)];
        let keep = Action::Masquerade(PortChoice::Keep);
        batch = batch
            .rule(TABLE, "prerouting", &to_outside, Action::SendTo(host))
            .rule(TABLE, "postrouting", &to_itself, keep);
    }
    if let NatBoxKind::AddressRestricted(_) = config.kind {
        batch = only_from_written_to(batch, config.udp_lifetime);
    }
    let Some(choice) = port_choice(&config.kind) else {
        return batch;
    };
    // Counted ports are UDP's business; of the rest only the address changes.
    let outwards = [Match::OutDevice(OUTSIDE), Match::Protocol(UDP)];
    let keep = Action::Masquerade(PortChoice::Keep);
    batch
        .rule(TABLE, "postrouting", &outwards, Action::Masquerade(choice))
        .rule(TABLE, "postrouting", &outwards[..1], keep)
}

fn only_from_written_to(batch: Batch, timeout: Duration) -> Batch {
    let remember = Action::RememberDestination {
        set: WRITTEN_TO,
        timeout,
    };
    let inwards = [Match::InDevice(OUTSIDE), Match::Protocol(UDP)];
    let known = [inwards[0], inwards[1], Match::SourceIn(WRITTEN_TO)];
    batch
        .address_set(TABLE, WRITTEN_TO, timeout)
        .rule(TABLE, "forward", &[Match::OutDevice(OUTSIDE)], remember)
        .rule(TABLE, "forward", &known, Action::Accept)
        .rule(TABLE, "forward", &inwards, Action::Drop)
}

fn port_choice(kind: &NatBoxKind) -> Option<PortChoice> {
    Some(match kind {
        NatBoxKind::Router => return None,
        NatBoxKind::FullCone(_)
        | NatBoxKind::Hairpin(_)
        | NatBoxKind::AddressRestricted(_)
        | NatBoxKind::PortRestricted => PortChoice::Keep,
        NatBoxKind::Persistent => PortChoice::Persistent,
        NatBoxKind::SymmetricSequential(ports) => PortChoice::Count(ports.clone()),
        NatBoxKind::Random => PortChoice::Random,
        NatBoxKind::FullyRandom | NatBoxKind::Forwarded(..) => PortChoice::FullyRandom,
    })
}

fn host_address([a, b, c]: [u8; 3], host: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, host)
}

/// A cable from a namespace that forwards to a host: .1 of the network here, .2 there, and the way of the
/// host to everywhere.
pub fn plug_in(
    here: (&Netns, &str),
    (host, device): (&Netns, &str),
    network: [u8; 3],
) -> io::Result<()> {
    lay_cable(here, (host, device), network)?;
    let gateway = host_address(network, 1).into();
    let route = Route::via(Ipv4Addr::UNSPECIFIED.into(), 0, gateway);
    host.run(|| Handle::new()?.add_route(&route))
        .map_err(io::Error::other)
}

/// A cable between two namespaces: .1 of the network (the first three bytes, a /24) here, .2 there.
pub fn lay_cable(
    (here, here_name): (&Netns, &str),
    (there, there_name): (&Netns, &str),
    network: [u8; 3],
) -> io::Result<()> {
    let with_handle =
        |netns: &Netns, act: &(dyn Fn(&Handle) -> Result<(), NetlinkError> + Sync)| {
            netns.run(|| act(&Handle::new()?)).map_err(io::Error::other)
        };
    // Made there, where the name is one that many namespaces use, and so may be taken here.
    with_handle(there, &|handle| {
        handle.create_veth(there_name, here_name)?;
        let end = handle.link_by_name(here_name)?;
        handle.move_to_netns(end.index, here)
    })?;
    let ends = [(here, here_name, 1), (there, there_name, 2)];
    for (netns, name, host) in ends {
        with_handle(netns, &|handle| {
            let link = handle.link_by_name(name)?;
            handle.disable_link_local(link.index)?;
            handle.set_up(link.index)?;
            handle.add_address(link.index, host_address(network, host).into(), PREFIX_LEN)
        })?;
    }
    for (netns, name, _) in ends {
        with_handle(netns, &|handle| {
            handle.wait_for_carrier(handle.link_by_name(name)?.index, CARRIER_WAIT)
        })?;
    }
    Ok(())
}
