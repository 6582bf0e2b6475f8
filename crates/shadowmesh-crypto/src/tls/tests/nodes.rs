//! Nodes for tests: an identity, a book of peers, and TLS handshakes between them in memory.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use quinn_proto::crypto::{ClientConfig, ServerConfig, Session};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{Side, TransportError};
use shadowmesh_wire::PeerId;

use super::super::{HandshakeCounters, PeerBook, TlsConfigs, server_name};
use crate::{Identity, PublicIdentity};

/// QUIC version 1.
const VERSION: u32 = 1;

/// Members, each with its full key where it is held.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<BTreeMap<PeerId, Option<Arc<PublicIdentity>>>>);

impl Book {
    pub(super) fn add(&self, peer: PeerId) {
        self.0.lock().unwrap().entry(peer).or_default();
    }

    pub(super) fn remove(&self, peer: &PeerId) {
        self.0.lock().unwrap().remove(peer);
    }

    pub(super) fn forget_key(&self, peer: &PeerId) {
        self.0.lock().unwrap().insert(*peer, None);
    }
}

impl PeerBook for Book {
    fn is_member(&self, peer: &PeerId) -> bool {
        self.0.lock().unwrap().contains_key(peer)
    }

    fn public_identity(&self, peer: &PeerId) -> Option<Arc<PublicIdentity>> {
        self.0.lock().unwrap().get(peer)?.clone()
    }

    fn learned(&self, identity: Arc<PublicIdentity>) {
        self.0
            .lock()
            .unwrap()
            .insert(identity.peer_id(), Some(identity));
    }
}

pub(super) struct Node {
    pub(super) identity: Arc<Identity>,
    pub(super) book: Arc<Book>,
    pub(super) counters: Arc<HandshakeCounters>,
    pub(super) tls: TlsConfigs,
}

impl Node {
    pub(super) fn new() -> Self {
        let identity = Arc::new(Identity::generate());
        let book = Arc::new(Book::default());
        let counters = Arc::new(HandshakeCounters::default());
        let tls = TlsConfigs::new(
            Arc::clone(&identity),
            Arc::clone(&book) as Arc<dyn PeerBook>,
            Arc::clone(&counters),
        );
        Self {
            identity,
            book,
            counters,
            tls,
        }
    }

    /// Two nodes that may talk and have never met.
    pub(super) fn pair() -> (Self, Self) {
        let (a, b) = (Self::new(), Self::new());
        a.book.add(b.id());
        b.book.add(a.id());
        (a, b)
    }

    pub(super) fn id(&self) -> PeerId {
        self.identity.peer_id()
    }

    pub(super) fn holds_key_of(&self, peer: &Self) -> bool {
        self.book.public_identity(&peer.id()).is_some()
    }

    /// ML-KEM work, signatures made, signatures checked since the last call.
    pub(super) fn work(&self) -> [u64; 3] {
        [
            &self.counters.kem,
            &self.counters.sign,
            &self.counters.verify,
        ]
        .map(|counter| counter.swap(0, Ordering::Relaxed))
    }
}

/// Both ends of a connection.
pub(super) struct Pair {
    pub(super) client: Box<dyn Session>,
    pub(super) server: Box<dyn Session>,
}

impl Pair {
    /// As the nodes would connect: the client shows the short certificate if the server holds its
    /// key.
    pub(super) fn new(client: &Node, server: &Node) -> Self {
        Self::with(
            client.tls.client(server.id(), server.holds_key_of(client)),
            server.tls.server(),
            &server.id(),
        )
    }

    pub(super) fn with(
        client: Arc<dyn ClientConfig>,
        server: Arc<dyn ServerConfig>,
        name: &PeerId,
    ) -> Self {
        Self {
            client: start_client(client, name),
            server: start_server(server),
        }
    }

    /// A finished handshake between two nodes.
    pub(super) fn finished(client: &Node, server: &Node) -> Self {
        let mut pair = Self::new(client, server);
        pair.run().expect("the handshake succeeds");
        assert!(!pair.client.is_handshaking() && !pair.server.is_handshaking());
        pair
    }

    /// Runs the handshake to its end, or to the first error: whose, and what.
    pub(super) fn run(&mut self) -> Result<(), (Side, TransportError)> {
        loop {
            let to_server = flight(&mut *self.client);
            deliver(&mut *self.server, &to_server).map_err(|error| (Side::Server, error))?;
            let to_client = flight(&mut *self.server);
            deliver(&mut *self.client, &to_client).map_err(|error| (Side::Client, error))?;
            if to_server.is_empty() && to_client.is_empty() {
                return Ok(());
            }
        }
    }
}

pub(super) fn start_client(config: Arc<dyn ClientConfig>, name: &PeerId) -> Box<dyn Session> {
    config
        .start_session(VERSION, &server_name(name), &parameters())
        .expect("the version is ours")
}

pub(super) fn start_server(config: Arc<dyn ServerConfig>) -> Box<dyn Session> {
    config.start_session(VERSION, &parameters())
}

/// Everything a side has to say right now, cut where its keys change.
pub(super) fn flight(session: &mut dyn Session) -> Vec<Vec<u8>> {
    let mut flight = Vec::new();
    loop {
        let mut bytes = Vec::new();
        let keys = session.write_handshake(&mut bytes);
        if bytes.is_empty() && keys.is_none() {
            return flight;
        }
        if !bytes.is_empty() {
            flight.push(bytes);
        }
    }
}

pub(super) fn deliver(session: &mut dyn Session, flight: &[Vec<u8>]) -> Result<(), TransportError> {
    flight
        .iter()
        .try_for_each(|bytes| session.read_handshake(bytes).map(drop))
}

fn parameters() -> TransportParameters {
    TransportParameters::read(Side::Server, &mut [].as_slice()).expect("all have defaults")
}
