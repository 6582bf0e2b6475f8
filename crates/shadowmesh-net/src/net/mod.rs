//! The dispatcher: every input of [`Net`] in a file of its own.
//!
//! | file | what comes in |
//! |---|---|
//! | `peers` | what the parent wants: peers added and removed, demand, ping, messages |
//! | `datagram` | a datagram from the link that the data plane did not open |
//! | `frames` | packets to be sent as QUIC datagrams, and such that arrived |
//! | `network` | what the host says of its network: own addresses, changes, new ways to peers |
//! | `incoming` | the first packet of somebody who wants to connect |
//! | `candidates` | what peers say of where they may be reached |
//! | `paths` | the moment to probe, to judge or to change a way |
//! | `inner` | a sealed frame's content that is not a packet: probes |
//! | `mtu` | what the host says of a datagram's length; probes of the path MTU |
//! | `relayed` | what goes over our relays; which of them are kept |
//! | `second` | the second port of a relay: how we are translated |
//! | `relaying` | what we pass on for others, and who these may be |
//! | `timeout` | time |
//! | `quic` | what QUIC says of a connection: connected, lost, stream events |
//! | `message` | a control message |
//! | `calls` | the moment to call a peer, and by which ways |
//! | `calling` | whose turn it is to be called; calls that nobody answered |
//! | `lifecycle` | what follows for the peer: session up, session down |
//! | `publish` | what follows for the data plane |
//!
//! Each ends in [`Net::settle`], which lets every touched connection say and send all it has, so
//! that between two inputs nothing is half done.

mod calling;
mod calls;
mod candidates;
mod datagram;
mod frames;
mod incoming;
mod inner;
mod lifecycle;
mod message;
mod mtu;
mod network;
mod news;
mod output;
mod paths;
mod peers;
mod publish;
mod quic;
mod relayed;
mod relaying;
mod second;
mod timeout;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shadowmesh_crypto::HandshakeCounters;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;

use crate::callers::{Callers, RefusedCaller};
use crate::config::{ConfigError, NetConfig};
use crate::connectivity::Connectivity;
use crate::control::Control;
use crate::drops::{DropCounters, DropReason};
use crate::event::{
    NetEvent, OwnAddress, PeerState, PeerStatus, Received, SessionStatus, Transmit,
};
use crate::forwarding::{Forwarding, TrafficTotals};
use crate::gate::Gate;
use crate::pacing::Pacing;
use crate::peer::{Peer, Role};
use crate::relay::{RelayCounters, Relays};
use crate::roster::Roster;
use crate::spending::Spending;
use crate::timers::{Timer, Timers};
use datagram::ResetLimit;
use output::Output;
use peers::Removed;
use publish::Published;
use relaying::Clients;

/// The state machine that reaches peers. See the crate's documentation.
pub struct Net {
    config: NetConfig,
    roster: Arc<Roster>,
    /// Limit: what the parent adds.
    peers: BTreeMap<PeerId, Peer>,
    /// Peers that said where they see us. Limit: one for each peer with a session.
    observers: BTreeSet<PeerId>,
    /// Peers of which some session used QUIC datagrams, or that are to. Limit: one for each peer.
    used_quic: BTreeSet<PeerId>,
    removed: Removed,
    control: Control,
    gate: Gate,
    spending: Spending,
    resets: ResetLimit,
    timers: Timers,
    pacing: Pacing,
    /// Which local port was opened last for a call from a fresh one.
    fresh: u16,
    output: Output,
    drops: Arc<DropCounters>,
    counters: Arc<HandshakeCounters>,
    relays: Relays,
    relayed: Arc<RelayCounters>,
    /// Limit: the configuration's.
    clients: Clients,
    /// What peers are told to try. Limit: [`OWN_ADDRESSES_MAX`].
    own_addresses: Vec<OwnAddress>,
    /// Where clients of ours may ask a second time.
    second_port: Option<u16>,
    overlay: Overlay,
    connectivity: Arc<Connectivity>,
    callers: Callers,
    rng: StdRng,
}

/// Where datagrams go into the tunnel.
#[derive(Debug, Default)]
struct Overlay {
    /// Networks of our own overlay addresses.
    own: Vec<IpPrefix>,
    /// What peers lead to.
    peers: Vec<IpPrefix>,
    /// Networks that the host reaches without the tunnel though they are in one of those.
    host: Vec<IpPrefix>,
    /// The host keeps our datagrams out of the tunnel, wherever they are to go.
    apart: bool,
}

impl Overlay {
    /// Whether an address is in a network of our own overlay addresses.
    fn is_own(&self, ip: IpAddr) -> bool {
        self.own.iter().any(|prefix| self.holds(prefix, ip))
    }

    /// Whether an address is in a network of the overlay and in none as narrow that is the host's.
    fn holds(&self, prefix: &IpPrefix, ip: IpAddr) -> bool {
        let is_hosts = |host: &IpPrefix| host.len() >= prefix.len() && host.contains(ip);
        prefix.contains(ip) && !self.host.iter().any(is_hosts)
    }
}

