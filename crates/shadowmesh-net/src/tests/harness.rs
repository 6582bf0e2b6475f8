//! A few nodes, one clock, one queue: the smallest world in which `Net` can be watched.
//!
//! The data plane of each node is played as the engine plays it: frames of known sessions are
//! opened by the snapshot, everything else goes to `Net`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shadowmesh_crypto::Identity;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::envelope;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::sealed::{HEADER_LEN, ReceiverIndex, TAG_LEN, receiver_index};
use shadowmesh_wire::way::Way;

use crate::{
    DataPlane, DropReason, Net, NetConfig, NetEvent, Outbound, PeerConfig, Plane, Received,
    Transmit, wrap,
};

/// Where the virtual clock begins; the value itself means nothing.
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant can be had in no other way"
)]
pub(crate) fn start() -> Instant {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    *START
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What a datagram is, as far as the sender knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// From [`World::send`].
    Data,
    /// From `Net`.
    Control,
}

/// A datagram under way.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub(crate) from: usize,
    pub(crate) source: SocketAddr,
    pub(crate) target: SocketAddr,
    pub(crate) kind: Kind,
    /// A router may cut it.
    pub(crate) may_fragment: bool,
    pub(crate) data: Vec<u8>,
}

pub(crate) struct Node {
    pub(crate) net: Net,
    pub(crate) address: SocketAddr,
    pub(crate) config: NetConfig,
    pub(crate) events: Vec<(Instant, NetEvent)>,
    pub(crate) packets: Vec<Vec<u8>>,
}

type Drop = Box<dyn FnMut(&Flight) -> bool>;

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    /// One-way delay of every datagram.
    pub(crate) delay: Duration,
    /// True: lost.
    pub(crate) lost: Drop,
    /// Everything that was sent, lost or not.
    pub(crate) log: Vec<Flight>,
    /// What each node wants of the peers it is introduced to.
    pub(crate) data_planes: Vec<DataPlane>,
    /// Every receiver index that a session had, for filters that tell sealed frames from QUIC.
    pub(crate) indices: Rc<RefCell<BTreeSet<ReceiverIndex>>>,
    queue: BTreeMap<(Instant, u64), Flight>,
    sequence: u64,
    pub(crate) rng: StdRng,
}

impl World {
    /// `n` nodes that do not know each other, in ascending order of PeerId.
    pub(crate) fn new(n: usize, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut identities: Vec<_> = (0..n)
            .map(|_| {
                Arc::new(Identity::from_seeds(
                    &rng.random::<[u8; 32]>(),
                    &rng.random::<[u8; 32]>(),
                ))
            })
            .collect();
        identities.sort_by_key(|identity| identity.peer_id());
        let nodes = identities
            .into_iter()
            .enumerate()
            .map(|(at, identity)| Node::new(identity, at, rng.random()))
            .collect();
        Self {
            now: start(),
            nodes,
            delay: ms(5),
            lost: Box::new(|_| false),
            log: Vec::new(),
            data_planes: vec![DataPlane::default(); n],
            indices: Rc::default(),
            queue: BTreeMap::new(),
            sequence: 0,
            rng,
        }
    }

    /// One more node, which knows nobody.
    pub(crate) fn add(&mut self) -> usize {
        let mut seed = || self.rng.random::<[u8; 32]>();
        let identity = Identity::from_seeds(&seed(), &seed());
        let node = Node::new(Arc::new(identity), self.nodes.len(), seed());
        self.nodes.push(node);
        self.data_planes.push(DataPlane::default());
        self.nodes.len() - 1
    }

    /// A copy of a node: the same identity on another machine, which knows nobody.
    pub(crate) fn add_copy(&mut self, of: usize) -> usize {
        let identity = self.nodes[of].config.identity.clone();
        let seed = self.rng.random();
        let mut node = Node::new(identity, self.nodes.len(), seed);
        node.config.boot = 1_000;
        node.net = Net::new(node.config.clone(), self.now).unwrap();
        self.nodes.push(node);
        self.data_planes.push(DataPlane::default());
        self.nodes.len() - 1
    }

