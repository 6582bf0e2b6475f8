//! A machine of the simulated world: it keeps what survives a restart (identity, settings, learned
//! keys) and, while it runs, a node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shadowmesh_crypto::{Identity, PublicIdentity};
use shadowmesh_net::{
    AddressKind, DataPlane, DropReason, NetConfig, NetEvent, OwnAddress, RelayConfig, SECOND_SOCKET,
};
use shadowmesh_vpn::{Node, NodeConfig, NodePeer, NodeRelay};
use shadowmesh_wire::PeerId;

use super::topology::{BoxId, Realm};

/// What the hosts' wall clocks show when the world begins: a day in 2033.
const UNIX_TIME_AT_BIRTH: Duration = Duration::from_secs(2_000_000_000);

/// The node's socket number n is at this port and n.
const SOCKET_PORTS: u16 = 20_000;

/// How many datagrams a host without a node keeps: more than any scenario waits for.
const BARE_MAX: usize = 4096;

/// A datagram that reached a host, but no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bare {
    /// World time.
    pub at: Duration,
    /// The sender's address, as seen here.
    pub remote: SocketAddr,
    /// The address of the socket it came to.
    pub local: SocketAddr,
    /// The UDP payload.
    pub data: Vec<u8>,
}

/// The settings of a host; they survive restarts.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Time between rekeys.
    pub rekey_interval: Duration,
    /// What the host claims to measure, MB/s: AES-256-GCM and ChaCha20-Poly1305.
    pub cipher_speeds: [u32; 2],
    /// Device MTU, bytes.
    pub mtu: u16,
    /// What it wants to carry the packets of all its peers.
    pub data_plane: DataPlane,
    /// Static overlay addresses; empty means the derived ones.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether the node calls all its peers when it starts, as the program does.
    pub greet: bool,
    /// What it does as a relay.
    pub relay: RelayConfig,
    /// Whether, as a relay, it can be asked at a second port too, as the program can.
    pub second_port: bool,
    /// Whether the node is told the addresses of its host when it starts, as the program does.
    pub tells_addresses: bool,
    /// Whether it takes streams, as the program with `[web] listen`; everybody who knows it knows that.
    pub takes_streams: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            rekey_interval: Duration::from_secs(120),
            cipher_speeds: [7000, 2000],
            mtu: 1420,
            data_plane: DataPlane::default(),
            addresses: Vec::new(),
            greet: false,
            relay: RelayConfig::default(),
            second_port: true,
            tells_addresses: false,
            takes_streams: false,
        }
    }
}

/// A machine.
pub struct Host {
    /// Its settings, read at the next start.
    pub config: HostConfig,
    /// Whom it knows, read at the next start.
    pub peers: Vec<NodePeer>,
    /// Which relays it uses, read at the next start.
    pub relays: Vec<NodeRelay>,
    /// What its node reported since the host was added, with the world time.
    pub events: Vec<(Duration, NetEvent)>,
    /// UDP payload its nodes have sent so far, bytes, without what a tap swallowed.
    pub sent_bytes: usize,
    /// What reached it while no node ran, or at a further socket: what bare sockets there would have received. Limit:
    /// [`BARE_MAX`].
    pub bare: Vec<Bare>,
    pub(super) identity: Arc<Identity>,
    pub(super) address: SocketAddr,
    /// A second address, from which it writes to IPv6 destinations.
    pub(super) address_v6: Option<SocketAddr>,
    /// Ports of further sockets, which its node knows nothing of (nor could it tell them apart).
    pub(super) further_ports: BTreeSet<u16>,
    /// Local ports that its node has opened to send from, beside the one where it listens.
    pub(super) sockets: BTreeSet<u16>,
    /// The box it is behind.
    pub(super) behind: Realm,
    /// Whether its cable is in.
    pub(super) plugged: bool,
    pub(super) node: Option<Node>,
    /// Counts starts, so that wake-ups of a former life are recognised.
    pub(super) boots: u64,
    /// How far this host's clock runs ahead of the world's.
    pub(super) clock_ahead: Duration,
    /// World time of the earliest wake-up that is already in the queue.
    pub(super) wake_at: Option<Duration>,
    learned: BTreeMap<PeerId, Arc<PublicIdentity>>,
}

impl Host {
    pub(super) fn new(identity: Identity, address: SocketAddr, config: HostConfig) -> Self {
        Self {
            config,
            peers: Vec::new(),
            relays: Vec::new(),
            events: Vec::new(),
            sent_bytes: 0,
            bare: Vec::new(),
            identity: Arc::new(identity),
            address,
            address_v6: None,
            further_ports: BTreeSet::new(),
            sockets: BTreeSet::new(),
            behind: None,
            plugged: true,
            node: None,
            boots: 0,
            clock_ahead: Duration::ZERO,
            wake_at: None,
            learned: BTreeMap::new(),
        }
    }

