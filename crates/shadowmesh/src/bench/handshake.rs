//! What a handshake costs: ours beside a classical one, in one run, in this process.
//!
//! Two quinn-proto endpoints exchange datagrams through memory under a virtual clock. CPU time is
//! taken around every call into either side, so each side's share is known and neither a network nor
//! another program on the machine is in it. Bytes are UDP payloads until both sides are silent:
//! padding, acknowledgements and session tickets included.
//!
//! | kind | key exchange | certificate |
//! |---|---|---|
//! | `full` | X25519 + ML-KEM-1024 | ML-DSA-87 and Ed25519 keys and signatures, both sides |
//! | `short` | the same | the peer holds our key already: PeerId only, signatures as before |
//! | `classical` | X25519 | Ed25519 raw public keys, both sides |

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::congestion::CubicConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event,
    ServerConfig, TransportConfig, crypto,
};
use serde::Serialize;
use shadowmesh_crypto::{
    HandshakeCounters, Identity, PeerBook, PublicIdentity, TlsConfigs, server_name,
};
use shadowmesh_io::cpu;
use shadowmesh_wire::PeerId;

use super::classical;

/// Kinds of handshake, as in the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Post-quantum, first contact.
    Full,
    /// Post-quantum, between peers that hold each other's key.
    Short,
    /// X25519 and Ed25519 alone: what others do today, never spoken by a node.
    Classical,
}

/// Mean cost of one handshake.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cost {
    /// Which kind.
    pub kind: Kind,
    /// How many were made.
    pub count: u32,
    /// Handshakes per second of one core that does both sides.
    pub per_second: f64,
    /// The side that connects.
    pub client: SideCost,
    /// The side that is connected to.
    pub server: SideCost,
}

/// What one side spends on a handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SideCost {
    /// CPU time.
    pub cpu_us: u64,
    /// UDP payload it sends.
    pub bytes_sent: f64,
    /// Datagrams it sends.
    pub datagrams_sent: f64,
}

/// Why a handshake could not be measured: always our fault, and worth a report.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It ended without both sides connected.
    #[error("a {0:?} handshake did not complete: {1}")]
    Incomplete(Kind, String),
    /// The classical keys could not be made.
    #[error("cannot set up the classical side: {0}")]
    Classical(String),
    /// The CPU clock cannot be read.
    #[error("cannot read the CPU clock: {0}")]
    Clock(#[from] std::io::Error),
}

/// Largest UDP payload, as on control connections.
const DATAGRAM_LEN_MAX: u16 = 1200;
/// As on control connections: no smaller window may hold back a post-quantum flight.
const INITIAL_WINDOW: u64 = 76_800;
/// Virtual time of one exchange of datagrams.
const TURN: Duration = Duration::from_millis(1);
/// A handshake takes about five turns; never this many.
const TURNS_MAX: usize = 200;
/// Handshakes before the count starts, for caches and the first use of randomness.
const WARM_UP: u32 = 3;

/// Makes `count` handshakes of a kind.
pub fn measure(kind: Kind, count: u32) -> Result<Cost, HandshakeError> {
    let parties = Parties::new(kind)?;
    let mut client = Spent::default();
    let mut server = Spent::default();
    for n in 0..WARM_UP + count {
        let mut pair = Pair::new(&parties)?;
        pair.run(kind)?;
        if n >= WARM_UP {
            client.add(&pair.client.spent);
            server.add(&pair.server.spent);
        }
    }
    let total = client.cpu + server.cpu;
    Ok(Cost {
        kind,
        count,
        per_second: f64::from(count) / total.as_secs_f64().max(1e-9),
        client: client.mean(count),
        server: server.mean(count),
    })
}

/// Who shakes hands.
enum Parties {
    Ours {
        client: TlsConfigs,
        server: TlsConfigs,
        server_id: PeerId,
        short: bool,
    },
    Classical(classical::Configs),
}

