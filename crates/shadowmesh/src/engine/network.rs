//! What the host's network has to say to the node: addresses of ours, changes, neighbours.
//!
//! A thread of its own beside control, which is told in few words: whatever takes time or waits for the
//! kernel happens here. Where something of it does not exist or fails (no netlink on this platform, a
//! port that is taken), the rest goes on without: a node that nobody tells of changes still finds out
//! from silence.
//!
//! Of what the kernel says about changes only that counts after which the host's links, addresses or
//! routes are not what they were. Routers repeat themselves, and other tunnels come and go.

use std::collections::BTreeSet;
use std::future;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use shadowmesh_io::netlink::{self, Address, Change, Handle, Link, Monitor, ROUTE_PROTOCOL, Route};
use shadowmesh_io::poll::{self, Watch};
use shadowmesh_io::wake::WakeWatch;
use shadowmesh_net::{AddressKind, OwnAddress};
use shadowmesh_wire::PeerId;
use tokio::sync::mpsc;

use super::host::{Host, HostView};
use super::lan::{Heard, Lan};
use super::port_map::PortMap;
use super::stop::Stop;

/// What follows the first of several changes belongs to it: a cable that is plugged in brings a link,
/// addresses and routes within milliseconds.
const PAUSE: Duration = Duration::from_millis(50);
/// Where changes do not end, each pause is twice as long as the last, up to this.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// After so much calm the pause is short again.
const CALM: Duration = Duration::from_secs(10);
/// Limit: routes remembered to tell a new one from one that is said again. Beyond it (a router with
/// the routes of the internet) only default routes count.
const ROUTES_MAX: usize = 1024;
/// How often the host is looked after where the kernel tells of no change.
const HOST_UNWATCHED: Duration = Duration::from_secs(5);
/// Limit: what control has not taken yet.
const FOUND_MAX: usize = 64;

/// What the thread is started with.
pub struct NetworkOptions {
    /// Who we are.
    pub own: PeerId,
    /// Who may be on our networks.
    pub peers: Vec<PeerId>,
    /// Where we listen.
    pub listen: Vec<SocketAddr>,
    /// Where others reach us, by the configuration.
    pub announce: Vec<SocketAddr>,
    /// The number of the tunnel's own device.
    pub device: u32,
    /// What is set on the host for it.
    pub host: Option<Arc<Host>>,
    /// Whether to look for peers on local networks.
    pub lan_discovery: bool,
    /// Whether to ask the router for a port.
    pub port_mapping: bool,
}

/// Something for the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Where we can be reached now.
    Addresses(Vec<OwnAddress>),
    /// Links, addresses or routes are not what they were, or the machine slept.
    Changed,
    /// A peer is on one of our networks, by its own word.
    Heard(Heard),
    /// What is set on the host is not what it was.
    Host(HostView),
}

/// What a thread has found.
#[derive(Debug)]
enum Found {
    /// Addresses of this host.
    Own(Vec<OwnAddress>),
    /// What the router leads to us, if anything.
    Mapped(Option<OwnAddress>),
    Changed,
    Heard(Heard),
    Host(HostView),
}

/// The running threads.
pub struct Network {
    found: mpsc::Receiver<Found>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
    port_map: Option<PortMap>,
    /// Of this host, and of the router.
    own: Vec<OwnAddress>,
    mapped: Option<OwnAddress>,
    announced: Vec<OwnAddress>,
}

/// What the configuration says of where others reach us.
// PROTOCOL SM-PA-15
pub fn announced(addresses: &[SocketAddr]) -> Vec<OwnAddress> {
    let kind = AddressKind::Announced;
    let own = |address: &SocketAddr| OwnAddress {
        address: *address,
        kind,
    };
    addresses.iter().map(own).collect()
}

