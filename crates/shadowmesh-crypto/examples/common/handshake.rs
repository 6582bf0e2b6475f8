//! Two nodes in memory and the handshake between them, for the examples.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use quinn_proto::Side;
use quinn_proto::crypto::Session;
use quinn_proto::transport_parameters::TransportParameters;
use shadowmesh_crypto::{Identity, PeerBook, PublicIdentity, TlsConfigs, server_name};
use shadowmesh_wire::PeerId;

/// Everybody is a member; keys are kept as they come.
#[derive(Debug, Default)]
struct Book(Mutex<BTreeMap<PeerId, Arc<PublicIdentity>>>);

impl PeerBook for Book {
    fn is_member(&self, _: &PeerId) -> bool {
        true
    }

    fn public_identity(&self, peer: &PeerId) -> Option<Arc<PublicIdentity>> {
        self.0
            .lock()
            .expect("no thread panicked")
            .get(peer)
            .cloned()
    }

    fn learned(&self, identity: Arc<PublicIdentity>) {
        self.0
            .lock()
            .expect("no thread panicked")
            .insert(identity.peer_id(), identity);
    }
}

/// Two nodes, one of which calls the other.
pub trait Dial {
    /// The calling end of a new connection, its key share made.
    fn client(&self) -> Box<dyn Session>;
    /// The called end, before the first byte.
    fn server(&self) -> Box<dyn Session>;
}

/// A client and a server.
pub struct Nodes {
    client: TlsConfigs,
    server: TlsConfigs,
    server_id: PeerId,
    acquainted: bool,
}

impl Nodes {
    /// Two nodes without tickets. If they are `acquainted` they hold each other's keys.
    pub fn new(acquainted: bool) -> Self {
        let (client, server) = (Identity::generate(), Identity::generate());
        let server_id = server.peer_id();
        let books = [Arc::<Book>::default(), Arc::default()];
        if acquainted {
            books[0].learned(Arc::clone(server.public()));
            books[1].learned(Arc::clone(client.public()));
        }
        let [client_book, server_book] = books;
        Self {
            client: TlsConfigs::new(Arc::new(client), client_book, Arc::default()),
            server: TlsConfigs::new(Arc::new(server), server_book, Arc::default()),
            server_id,
            acquainted,
        }
    }

    /// Both ends of a finished handshake.
    pub fn connect(&self) -> (Box<dyn Session>, Box<dyn Session>) {
        let (mut client, mut server) = (self.client(), self.server());
        while client.is_handshaking() || server.is_handshaking() {
            step(&mut *client, &mut *server);
            step(&mut *server, &mut *client);
        }
        (client, server)
    }
}

impl Dial for Nodes {
    fn client(&self) -> Box<dyn Session> {
        self.client
            .client(self.server_id, self.acquainted)
            .start_session(1, &server_name(&self.server_id), &parameters())
            .expect("version 1 is QUIC's")
    }

    fn server(&self) -> Box<dyn Session> {
        self.server.server().start_session(1, &parameters())
    }
}

/// Carries everything that `from` has to say to `to`.
fn step(from: &mut dyn Session, to: &mut dyn Session) {
    loop {
        let mut bytes = Vec::new();
        let keys = from.write_handshake(&mut bytes);
        if bytes.is_empty() && keys.is_none() {
            return;
        }
        if !bytes.is_empty() {
            to.read_handshake(&bytes).expect("both nodes are honest");
        }
    }
}

/// QUIC's defaults.
pub fn parameters() -> TransportParameters {
    TransportParameters::read(Side::Server, &mut [].as_slice()).expect("all have defaults")
}
