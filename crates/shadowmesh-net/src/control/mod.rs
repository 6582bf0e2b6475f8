//! Control connections: QUIC with each peer, for handshakes, keys and messages.
//!
//! quinn-proto does QUIC; this module holds what stands around it: the connections by key, the
//! table of all ids that lead to us (QUIC connection ids and receiver indices, drawn together), and
//! which connections may speak from which address. Real addresses are translated here: QUIC sees
//! the address of the first contact for the whole life of a connection, whatever way the datagrams
//! take (see [`crate::paths`]).

mod cids;
mod connection;
mod datagrams;
mod early;
mod long_header;
mod settings;
mod stream;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::{
    ClientConfig, ConnectError, ConnectionHandle, Endpoint, Incoming, ServerConfig, TransportConfig,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shadowmesh_crypto::{FirstContact, HandshakeCounters, TlsConfigs, server_name};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::sealed::ReceiverIndex;

pub(crate) use cids::{CID_LEN, Cids, Owner};
pub(crate) use connection::{Close, Connection, Phase};
#[cfg(test)]
pub(crate) use early::FRAMES_MAX as EARLY_FRAMES_MAX;
pub(crate) use long_header::LongHeader;
pub(crate) use stream::StreamError;
pub(crate) use tokens::TokenTime;

use crate::config::{NetConfig, PathTimers};
use crate::memory::Memory;
use crate::paths::{Path, Paths};
use crate::roster::Roster;
use crate::session::Session;
use tokens::AddressTokens;

/// Names a control connection while it exists; also quinn's handle of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ConnKey(pub(crate) usize);

impl From<ConnKey> for ConnectionHandle {
    fn from(key: ConnKey) -> Self {
        ConnectionHandle(key.0)
    }
}

/// All control connections.
pub(crate) struct Control {
    pub(crate) endpoint: Endpoint,
    /// Limit: three with a session for each peer, one call for each way to it, and the unfinished handshakes
    /// that the gate admits.
    pub(crate) connections: BTreeMap<ConnKey, Connection>,
    /// Incoming connections without a session yet, authenticated or not. Limit: the gate's.
    pub(crate) unfinished: BTreeSet<ConnKey>,
    /// What all of them make us keep.
    pub(crate) memory: Arc<Memory>,
    /// First packets that wait to be judged. Limit: the gate's burst.
    pub(crate) waiting: Vec<Incoming>,
    pub(crate) cids: Cids,
    /// Which connections have their path at an address. Same limit as `connections`.
    by_address: BTreeMap<SocketAddr, BTreeSet<ConnKey>>,
    /// Connections whose state changed and which QUIC must be asked about.
    pub(crate) touched: BTreeSet<ConnKey>,
    pub(crate) time: Arc<TokenTime>,
    tls: TlsConfigs,
    tokens: Arc<AddressTokens>,
    /// For connections that only carry control messages, as far as is known when they are made.
    transport: Arc<TransportConfig>,
    /// How connections are accepted.
    server: ServerConfig,
    /// Largest packet of our device.
    device_mtu: u16,
    path_timers: PathTimers,
    /// Connections begun by us so far.
    calls_made: u64,
    rng: StdRng,
}

impl Control {
    pub(crate) fn new(
        config: &NetConfig,
        roster: Arc<Roster>,
        counters: Arc<HandshakeCounters>,
        now: Instant,
    ) -> Self {
        let mut rng = StdRng::from_seed(config.seed);
        let tls = TlsConfigs::new(config.identity.clone(), roster, counters);
        let time = Arc::new(TokenTime::new(config.unix_time, now));
        let transport = Arc::new(settings::transport());
        let server = settings::server(&config.identity, &tls, transport.clone(), time.clone());
        let cids = Cids::new(rng.random());
        let endpoint =
            settings::endpoint(&config.identity, cids.clone(), server.clone(), rng.random());
        Self {
            endpoint,
            connections: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            memory: Arc::default(),
            waiting: Vec::new(),
            cids,
            by_address: BTreeMap::new(),
            touched: BTreeSet::new(),
            time,
            tls,
            tokens: Arc::new(AddressTokens::default()),
            transport,
            server,
            device_mtu: config.mtu,
            path_timers: config.paths,
            calls_made: 0,
            rng,
        }
    }