/// Limit: addresses of ours that peers are told.
const OWN_ADDRESSES_MAX: usize = 16;

/// Why something asked of [`Net`] cannot be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// No such peer was added.
    #[error("no such peer")]
    UnknownPeer,
    /// There is no session with the peer now.
    #[error("no session with this peer")]
    NoSession,
    /// The message does not fit a control message, or the peer does not read.
    #[error("the control stream does not take the message")]
    NotTaken,
}

impl Net {
    /// A node without peers.
    ///
    /// # Errors
    /// When a setting is outside its limits.
    pub fn new(config: NetConfig, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let mut rng = StdRng::from_seed(config.seed);
        let roster = Arc::new(Roster::new(config.relay.enabled));
        let counters = Arc::new(HandshakeCounters::default());
        let relayed: Arc<RelayCounters> = Arc::default();
        let control_seed = NetConfig {
            seed: rng.random(),
            ..config.clone()
        };
        Ok(Self {
            control: Control::new(&control_seed, roster.clone(), counters.clone(), now),
            gate: Gate::new(config.handshakes_max, now),
            spending: Spending::new(now),
            resets: ResetLimit::new(rng.random()),
            config,
            roster,
            peers: BTreeMap::new(),
            observers: BTreeSet::new(),
            used_quic: BTreeSet::new(),
            removed: Removed::default(),
            timers: Timers::default(),
            pacing: Pacing::new(now),
            fresh: 0,
            output: Output::new(Published::new(relayed.clone())),
            drops: Arc::default(),
            counters,
            relays: Relays::default(),
            relayed,
            clients: Clients::default(),
            own_addresses: Vec::new(),
            second_port: None,
            overlay: Overlay::default(),
            connectivity: Arc::default(),
            callers: Callers::default(),
            rng,
        })
    }

    /// Who we are.
    pub fn peer_id(&self) -> PeerId {
        self.config.identity.peer_id()
    }

    /// When to call [`Net::handle_timeout`], and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.timers.next().map(|(at, timer)| (at, timer.why()))
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.output.pop_transmit()
    }

    /// The next thing to know. Nothing is told of clients for whom we only relay.
    pub fn poll_event(&mut self) -> Option<NetEvent> {
        self.output.news.pop()
    }

    /// The parent is to know this, unless it is of a client for whom we only relay.
    fn tell(&mut self, event: NetEvent) {
        if event.peer().is_some_and(|peer| self.is_client(&peer)) {
            return;
        }
        if !self.output.news.push(event) {
            self.drops.count(DropReason::EventBacklog);
        }
    }

    /// A frame that came before its session, which is up by now: to be judged by the forwarding of
    /// this moment, like one that has just come, but for the last time. If it is no frame of that
    /// forwarding either, it is to be dropped as [`DropReason::StaleSnapshot`], and never given to
    /// [`Net::handle_datagram`] once more.
    // PROTOCOL SM-SF-9
    pub fn poll_early(&mut self) -> Option<(Received, BytesMut)> {
        self.output.pop_early()
    }

    /// The sessions as the data plane needs them. No event tells of a change: after each input compare it
    /// with the one published last (`Arc::ptr_eq`), and publish it before what
    /// [`Net::poll_transmit`] returns is sent, as the answers may already need it.
    // PROTOCOL SM-OV-6
    pub fn forwarding(&self) -> Arc<Forwarding> {
        self.output.published.forwarding.clone()
    }

    /// The peers to whom one sends otherwise than when this was asked last, clients for whom we only relay
    /// left out.
    pub fn take_changed(&mut self) -> BTreeSet<PeerId> {
        self.output.published.take_changed()
    }

    /// Who called and is no peer of ours, the latest first.
    pub fn refused_callers(&self) -> &[RefusedCaller] {
        self.callers.refused()
    }

    /// Drops by reason; to be shared with the data plane.
    pub fn drops(&self) -> &Arc<DropCounters> {
        &self.drops
    }

    /// Bytes of what others have begun to send and not finished, in all sessions: packets in pieces, and
    /// frames that came before their session.
    pub fn held_bytes(&self) -> usize {
        self.control.memory.held()
    }

    /// How much expensive handshake work was done.
    pub fn handshake_counters(&self) -> &Arc<HandshakeCounters> {
        &self.counters
    }

    /// How peers were reached.
    pub fn connectivity(&self) -> &Arc<Connectivity> {
        &self.connectivity
    }

    /// Where we can be reached, as the host said last.
    pub fn own_addresses(&self) -> &[OwnAddress] {
        &self.own_addresses
    }

    /// One row for each peer, in order of PeerId, without clients for whom we only relay.
    pub fn status(&self, now: Instant) -> Vec<PeerStatus> {
        self.peers
            .iter()
            .filter(|(_, peer)| peer.role != Role::Client)
            .map(|(&id, peer)| self.peer_status(id, peer, now))
            .collect()
    }

    fn peer_status(&self, id: PeerId, peer: &Peer, now: Instant) -> PeerStatus {
        let in_use = peer
            .primary
            .and_then(|key| self.control.connections.get(&key));
        let in_use = in_use.and_then(|connection| connection.session());
        let heard_at =
            in_use.map(|session| session.liveness.heard_at(session.traffic.totals(), now));
        let state = if let Some(session) = in_use {
            match session.liveness.is_silent(session.traffic.totals(), now) {
                true => PeerState::Silent,
                false => PeerState::Up,
            }
        } else if peer.calls.is_under_way() {
            PeerState::Connecting
        } else if self.timers.get(Timer::Connect(id)).is_some() || self.pacing.waits(&id) {
            PeerState::Waiting
        } else {
            PeerState::Idle
        };
        let live = peer
            .sessions()
            .filter_map(|key| self.control.connections.get(&key)?.session())
            .fold(TrafficTotals::default(), |sum, session| {
                sum.plus(session.traffic.totals())
            });
        let ago = |at| now.saturating_duration_since(at);
        PeerStatus {
            peer: id,
            state,
            session: self.session_status(peer, now),
            traffic: peer.past_traffic.plus(live),
            last_error: peer.last_error.clone(),
            copied: peer.lives.copied(now),
            heard: peer.heard_at.max(heard_at).map(ago),
            handshake: peer.handshaken_at.map(ago),
        }
    }

    fn session_status(&self, peer: &Peer, now: Instant) -> Option<SessionStatus> {
        let connection = self.control.connections.get(&peer.primary?)?;
        let session = connection.session()?;
        Some(SessionStatus {
            path: self.relays.info(connection.paths.current().remote),
            local_ip: connection.paths.current().local_ip,
            rtt: session.rtt.or_else(|| Some(connection.quic.rtt())),
            cipher: session.cipher,
            plane: session.plane.status(),
            epoch: session.epochs.epoch(),
            age: now.saturating_duration_since(session.established_at),
            key_age: now.saturating_duration_since(session.epochs.changed_at),
            initiated: connection.is_client(),
            resumed: connection.resumed,
            observed: connection.paths.observed,
            observed_second: connection.paths.second.word(),
            mtu: session.theirs.mtu,
            path_mtu: connection.paths.path_mtu(),
        })
    }

    /// Lets every touched connection say and send what it has.
    fn settle(&mut self, now: Instant) {
        while let Some(key) = self.control.touched.pop_first() {
            self.drive(key, now);
        }
        for key in self.roster.take_learned() {
            self.tell(NetEvent::LearnedKey(key));
        }
        self.publish();
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net")
            .field("peer_id", &self.peer_id())
            .field("peers", &self.peers)
            .field("connections", &self.control.connections.len())
            .finish_non_exhaustive()
    }
}

