//! One node of the mesh: `net` below, the device above, and the rule of who may speak to whom in
//! between. It speaks the five words of every machine here; one file for each kind of input:
//!
//! - `device`: IP packets the device hands us, and the queue for those without a session yet;
//! - `datagram`: what the network hands us;
//! - `status`: what people want to know.
//!
//! After any `handle_*` call, drain `poll_transmit`, `poll_device` and `poll_event` until they are
//! empty, then wait until `poll_timeout` or the next input.

mod datagram;
mod device;
mod status;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use shadowmesh_crypto::HandshakeCounters;
use shadowmesh_net::{
    Connectivity, DataPlane, DropCounters, DropReason, Net, NetError, NetEvent, OwnAddress,
    PathReport, PeerConfig, Transmit,
};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::ControlMessage;
use shadowmesh_wire::prefix::IpPrefix;

use crate::config::{ConfigError, NodeConfig, NodePeer, NodeRelay};
use crate::demand::DemandQueue;
use crate::members::Members;
use crate::oversize::TooBigSignals;
use crate::snapshot::Snapshot;
pub use status::{NodePeerStatus, NodeStatus};

/// The node. See the [module](self).
pub struct Node {
    net: Net,
    members: Arc<Members>,
    snapshot: Arc<Snapshot>,
    demand: DemandQueue,
    /// Sealed frames of the slow path; bounded by the demand queue and by one for each input.
    transmits: VecDeque<Transmit>,
    /// IP packets for the device, those of the datagrams handled since the last drain, and those that came
    /// before their session.
    to_device: VecDeque<Bytes>,
    /// Tells local senders of packets too long for their path.
    signals: TooBigSignals,
    /// Limit: the configuration's.
    relays: Vec<NodeRelay>,
}

impl Node {
    /// Builds the node; nothing is sent before the first demand.
    pub fn new(config: NodeConfig, now: Instant) -> Result<Self, ConfigError> {
        let own_id = config.net.identity.peer_id();
        let members = Members::new(own_id, &config.addresses, config.peers)?;
        let mut net = Net::new(config.net, now)?;
        net.set_overlay(members.own_networks(), members.peers_networks());
        for peer in members.peers() {
            net.add_peer(net_peer(peer, &config.relays), now);
        }
        for relay in &config.relays {
            if members.peer(&relay.id).is_none() {
                net.add_relay(net_relay(relay), now);
            }
        }
        let members = Arc::new(members);
        let snapshot = Arc::new(Snapshot::new(0, members.clone(), net.forwarding()));
        let (transmits, to_device) = Default::default();
        let mut node = Self {
            net,
            members,
            snapshot,
            demand: DemandQueue::default(),
            transmits,
            to_device,
            signals: TooBigSignals::default(),
            relays: config.relays,
        };
        node.drain_net(now);
        Ok(node)
    }

    /// Adds a peer while running.
    pub fn add_peer(&mut self, peer: NodePeer, now: Instant) -> Result<(), ConfigError> {
        let members = self.members.with(peer.clone())?;
        self.members = Arc::new(members);
        self.tell_overlay();
        self.net.add_peer(net_peer(&peer, &self.relays), now);
        self.net.keep(&peer.id, now);
        self.drain_net(now);
        self.remake_snapshot();
        Ok(())
    }

    // PROTOCOL SM-OV-4
    /// Removes a peer: its session, its routes and what waits for it. False if there is none.
    pub fn remove_peer(&mut self, id: &PeerId, now: Instant) -> bool {
        if self.members.peer(id).is_none() {
            return false;
        }
        self.members = Arc::new(self.members.without(id));
        self.tell_overlay();
        let waiting = self.demand.take(id).count();
        self.net
            .drops()
            .add(DropReason::RemovedPeer, waiting as u64);
        self.net.remove_peer(id, now);
        self.drain_net(now);
        self.remake_snapshot();
        true
    }

    /// Starts a session with a peer unless there is one.
    pub fn connect(&mut self, id: &PeerId, now: Instant) {
        self.net.connect(id, now);
        self.drain_net(now);
    }