impl Parties {
    fn new(kind: Kind) -> Result<Self, HandshakeError> {
        if kind == Kind::Classical {
            return classical::configs()
                .map(Parties::Classical)
                .map_err(HandshakeError::Classical);
        }
        let short = kind == Kind::Short;
        let [client, server] = [Identity::generate(), Identity::generate()].map(Arc::new);
        let server_id = server.peer_id();
        let book = Arc::new(Book {
            members: [client.public(), server.public()]
                .map(|public| (public.peer_id(), Arc::clone(public)))
                .into(),
            tells_keys: short,
        });
        let configs = |identity| {
            TlsConfigs::new(
                identity,
                Arc::clone(&book) as _,
                Arc::new(HandshakeCounters::default()),
            )
        };
        Ok(Parties::Ours {
            client: configs(client),
            server: configs(server),
            server_id,
            short,
        })
    }

    /// Nothing of an earlier handshake is left, or it would be resumed.
    fn configs(&self) -> Configs {
        match self {
            Parties::Ours {
                client,
                server,
                server_id,
                short,
            } => {
                client.forget(server_id);
                Configs {
                    client: client.client(*server_id, *short),
                    server: server.server(),
                    server_name: server_name(server_id),
                }
            }
            Parties::Classical(configs) => {
                let (client, server) = configs.fresh();
                Configs {
                    client,
                    server,
                    server_name: classical::SERVER_NAME.into(),
                }
            }
        }
    }
}

/// What one handshake needs.
struct Configs {
    client: Arc<dyn crypto::ClientConfig>,
    server: Arc<dyn crypto::ServerConfig>,
    /// What the client connects to.
    server_name: String,
}

/// Everybody is a member; keys are told only where the short certificate is wanted.
#[derive(Debug)]
struct Book {
    members: BTreeMap<PeerId, Arc<PublicIdentity>>,
    tells_keys: bool,
}

impl PeerBook for Book {
    fn is_member(&self, peer: &PeerId) -> bool {
        self.members.contains_key(peer)
    }

    fn public_identity(&self, peer: &PeerId) -> Option<Arc<PublicIdentity>> {
        self.members.get(peer).filter(|_| self.tells_keys).cloned()
    }

    fn learned(&self, _: Arc<PublicIdentity>) {}
}

#[derive(Default)]
struct Spent {
    cpu: Duration,
    bytes: u64,
    datagrams: u64,
}

impl Spent {
    fn add(&mut self, other: &Spent) {
        self.cpu += other.cpu;
        self.bytes += other.bytes;
        self.datagrams += other.datagrams;
    }

    fn mean(&self, count: u32) -> SideCost {
        let count = f64::from(count);
        SideCost {
            cpu_us: (self.cpu.as_secs_f64() * 1e6 / count).round() as u64,
            bytes_sent: self.bytes as f64 / count,
            datagrams_sent: self.datagrams as f64 / count,
        }
    }
}

/// One side: an endpoint with at most one connection.
struct Side {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    connected: bool,
    lost: Option<String>,
    spent: Spent,
}

struct Pair {
    now: Instant,
    client: Side,
    server: Side,
}

const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 1);
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 2);

impl Pair {
    fn new(parties: &Parties) -> Result<Self, HandshakeError> {
        let configs = parties.configs();
        let mut server_config = ServerConfig::with_crypto(configs.server);
        server_config.transport_config(transport());
        let mut client_config = ClientConfig::new(configs.client);
        client_config.transport_config(transport());

        let now = Instant::now();
        let mut client = Side::new(None);
        let server = Side::new(Some(Arc::new(server_config)));
        client.spend(|side| {
            let endpoint = &mut side.endpoint;
            match endpoint.connect(now, client_config, SERVER, &configs.server_name) {
                Ok(connection) => side.connection = Some(connection),
                Err(error) => side.lost = Some(error.to_string()),
            }
        })?;
        Ok(Self {
            now,
            client,
            server,
        })
    }

