//! A machine of the simulated world: it keeps what survives a restart (identity, settings, learned
//! keys) and, while it runs, a node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shadowmesh_crypto::{Identity, PublicIdentity};
use shadowmesh_net::{DropReason, NetConfig, NetEvent};
use shadowmesh_vpn::{Node, NodeConfig, NodeEvent, NodePeer};
use shadowmesh_wire::PeerId;

/// What the hosts' wall clocks show when the world begins: a day in 2033.
const UNIX_TIME_AT_BIRTH: Duration = Duration::from_secs(2_000_000_000);

/// The settings of a host; they survive restarts.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Time between rekeys.
    pub rekey_interval: Duration,
    /// What the host claims to measure, MB/s: AES-256-GCM and ChaCha20-Poly1305.
    pub cipher_speeds: [u32; 2],
    /// Device MTU, bytes.
    pub mtu: u16,
    /// Static overlay addresses; empty means the derived ones.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Whether the node calls all its peers when it starts, as the program does.
    pub greet: bool,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            rekey_interval: Duration::from_secs(120),
            cipher_speeds: [7000, 2000],
            mtu: 1420,
            addresses: Vec::new(),
            greet: false,
        }
    }
}

/// A machine.
pub struct Host {
    /// Its settings, read at the next start.
    pub config: HostConfig,
    /// Whom it knows, read at the next start.
    pub peers: Vec<NodePeer>,
    /// What its node reported since the host was added, with the world time.
    pub events: Vec<(Duration, NetEvent)>,
    /// UDP payload its nodes have sent so far, bytes, without what a tap swallowed.
    pub sent_bytes: usize,
    pub(super) identity: Arc<Identity>,
    pub(super) address: SocketAddr,
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
            events: Vec::new(),
            sent_bytes: 0,
            identity: Arc::new(identity),
            address,
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
        let mut peers = self.peers.clone();
        for peer in &mut peers {
            peer.known_key = peer
                .known_key
                .take()
                .or_else(|| self.learned.get(&peer.id).cloned());
        }
        let config = NodeConfig {
            net,
            addresses: self.config.addresses.clone(),
            peers,
        };
        let mut node = Node::new(config, now).expect("the scenario's configuration is sound");
        if self.config.greet {
            node.connect_all(now);
        }
        self.node = Some(node);
    }

    pub(super) fn note(&mut self, event: NodeEvent, now: Duration) {
        let NodeEvent::Net(event) = event else { return };
        if let NetEvent::LearnedKey(key) = &event {
            self.learned.insert(key.peer_id(), key.clone());
        }
        self.events.push((now, event));
    }
}