impl Network {
    /// Starts the thread; the first news are our addresses.
    pub fn start(options: NetworkOptions) -> io::Result<Self> {
        let (sender, found) = mpsc::channel(FOUND_MAX);
        let stop = Arc::new(Stop::new()?);
        let port_map = start_port_map(&options, &sender)?;
        let announced = announced(&options.announce);
        let watcher = Watcher::new(options, sender, Arc::clone(&stop));
        let builder = thread::Builder::new().name("network".into());
        let thread = builder.spawn(move || watcher.run())?;
        Ok(Self {
            found,
            stop,
            thread: Some(thread),
            port_map,
            own: Vec::new(),
            mapped: None,
            announced,
        })
    }

    /// The next news. Never returns when there can be none.
    pub async fn news(&mut self) -> News {
        let Some(found) = self.found.recv().await else {
            return future::pending().await;
        };
        match found {
            Found::Own(own) => self.own = own,
            Found::Mapped(mapped) => self.mapped = mapped,
            Found::Changed => {
                if let Some(port_map) = &self.port_map {
                    port_map.network_changed();
                }
                return News::Changed;
            }
            Found::Heard(heard) => return News::Heard(heard),
            Found::Host(view) => return News::Host(view),
        }
        let all = self.announced.iter().chain(&self.own).copied();
        News::Addresses(all.chain(self.mapped).collect())
    }
}

/// For the IPv4 port at which we listen, if it is wanted.
fn start_port_map(
    options: &NetworkOptions,
    found: &mpsc::Sender<Found>,
) -> io::Result<Option<PortMap>> {
    let is_wanted = |listen: &&SocketAddr| {
        options.port_mapping && listen.is_ipv4() && !listen.ip().is_loopback()
    };
    let Some(listen) = options.listen.iter().find(is_wanted) else {
        return Ok(None);
    };
    let found = found.clone();
    let tell = move |external: Option<SocketAddrV4>| {
        let mapped = external.map(|address| OwnAddress {
            address: address.into(),
            kind: AddressKind::Mapped,
        });
        // Control may be gone.
        let _ = found.blocking_send(Found::Mapped(mapped));
    };
    PortMap::start(listen.port(), tell).map(Some)
}

impl Drop for Network {
    fn drop(&mut self) {
        // Either may wait for room for what it found.
        self.found.close();
        self.port_map = None;
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there; the way down is the same.
            let _ = thread.join();
        }
    }
}

/// What the thread works with.
struct Watcher {
    options: NetworkOptions,
    found: mpsc::Sender<Found>,
    stop: Arc<Stop>,
    /// This and the next two: `None` where the platform has none, or it failed.
    netlink: Option<Handle>,
    monitor: Option<Monitor>,
    wake: Option<WakeWatch>,
    lan: Option<Lan>,
    picture: Picture,
    routes: Routes,
    pace: Pace,
    /// Something has changed, and what belongs to it should be there by then.
    settled_at: Option<Instant>,
    told: Vec<OwnAddress>,
    /// How it stood with the host when it was told.
    view: HostView,
    /// When to look after the host again though nothing tells of a change.
    host_due: Option<Instant>,
}

impl Watcher {
    fn new(options: NetworkOptions, found: mpsc::Sender<Found>, stop: Arc<Stop>) -> Self {
        let now = Instant::now();
        // Before the first look, so that nothing falls between.
        let monitor = Monitor::new();
        if let Err(error) = &monitor {
            tracing::debug!(%error, "the host's network is not watched");
        }
        let lan = options
            .lan_discovery
            .then(|| Lan::open(&options.own, &options.peers, &options.listen, now));
        Self {
            netlink: Handle::new().ok(),
            monitor: monitor.ok(),
            wake: WakeWatch::new().ok(),
            lan,
            picture: Picture::default(),
            routes: Routes::default(),
            pace: Pace::new(now),
            settled_at: None,
            told: Vec::new(),
            view: options
                .host
                .as_ref()
                .map(|host| host.view())
                .unwrap_or_default(),
            host_due: None,
            options,
            found,
            stop,
        }
    }

