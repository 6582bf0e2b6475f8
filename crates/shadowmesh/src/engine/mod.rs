//! The engine: the I/O loop around one `shadowmesh_vpn::Node`.
//!
//! ```text
//!              TUN device                       applications' packets, up to 64 KB each
//!         ┌────────┴────────┐
//!      sender            receiver               one OS thread each, on an immutable snapshot
//!         │   ╲          ╱   │
//!         │     control      │                  the state machine; the only one that decides
//!         └────────┬────────┘
//!              UDP sockets                      sealed frames and QUIC packets, GSO and GRO
//! ```
//!
//! **Control** is whoever awaits [`run`], on a current-thread runtime. It owns the node, tells it the
//! time, and publishes a new snapshot whenever the node made one. **Sender** and **receiver** move
//! packets with the snapshot of the moment and hand what they cannot finish to control, through
//! bounded queues. Nothing is dropped without being counted by reason. Data threads wait for
//! each other where order asks for it (receivers at the `turnstile`, a sender and a receiver that does its
//! work), and a sender for at most 5 ms where `by_quic` is full.
//!
//! | module | what it does |
//! |---|---|
//! | `control` | drives the node: datagrams, timers, commands, signals |
//! | `sender`, `arrivals`, `buffers`, `runs` | device to network |
//! | `by_quic` | device to control, for peers whose packets go by QUIC |
//! | `envelopes` | what a way over a relay adds |
//! | `oversize` | what is too long for its path, in fragments |
//! | `receiver`, `turnstile` | network to device, and the order of receivers |
//! | `duty`, `placement` | one thread for both ways while there is little to do, and on which core |
//! | `relayed`, `passing` | what relays passed on to us, and what we pass on as one |
//! | `cell`, `inbox`, `stop` | what the threads share: snapshot, queues, the end |
//! | `sync` | locks and atomics, loom's where a test tries every interleaving |
//! | `priority` | who goes first when all cores are busy |
//! | `links`, `extra` | the UDP sockets, and what else leads somewhere |
//! | [`streams`] | WebSocket over TLS, where UDP does not pass |
//! | [`host`], [`journal`] | addresses and routes, set, kept and taken away |
//! | [`claims`], `ground`, `routing` | what of the host's address space we may take, and the tables that lead to us |
//! | `late` | addresses to listen on that come later |
//! | `network`, `lan`, `port_map` | our own addresses, changes of the host's network, neighbours, the router |
//! | `report`, `tally` | what commands are told, and what is counted for metrics |

mod arrivals;
mod buffers;
mod by_quic;
mod cell;
pub mod claims;
mod control;
mod duty;
mod envelopes;
mod extra;
mod ground;
pub mod host;
mod inbox;
pub mod journal;
mod lan;
mod late;
mod links;
#[cfg(test)]
mod model;
mod network;
mod oversize;
mod passing;
mod placement;
mod port_map;
mod priority;
mod receiver;
mod relayed;
mod report;
mod routing;
mod runs;
mod sender;
mod stop;
pub mod streams;
mod sync;
mod tally;
mod turnstile;

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use shadowmesh_crypto::PublicIdentity;
use shadowmesh_io::tun::{Tun, TunError, TunOptions};
use shadowmesh_io::web::Server;
use shadowmesh_net::{DropCounters, DropReason};
use shadowmesh_vpn::{ConfigError, Node, NodeConfig};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::offload::VNET_HDR_LEN;
use shadowmesh_wire::traffic_class::OuterDscp;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::admin::Command;
use cell::SnapshotCell;
use claims::Wanted;
use control::{Control, Signals};
use host::{Host, HostError, HostOptions};
use inbox::Outbox;
use links::Links;
use network::{Network, NetworkOptions};
use receiver::Receiver;
use sender::Sender;
use stop::Stop;
use streams::{Streams, StreamsConfig};
use turnstile::Turnstile;