    /// Two nodes that know each other's keys' names and addresses.
    pub(crate) fn pair(seed: u64) -> Self {
        Self::pair_with(seed, Default::default())
    }

    /// Two such nodes that want these data planes.
    pub(crate) fn pair_with(seed: u64, data_planes: [DataPlane; 2]) -> Self {
        let mut world = Self::new(2, seed);
        world.data_planes = data_planes.into();
        world.introduce(0, 1, true);
        world.introduce(1, 0, true);
        world
    }

    pub(crate) fn id(&self, node: usize) -> PeerId {
        self.nodes[node].net.peer_id()
    }

    /// Makes `other` a peer of `node`.
    pub(crate) fn introduce(&mut self, node: usize, other: usize, with_address: bool) {
        let address = with_address.then_some(self.nodes[other].address);
        let config = self.peer_config(node, other, address);
        let now = self.now;
        self.nodes[node].net.add_peer(config, now);
    }

    /// Makes `other` a relay of `node`.
    pub(crate) fn introduce_relay(&mut self, node: usize, other: usize) {
        let address = self.nodes[other].address;
        let config = self.peer_config(node, other, Some(address));
        let now = self.now;
        self.nodes[node].net.add_relay(config, now);
    }

    fn peer_config(&self, node: usize, other: usize, address: Option<SocketAddr>) -> PeerConfig {
        PeerConfig {
            id: self.id(other),
            addresses: address.into_iter().collect(),
            known_key: None,
            data_plane: self.data_planes[node],
            relay: false,
        }
    }

    /// Starts a node anew with another configuration.
    pub(crate) fn configure(&mut self, node: usize, change: impl FnOnce(&mut NetConfig)) {
        change(&mut self.nodes[node].config);
        self.restart(node);
    }

    pub(crate) fn connect(&mut self, node: usize, other: usize) {
        let id = self.id(other);
        self.nodes[node].net.connect(&id, self.now);
        self.collect(node);
    }

    /// Both connected and settled, from `node` to `other`.
    pub(crate) fn join(&mut self, node: usize, other: usize) {
        self.connect(node, other);
        assert!(self.run_until(ms(5_000), |world| world.is_up(node, other)));
        self.run(ms(500));
        assert!(self.is_up(other, node));
    }

    pub(crate) fn is_up(&self, node: usize, other: usize) -> bool {
        let forwarding = self.nodes[node].net.forwarding();
        forwarding.outbound(&self.id(other)).is_some()
    }

    /// Starts a node anew, with another boot and nothing in memory but its identity.
    pub(crate) fn restart(&mut self, node: usize) {
        let config = &mut self.nodes[node].config;
        config.boot += 1;
        config.seed = self.rng.random();
        let config = config.clone();
        self.nodes[node].net = Net::new(config, self.now).unwrap();
    }

    /// Sends an IP packet's worth of bytes through the session. False: there is none.
    pub(crate) fn send(&mut self, node: usize, other: usize, payload: &[u8]) -> bool {
        let forwarding = self.nodes[node].net.forwarding();
        let Some(outbound) = forwarding.outbound(&self.id(other)) else {
            return false;
        };
        if outbound.plane == Plane::Quic {
            let frame: Vec<u8> = [&[InnerType::IpPacket.into()], payload].concat();
            let (id, now) = (self.id(other), self.now);
            self.nodes[node].net.send_frames(&id, [frame.into()], now);
            self.collect(node);
            return true;
        }
        let frame = sealed(outbound, InnerType::IpPacket, payload);
        let socket = match &outbound.via {
            Some(via) => via.relay.socket,
            None => outbound.socket,
        };
        outbound.traffic.sent(1, payload.len() as u64);
        self.dispatch_from(
            node,
            socket,
            frame.remote,
            (Kind::Data, false),
            frame.contents,
        );
        true
    }

    /// Puts a datagram on the wire as if it came from `source`.
    pub(crate) fn inject(&mut self, source: SocketAddr, target: SocketAddr, data: Vec<u8>) {
        let flight = Flight {
            from: usize::MAX,
            source,
            target,
            kind: Kind::Control,
            may_fragment: false,
            data,
        };
        self.enqueue(flight);
    }

