//! Links, addresses and routes of the host, asked for and set through `NETLINK_ROUTE`.
//!
//! Requests are synchronous: the kernel answers a routing request before `send` returns, so there
//! is nothing to wait for and no reason for tasks. The few messages we need are encoded here: their
//! framing in `message.rs`, four fixed headers and a dozen attributes in `record.rs`.
//!
//! [`Monitor`] hears of changes that others make.
//!
//! A [`Handle`] belongs to the network namespace it was opened in. Inside another one, open it
//! there: `netns.run(Handle::new)`.
//!
//! Every refusal says what was tried, what the kernel said (with its own explanation where it
//! gives one) and what that means; [`NetlinkError::refusal`] sorts it for callers that go on, for
//! example because the route to remove is gone already.
//!
//! Beside it [`nftables`] sets the kernel's packet filter and NAT, which only laboratories need.
//!
//! Linux only; elsewhere [`Handle::new`] answers [`NetlinkError::Unsupported`].

use std::fmt;
use std::io;
use std::net::IpAddr;

#[cfg(target_os = "linux")]
mod connection;
#[cfg(target_os = "linux")]
mod handle;
#[cfg(target_os = "linux")]
mod message;
#[cfg(target_os = "linux")]
mod monitor;
#[cfg(target_os = "linux")]
pub mod nftables;
mod own;
#[cfg(target_os = "linux")]
mod record;
#[cfg(target_os = "linux")]
mod rule;

#[cfg(target_os = "linux")]
pub use handle::Handle;
#[cfg(target_os = "linux")]
pub use monitor::Monitor;
pub use own::{OwnAddress, own_addresses};

#[cfg(not(target_os = "linux"))]
mod unsupported;
#[cfg(not(target_os = "linux"))]
pub use unsupported::{Handle, Monitor};

/// The main routing table.
pub const TABLE_MAIN: u32 = 254;
/// The kernel's table of the host's own addresses.
pub const TABLE_LOCAL: u32 = 255;

/// Who made a route. Ours carry a number of their own, so that `ip route show proto 83` lists
/// them and leftovers can be told from the administrator's; the kernel knows no name for it.
pub const ROUTE_PROTOCOL: u8 = 83;

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether the kernel has noticed a carrier (operational state "up", RFC 2863), so that
    /// packets pass. Stays false for devices that have no such thing: loopback, TUN.
    pub carrier: bool,
    /// The driver's kind (`veth`, `bridge`, `tun`, ...), if it has one.
    pub kind: Option<String>,
    /// The bridge it belongs to.
    pub master: Option<u32>,
    /// Its Ethernet address, if it has one.
    pub ethernet: Option<[u8; 6]>,
    /// Whether what it carries goes on inside packets of another device, through a program or the kernel: who
    /// is reached there is not near, however near its address looks.
    pub tunnel: bool,
}

/// An address of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The device.
    pub index: u32,
    /// The address itself, host bits included.
    pub address: IpAddr,
    /// The length of the prefix that is reached directly through the device.
    pub prefix_len: u8,
    /// Whether it may be used for something new: neither tentative nor deprecated nor found to be
    /// somebody else's.
    pub ready: bool,
}

/// A route: to somewhere, or one of ours that ends the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// First address of the destination prefix; unspecified with length 0 is the default route.
    pub destination: IpAddr,
    /// Length of the destination prefix.
    pub prefix_len: u8,
    /// The device to send to.
    pub index: Option<u32>,
    /// The next hop, if there is one.
    pub via: Option<IpAddr>,
    /// Smaller is preferred; `None` is the kernel's default.
    pub metric: Option<u32>,
    /// The routing table, normally [`TABLE_MAIN`].
    pub table: u32,
    /// Who made it, ours is [`ROUTE_PROTOCOL`].
    pub protocol: u8,
    /// What it does with a packet.
    pub kind: RouteKind,
}

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Sends it on.
    Unicast,
    /// Refuses it, and tells the sender so.
    Unreachable,
    /// Leaves it to the rules that come after.
    Throw,
}

impl Route {
    /// A route of ours straight to a device.
    pub fn to_device(destination: IpAddr, prefix_len: u8, index: u32) -> Self {
        Self {
            destination,
            prefix_len,
            index: Some(index),
            via: None,
            metric: None,
            table: TABLE_MAIN,
            protocol: ROUTE_PROTOCOL,
            kind: RouteKind::Unicast,
        }
    }

    /// A route of ours through a next hop.
    pub fn via(destination: IpAddr, prefix_len: u8, via: IpAddr) -> Self {
        let route = Self::to_device(destination, prefix_len, 0);
        Self {
            index: None,
            via: Some(via),
            ..route
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            RouteKind::Unicast => {}
            RouteKind::Unreachable => write!(f, "unreachable ")?,
            RouteKind::Throw => write!(f, "throw ")?,
        }
        write!(f, "{}/{}", self.destination, self.prefix_len)?;
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        if let Some(index) = self.index {
            write!(f, " to device number {index}")?;
        }
        if self.table != TABLE_MAIN {
            write!(f, " in table {}", self.table)?;
        }
        Ok(())
    }
}

