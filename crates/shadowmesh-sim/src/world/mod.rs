//! The simulated world: hosts, the links between them, one clock, one seed.
//!
//! Nothing here waits: the world keeps a queue of what is to happen (a datagram arrives, a node
//! wants to be woken), jumps to the next of these moments, and hands it to the node concerned. After
//! every input a node is drained: its datagrams go through [links](crate::link) and come back as
//! later arrivals, its IP packets go to the [`Ledger`].
//!
//! Hosts may be put [behind middleboxes](World::put_behind): then their datagrams get rewritten
//! addresses, and what comes back must pass. `topology.rs` knows who is where.
//!
//! Where UDP does not pass, nodes get streams (`streams.rs`).
//!
//! A [tap](World::tap) sits on all links at once, outside of all boxes: it sees every datagram that is
//! about to reach a host if no box refuses it, and may change or swallow it. [`World::inject`] makes
//! datagrams appear from anywhere. Together they are the attacker.

mod flight;
mod host;
mod liar;
mod places;
mod run;
mod streams;
mod topology;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shadowmesh_crypto::Identity;
use shadowmesh_vpn::{Node, NodePeer, NodeRelay};
use shadowmesh_wire::overlay::{derived_ipv4, derived_ipv6};

pub use crate::ledger::HostId;
use crate::ledger::Ledger;
use crate::link::{Link, LinkProfile};
use crate::packet;
use crate::trace::Trace;
use flight::Flight;
pub use host::{Bare, Host, HostConfig};
pub use liar::{Envelope, Mischief};
use streams::{Message, Opening, Stream};
pub use topology::BoxId;
use topology::{Topology, Way};

/// A datagram on its way, as an observer of the network sees it.
#[derive(Clone, Debug)]
pub struct Passing {
    /// World time at which it was sent.
    pub at: Duration,
    /// Who sent it.
    pub from: HostId,
    /// Who is to get it.
    pub to: HostId,
    /// The sender's address, as it is outside of its boxes.
    pub remote: SocketAddr,
    /// The UDP payload.
    pub data: Vec<u8>,
}

/// Sees every datagram as it is sent; may change it; `false` swallows it.
pub type Tap = Box<dyn FnMut(&mut Passing) -> bool>;

/// The world.
pub struct World {
    /// Every packet sent with [`send`](Self::send) and what became of it.
    pub ledger: Ledger,
    /// What links are like that were not set one by one.
    pub default_link: LinkProfile,
    seed: u64,
    rng: StdRng,
    birth: Instant,
    now: Duration,
    hosts: Vec<Host>,
    topology: Topology,
    /// How many parts were cut off the internet so far.
    partitions: usize,
    links: BTreeMap<(HostId, HostId), Link>,
    /// Links of datagrams to an address of a box that leads to nobody, by sender.
    strays: BTreeMap<HostId, Link>,
    /// Streams by number; none is used twice.
    streams: BTreeMap<u64, Stream>,
    streams_opened: u64,
    /// Who is about to open a stream, and to whom.
    opening: BTreeSet<(HostId, HostId)>,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    /// The packet that is in what nodes send at this moment.
    cargo: Option<u64>,
    /// The most datagrams that a node had to send after one input.
    waiting_max: usize,
    wakes_at_this_instant: u32,
    tap: Option<Tap>,
    /// Relays that do not do what they should.
    liars: BTreeMap<HostId, Mischief>,
    trace: Trace,
}

