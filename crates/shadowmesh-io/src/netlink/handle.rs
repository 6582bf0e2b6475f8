//! The connection to the kernel and the requests on it.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::message::{self, Message, Request, attributes, messages, u16_at, u32_at};
use super::{Address, Link, NetlinkError, Refusal, Route, TABLE_MAIN};
use crate::sys;

type Result<T> = std::result::Result<T, NetlinkError>;

/// The kernel answers before our send returns; a lost answer must still not hang the program.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// `IF_OPER_UP` of linux/if.h. (`IFF_RUNNING` will not do: it is also set while the state is still
/// unknown.)
const OPERATIONAL: u8 = 6;

/// How often to look for a carrier.
const CARRIER_POLL: Duration = Duration::from_millis(1);

/// The kernel builds dumps in parts of at most 32 KiB.
const BUFFER_BYTES: usize = 64 * 1024;

/// A dump that raced with a change is asked for again, this often at most.
const DUMP_ATTEMPTS_MAX: usize = 8;

const REQUEST: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
const CREATE: u16 = REQUEST | (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;

/// `IFLA_INET6_ADDR_GEN_MODE` and `IN6_ADDR_GEN_MODE_NONE` of linux/if_link.h.
const INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
/// `VETH_INFO_PEER` of linux/veth.h.
const VETH_INFO_PEER: u16 = 1;
/// The message text in an extended error (`NLMSGERR_ATTR_MSG` of linux/netlink.h).
const ERROR_TEXT: u16 = 1;
/// The answer repeats only the header of the request (`NLM_F_CAPPED` of linux/netlink.h).
const FLAG_CAPPED: u16 = 0x100;
/// The dump raced with a change (`NLM_F_DUMP_INTR` of linux/netlink.h).
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
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
            connection: Mutex::new(Connection::open()?),
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

    /// Takes an address from a device.
    pub fn del_address(&self, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
        let request = address_request(libc::RTM_DELADDR, REQUEST, index, address, prefix_len);
        let operation = format!("remove address {address}/{prefix_len} from device number {index}");
        self.execute(operation, request)
    }

    /// All unicast routes of all tables, the kernel's own included.
    pub fn routes(&self) -> Result<Vec<Route>> {
        self.dump("list the routes", libc::RTM_GETROUTE, &[0; 12], parse_route)
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

/// The socket and the number of the last request on it.
struct Connection {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Connection {
    fn open() -> Result<Self> {
        let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        sys::bind(&socket, &kernel())?;
        sys::set_receive_timeout(&socket, ANSWER_TIMEOUT)?;
        // Explanations in words came with Linux 4.12; without them the number has to do.
        let _ = sys::set_option(&socket, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1);
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Sends a request and waits for its acknowledgement.
    fn execute(&mut self, operation: String, request: Request) -> Result<()> {
        self.send(request)?;
        loop {
            let received = self.receive()?;
            for message in messages(&self.buffer[..received]) {
                if message.sequence != self.sequence || message.kind != libc::NLMSG_ERROR as u16 {
                    continue;
                }
                return match parse_acknowledgement(&message) {
                    Some((0, _)) => Ok(()),
                    Some((number, detail)) => Err(refused(
                        operation,
                        io::Error::from_raw_os_error(number),
                        detail,
                    )),
                    None => Err(NetlinkError::Malformed { operation }),
                };
            }
        }
    }

    /// Asks for a list; `None` when it raced with a change and is not consistent.
    fn dump<T>(
        &mut self,
        operation: &str,
        kind: u16,
        header: &[u8],
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        self.send(Request::new(kind, DUMP, header))?;
        let (mut found, mut consistent) = (Vec::new(), true);
        loop {
            let received = self.receive()?;
            for message in messages(&self.buffer[..received]) {
                if message.sequence != self.sequence {
                    continue;
                }
                consistent &= message.flags & FLAG_DUMP_INTERRUPTED == 0;
                match libc::c_int::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(consistent.then_some(found)),
                    libc::NLMSG_ERROR => {
                        let (number, detail) =
                            parse_acknowledgement(&message).ok_or_else(|| {
                                NetlinkError::Malformed {
                                    operation: operation.into(),
                                }
                            })?;
                        let source = io::Error::from_raw_os_error(number);
                        return Err(refused(operation.to_owned(), source, detail));
                    }
                    _ => found.extend(parse(message.body)),
                }
            }
        }
    }

    fn send(&mut self, request: Request) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        sys::send_to(&self.socket, &request.finish(self.sequence), &kernel())?;
        Ok(())
    }

    /// Receives the next datagram of the kernel; nobody else may answer.
    fn receive(&mut self) -> Result<usize> {
        loop {
            let (received, from): (usize, libc::sockaddr_nl) =
                sys::receive_from(&self.socket, &mut self.buffer, 0)?;
            if from.nl_pid == 0 {
                return Ok(received);
            }
        }
    }
}

/// Process 0 is the kernel; as our own address it means "choose one for me".
fn kernel() -> libc::sockaddr_nl {
    sys::zeroed_address(libc::AF_NETLINK)
}

/// Error number (0: done) and explanation.
fn parse_acknowledgement(message: &Message<'_>) -> Option<(i32, String)> {
    let number = (u32_at(message.body, 0)? as i32).wrapping_neg();
    // The request follows, whole or only its header, then the attributes.
    let request_len = if message.flags & FLAG_CAPPED != 0 {
        16
    } else {
        u32_at(message.body, 4)?
    };
    let rest = message
        .body
        .get(4 + (request_len as usize).next_multiple_of(4)..);
    let detail = attributes(rest.unwrap_or_default()).find(|(kind, _)| *kind == ERROR_TEXT);
    Some((
        number,
        detail
            .map(|(_, bytes)| message::text(bytes))
            .unwrap_or_default(),
    ))
}

fn no_device(operation: String) -> NetlinkError {
    refused(
        operation,
        io::Error::from_raw_os_error(libc::ENODEV),
        String::new(),
    )
}

fn refused(operation: String, source: io::Error, detail: String) -> NetlinkError {
    let refusal = match source.raw_os_error().unwrap_or(0) {
        libc::EEXIST => Refusal::Exists,
        libc::ENODEV | libc::ENXIO => Refusal::NoSuchDevice,
        libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENOENT => Refusal::NotThere,
        libc::EPERM | libc::EACCES => Refusal::Permission,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN => Refusal::Unreachable,
        libc::EBUSY | libc::EADDRINUSE => Refusal::Busy,
        libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT => Refusal::NotSupported,
        libc::EINVAL | libc::ERANGE => Refusal::Invalid,
        _ => Refusal::Other,
    };
    NetlinkError::Refused {
        operation,
        refusal,
        detail,
        source,
    }
}

/// `struct ifinfomsg`: family, padding, type, index, flags, mask of the flags to change.
fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

fn change_link(index: u32) -> Request {
    Request::new(libc::RTM_NEWLINK, REQUEST, &link_header(index, 0, 0))
}

fn new_link(name: &str) -> Request {
    Request::new(libc::RTM_NEWLINK, CREATE, &link_header(0, 0, 0)).text(libc::IFLA_IFNAME, name)
}

fn parse_link(body: &[u8]) -> Option<Link> {
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
    };
    let ethernet = u16_at(body, 2)? == libc::ARPHRD_ETHER;
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
fn address_request(kind: u16, flags: u16, index: u32, address: IpAddr, prefix_len: u8) -> Request {
    let mut header = [0; 8];
    header[0] = family(address);
    header[1] = prefix_len;
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    Request::new(kind, flags, &header)
        .address(libc::IFA_LOCAL, address)
        .address(libc::IFA_ADDRESS, address)
}

fn parse_address(body: &[u8]) -> Option<Address> {
    let (mut local, mut address) = (None, None);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
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
    })
}

/// `struct rtmsg`: family, destination length, source length, TOS, table, protocol, scope, type,
/// flags.
fn route_request(kind: u16, flags: u16, route: &Route) -> Request {
    let scope = if route.via.is_some() || route.destination.is_ipv6() {
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
    header[7] = libc::RTN_UNICAST;
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

fn parse_route(body: &[u8]) -> Option<Route> {
    let header = body.first_chunk::<12>()?;
    if header[7] != libc::RTN_UNICAST {
        return None;
    }
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