    /// From now on every peer and relay is called until there is a session with it, and again when that ends:
    /// what a node does when it begins. So a machine behind a NAT that has nothing to send can be reached at any
    /// time, and peers that met it in an earlier life learn at once that it is back.
    // PROTOCOL SM-PA-4
    pub fn connect_all(&mut self, now: Instant) {
        let members = self.members.clone();
        for peer in members.peers() {
            self.net.keep(&peer.id, now);
        }
        for relay in &self.relays {
            self.net.keep(&relay.id, now);
        }
        self.drain_net(now);
    }

    /// Sends a probe through the tunnel; the answer comes as [`NetEvent::PingReply`] with this token.
    pub fn ping(&mut self, id: &PeerId, now: Instant) -> Result<u64, NetError> {
        let token = self.net.ping(id, now);
        self.drain_net(now);
        token
    }

    /// Sends a message on the control stream of the session with a peer.
    pub fn send_control(
        &mut self,
        id: &PeerId,
        message: &ControlMessage,
        now: Instant,
    ) -> Result<(), NetError> {
        let sent = self.net.send_control(id, message, now);
        self.drain_net(now);
        sent
    }

    /// Where we can be reached, as far as the host knows.
    pub fn set_own_addresses(&mut self, addresses: Vec<OwnAddress>, now: Instant) {
        self.net.set_own_addresses(addresses, now);
        self.drain_net(now);
    }

    /// What the host makes of the overlay: networks within it that the host reaches without us, and whether
    /// our own datagrams are kept out of the tunnel.
    pub fn set_host(&mut self, networks: Vec<IpPrefix>, apart: bool) {
        self.net.set_host(networks, apart);
    }

    /// The port of the further socket by which clients of this relay ask a second time, if the host opened one.
    pub fn set_second_port(&mut self, port: Option<u16>) {
        self.net.set_second_port(port);
    }

    /// A link, an address or a route of the host changed, or the host slept.
    pub fn network_changed(&mut self, now: Instant) {
        self.net.network_changed(now);
        self.drain_net(now);
    }

    /// Better ways are looked for now, and peers without a session are called.
    pub fn search_now(&mut self, now: Instant) {
        self.net.search_now(now);
        self.drain_net(now);
    }

    /// A way to a peer or a relay was found; it is tried.
    pub fn learn_address(&mut self, id: &PeerId, address: SocketAddr, now: Instant) {
        self.net.learn_address(id, address, now);
        self.drain_net(now);
    }

    /// A stream of the host's ended.
    pub fn stream_down(&mut self, address: SocketAddr, now: Instant) {
        self.net.stream_down(address, now);
        self.drain_net(now);
    }

    /// The ways to a peer or relay, the best first, and what became of them.
    pub fn path_report(&self, id: &PeerId, now: Instant) -> Option<PathReport> {
        self.net.path_report(id, now)
    }

    /// How peers were reached.
    pub fn connectivity(&self) -> &Arc<Connectivity> {
        self.net.connectivity()
    }

    /// What we relay: clients that have a session and are no peers, and what was passed on for everybody
    /// together, datagrams and their bytes.
    pub fn relay_totals(&self) -> (usize, u64, u64) {
        self.net.relay_totals()
    }