/// Something that will happen; earlier first, and in the order scheduled within one instant.
#[derive(Debug)]
struct Scheduled {
    at: Duration,
    order: u64,
    what: Happening,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Scheduled {}

#[derive(Debug)]
enum Happening {
    /// A datagram made by the attacker reaches a host.
    Injection {
        to: HostId,
        remote: SocketAddr,
        data: Vec<u8>,
    },
    /// A datagram has crossed its link.
    Landing(Flight),
    Wake {
        host: HostId,
        boot: u64,
    },
    /// A relay passes on what it made of an envelope.
    Lie {
        relay: HostId,
        envelope: Envelope,
    },
    /// The time is over that it takes to open a stream.
    Opening(Opening),
    /// A datagram has come through a stream.
    Message(Message),
    /// The ends of a stream look whether anything still passes.
    StreamTick(u64),
    /// A host hears that the other end of its stream is gone.
    StreamEnd {
        host: HostId,
        boot: u64,
        number: u64,
    },
}

impl World {
    /// An empty world. Everything that follows is decided by the seed and by the code.
    pub fn new(seed: u64) -> Self {
        Self {
            ledger: Ledger::default(),
            default_link: LinkProfile::default(),
            seed,
            rng: StdRng::seed_from_u64(seed),
            birth: Instant::now(),
            now: Duration::ZERO,
            hosts: Vec::new(),
            topology: Topology::default(),
            partitions: 0,
            links: BTreeMap::new(),
            strays: BTreeMap::new(),
            streams: BTreeMap::new(),
            streams_opened: 0,
            opening: BTreeSet::new(),
            queue: BinaryHeap::new(),
            scheduled: 0,
            cargo: None,
            waiting_max: 0,
            wakes_at_this_instant: 0,
            tap: None,
            liars: BTreeMap::new(),
            trace: Trace::default(),
        }
    }

    /// Time since the world began.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The fingerprint of the run so far.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// The world's dice, for scenarios that want to draw too.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// Adds a machine with an identity and an address of its own; it is down until [`start`](Self::start).
    pub fn add_host(&mut self, config: HostConfig) -> HostId {
        let id = HostId(self.hosts.len());
        let identity = self.draw_identity();
        // Documentation and benchmark space (RFC 2544): clearly nobody's.
        let number = u16::try_from(id.0 + 1).expect("a world holds fewer than 65535 hosts");
        let [high, low] = number.to_be_bytes();
        let address = SocketAddr::from(([198, 18, high, low], 4433));
        self.hosts.push(Host::new(identity, address, config));
        self.topology.announce(None, address.ip(), Way::Host(id));
        id
    }

    /// Drawn again while another host derives the same IPv4 address: nodes refuse such a mesh.
    fn draw_identity(&mut self) -> Identity {
        loop {
            let [ml_dsa, ed25519]: [[u8; 32]; 2] = self.rng.random();
            let identity = Identity::from_seeds(&ml_dsa, &ed25519);
            let address = derived_ipv4(&identity.peer_id());
            if self
                .hosts
                .iter()
                .all(|host| derived_ipv4(&host.id()) != address)
            {
                return identity;
            }
        }
    }

    /// Two running hosts with the same settings that know each other.
    pub fn pair(&mut self, config: HostConfig) -> (HostId, HostId) {
        let (a, b) = (self.add_host(config.clone()), self.add_host(config));
        self.introduce(a, b);
        self.start(a);
        self.start(b);
        (a, b)
    }

    /// Lists each of the two hosts in the other's configuration; read at the next start.
    pub fn introduce(&mut self, a: HostId, b: HostId) {
        for (who, whom) in [(a, b), (b, a)] {
            let mut peer = self.peer_entry(whom);
            peer.underlay = self.addresses_for(who, whom);
            self.host_mut(who).peers.push(peer);
        }
    }

    /// Lists a relay in a host's configuration; read at the next start.
    pub fn use_relay(&mut self, host: HostId, relay: HostId) {
        let entry = NodeRelay {
            id: self.host(relay).id(),
            underlay: self.addresses_for(host, relay),
            known_key: None,
        };
        self.host_mut(host).relays.push(entry);
    }

    /// Makes a relay do with envelopes whatever it likes.
    pub fn corrupt(&mut self, relay: HostId, mischief: Mischief) {
        self.liars.insert(relay, mischief);
    }

    /// Makes a relay do what it should.
    pub fn reform(&mut self, relay: HostId) {
        self.liars.remove(&relay);
    }

    /// A configuration entry for a host: its id, its public addresses, and what is its own.
    pub fn peer_entry(&self, id: HostId) -> NodePeer {
        let host = self.host(id);
        NodePeer {
            underlay: self.public_addresses(id),
            name: Some(format!("host{}", id.0)),
            ..NodePeer::new(host.id())
        }
    }

    /// Starts (or restarts) a host's node.
    pub fn start(&mut self, id: HostId) {
        self.end_streams(id);
        let seed = self.rng.random();
        let now = self.clock_of(id);
        self.hosts[id.0].boot(seed, now, self.now);
        self.drain(id);
    }

