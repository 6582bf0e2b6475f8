//! What may be asked of the kernel, one method for each request.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::connection::{Connection, Result, refused};
use super::message::Request;
use super::record::{
    CREATE, REQUEST, address_request, change_link, link_header, new_link, parse_address,
    parse_link, parse_route, route_lookup, route_request,
};
use super::rule::{BLACKHOLE, INPUT_DEVICE, PRIORITY, parse_rule, rule_header, rule_request};
use super::{Address, Link, NetlinkError, Refusal, Route, Rule};
use crate::underlay;

/// How often to look for a carrier.
const CARRIER_POLL: Duration = Duration::from_millis(1);

/// A dump that raced with a change is asked for again, this often at most.
const DUMP_ATTEMPTS_MAX: usize = 8;

/// `IFLA_INET6_ADDR_GEN_MODE` and `IN6_ADDR_GEN_MODE_NONE` of linux/if_link.h.
const INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
/// `VETH_INFO_PEER` of linux/veth.h.
const VETH_INFO_PEER: u16 = 1;
/// IPv6 addresses are usable at once: no duplicate detection, which would take a second and
/// cannot find anything on a point-to-point device.
const ADDRESS_FLAGS: u32 = libc::IFA_F_NODAD;

/// A connection to the kernel's routing configuration, in the namespace it was opened in.
pub struct Handle {
    connection: Mutex<Connection>,
}

impl Handle {
    /// Opens a connection in the calling thread's network namespace.
    pub fn new() -> Result<Self> {
        Ok(Self {
            connection: Mutex::new(Connection::open(libc::NETLINK_ROUTE)?),
        })
    }

    /// All devices.
    pub fn links(&self) -> Result<Vec<Link>> {
        self.dump(
            "list the devices",
            libc::RTM_GETLINK,
            &link_header(0, 0, 0),
            parse_link,
        )
    }

    /// The device of that name.
    pub fn link_by_name(&self, name: &str) -> Result<Link> {
        let link = self.links()?.into_iter().find(|link| link.name == name);
        link.ok_or_else(|| no_device(format!("find the device {name}")))
    }

    /// The device of that number.
    pub fn link_by_index(&self, index: u32) -> Result<Link> {
        let link = self.links()?.into_iter().find(|link| link.index == index);
        link.ok_or_else(|| no_device(format!("find device number {index}")))
    }

    /// Brings a device up.
    pub fn set_up(&self, index: u32) -> Result<()> {
        let up = libc::IFF_UP as u32;
        let request = Request::new(libc::RTM_NEWLINK, REQUEST, &link_header(index, up, up));
        self.execute(format!("bring up device number {index}"), request)
    }

    /// Takes a device down.
    pub fn set_down(&self, index: u32) -> Result<()> {
        let header = link_header(index, 0, libc::IFF_UP as u32);
        let request = Request::new(libc::RTM_NEWLINK, REQUEST, &header);
        self.execute(format!("take down device number {index}"), request)
    }

    /// Waits until a device that is up, and the other end of its cable with it, passes packets.
    ///
    /// The kernel notices a carrier in a worker of its own, up to a second after both ends are
    /// up, and until then drops every packet without a word; a lost first ARP request then costs
    /// another second and whatever queued behind it.
    pub fn wait_for_carrier(&self, index: u32, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while !self.link_by_index(index)?.carrier {
            if Instant::now() >= deadline {
                return Err(NetlinkError::NoCarrier { index });
            }
            std::thread::sleep(CARRIER_POLL);
        }
        // The state shows a moment before the queue opens, both under the lock that every change
        // takes: one more change that changes nothing, and the queue is open.
        self.set_up(index)
    }

