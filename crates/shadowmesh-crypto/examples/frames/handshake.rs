//! Two nodes in memory and the handshake between them.

use std::sync::Arc;

use quinn_proto::Side;
use quinn_proto::crypto::Session;
use quinn_proto::transport_parameters::TransportParameters;
use shadowmesh_crypto::{Identity, PeerBook, PublicIdentity, TlsConfigs, server_name};
use shadowmesh_wire::PeerId;

/// Everybody is a member; no key is kept.
#[derive(Debug, Default)]
struct OpenBook;

impl PeerBook for OpenBook {
    fn is_member(&self, _: &PeerId) -> bool {
        true
    }

    fn public_identity(&self, _: &PeerId) -> Option<Arc<PublicIdentity>> {
        None
    }

    fn learned(&self, _: Arc<PublicIdentity>) {}
}

/// Both ends of a finished handshake: the one that called, and the one that was called.
pub fn connect() -> (Box<dyn Session>, Box<dyn Session>) {
    let identities = [Identity::generate(), Identity::generate()];
    let called = identities[1].peer_id();
    let [client, server] = identities
        .map(|identity| TlsConfigs::new(Arc::new(identity), Arc::new(OpenBook), Arc::default()));
    let mut client = client
        .client(called, false)
        .start_session(1, &server_name(&called), &parameters())
        .expect("version 1 is QUIC's");
    let mut server = server.server().start_session(1, &parameters());
    while client.is_handshaking() || server.is_handshaking() {
        step(&mut *client, &mut *server);
        step(&mut *server, &mut *client);
    }
    (client, server)
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
fn parameters() -> TransportParameters {
    TransportParameters::read(Side::Server, &mut [].as_slice()).expect("all have defaults")
}