    fn run(mut self) {
        self.look();
        self.tell_addresses();
        // What changed between the setting up and the first word of the kernel.
        self.look_after_host(Instant::now());
        while !self.stop.is_set() {
            if let Err(error) = self.wait() {
                tracing::debug!(%error, "the host's network is watched no longer");
                return;
            }
            self.take_changes();
            self.take_sleep();
            let now = Instant::now();
            if self.settled_at.is_some_and(|at| at <= now) {
                self.settle();
                self.look_after_host(now);
            } else if self.host_due.is_some_and(|at| at <= now) {
                self.look_after_host(now);
            }
            self.take_neighbours(now);
        }
    }

    /// Sleeps until there is something to do.
    fn wait(&self) -> io::Result<()> {
        let mut watches = vec![Watch::readable(self.stop.waker())];
        watches.extend(self.monitor.as_ref().map(Watch::readable));
        watches.extend(self.wake.as_ref().map(Watch::readable));
        let sockets = self.lan.iter().flat_map(Lan::sockets);
        watches.extend(sockets.map(Watch::readable));
        let due = self.lan.as_ref().map(Lan::due);
        let next = due.into_iter().chain(self.settled_at).chain(self.host_due);
        let next = next.min();
        let left = next.map(|at| at.saturating_duration_since(Instant::now()));
        poll::wait(&mut watches, left).map(drop)
    }

    fn take_changes(&mut self) {
        let Some(monitor) = &mut self.monitor else {
            return;
        };
        let device = self.options.device;
        match monitor.take() {
            Ok(changes) => {
                for change in changes {
                    let counts = match change {
                        Change::Link | Change::Address | Change::Rule | Change::Lost => true,
                        Change::RouteAdded(route) => self.routes.added(&route, device),
                        Change::RouteRemoved(route) => {
                            self.routes.removed(&route, device) || is_ours(&route, device)
                        }
                    };
                    if counts && self.settled_at.is_none() {
                        let now = Instant::now();
                        self.settled_at = Some(now + self.pace.pause(now));
                    }
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the host's network is not watched any longer");
                self.monitor = None;
            }
        }
    }

    fn take_sleep(&mut self) {
        let Some(wake) = &mut self.wake else {
            return;
        };
        match wake.slept() {
            Ok(Some(slept)) => {
                tracing::debug!(?slept, "this machine slept");
                self.look();
                self.tell_change();
            }
            // The clock was set, or nothing happened.
            Ok(None) => {}
            Err(_) => self.wake = None,
        }
    }

    /// What belongs to a change is there: looks, and tells if anything is not as it was.
    fn settle(&mut self) {
        self.settled_at = None;
        if self.look() | self.routes.take_news() {
            tracing::debug!("the host's network changed");
            self.tell_change();
        }
    }

    /// Others may have changed what is set for the node, or the host entered a network of the overlay's.
    // PROTOCOL SM-DV-6
    fn look_after_host(&mut self, now: Instant) {
        let Some(host) = self.options.host.clone() else {
            return;
        };
        self.host_due = host.keep(now);
        if self.monitor.is_none() {
            let unwatched = now + HOST_UNWATCHED;
            self.host_due = Some(self.host_due.map_or(unwatched, |at| at.min(unwatched)));
        }
        let view = host.view();
        if view != self.view {
            self.view = view.clone();
            self.tell(Found::Host(view));
        }
    }

    fn take_neighbours(&mut self, now: Instant) {
        let Some(lan) = &mut self.lan else {
            return;
        };
        if lan.due() <= now {
            lan.speak(now);
        }
        for heard in lan.hear(now) {
            self.tell(Found::Heard(heard));
        }
    }

    /// Takes in links and addresses; whether they are not what they were.
    fn look(&mut self) -> bool {
        let Some(picture) = self.netlink.as_ref().and_then(Picture::take) else {
            return false;
        };
        let device = self.options.device;
        let differs = picture.differs_from(&self.picture, device);
        self.picture = picture;
        if let Some(lan) = self.lan.as_mut().filter(|_| differs) {
            let Picture { links, addresses } = &self.picture;
            lan.set_links(links, addresses, device, Instant::now());
        }
        differs
    }

    fn tell_change(&mut self) {
        self.tell_addresses();
        self.tell(Found::Changed);
    }

    fn tell_addresses(&mut self) {
        let addresses = self.own_addresses();
        if addresses != self.told {
            self.told.clone_from(&addresses);
            self.tell(Found::Own(addresses));
        }
    }

    fn own_addresses(&self) -> Vec<OwnAddress> {
        let Picture { links, addresses } = &self.picture;
        let own = netlink::own_addresses(links, addresses, self.options.device);
        reachable(&self.options.listen, &own)
    }

    fn tell(&self, found: Found) {
        // Control may be gone, and this thread with it before long.
        let _ = self.found.blocking_send(found);
    }
}

/// The host's addresses with the ports at which we listen there.
fn reachable(listen: &[SocketAddr], own: &[netlink::OwnAddress]) -> Vec<OwnAddress> {
    let bound_to = |ip: &IpAddr, socket: &SocketAddr| {
        socket.ip() == *ip || (socket.ip().is_unspecified() && socket.is_ipv4() == ip.is_ipv4())
    };
    let with_port = |own: &netlink::OwnAddress| {
        let socket = listen.iter().find(|socket| bound_to(&own.ip, socket))?;
        Some(OwnAddress {
            address: SocketAddr::new(own.ip, socket.port()),
            kind: match own.tunnelled {
                true => AddressKind::Tunnel,
                false => AddressKind::Host,
            },
        })
    };
    own.iter().filter_map(with_port).collect()
}

/// Links and addresses of the host at one moment.
#[derive(Debug, Default)]
struct Picture {
    links: Vec<Link>,
    addresses: Vec<Address>,
}

impl Picture {
    fn take(netlink: &Handle) -> Option<Self> {
        match (netlink.links(), netlink.addresses()) {
            (Ok(links), Ok(addresses)) => Some(Self { links, addresses }),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(%error, "the host's links and addresses are not known");
                None
            }
        }
    }