/// What tests look at from inside.
#[cfg(test)]
impl Net {
    pub(crate) fn open_connections(&self) -> usize {
        self.control.connections.len()
    }

    /// Ids in the table that belong to no connection that exists.
    pub(crate) fn remembered_ids(&self) -> usize {
        self.control.cids.len()
    }

    /// QUIC ids of all connections.
    pub(crate) fn control_ids(&self) -> Vec<u64> {
        self.control.cids.of_connections()
    }

    /// Calls a peer we have a ticket of, with this DATAGRAM frame in the early data.
    pub(crate) fn send_early_datagram(
        &mut self,
        peer: &PeerId,
        frame: &'static [u8],
        now: std::time::Instant,
    ) {
        self.call(*peer, now);
        let key = self.peers[peer].calls.under_way().next();
        let key = key.expect("it was begun");
        let connection = self.control.connections.get_mut(&key);
        let quic = &mut connection.expect("it exists").quic;
        quic.datagrams().send(frame.into(), false).expect("allowed");
        self.settle(now);
    }

    /// An id that still leads to the first peer's connection, and that QUIC has retired.
    pub(crate) fn remember_retired_id(&mut self) -> u64 {
        let id = self.rng.random();
        let owner = crate::control::Owner::Connection(self.primary_key(0));
        self.control.cids.set_owner(id, owner);
        id
    }

    /// The connection in use with the nth peer.
    pub(crate) fn primary_key(&self, peer: usize) -> crate::control::ConnKey {
        let peer = self.peers.values().nth(peer).expect("the test added it");
        peer.primary.expect("the test connected it")
    }

    pub(crate) fn close_as_dead(
        &mut self,
        key: crate::control::ConnKey,
        reason: crate::DownReason,
        now: Instant,
    ) {
        self.close(key, crate::control::Close::Dead, reason, now);
        self.settle(now);
    }

    /// Bytes of control messages that QUIC has not taken, over all connections.
    pub(crate) fn outgoing_bytes(&self) -> usize {
        let all = self.control.connections.values();
        all.map(|connection| connection.stream.outgoing_len()).sum()
    }

    /// Highest round of a search said or heard in the session with a peer.
    pub(crate) fn search_round(&self, id: &PeerId) -> u32 {
        let key = self.peers[id].primary.expect("the test connected it");
        self.control.connections[&key].paths.round
    }

    /// Asks the first peer for new keys before their time.
    pub(crate) fn ask_rekey_now(&mut self, now: Instant) {
        self.ask_rekey(self.primary_key(0), now);
        self.settle(now);
    }
}