    /// Starts a connection to `peer` by one way. `short`: the peer holds our full key. `data`: the connection will probably carry packets, on a path with this MTU if any is
    /// known.
    // PROTOCOL SM-HS-7
    pub(crate) fn connect(
        &mut self,
        peer: PeerId,
        way: SocketAddr,
        (short, data): (bool, Option<Option<u16>>),
        now: Instant,
    ) -> Result<ConnKey, ConnectError> {
        let name = server_name(&peer);
        let first = Path::to(way);
        let dcid = FirstContact::new_dcid(&peer, self.rng.random());
        // Without an address token the peer may send us only three times what it got, which is
        // less than its flight. Sending our Initials twice raises that above it.
        // PROTOCOL SM-HS-8
        // PROTOCOL SM-HS-12
        let double_initials = !self.tokens.has(&name);
        let mut config = ClientConfig::new(self.tls.client(peer, short));
        config
            .transport_config(match data {
                Some(known) => Arc::new(settings::data_transport(self.device_mtu, known)),
                None => self.transport.clone(),
            })
            .token_store(self.tokens.clone())
            .version(settings::QUIC_VERSION)
            .initial_dst_cid_provider(Arc::new(move || quinn_proto::ConnectionId::new(&dcid)));
        // QUIC takes no port 0, which ways over streams have; to it the address only has to stay.
        let virtual_remote = SocketAddr::new(first.remote.ip(), first.remote.port().max(1));
        let (handle, quic) = self.endpoint.connect(now, config, virtual_remote, &name)?;
        let key = ConnKey(handle.0);
        let paths = Paths::new(first, self.path_timers, now);
        let mut connection = Connection::new(quic, paths, &self.memory, now);
        connection.peer = Some(peer);
        self.calls_made += 1;
        connection.number = Some(self.calls_made);
        connection.double_initials = double_initials;
        self.insert(key, connection);
        Ok(key)
    }

    /// How to accept a connection from `remote` that will probably carry packets.
    pub(crate) fn data_server(&self, remote: SocketAddr) -> Arc<ServerConfig> {
        let known = self.at_address(remote).filter_map(|key| self.data_mtu(key));
        let transport = settings::data_transport(self.device_mtu, known.max());
        let mut server = self.server.clone();
        server.transport_config(Arc::new(transport));
        Arc::new(server)
    }

    /// What a connection that carries packets has found its path to take.
    pub(crate) fn data_mtu(&self, key: ConnKey) -> Option<u16> {
        let connection = self.connections.get(&key)?;
        let session = connection.session()?;
        session.uses_quic().then(|| connection.quic.current_mtu())
    }

    /// Takes in a connection that the endpoint just made.
    pub(crate) fn insert(&mut self, key: ConnKey, connection: Connection) {
        let remote = connection.paths.current().remote;
        self.connections.insert(key, connection);
        self.claim_fresh_cids(key);
        self.by_address.entry(remote).or_default().insert(key);
        self.touched.insert(key);
    }

    /// Gives the ids that the endpoint drew in its last call to a connection.
    pub(crate) fn claim_fresh_cids(&mut self, key: ConnKey) {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.own_cids(self.cids.claim_fresh(key), &self.cids, key);
        } else {
            self.cids.discard_fresh();
        }
    }

    /// Draws the index under which `key`'s session will receive.
    // PROTOCOL SM-SF-5
    pub(crate) fn draw_index(&mut self, key: ConnKey) {
        if let Some(connection) = self.connections.get_mut(&key) {
            let index = self.cids.draw(Owner::Session(key));
            connection.index = Some(ReceiverIndex(index));
        }
    }

    /// A connection is gone for good.
    pub(crate) fn remove(&mut self, key: ConnKey) {
        if let Some(connection) = self.connections.remove(&key) {
            self.leave_address(connection.paths.current().remote, key);
            connection.release_cids(&self.cids, key);
        }
        self.touched.remove(&key);
        self.unfinished.remove(&key);
    }

    /// A connection's path has moved here from `old`.
    pub(crate) fn path_moved(&mut self, key: ConnKey, old: SocketAddr, now: Instant) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let path = connection.paths.current();
        // The congestion window and round trip were the old way's.
        connection.quic.path_changed(now);
        self.leave_address(old, key);
        self.by_address.entry(path.remote).or_default().insert(key);
        self.touched.insert(key);
    }

    /// The connections whose path leads to `remote`.
    pub(crate) fn at_address(&self, remote: SocketAddr) -> impl Iterator<Item = ConnKey> + '_ {
        self.by_address.get(&remote).into_iter().flatten().copied()
    }

    /// The session of a connection, if it has one.
    pub(crate) fn session_mut(&mut self, key: ConnKey) -> Option<&mut Session> {
        self.connections.get_mut(&key)?.session_mut()
    }

    /// Every connection with `peer`. A look at all: for rare occasions.
    pub(crate) fn of_peer(&self, peer: &PeerId) -> Vec<ConnKey> {
        let all = self.connections.iter();
        all.filter(|(_, connection)| connection.peer == Some(*peer))
            .map(|(&key, _)| key)
            .collect()
    }

    /// Forgets what would let a removed peer resume.
    // PROTOCOL SM-HS-5
    pub(crate) fn forget(&mut self, peer: &PeerId) {
        self.tls.forget(peer);
        self.tokens.forget(&server_name(peer));
    }

    fn leave_address(&mut self, remote: SocketAddr, key: ConnKey) {
        if let Some(keys) = self.by_address.get_mut(&remote) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_address.remove(&remote);
            }
        }
    }
}