    /// Sets a device's MTU.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> Result<()> {
        let request = change_link(index).number(libc::IFLA_MTU, mtu);
        self.execute(
            format!("set the MTU of device number {index} to {mtu}"),
            request,
        )
    }

    /// Gives a device that is down another name.
    pub fn rename(&self, index: u32, name: &str) -> Result<()> {
        let request = change_link(index).text(libc::IFLA_IFNAME, name);
        self.execute(format!("name device number {index} {name}"), request)
    }

    /// Gives a device no IPv6 link-local address of its own, so that it neither solicits routers
    /// nor advertises itself. For devices that are not yet up.
    pub fn disable_link_local(&self, index: u32) -> Result<()> {
        let request = change_link(index).nested(libc::IFLA_AF_SPEC, |families| {
            families.nested(libc::AF_INET6 as u16, |inet6| {
                inet6.attribute(INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE])
            })
        });
        self.execute(
            format!("turn off IPv6 link-local addresses of device number {index}"),
            request,
        )
    }

    /// Makes a device a port of a bridge, or of none.
    pub fn set_master(&self, index: u32, master: Option<u32>) -> Result<()> {
        let request = change_link(index).number(libc::IFLA_MASTER, master.unwrap_or(0));
        self.execute(format!("set the bridge of device number {index}"), request)
    }

    /// Moves a device to another network namespace. It loses its addresses, comes out down, and
    /// may have another number there.
    pub fn move_to_netns(&self, index: u32, netns: &impl AsFd) -> Result<()> {
        let fd = netns.as_fd().as_raw_fd() as u32;
        let request = change_link(index).number(libc::IFLA_NET_NS_FD, fd);
        self.execute(
            format!("move device number {index} to another namespace"),
            request,
        )
    }

    /// Makes two devices joined by a cable.
    pub fn create_veth(&self, name: &str, peer: &str) -> Result<()> {
        let request = new_link(name).nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth")
                .nested(libc::IFLA_INFO_DATA, |data| {
                    data.nested(VETH_INFO_PEER, |end| {
                        end.raw(&link_header(0, 0, 0)).text(libc::IFLA_IFNAME, peer)
                    })
                })
        });
        self.execute(
            format!("make the pair of devices {name} and {peer}"),
            request,
        )
    }

    /// Makes a bridge.
    pub fn create_bridge(&self, name: &str) -> Result<()> {
        let request = new_link(name).nested(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "bridge")
        });
        self.execute(format!("make the bridge {name}"), request)
    }

    /// Removes a device (and, of a veth pair, the other end).
    pub fn delete_link(&self, index: u32) -> Result<()> {
        let request = Request::new(libc::RTM_DELLINK, REQUEST, &link_header(index, 0, 0));
        self.execute(format!("remove device number {index}"), request)
    }

    /// All addresses of all devices.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        self.dump(
            "list the addresses",
            libc::RTM_GETADDR,
            &[0; 8],
            parse_address,
        )
    }

    /// Gives a device an address; the kernel adds the route to its prefix while the device is up.
    pub fn add_address(&self, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
        let request = address_request(libc::RTM_NEWADDR, CREATE, index, address, prefix_len)
            .number(libc::IFA_FLAGS, ADDRESS_FLAGS);
        let operation = format!("add address {address}/{prefix_len} to device number {index}");
        self.execute(operation, request)
    }

    /// As [`add_address`](Self::add_address), without the route to its prefix.
    pub fn add_address_alone(&self, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
        let flags = ADDRESS_FLAGS | libc::IFA_F_NOPREFIXROUTE;
        let request = address_request(libc::RTM_NEWADDR, CREATE, index, address, prefix_len)
            .number(libc::IFA_FLAGS, flags);
        let operation = format!("add address {address}/{prefix_len} to device number {index}");
        self.execute(operation, request)
    }

    /// Takes an address from a device.
    pub fn del_address(&self, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
        let request = address_request(libc::RTM_DELADDR, REQUEST, index, address, prefix_len);
        let operation = format!("remove address {address}/{prefix_len} from device number {index}");
        self.execute(operation, request)
    }

    /// All unicast routes of all tables, the kernel's own included, and what else is ours.
    pub fn routes(&self) -> Result<Vec<Route>> {
        self.dump("list the routes", libc::RTM_GETROUTE, &[0; 12], parse_route)
    }

    /// The next hop on the underlay's way to a destination; `None` where there is no such way, or it leads
    /// nowhere else than to a device.
    pub fn gateway_towards(&self, destination: IpAddr) -> Result<Option<IpAddr>> {
        let request = route_lookup(destination, underlay::MARK);
        let mut connection = self
            .connection
            .lock()
            .expect("no panic happens under this lock");
        let operation = format!("look up the route to {destination}");
        match connection.ask(operation, request, parse_route) {
            Ok(route) => Ok(route.and_then(|route| route.via)),
            Err(error) if error.refusal() == Some(Refusal::Unreachable) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the namespace swallow what it would send of its own accord in one IP version, or no
    /// longer; what it forwards passes. So a router tells nobody that something was too long.
    pub fn mute(&self, ipv6: bool, muted: bool) -> Result<()> {
        let (kind, flags) = if muted {
            (libc::RTM_NEWRULE, CREATE)
        } else {
            (libc::RTM_DELRULE, REQUEST)
        };
        // What a machine sends itself counts as coming in by its loopback device.
        let request = Request::new(kind, flags, &rule_header(ipv6, BLACKHOLE, 0))
            .text(INPUT_DEVICE, "lo")
            .number(PRIORITY, 1);
        self.execute("mute the namespace".into(), request)
    }

    /// All policy rules of one IP version.
    pub fn rules(&self, ipv6: bool) -> Result<Vec<Rule>> {
        let header = rule_header(ipv6, 0, 0);
        self.dump("list the rules", libc::RTM_GETRULE, &header, parse_rule)
    }

    /// Adds a policy rule.
    pub fn add_rule(&self, rule: &Rule) -> Result<()> {
        let request = rule_request(libc::RTM_NEWRULE, CREATE, rule);
        self.execute(format!("add the rule for table {}", rule.table), request)
    }

    /// Removes the policy rule that matches in every given field.
    pub fn del_rule(&self, rule: &Rule) -> Result<()> {
        let request = rule_request(libc::RTM_DELRULE, REQUEST, rule);
        self.execute(format!("remove the rule for table {}", rule.table), request)
    }

    /// Adds a route.
    pub fn add_route(&self, route: &Route) -> Result<()> {
        let request = route_request(libc::RTM_NEWROUTE, CREATE, route);
        self.execute(format!("add the route {route}"), request)
    }

    /// Removes the route that matches in every given field.
    pub fn del_route(&self, route: &Route) -> Result<()> {
        let request = route_request(libc::RTM_DELROUTE, REQUEST, route);
        self.execute(format!("remove the route {route}"), request)
    }

    fn execute(&self, operation: String, request: Request) -> Result<()> {
        let mut connection = self
            .connection
            .lock()
            .expect("no panic happens under this lock");
        connection.execute(operation, request)
    }

    fn dump<T>(
        &self,
        operation: &str,
        kind: u16,
        header: &[u8],
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut connection = self
            .connection
            .lock()
            .expect("no panic happens under this lock");
        for _ in 1..DUMP_ATTEMPTS_MAX {
            if let Some(found) = connection.dump(operation, kind, header, &parse)? {
                return Ok(found);
            }
        }
        let source = io::Error::from_raw_os_error(libc::EBUSY);
        Err(refused(operation.to_owned(), source, String::new()))
    }
}

fn no_device(operation: String) -> NetlinkError {
    refused(
        operation,
        io::Error::from_raw_os_error(libc::ENODEV),
        String::new(),
    )
}