    /// Kills a host's node, as `kill -9` would: nothing more is sent.
    pub fn kill(&mut self, id: HostId) {
        self.end_streams(id);
        self.hosts[id.0].node = None;
    }

    /// Sets the host's clock forward, as after a suspended laptop wakes: time passed that the
    /// others have lived through and it has not.
    pub fn jump_clock(&mut self, id: HostId, by: Duration) {
        self.hosts[id.0].clock_ahead += by;
        self.wake(id);
    }

    /// Sets both directions between two hosts.
    pub fn link(&mut self, a: HostId, b: HostId, profile: LinkProfile) {
        self.link_one_way(a, b, profile);
        self.link_one_way(b, a, profile);
    }

    /// Sets one direction between two hosts.
    pub fn link_one_way(&mut self, from: HostId, to: HostId, profile: LinkProfile) {
        self.links
            .entry((from, to))
            .or_insert_with(|| Link::new(profile))
            .profile = profile;
    }

    /// Puts an observer or attacker on all links; `None` takes it away.
    pub fn tap(&mut self, tap: Option<Tap>) {
        self.tap = tap;
    }

    /// A datagram reaches `to` right now and claims to come from `remote`.
    pub fn inject(&mut self, to: HostId, remote: SocketAddr, data: Vec<u8>) {
        self.schedule(self.now, Happening::Injection { to, remote, data });
    }

    /// A host.
    pub fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0]
    }

    /// A host, to change what it reads at the next start.
    pub fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0]
    }

    /// All hosts' numbers.
    pub fn host_ids(&self) -> impl Iterator<Item = HostId> + use<> {
        (0..self.hosts.len()).map(HostId)
    }

    /// Does something with a running node and handles what follows from it.
    pub fn with_node<R>(&mut self, id: HostId, act: impl FnOnce(&mut Node, Instant) -> R) -> R {
        let now = self.clock_of(id);
        let node = self.hosts[id.0].node.as_mut().expect("the host is running");
        let result = act(node, now);
        self.drain(id);
        result
    }

    /// Sends the shortest numbered IPv4 packet from one host's device to another's address.
    pub fn send(&mut self, from: HostId, to: HostId) -> u64 {
        let (source, destination) = (self.ipv4(from), self.ipv4(to));
        self.send_packet(from, to, source, destination, packet::len_min(&source))
    }

    /// Sends a numbered packet with these addresses and this length from a host's device. It is
    /// booked as being for `to`.
    pub fn send_packet(
        &mut self,
        from: HostId,
        to: HostId,
        source: IpAddr,
        destination: IpAddr,
        len: usize,
    ) -> u64 {
        let number = self.ledger.book(from, to, self.now);
        let packet = packet::numbered(source, destination, number, len);
        if self.host(from).is_up() {
            self.cargo = Some(number);
            self.with_node(from, |node, now| node.handle_device(&packet, now));
            self.cargo = None;
        }
        number
    }

    /// The most datagrams that a node ever had to send after one input.
    pub fn waiting_max(&self) -> usize {
        self.waiting_max
    }

    /// The derived IPv4 overlay address of a host.
    pub fn ipv4(&self, id: HostId) -> IpAddr {
        derived_ipv4(&self.host(id).id()).into()
    }

    /// The derived IPv6 overlay address of a host.
    pub fn ipv6(&self, id: HostId) -> IpAddr {
        derived_ipv6(&self.host(id).id()).into()
    }

    /// Sends from `a` to `b` until a packet comes out, and then back; false if either takes more
    /// than 20 s. Without a session before, `a` is the one that connects.
    pub fn settle(&mut self, a: HostId, b: HostId) -> bool {
        const TRIES: u32 = 40;
        const PATIENCE: Duration = Duration::from_millis(500);
        [(a, b), (b, a)].into_iter().all(|(from, to)| {
            (0..TRIES).any(|_| {
                let number = self.send(from, to);
                self.run_until(PATIENCE, |w| w.ledger.arrived(number))
            })
        })
    }

    /// Lets `time` pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done` holds, at most for `limit`. Returns whether it came to hold.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&World) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if !self.step(end) {
                self.now = end;
                return done(self);
            }
        }
        true
    }

    /// What a host's clock shows.
    pub fn clock_of(&self, id: HostId) -> Instant {
        self.birth + self.now + self.hosts[id.0].clock_ahead
    }
}