    /// Who it is.
    pub fn id(&self) -> PeerId {
        self.identity.peer_id()
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is reached by IPv6, if it has such an address.
    pub fn address_v6(&self) -> Option<SocketAddr> {
        self.address_v6
    }

    /// The box it is behind; none in the internet.
    pub fn behind(&self) -> Option<BoxId> {
        self.behind
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        std::iter::once(self.address).chain(self.address_v6)
    }

    /// The address it writes to `destination` from.
    pub(super) fn source_for(&self, destination: SocketAddr) -> Option<SocketAddr> {
        if destination.is_ipv4() == self.address.is_ipv4() {
            Some(self.address)
        } else {
            self.address_v6
        }
    }

    /// Whether a datagram to that address is for its socket.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        let ours = |own: SocketAddr| {
            let port = address.port();
            let open = self.further_ports.contains(&port) || self.socket_at(address).is_some();
            own.ip() == address.ip() && (own.port() == port || open)
        };
        self.plugged && self.addresses().any(ours)
    }

    /// Keeps what arrived at `local` for nobody.
    pub(super) fn keep_bare(
        &mut self,
        at: Duration,
        (remote, local): (SocketAddr, SocketAddr),
        data: Vec<u8>,
    ) {
        if self.bare.len() < BARE_MAX {
            self.bare.push(Bare {
                at,
                remote,
                local,
                data,
            });
        }
    }

    /// Whether that address belongs to a socket of the node.
    pub(super) fn is_nodes(&self, local: SocketAddr) -> bool {
        self.addresses().any(|own| own == local) || self.socket_at(local).is_some()
    }

    /// The number of the node's further socket at that address.
    pub(super) fn socket_at(&self, local: SocketAddr) -> Option<u16> {
        let number = local.port().checked_sub(SOCKET_PORTS)?;
        self.sockets.contains(&number).then_some(number)
    }

    /// The address of a socket of the node, by number; one that was not there is opened.
    pub(super) fn socket_address(&mut self, listening: SocketAddr, number: u16) -> SocketAddr {
        if number == 0 {
            return listening;
        }
        self.sockets.insert(number);
        SocketAddr::new(listening.ip(), SOCKET_PORTS + number)
    }

    /// Its node.
    ///
    /// # Panics
    /// When the host is down.
    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("the host is running")
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// How often its present node dropped something for that reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.node().drops().get(reason)
    }

    /// A new life: same identity and settings, another boot number.
    pub(super) fn boot(&mut self, seed: [u8; 32], now: Instant, world_time: Duration) {
        self.boots += 1;
        self.wake_at = None;
        let mut net = NetConfig::new(self.identity.clone(), seed, self.boots);
        net.unix_time = UNIX_TIME_AT_BIRTH + world_time + self.clock_ahead;
        net.rekey_interval = self.config.rekey_interval;
        net.cipher_speeds = self.config.cipher_speeds;
        net.mtu = self.config.mtu;
        net.relay = self.config.relay.clone();
        let mut peers = self.peers.clone();
        for peer in &mut peers {
            peer.data_plane = self.config.data_plane;
            peer.known_key = peer
                .known_key
                .take()
                .or_else(|| self.learned.get(&peer.id).cloned());
        }
        let config = NodeConfig {
            net,
            addresses: self.config.addresses.clone(),
            peers,
            relays: self.relays.clone(),
        };
        let mut node = Node::new(config, now).expect("the scenario's configuration is sound");
        self.sockets.clear();
        if self.config.relay.enabled && self.config.second_port {
            self.sockets.insert(SECOND_SOCKET);
            node.set_second_port(Some(SOCKET_PORTS + SECOND_SOCKET));
        }
        if self.config.tells_addresses {
            let own = self.addresses().map(|address| OwnAddress {
                address,
                kind: AddressKind::Host,
            });
            node.set_own_addresses(own.collect(), now);
        }
        if self.config.greet {
            node.connect_all(now);
        }
        self.node = Some(node);
    }

    pub(super) fn note(&mut self, event: NetEvent, now: Duration) {
        if let NetEvent::LearnedKey(key) = &event {
            self.learned.insert(key.peer_id(), key.clone());
        }
        if let NetEvent::SocketsDone { keep } = &event {
            self.sockets.retain(|number| keep.contains(number));
        }
        self.events.push((now, event));
    }
}