/// What the engine runs with.
pub struct EngineConfig {
    /// The node: identity, peers, addresses.
    pub node: NodeConfig,
    /// UDP addresses to bind; a socket each.
    pub listen: Vec<SocketAddr>,
    /// Where others reach this node, by the configuration.
    pub announce: Vec<SocketAddr>,
    /// TCP address of the metrics, which somebody else serves: whether the host has it is watched here.
    pub metrics_listen: Option<SocketAddr>,
    /// No device, no addresses and no routes: the node takes part in no network, and only relays. Needs
    /// no rights.
    pub bare: bool,
    /// Name of the device; `None` takes the first free `shadowN`.
    pub device_name: Option<String>,
    /// Largest IP packet of the device.
    pub mtu: u16,
    /// Queues of the device: that many senders and receivers, 1 to
    /// [`QUEUES_MAX`](shadowmesh_io::tun::QUEUES_MAX). A device without offload has one queue and so
    /// one sender.
    pub queues: usize,
    /// Whether the device passes super-packets.
    pub offload: bool,
    /// What the outer header says of the inner DSCP.
    pub dscp: OuterDscp,
    /// Whether to look for peers on local networks.
    pub lan_discovery: bool,
    /// Ways to peers beside UDP.
    pub streams: StreamsConfig,
    /// Whether to ask the router for a port.
    pub port_mapping: bool,
    /// Where the journal of host settings is kept.
    pub state_dir: PathBuf,
    /// What the rest of the program wants to be told.
    pub hooks: Hooks,
}

/// What the engine tells the rest of the program. Called on the control thread: must not block.
pub struct Hooks {
    /// A peer's full public key was verified: keep it for the next start.
    pub learned: Box<dyn FnMut(Arc<PublicIdentity>)>,
    /// Everything is up: device, addresses, routes and threads.
    pub ready: Box<dyn FnMut(&Started)>,
}

/// What a started engine got from the operating system.
#[derive(Debug, Clone)]
pub struct Started {
    /// Name of the device.
    pub device: String,
    /// What was really bound.
    pub listen: Vec<SocketAddr>,
    /// The same of TCP, for streams.
    pub web_listen: Vec<SocketAddr>,
    /// Overlay addresses with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Largest IP packet of the device.
    pub mtu: u16,
    /// Whether it relays for others.
    pub relaying: bool,
    /// MB/s of AES-256-GCM and ChaCha20-Poly1305 on this machine; 0 where the node refuses it.
    pub cipher_speeds: [u32; 2],
}