    /// The node's local port number n is n above where it listens.
    fn dispatch_from(
        &mut self,
        from: usize,
        socket: u16,
        target: SocketAddr,
        (kind, may_fragment): (Kind, bool),
        data: Vec<u8>,
    ) {
        let mut source = self.nodes[from].address;
        source.set_port(source.port() + socket);
        let flight = Flight {
            from,
            source,
            target,
            kind,
            may_fragment,
            data,
        };
        self.log.push(flight.clone());
        if !(self.lost)(&flight) {
            self.enqueue(flight);
        }
    }

    fn enqueue(&mut self, flight: Flight) {
        self.sequence += 1;
        self.queue
            .insert((self.now + self.delay, self.sequence), flight);
    }

    /// Fetches what a node has to send and to say.
    pub(crate) fn collect(&mut self, node: usize) {
        while let Some(event) = self.nodes[node].net.poll_event() {
            let now = self.now;
            self.nodes[node].events.push((now, event));
        }
        while let Some((received, frame)) = self.nodes[node].net.poll_early() {
            let now = self.now;
            self.nodes[node].judge_again(received, &frame, now);
        }
        self.nodes[node].net.assert_published();
        let forwarding = self.nodes[node].net.forwarding();
        self.indices.borrow_mut().extend(forwarding.indices());
        while let Some(transmit) = self.nodes[node].net.poll_transmit() {
            let len = transmit.segment_size.unwrap_or(transmit.contents.len());
            for datagram in transmit.contents.chunks(len.max(1)) {
                let sort = (Kind::Control, transmit.may_fragment);
                self.dispatch_from(
                    node,
                    transmit.socket,
                    transmit.remote,
                    sort,
                    datagram.to_vec(),
                );
            }
        }
        while let Some((_, frame)) = self.nodes[node].net.poll_frame() {
            self.nodes[node].packets.push(frame[1..].to_vec());
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Lets time pass until `done`; false if that does not happen within `limit`.
    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        for node in 0..self.nodes.len() {
            self.collect(node);
        }
        while !done(self) {
            let arrival = self.queue.keys().next().map(|&(at, _)| at);
            let timeout = self
                .nodes
                .iter()
                .filter_map(|node| node.net.poll_timeout().map(|(at, _)| at))
                .min();
            let next = [arrival, timeout].into_iter().flatten().min();
            match next {
                Some(at) if at <= end => self.step(at.max(self.now)),
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
        }
        true
    }

    fn step(&mut self, at: Instant) {
        self.now = at;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > at {
                break;
            }
            let flight = entry.remove();
            self.arrive(flight);
        }
        for node in 0..self.nodes.len() {
            if let Some((due, _)) = self.nodes[node].net.poll_timeout()
                && due <= at
            {
                self.nodes[node].net.handle_timeout(at);
                self.collect(node);
            }
        }
    }

    /// A datagram arrives at a node as said.
    pub(crate) fn arrive_at(&mut self, node: usize, received: Received, data: &[u8]) {
        self.nodes[node].judge(received, data, self.now);
        self.collect(node);
    }

    fn arrive(&mut self, flight: Flight) {
        let target = self
            .nodes
            .iter()
            .position(|node| node.socket_at(flight.target).is_some());
        if let Some(node) = target {
            self.nodes[node].receive(flight, self.now);
            self.collect(node);
        }
    }

    pub(crate) fn count(&self, node: usize, wanted: impl Fn(&NetEvent) -> bool) -> usize {
        let events = &self.nodes[node].events;
        events.iter().filter(|(_, event)| wanted(event)).count()
    }

    pub(crate) fn drops(&self, node: usize, reason: DropReason) -> u64 {
        self.nodes[node].net.drops().get(reason)
    }

    /// Sends a packet each way and says whether both arrived.
    pub(crate) fn traffic_flows(&mut self, a: usize, b: usize) -> bool {
        let before = (self.nodes[a].packets.len(), self.nodes[b].packets.len());
        let sent = self.send(a, b, b"from a") && self.send(b, a, b"from b");
        self.run(self.delay + ms(1));
        sent && self.nodes[a].packets.len() == before.0 + 1
            && self.nodes[b].packets.len() == before.1 + 1
    }
}

/// A frame of a session, ready for the wire.
pub(crate) fn sealed(outbound: &Outbound, kind: InnerType, body: &[u8]) -> Transmit {
    let mut datagram = vec![0; HEADER_LEN];
    datagram.push(kind.into());
    datagram.extend_from_slice(body);
    datagram.extend_from_slice(&[0; TAG_LEN]);
    let counter = outbound.sealer.reserve(1).unwrap();
    outbound.sealer.seal(counter, &mut datagram);
    let frame = Transmit {
        remote: outbound.remote,
        local_ip: None,
        socket: 0,
        ecn: None,
        may_fragment: false,
        segment_size: None,
        contents: datagram,
    };
    match &outbound.via {
        Some(via) => wrap(via, frame).unwrap(),
        None => frame,
    }
}

impl Node {
    fn new(identity: Arc<Identity>, at: usize, seed: [u8; 32]) -> Self {
        let config = NetConfig {
            rekey_interval: Duration::from_secs(10),
            unix_time: Duration::from_secs(1_800_000_000),
            ..NetConfig::new(identity, seed, 1)
        };
        Self {
            net: Net::new(config.clone(), start()).unwrap(),
            address: ([192, 0, 2, at as u8 + 1], 4433).into(),
            config,
            events: Vec::new(),
            packets: Vec::new(),
        }
    }