    /// Whether anything that carries datagrams is different; `device` does not.
    fn differs_from(&self, other: &Self, device: u32) -> bool {
        let links = |picture: &Self| -> Vec<_> {
            let links = picture.links.iter().filter(|link| link.index != device);
            links
                .map(|link| (link.index, link.up, link.carrier, link.master))
                .collect()
        };
        let addresses = |picture: &Self| -> Vec<_> {
            let addresses = picture.addresses.iter().copied();
            addresses
                .filter(|address| address.index != device)
                .collect()
        };
        links(self) != links(other) || addresses(self) != addresses(other)
    }
}

/// Routes of which the kernel has spoken.
#[derive(Debug, Default)]
struct Routes {
    /// Limit: [`ROUTES_MAX`].
    known: BTreeSet<RouteKey>,
    /// There was a change that nobody was told of.
    news: bool,
}

type RouteKey = (IpAddr, u8, Option<u32>, Option<IpAddr>, u32);

impl Routes {
    /// A route was added; whether that is a change.
    fn added(&mut self, route: &Route, device: u32) -> bool {
        let is_change = self.concerns(route, device) && self.known.insert(key(route));
        self.note(is_change)
    }

    /// A route was removed; whether that is a change.
    fn removed(&mut self, route: &Route, device: u32) -> bool {
        let is_change = self.concerns(route, device);
        self.known.remove(&key(route));
        self.note(is_change)
    }

    /// Whether there was a change since the last call.
    fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    fn note(&mut self, is_change: bool) -> bool {
        self.news |= is_change;
        is_change
    }

