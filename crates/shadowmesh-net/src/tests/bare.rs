//! Half a node: QUIC and an identity, and none of our rules.
//!
//! What a peer looks like that keeps to the handshake but not to the protocol above it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionId, DatagramEvent, Dir, Endpoint, EndpointConfig,
    ServerConfig, StreamId,
};
use shadowmesh_crypto::{FirstContact, Identity, TlsConfigs, server_name};
use shadowmesh_wire::PeerId;

use super::harness::{World, ms};
use crate::roster::Roster;

pub(crate) struct Bare {
    endpoint: Endpoint,
    connection: Option<Connection>,
    stream: Option<StreamId>,
    address: SocketAddr,
}

impl Bare {
    /// Somebody who answers `victim`, whomever it called.
    pub(crate) fn impostor(victim: PeerId) -> Self {
        let identity = Arc::new(Identity::from_seeds(&[7; 32], &[8; 32]));
        let tls = tls(&identity, victim);
        let server = ServerConfig::new(tls.server(), identity.token_key());
        Self::new(&identity, Some(server))
    }

    /// Calls `server` with the identity of the node `member`, and says nothing there.
    pub(crate) fn client(world: &World, member: usize, server: usize) -> Self {
        let identity = &world.nodes[member].config.identity;
        let (id, address) = (world.id(server), world.nodes[server].address);
        let mut config = ClientConfig::new(tls(identity, id).client(id, false));
        config.initial_dst_cid_provider(Arc::new(move || {
            ConnectionId::new(&FirstContact::new_dcid(&id, [1; 8]))
        }));
        let mut bare = Self::new(identity, None);
        let connected = bare
            .endpoint
            .connect(world.now, config, address, &server_name(&id));
        bare.connection = Some(connected.unwrap().1);
        bare
    }

    fn new(identity: &Identity, server: Option<ServerConfig>) -> Self {
        let config = Arc::new(EndpointConfig::new(identity.reset_key()));
        Self {
            endpoint: Endpoint::new(config, server.map(Arc::new), false, None),
            connection: None,
            stream: None,
            address: ([203, 0, 113, 7], 7).into(),
        }
    }

    /// Takes a datagram and returns what there is to say to it.
    pub(crate) fn answers(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Vec<Vec<u8>> {
        let (data, mut buffer) = (BytesMut::from(datagram), Vec::new());
        let event = self
            .endpoint
            .handle(now, from, None, None, data, &mut buffer);
        match event {
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut buffer, None);
                self.connection = accepted.ok().map(|(_, connection)| connection);
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                let connection = self.connection.as_mut().unwrap();
                connection.handle_event(event);
            }
            _ => {}
        }
        self.transmits(now)
    }

    /// As a client: talks until the handshake is over on both sides.
    pub(crate) fn talk(&mut self, world: &mut World, server: usize) {
        world.log.clear();
        self.exchange(world, server);
        let connection = self.connection.as_ref().unwrap();
        assert!(!connection.is_handshaking() && !connection.is_closed());
    }

    /// Writes on the control stream, and takes what comes back.
    pub(crate) fn say(&mut self, world: &mut World, server: usize, bytes: &[u8]) {
        let connection = self.connection.as_mut().unwrap();
        let stream = *self
            .stream
            .get_or_insert_with(|| connection.streams().open(Dir::Bi).unwrap());
        // What does not fit, or comes after the end, is not said.
        let _ = connection.send_stream(stream).write(bytes);
        self.exchange(world, server);
    }

    fn exchange(&mut self, world: &mut World, server: usize) {
        let remote = world.nodes[server].address;
        for _ in 0..4 {
            let mut said = self.transmits(world.now);
            for flight in std::mem::take(&mut world.log) {
                if flight.target == self.address {
                    said.extend(self.answers(remote, &flight.data, world.now));
                }
            }
            for datagram in said {
                world.inject(self.address, remote, datagram);
            }
            world.run(ms(6));
        }
    }

    fn transmits(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let (mut out, mut buffer) = (Vec::new(), Vec::new());
        while let Some(connection) = &mut self.connection
            && connection.poll_transmit(now, 1, &mut buffer).is_some()
        {
            out.push(std::mem::take(&mut buffer));
        }
        out
    }
}

fn tls(identity: &Arc<Identity>, peer: PeerId) -> TlsConfigs {
    let roster = Arc::new(Roster::default());
    roster.add(peer, None);
    TlsConfigs::new(identity.clone(), roster, Arc::default())
}