    /// The number of the local port at this address.
    fn socket_at(&self, address: SocketAddr) -> Option<u16> {
        let socket = address.port().checked_sub(self.address.port())?;
        (address.ip() == self.address.ip() && matches!(socket, 0 | 1_000..2_000)).then_some(socket)
    }

    fn receive(&mut self, flight: Flight, now: Instant) {
        let received = Received {
            socket: self.socket_at(flight.target).unwrap_or(0),
            ..Received::from_remote(flight.source)
        };
        self.judge(received, &flight.data, now);
    }

    /// A frame that waited for its session: never given to `Net` once more.
    fn judge_again(&mut self, received: Received, data: &[u8], now: Instant) {
        let forwarding = self.net.forwarding();
        match receiver_index(data).and_then(|index| forwarding.inbound(index)) {
            Some(_) => self.judge(received, data, now),
            None => self.net.drops().count(DropReason::StaleSnapshot),
        }
    }

    fn judge(&mut self, received: Received, data: &[u8], now: Instant) {
        let forwarding = self.net.forwarding();
        let inbound = receiver_index(data).and_then(|index| forwarding.inbound(index));
        let Some(inbound) = inbound else {
            let data = BytesMut::from(data);
            return self.net.handle_datagram(received, data, now);
        };
        let mut data = data.to_vec();
        let authentic = inbound.opener.open(&mut data, inbound.window.highest());
        let opened = authentic.and_then(|frame| inbound.window.lock().accept(&frame));
        match opened {
            Ok(opened) => {
                let inner = &data[opened.inner];
                inbound.traffic.received(1, inner.len() as u64 - 1);
                if inner[0] == u8::from(InnerType::IpPacket) {
                    self.packets.push(inner[1..].to_vec());
                } else if inner[0] == u8::from(InnerType::Relayed) {
                    let (label, inside) = envelope::decode(&inner[1..]).unwrap();
                    let Some(slot) = inbound.relay_slot.filter(|_| !received.is_relayed()) else {
                        return self.net.drops().count(DropReason::RelayNotOurs);
                    };
                    let remote = Way::Relayed { slot, label }.address();
                    let inside = inside.to_vec();
                    self.judge(received.over_relay(remote), &inside, now);
                } else {
                    self.net.handle_inner(&inbound.peer, received, inner, now);
                }
            }
            Err(_) => self.net.drops().count(DropReason::SealForged),
        }
    }
}