/// Why the engine did not start, or ended.
#[derive(Debug, Error)]
pub enum EngineError {
    /// Peers and addresses do not fit together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A socket could not be bound; the text says which and what to do.
    #[error(transparent)]
    Listen(io::Error),
    /// There is no device; the text says what to do.
    #[error(transparent)]
    Device(#[from] TunError),
    /// Addresses or routes could not be set.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A thread could not be started.
    #[error("cannot start the data threads: {0}")]
    Threads(io::Error),
    /// A data thread ended on its own.
    #[error("the {thread} thread failed: {source}; the device was probably deleted")]
    DataThread {
        /// Which one.
        thread: &'static str,
        /// With what.
        source: io::Error,
    },
}

/// Runs the node until a command, SIGINT or SIGTERM ends it. On return its peers have been told, and
/// device, addresses and routes are gone.
pub async fn run(
    mut config: EngineConfig,
    commands: mpsc::Receiver<Command>,
) -> Result<(), EngineError> {
    let cipher_speeds = config.node.net.cipher_speeds;
    let own_id = config.node.net.identity.peer_id();
    let peer_ids = peer_ids(&config.node);
    let relaying = config.node.net.relay.enabled;
    let mut node = Node::new(config.node, Instant::now())?;
    node.set_own_addresses(network::announced(&config.announce), Instant::now());
    let signals = Signals::new().map_err(EngineError::Threads)?;
    let links =
        Arc::new(Links::bind(&config.listen, !config.streams.only).map_err(EngineError::Listen)?);
    if relaying {
        node.set_second_port(links.open_second());
    }
    let wanted = TunOptions {
        name: config.device_name.as_deref(),
        mtu: config.mtu.into(),
        queues: config.queues,
        offload: config.offload,
    };
    let wanted = (!config.bare).then_some(&wanted);
    let (device, host) = open_device(
        wanted,
        (&own_id, &node),
        &links.addresses(),
        &config.state_dir,
    )?;
    let view = host.as_ref().map(|host| host.view()).unwrap_or_default();
    node.set_host(view.networks.clone(), view.apart);
    let drops = Arc::clone(node.drops());
    let (outbox, inbox) = inbox::queues(Arc::clone(&drops));
    let shared = Shared {
        device: Arc::clone(&device),
        links: Arc::clone(&links),
        cell: Arc::new(SnapshotCell::new(node.snapshot())),
        turnstile: Arc::new(Turnstile::new(config.queues)),
        outbox,
        drops,
        dscp: config.dscp,
    };
    let mut threads = DataThreads::start(&shared, config.queues).map_err(EngineError::Threads)?;
    let server = config.streams.server.as_ref();
    let web_listen = server.map_or(Vec::new(), Server::addresses);
    let watching = tokio::spawn(late::watch(late::Listening {
        links: Arc::clone(&links),
        tcp: web_listen
            .iter()
            .copied()
            .chain(config.metrics_listen)
            .collect(),
        waiting: server.map(Server::waiting),
    }));
    let streams = Streams::start(config.streams, &shared).map_err(EngineError::Threads)?;
    let started = Started {
        device: device.name().into(),
        listen: links.addresses(),
        web_listen,
        addresses: view.addresses.clone(),
        mtu: config.mtu,
        relaying,
        cipher_speeds,
    };
    (config.hooks.ready)(&started);
    let network = Network::start(NetworkOptions {
        own: own_id,
        peers: peer_ids,
        listen: started.listen.clone(),
        announce: config.announce,
        device: device.index(),
        host: host.clone(),
        lan_discovery: config.lan_discovery,
        port_mapping: config.port_mapping,
    })
    .map_err(EngineError::Threads)?;
    let control = Control::new(node, shared, streams, started, view, config.hooks);
    let ended = control
        .run(inbox, commands, network, &mut threads, signals)
        .await;
    watching.abort();
    threads.stop();
    if let Some(host) = &host {
        host.undo();
    }
    // The last owner: with it the device goes, before anybody is told that it has.
    drop(device);
    ended.confirm()
}

/// The device and what is set on the host for it; where none is wanted, nothing and nothing.
fn open_device(
    wanted: Option<&TunOptions<'_>>,
    (own_id, node): (&PeerId, &Node),
    listen: &[SocketAddr],
    state_dir: &Path,
) -> Result<(Arc<Tun>, Option<Arc<Host>>), EngineError> {
    let Some(wanted) = wanted else {
        return Ok((Arc::new(Tun::nothing()?), None));
    };
    host::clean_leftovers(state_dir)?;
    let device = Tun::open(wanted)?;
    let over_ipv4 = listen.iter().filter(|address| address.is_ipv4());
    let host = Host::configure(HostOptions {
        device: &device,
        mtu: wanted.mtu,
        wanted: Wanted::new(own_id, node.addresses(), node.routes()),
        ports: over_ipv4.map(SocketAddr::port).collect(),
        state_dir,
    })?;
    Ok((Arc::new(device), Some(Arc::new(host))))
}

/// Everybody whom this node may want to reach.
fn peer_ids(config: &NodeConfig) -> Vec<PeerId> {
    let peers = config.peers.iter().map(|peer| peer.id);
    let relays = config.relays.iter().map(|relay| relay.id);
    let ids: BTreeSet<PeerId> = peers.chain(relays).collect();
    ids.into_iter().collect()
}

/// What all threads work with.
#[derive(Clone)]
struct Shared {
    /// The device.
    device: Arc<Tun>,
    /// The sockets.
    links: Arc<Links>,
    /// The current snapshot.
    cell: Arc<SnapshotCell>,
    /// The order of what is received.
    turnstile: Arc<Turnstile>,
    /// To control.
    outbox: Outbox,
    /// Everything dropped.
    drops: Arc<DropCounters>,
    /// What the outer header says of the inner DSCP.
    dscp: OuterDscp,
}

impl Shared {
    /// For a receiver whose sockets are its own, so that it need not wait for others.
    fn with_own_turns(&self) -> Self {
        Self {
            turnstile: Arc::new(Turnstile::new(1)),
            ..self.clone()
        }
    }