/// A policy rule, as far as it matters here. Two are equal whoever made them: Linux before 4.17 does not say.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Whether it is about IPv6; else about IPv4.
    pub ipv6: bool,
    /// Rules are asked in this order, the smallest first.
    pub priority: u32,
    /// The table that is looked up.
    pub table: u32,
    /// It is for everything that does not carry this mark.
    pub all_but_mark: Option<u32>,
    /// It is for what carries this mark.
    pub only_mark: Option<u32>,
    /// It is for UDP from this port: with a mark for what carries that, else for what this host itself sends.
    pub own_udp_port: Option<u16>,
    /// Who made it, ours is [`ROUTE_PROTOCOL`]; 0 where the kernel does not say.
    pub protocol: u8,
    /// Whether it looks up a table for every packet without a mark, whatever its addresses are.
    pub takes_unmarked: bool,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            ipv6,
            priority,
            table,
            all_but_mark,
            only_mark,
            own_udp_port,
            protocol: _,
            takes_unmarked,
        } = *self;
        (ipv6, priority, table) == (other.ipv6, other.priority, other.table)
            && (all_but_mark, only_mark) == (other.all_but_mark, other.only_mark)
            && (own_udp_port, takes_unmarked) == (other.own_udp_port, other.takes_unmarked)
    }
}

impl Eq for Rule {}

impl Rule {
    /// A rule of ours that leads everything but what carries `mark` to a table.
    pub fn all_but_mark(ipv6: bool, priority: u32, table: u32, mark: u32) -> Self {
        Self {
            ipv6,
            priority,
            table,
            all_but_mark: Some(mark),
            only_mark: None,
            own_udp_port: None,
            protocol: ROUTE_PROTOCOL,
            takes_unmarked: true,
        }
    }

    /// A rule of ours for what this host sends by UDP from `port`.
    pub fn own_udp_port(ipv6: bool, priority: u32, table: u32, port: u16) -> Self {
        Self {
            ipv6,
            priority,
            table,
            all_but_mark: None,
            only_mark: None,
            own_udp_port: Some(port),
            protocol: ROUTE_PROTOCOL,
            takes_unmarked: false,
        }
    }

    /// The same for what carries a mark, whoever sends it. Linux looks at ports, when it asks where a packet
    /// that came in may have come from, only where some rule for them is not for the host's own packets.
    pub fn marked_udp_port(ipv6: bool, priority: u32, table: u32, port: u16, mark: u32) -> Self {
        Self {
            only_mark: Some(mark),
            ..Self::own_udp_port(ipv6, priority, table, port)
        }
    }
}

/// What the kernel says has changed; see [`Monitor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A device came, went, or changed its state.
    Link,
    /// An address did.
    Address,
    /// A unicast route was added or replaced.
    RouteAdded(Route),
    /// A unicast route was removed.
    RouteRemoved(Route),
    /// A policy rule came or went.
    Rule,
    /// More than could be taken in.
    Lost,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// No netlink on this platform.
    #[error("addresses and routes are set on Linux only so far")]
    Unsupported,
    /// The device is up but stays without carrier.
    #[error("device number {index} has no carrier: is the other end of its cable up?")]
    NoCarrier {
        /// The device.
        index: u32,
    },
    /// The socket failed.
    #[error("cannot talk to the kernel about links, addresses and routes (netlink): {0}")]
    Socket(#[from] io::Error),
    /// The kernel said no.
    #[error("cannot {operation}: {refusal} ({source}{})", explanation(.detail))]
    Refused {
        /// What was tried.
        operation: String,
        /// What the answer means.
        refusal: Refusal,
        /// The kernel's own explanation; empty where it gives none.
        detail: String,
        /// The error number.
        source: io::Error,
    },
    /// The kernel answered something that makes no sense to us.
    #[error("cannot {operation}: the kernel's answer has an unknown form")]
    Malformed {
        /// What was tried.
        operation: String,
    },
}

impl NetlinkError {
    /// What the kernel's refusal means, if it was one.
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(*refusal),
            _ => None,
        }
    }
}

fn explanation(detail: &str) -> String {
    if detail.is_empty() {
        String::new()
    } else {
        format!(": {detail}")
    }
}

/// What a refusal means for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is there already.
    Exists,
    /// There is no such device.
    NoSuchDevice,
    /// There is no such address or route (it may be gone already).
    NotThere,
    /// The process may not.
    Permission,
    /// The next hop is not reachable directly, or the device is down.
    Unreachable,
    /// The device or name is in use.
    Busy,
    /// The kernel lacks the driver or feature.
    NotSupported,
    /// The request contradicts itself or the device's state.
    Invalid,
    /// Something else.
    Other,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exists => "it exists already",
            Self::NoSuchDevice => "there is no such device",
            Self::NotThere => "it is not there",
            Self::Permission => "no permission: run as root or with CAP_NET_ADMIN",
            Self::Unreachable => "the next hop is not reachable or the device is down",
            Self::Busy => "it is in use",
            Self::NotSupported => "this kernel does not support it",
            Self::Invalid => "the kernel finds the values invalid",
            Self::Other => "the kernel refused",
        })
    }
}