    /// Tells the peers that we leave; afterwards only `poll_transmit` is of use.
    pub fn shutdown(&mut self, now: Instant) {
        self.net.shutdown(now);
        self.drain_net(now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let expired = self.demand.expire(now);
        self.net
            .drops()
            .add(DropReason::WaitingExpired, expired as u64);
        self.net.handle_timeout(now);
        self.drain_net(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, and why.
    pub fn poll_timeout(&mut self) -> Option<(Instant, &'static str)> {
        let demand = self
            .demand
            .next_expiry()
            .map(|at| (at, "a packet has waited too long for its session"));
        [self.net.poll_timeout(), demand]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    /// A datagram to send. `net`'s come first: the frames that were waiting for a session must not
    /// overtake the message that lets the peer open them.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.net
            .poll_transmit()
            .or_else(|| self.transmits.pop_front())
    }

    /// An IP packet for the device.
    pub fn poll_device(&mut self) -> Option<Bytes> {
        self.to_device.pop_front()
    }

    /// What happened with a peer. That there is another [`snapshot`](Self::snapshot) is no event: look at
    /// [`snapshot_version`](Self::snapshot_version).
    pub fn poll_event(&mut self) -> Option<NetEvent> {
        self.net.poll_event()
    }

    /// What was dropped so far, by reason; the data threads count into it too.
    pub fn drops(&self) -> &Arc<DropCounters> {
        self.net.drops()
    }

    /// Bytes of what peers have begun to send and not finished, which has a limit for all together.
    pub fn held_bytes(&self) -> usize {
        self.net.held_bytes()
    }

    /// Post-quantum work done so far, for whoever wants to see that a flood causes none.
    pub fn handshake_counters(&self) -> &Arc<HandshakeCounters> {
        self.net.handshake_counters()
    }

    /// The picture the data threads work on. To be given to them before what
    /// [`poll_transmit`](Self::poll_transmit) returns is sent, whenever its version is another one.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }

    /// Which picture [`snapshot`](Self::snapshot) is; it counts up with every change.
    // PROTOCOL SM-OV-6
    pub fn snapshot_version(&self) -> u64 {
        self.snapshot.version()
    }

    /// No way to a peer may lead through the tunnel.
    fn tell_overlay(&mut self) {
        let members = &self.members;
        self.net
            .set_overlay(members.own_networks(), members.peers_networks());
    }

    /// Takes what `net` has to say; to be called after every call into it.
    ///
    /// It comes to an end. Of each datagram at most two layers are judged, the frame of a relay and what it
    /// holds, and each layer by `net` once and here once more, when it waited for its session. Every turn of
    /// the loop uses up one frame that waited, and can make wait only what lies inside it, which is shorter
    /// and holds no other. None is put back: what is still no frame of the present picture is dropped.
    // PROTOCOL SM-OV-6
    fn drain_net(&mut self, now: Instant) {
        self.renew_snapshot(now);
        while let Some((received, frame)) = self.net.poll_early() {
            self.judge_again(received, frame, now);
            self.renew_snapshot(now);
        }
        self.take_frames();
    }

    /// Makes the picture say what `net` says of sessions now, and sends what waited for a way that there is
    /// by now. That may change the picture again, but each turn before the last sent something that waited,
    /// and nothing is made to wait meanwhile.
    // PROTOCOL SM-OV-6
    fn renew_snapshot(&mut self, now: Instant) {
        loop {
            let forwarding = self.net.forwarding();
            if self.snapshot.is_of(&forwarding) {
                return;
            }
            let changed = self.net.take_changed();
            self.snapshot = Arc::new(self.snapshot.next(forwarding, changed.iter().copied()));
            for peer in &changed {
                self.send_waiting(peer, now);
            }
        }
    }

    /// The members changed: everything is looked up anew.
    fn remake_snapshot(&mut self) {
        self.net.take_changed();
        let version = self.snapshot.version() + 1;
        let snapshot = Snapshot::new(version, self.members.clone(), self.net.forwarding());
        self.snapshot = Arc::new(snapshot);
    }
}

/// What `net` is told of a peer, and of a relay of the same id.
fn net_peer(peer: &NodePeer, relays: &[NodeRelay]) -> PeerConfig {
    let relay = relays.iter().find(|relay| relay.id == peer.id);
    let also = relay.map_or(&[][..], |relay| &relay.underlay);
    let mut addresses = peer.underlay.clone();
    addresses.extend(
        also.iter()
            .filter(|address| !peer.underlay.contains(address)),
    );
    PeerConfig {
        id: peer.id,
        addresses,
        known_key: peer.known_key.clone(),
        data_plane: peer.data_plane,
        relay: relay.is_some(),
    }
}

/// What `net` is told of a relay that is no peer: it has a session, and no part in the mesh.
fn net_relay(relay: &NodeRelay) -> PeerConfig {
    PeerConfig {
        id: relay.id,
        addresses: relay.underlay.clone(),
        known_key: relay.known_key.clone(),
        data_plane: DataPlane::Sealed,
        relay: true,
    }
}