    /// Exchanges datagrams until both sides are connected and have nothing more to say.
    fn run(&mut self, kind: Kind) -> Result<(), HandshakeError> {
        for _ in 0..TURNS_MAX {
            self.now += TURN;
            let to_server = self.client.take(self.now)?;
            self.server.give(self.now, CLIENT, &to_server)?;
            let to_client = self.server.take(self.now)?;
            self.client.give(self.now, SERVER, &to_client)?;
            if let Some(why) = self.client.lost.take().or(self.server.lost.take()) {
                return Err(HandshakeError::Incomplete(kind, why));
            }
            let silent = to_server.is_empty() && to_client.is_empty();
            if silent && self.client.connected && self.server.connected {
                return Ok(());
            }
        }
        Err(HandshakeError::Incomplete(
            kind,
            "the sides fell silent".into(),
        ))
    }
}

impl Side {
    fn new(server: Option<Arc<ServerConfig>>) -> Self {
        let mut config = EndpointConfig::default();
        config.grease_quic_bit(false);
        Self {
            endpoint: Endpoint::new(Arc::new(config), server, false, None),
            connection: None,
            connected: false,
            lost: None,
            spent: Spent::default(),
        }
    }

    /// Does something and counts its CPU time as this side's.
    fn spend<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> Result<T, HandshakeError> {
        let before = cpu::thread_exact()?;
        let result = work(self);
        self.spent.cpu += cpu::thread_exact()?.saturating_sub(before);
        Ok(result)
    }

    /// Everything it wants to send now.
    fn take(&mut self, now: Instant) -> Result<Vec<BytesMut>, HandshakeError> {
        let datagrams = self.spend(|side| side.poll(now))?;
        self.spent.datagrams += datagrams.len() as u64;
        self.spent.bytes += datagrams
            .iter()
            .map(|datagram| datagram.len() as u64)
            .sum::<u64>();
        Ok(datagrams)
    }

    fn give(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagrams: &[BytesMut],
    ) -> Result<(), HandshakeError> {
        for datagram in datagrams {
            let datagram = datagram.clone();
            self.spend(|side| side.handle(now, from, datagram))?;
        }
        Ok(())
    }

    fn handle(&mut self, now: Instant, from: SocketAddr, datagram: BytesMut) {
        let mut answer = Vec::new();
        match self
            .endpoint
            .handle(now, from, None, None, datagram, &mut answer)
        {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut self.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                match self.endpoint.accept(incoming, now, &mut answer, None) {
                    Ok(connection) => self.connection = Some(connection),
                    Err(error) => self.lost = Some(error.cause.to_string()),
                }
            }
            Some(DatagramEvent::Response(_)) => self.lost = Some("a stateless answer".into()),
            None => {}
        }
    }

    fn poll(&mut self, now: Instant) -> Vec<BytesMut> {
        let Some((handle, connection)) = &mut self.connection else {
            return Vec::new();
        };
        if connection.poll_timeout().is_some_and(|due| due <= now) {
            connection.handle_timeout(now);
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::ConnectionLost { reason } => self.lost = Some(reason.to_string()),
                _ => {}
            }
        }
        let mut datagrams = VecDeque::new();
        let mut buffer = Vec::new();
        while connection.poll_transmit(now, 1, &mut buffer).is_some() {
            datagrams.push_back(BytesMut::from(&buffer[..]));
            buffer.clear();
        }
        datagrams.into()
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    let mut transport = TransportConfig::default();
    transport
        .initial_mtu(DATAGRAM_LEN_MAX)
        .mtu_discovery_config(None)
        .congestion_controller_factory(Arc::new(congestion));
    Arc::new(transport)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    // PROTOCOL SM-HS-6
    fn ours_costs_more_than_classical_and_the_short_certificate_saves_bytes() {
        let [full, short, classical] =
            [Kind::Full, Kind::Short, Kind::Classical].map(|kind| measure(kind, 2).unwrap());
        // Key 2.6 KB and signature 4.7 KB on each side, key exchange 1.6 KB.
        assert!(full.client.bytes_sent > 8_000.0, "{full:?}");
        assert!(full.server.bytes_sent > 8_000.0, "{full:?}");
        assert!(
            full.client.bytes_sent > short.client.bytes_sent + 2_000.0,
            "{short:?}"
        );
        assert!(
            short.client.bytes_sent > classical.client.bytes_sent + 3_000.0,
            "{classical:?}"
        );
        assert!(full.client.cpu_us > classical.client.cpu_us);
    }
}