    fn concerns(&self, route: &Route, device: u32) -> bool {
        let has_room = route.prefix_len == 0 || self.known.len() < ROUTES_MAX;
        !is_ours(route, device) && has_room
    }
}

/// Of this node, or of another on this host.
fn is_ours(route: &Route, device: u32) -> bool {
    route.index == Some(device) || route.protocol == ROUTE_PROTOCOL
}

fn key(route: &Route) -> RouteKey {
    let Route {
        destination,
        prefix_len,
        index,
        via,
        table,
        ..
    } = *route;
    (destination, prefix_len, index, via, table)
}

/// How long to wait for what belongs to a change.
#[derive(Debug)]
struct Pace {
    pause: Duration,
    last: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self {
            pause: PAUSE / 2,
            last: now,
        }
    }

    fn pause(&mut self, now: Instant) -> Duration {
        self.pause = match now.saturating_duration_since(self.last) < CALM {
            true => (self.pause * 2).min(PAUSE_MAX),
            false => PAUSE,
        };
        self.last = now;
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: u32 = 9;

    /// A route that the host made, not a node.
    fn route(destination: [u8; 4], prefix_len: u8, index: u32) -> Route {
        Route {
            protocol: 0,
            ..Route::to_device(destination.into(), prefix_len, index)
        }
    }

    #[test]
    fn an_address_is_told_with_the_port_of_the_socket_that_takes_what_comes_to_it() {
        let own = ["192.0.2.1", "198.51.100.1", "2001:db8::1"].map(|ip| netlink::OwnAddress {
            ip: ip.parse().unwrap(),
            tunnelled: false,
        });
        let listen = ["198.51.100.1:5000", "0.0.0.0:4433"].map(|at| at.parse().unwrap());
        let told = |listen: &[SocketAddr]| -> Vec<String> {
            let found = reachable(listen, &own);
            found.iter().map(|own| own.address.to_string()).collect()
        };
        assert_eq!(told(&listen), ["192.0.2.1:4433", "198.51.100.1:5000"]);
        assert_eq!(told(&listen[..1]), ["198.51.100.1:5000"]);
        assert_eq!(told(&["[::]:7".parse().unwrap()]), ["[2001:db8::1]:7"]);
    }

    #[test]
    fn a_route_that_is_said_again_and_those_into_the_tunnel_are_no_change() {
        let mut routes = Routes::default();
        let other = route([0; 4], 0, 2);
        assert!(routes.added(&other, DEVICE));
        assert!(!routes.added(&other, DEVICE));
        assert!(routes.removed(&other, DEVICE));
        assert!(routes.added(&other, DEVICE));
        let ours = route([10, 100, 0, 0], 16, DEVICE);
        assert!(!routes.added(&ours, DEVICE) && !routes.removed(&ours, DEVICE));
        assert!(routes.take_news() && !routes.take_news());
    }

    #[test]
    fn where_routes_are_many_only_default_routes_count() {
        let mut routes = Routes::default();
        let mut add = |number: u32| {
            let [_, _, high, low] = number.to_be_bytes();
            routes.added(&route([11, high, low, 0], 24, 2), DEVICE)
        };
        let changes = (0..2 * ROUTES_MAX as u32).filter(|number| add(*number));
        assert_eq!(changes.count(), ROUTES_MAX);
        assert_eq!(routes.known.len(), ROUTES_MAX);
        assert!(routes.added(&route([0; 4], 0, 2), DEVICE));
    }

    #[test]
    fn changes_that_do_not_end_are_looked_at_less_and_less_often() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(pace.pause(now), PAUSE);
        let mut waited = Duration::ZERO;
        let mut looks = 0;
        while waited < Duration::from_secs(60) {
            let pause = pace.pause(now);
            now += pause;
            waited += pause;
            looks += 1;
        }
        assert!(looks < 40, "{looks} looks in a minute");
        assert_eq!(pace.pause(now + CALM), PAUSE);
    }
}