    /// One packet to the device, alone: a virtio header of zeros says that nothing is left to do.
    fn deliver_alone(&self, packet: &[u8]) {
        let header = [0u8; VNET_HDR_LEN];
        let slices = [IoSlice::new(&header), IoSlice::new(packet)];
        if self.device.write_vectored(&slices).is_err() {
            self.drops.count(DropReason::DeviceFull);
        }
    }
}

/// The running senders and receivers.
struct DataThreads {
    stops: Vec<Arc<Stop>>,
    handles: Vec<JoinHandle<()>>,
    failures: mpsc::Receiver<EngineError>,
}

impl DataThreads {
    /// A sender for each queue of the device, and `receivers` receivers.
    fn start(shared: &Shared, receivers: usize) -> io::Result<Self> {
        let (failed, failures) = mpsc::channel(2);
        let mut threads = Self {
            stops: Vec::new(),
            handles: Vec::new(),
            failures,
        };
        let mut works = Vec::new();
        for queue in 0..shared.device.queues().len() {
            let stop = threads.new_stop()?;
            let sender = Sender::new(shared.clone(), queue, stop)?;
            works.push(sender.work());
            threads.spawn("sender", failed.clone(), move || sender.run())?;
        }
        // With several queues an answer may come on any of them, and looking at all costs as much as
        // it saves.
        let answers = match &works[..] {
            [only] => Some(Arc::clone(only)),
            _ => None,
        };
        for _ in 0..receivers {
            let stop = threads.new_stop()?;
            let receiver = Receiver::new(shared.clone(), answers.clone(), stop);
            let receiver = match receivers {
                1 => receiver.relieving(),
                _ => receiver,
            };
            threads.spawn("receiver", failed.clone(), move || receiver.run())?;
        }
        let stop = threads.new_stop()?;
        let receiver = Receiver::new(shared.with_own_turns(), answers, stop);
        threads.spawn("side receiver", failed, move || receiver.run_extra())?;
        Ok(threads)
    }

    fn new_stop(&mut self) -> io::Result<Arc<Stop>> {
        let stop = Arc::new(Stop::new()?);
        self.stops.push(Arc::clone(&stop));
        Ok(stop)
    }

    fn spawn(
        &mut self,
        name: &'static str,
        failed: mpsc::Sender<EngineError>,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let body = move || {
            if let Err(source) = work() {
                // Control is the reader; if it is gone, the end is under way already.
                let _ = failed.try_send(EngineError::DataThread {
                    thread: name,
                    source,
                });
            }
        };
        self.handles
            .push(thread::Builder::new().name(name.into()).spawn(body)?);
        Ok(())
    }

    /// The failure of a thread that ended on its own. Never returns while all is well.
    async fn failure(&mut self) -> EngineError {
        match self.failures.recv().await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Ends all threads and waits for them.
    fn stop(&mut self) {
        self.stops.iter().for_each(|stop| stop.set());
        for handle in self.handles.drain(..) {
            // A panic there was printed there; the way down is the same.
            let _ = handle.join();
        }
    }
}

impl Drop for DataThreads {
    fn drop(&mut self) {
        self.stop();
    }
}
