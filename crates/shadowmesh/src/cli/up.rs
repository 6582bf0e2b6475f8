//! `shadowmesh up`: from configuration and state directory to a running engine, and back.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use shadowmesh_crypto::{Identity, PublicIdentity, measure_speeds};
use shadowmesh_io::service;
use shadowmesh_io::web::{ProxyUrl, Server, ServerError, ServerOptions};
use shadowmesh_net::NetConfig;
use shadowmesh_vpn::{NodeConfig, NodePeer, NodeRelay};
use shadowmesh_wire::PeerId;
use tokio::sync::{mpsc, oneshot};

use super::args::{Global, UpArgs};
use super::failure::Failure;
use super::{load, output};
use crate::admin::report::DeviceReport;
use crate::admin::server::AdminServer;
use crate::admin::{COMMAND_QUEUE_MAX, Command};
use crate::config::{CipherChoice, Config, Loaded, Offload, ProxyChoice, WebUse};
use crate::engine::streams::{self, StreamsConfig, Target};
use crate::engine::{self, EngineConfig, EngineError, Hooks, Started};
use crate::identity_file;
use crate::metrics::MetricsServer;
use crate::notices;
use crate::state::{StateDir, StateError};

pub fn run(global: &Global, args: &UpArgs) -> Result<(), Failure> {
    run_node(global, load(global, args)?, Role::Member)
}

/// What a node is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// A member of a mesh, with a device.
    Member,
    /// A relay for others and nothing else.
    Relay,
}

/// Runs the node in the foreground until something ends it.
pub(super) fn run_node(global: &Global, mut loaded: Loaded, role: Role) -> Result<(), Failure> {
    let state = StateDir::open(&loaded.config.node.state_dir)?;
    let lock = state.lock().map_err(|error| {
        let in_use = matches!(error, StateError::InUse { .. });
        match in_use && role == Role::Relay {
            true => Failure::new(error).next(RELAY_THERE),
            false => error.into(),
        }
    })?;
    let identity = Arc::new(identity_file::load_or_create(state.directory())?);
    state.remove_leftovers(&lock);
    for note in loaded.check_against(&identity.peer_id())? {
        tracing::warn!("{note}");
    }

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the event loop: {error}")))?;
    runtime.block_on(serve(global.json, &loaded, role, &state, identity))
}

async fn serve(
    as_json: bool,
    loaded: &Loaded,
    role: Role,
    state: &StateDir,
    identity: Arc<Identity>,
) -> Result<(), Failure> {
    let config = Arc::new(loaded.config.clone());
    let (commands, inbox) = mpsc::channel::<Command>(COMMAND_QUEUE_MAX);
    // The endpoint is there until this is dropped.
    let _metrics = config
        .metrics
        .listen
        .map(|listen| serve_metrics(listen, commands.clone()));
    let (stop_admin, stop) = oneshot::channel();
    let admin = match AdminServer::bind(state.path(), Arc::clone(&config), commands) {
        Ok(admin) => tokio::spawn(admin.run(stop)),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
            return Err(admin_failure(state.path(), &error));
        }
        // PROTOCOL SM-ST-1
        Err(error) => {
            notices::set(
                "admin socket",
                format!("no verb reaches this node, because its socket cannot be made: {error}"),
            );
            tokio::spawn(async {})
        }
    };

    let id = identity.peer_id();
    let relay = config.relay.clone();
    let announce = config.node.announce.clone();
    let hooks = Hooks {
        learned: key_writer(state.clone(), &config),
        ready: Box::new(move |started| {
            match role {
                Role::Member => tell_ready(as_json, &id, started),
                Role::Relay => super::relay::tell_ready(as_json, &id, started, &relay, &announce),
            }
            tell_manager("READY=1");
        }),
    };
    let mut engine = engine_config(&config, state, identity, hooks)?;
    engine.bare = role == Role::Relay;
    let ended = engine::run(engine, inbox).await;
    tell_manager("STOPPING=1");
    // Verbs that wait for an answer, `down` above all, still get it.
    let _ = stop_admin.send(());
    let _ = admin.await;
    ended.map_err(|error| engine_failure(error, role))
}

/// Serves the metrics as soon as the address can be had: a node that nobody measures is better than none.
// PROTOCOL SM-ST-2
fn serve_metrics(listen: SocketAddr, commands: mpsc::Sender<Command>) -> oneshot::Sender<()> {
    if !listen.ip().is_loopback() {
        tracing::warn!(
            "the metrics can be read by everybody who reaches {listen}: there is no login"
        );
    }
    let (stop_metrics, mut stop) = oneshot::channel();
    tokio::spawn(async move {
        let server = loop {
            match MetricsServer::bind(listen, commands.clone()).await {
                Ok(server) => break server,
                Err(error) => notices::set(
                    METRICS_TOPIC,
                    format!(
                        "cannot serve metrics on {listen} ({error}): tried again every few seconds; choose \
                         another metrics.listen, or stop the program that uses this port"
                    ),
                ),
            }
            tokio::select! {
                () = tokio::time::sleep(METRICS_PAUSE) => {}
                _ = &mut stop => return,
            }
        };
        notices::clear(METRICS_TOPIC);
        server.run(stop).await;
    });
    stop_metrics
}

const METRICS_TOPIC: &str = "metrics";
/// Between two attempts to have the address of the metrics.
const METRICS_PAUSE: Duration = Duration::from_secs(5);

fn engine_config(
    config: &Config,
    state: &StateDir,
    identity: Arc<Identity>,
    hooks: Hooks,
) -> Result<EngineConfig, Failure> {
    let id = identity.peer_id();
    Ok(EngineConfig {
        streams: streams_config(config, &id)?,
        node: node_config(config, state, identity)?,
        listen: config.node.listen.clone(),
        announce: config.node.announce.clone(),
        metrics_listen: config.metrics.listen,
        bare: false,
        device_name: config.device.name.clone(),
        mtu: config.device.mtu,
        queues: config.device.queues.on(cores()),
        offload: config.device.offload == Offload::Auto,
        dscp: config.device.dscp,
        lan_discovery: config.paths.lan_discovery,
        port_mapping: config.paths.port_mapping,
        state_dir: state.path().into(),
        hooks,
    })
}

fn streams_config(config: &Config, own: &PeerId) -> Result<StreamsConfig, Failure> {
    let web = &config.web;
    let server = (!web.listen.is_empty()).then(|| {
        let certificate = web.certificate.as_ref();
        Server::bind(ServerOptions {
            listen: &web.listen,
            certificate: certificate.map(|files| (&*files.chain, &*files.key)),
            secret_path: streams::secret_path(own),
        })
    });
    Ok(StreamsConfig {
        targets: stream_targets(config),
        proxy: proxy(config),
        server: server.transpose().map_err(server_failure)?,
        only: web.usage == WebUse::Always,
    })
}

/// The proxy that streams of our own go through.
pub(super) fn proxy(config: &Config) -> Option<ProxyUrl> {
    match &config.web.proxy {
        ProxyChoice::Proxy(url) => Some(url.clone()),
        ProxyChoice::Direct => None,
        ProxyChoice::Environment => environment_proxy(),
    }
}

/// Every peer and relay that takes streams. One without any other address has nothing to be tried first.
fn stream_targets(config: &Config) -> BTreeMap<PeerId, Target> {
    let usage = config.web.usage;
    let peers = config.peers.iter();
    let peers = peers.map(|peer| (peer.id, &peer.web, peer.address.is_empty()));
    let relays = config.relay.uses.iter();
    let relays = relays.map(|relay| (relay.id, &relay.web, relay.addresses.is_empty()));
    let takes = peers.chain(relays).filter_map(|(id, web, nowhere)| {
        let always = usage == WebUse::Always || nowhere;
        let url = web.clone()?;
        Some((id, Target { url, always }))
    });
    match usage {
        WebUse::Never => BTreeMap::new(),
        WebUse::Auto | WebUse::Always => takes.collect(),
    }
}

/// What other programs go by, too.
fn environment_proxy() -> Option<ProxyUrl> {
    let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let text = set("HTTPS_PROXY").or_else(|| set("https_proxy"))?;
    match text.parse() {
        Ok(proxy) => Some(proxy),
        Err(error) => {
            tracing::warn!("HTTPS_PROXY is not used, because it is no proxy's URL: {error}");
            None
        }
    }
}

fn server_failure(error: ServerError) -> Failure {
    let failure = Failure::new(&error);
    match error {
        ServerError::Certificate { .. } => {
            failure.next("correct web.certificate and web.key, or leave both out")
        }
        ServerError::Tls(_) => failure,
    }
}

/// What this process may use, which a container may limit.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get())
}

fn node_config(
    config: &Config,
    state: &StateDir,
    identity: Arc<Identity>,
) -> Result<NodeConfig, Failure> {
    let keys = state.peer_keys(&config.acquaintances());
    let known = |id: &PeerId| keys.iter().find(|key| key.peer_id() == *id).cloned();
    let peers = config.peers.iter().map(|peer| NodePeer {
        id: peer.id,
        name: peer.name.clone(),
        allowed_ips: peer.allowed_ips.clone(),
        underlay: peer.address.clone(),
        known_key: known(&peer.id),
        data_plane: peer.data_plane,
    });
    let relays = config.relay.uses.iter().map(|relay| NodeRelay {
        id: relay.id,
        underlay: relay.addresses.clone(),
        known_key: known(&relay.id),
    });
    let addresses = config.overlay_addresses(&identity.peer_id());
    let unix_time = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(|_| Failure::new("the clock of this machine is before 1970").next("set it"))?;
    let mut net = NetConfig::new(identity, random()?, u64::from_ne_bytes(random()?));
    net.unix_time = unix_time;
    net.rekey_interval = config.session.rekey_interval;
    net.cipher_speeds = cipher_speeds(config.session.cipher);
    net.mtu = config.device.mtu;
    net.relay = config.relay.for_net();
    net.paths = config.paths.timers();
    Ok(NodeConfig {
        net,
        addresses: addresses
            .iter()
            .map(|address| (address.ip, address.prefix_len))
            .collect(),
        peers: peers.collect(),
        relays: relays.collect(),
    })
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Failure::new("the operating system gives no random bytes"))?;
    Ok(bytes)
}

/// Measured here and now; a cipher that is not wanted counts as refused.
// PROTOCOL SM-SF-8
fn cipher_speeds(choice: CipherChoice) -> [u32; 2] {
    let start = Instant::now();
    let [aes, chacha] = measure_speeds(|| start.elapsed());
    match choice {
        CipherChoice::Auto => [aes, chacha],
        CipherChoice::Aes256Gcm => [aes.max(1), 0],
        CipherChoice::ChaCha20Poly1305 => [0, chacha.max(1)],
    }
}

/// Keys are written by a thread of their own: the control thread must not wait for a disk.
// PROTOCOL SM-HS-6
fn key_writer(state: StateDir, config: &Config) -> Box<dyn FnMut(Arc<PublicIdentity>)> {
    let peers = config.acquaintances();
    // Limit: one for each acquaintance, whose key is learned once. None is said again, so none may be lost.
    let (learned, keys) = blocking::channel::<Arc<PublicIdentity>>();
    thread::spawn(move || {
        for key in keys {
            state.store_peer_key(&key);
        }
    });
    Box::new(move |key| {
        if peers.contains(&key.peer_id()) {
            // The writer ends with the program only.
            let _ = learned.send(key);
        }
    })
}

/// What `up` prints when the node runs.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct UpReport {
    /// `up`
    event: &'static str,
    /// PeerId of this node.
    id: String,
    /// UDP addresses really bound.
    listen: Vec<String>,
    /// TCP addresses for WebSocket.
    web_listen: Vec<SocketAddr>,
    /// The device that applications see.
    device: DeviceReport,
}

/// The node is up: said on standard output, where a script waits for it.
fn tell_ready(as_json: bool, id: &PeerId, started: &Started) {
    let addresses: Vec<String> = started
        .addresses
        .iter()
        .map(|(ip, len)| format!("{ip}/{len}"))
        .collect();
    let listen: Vec<String> = started.listen.iter().map(ToString::to_string).collect();
    if as_json {
        // One line, because more may follow on the same stream one day.
        output::json_line(&UpReport {
            event: "up",
            id: id.to_string(),
            listen,
            web_listen: started.web_listen.clone(),
            device: DeviceReport {
                name: started.device.clone(),
                mtu: started.mtu,
                addresses,
                ..DeviceReport::default()
            },
        });
        return;
    }
    output::line(format!(
        "up: {} with {}",
        started.device,
        addresses.join(", ")
    ));
    output::line(format!("    this node is {id}"));
    output::line(format!("    listening on {}", listen.join(", ")));
    if !started.web_listen.is_empty() {
        let web: Vec<String> = started.web_listen.iter().map(ToString::to_string).collect();
        output::line(format!("    WebSocket over TLS on {}", web.join(", ")));
    }
    output::line("    stop with Ctrl-C or `shadowmesh down`");
}

/// A service manager that started us with `Type=notify` waits for this; without one there is nobody to
/// tell.
fn tell_manager(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = service::notify(&socket, state)
    {
        tracing::warn!(%error, "the service manager could not be told {state}");
    }
}

fn admin_failure(state_dir: &Path, error: &std::io::Error) -> Failure {
    let path = crate::admin::socket_path(state_dir);
    let failure = Failure::new(format!(
        "cannot open admin socket {}: {error}",
        path.display()
    ));
    // Linux: sun_path has 108 bytes, and std reports a longer one as invalid input.
    match error.kind() {
        std::io::ErrorKind::InvalidInput => {
            failure.next("choose a --state-dir with a shorter path")
        }
        _ => failure.next("check the permissions of the state directory"),
    }
}

/// Where one runs already, it can relay beside its own traffic.
const RELAY_THERE: &str = "a node runs here already, perhaps: let it relay (`enabled = true` in [relay] of its configuration) instead, or \
     give this relay another --listen";

fn engine_failure(error: EngineError, role: Role) -> Failure {
    let failure = Failure::new(&error);
    match error {
        EngineError::Listen(error) if error.kind() == io::ErrorKind::AddrNotAvailable => failure.next(
            "write an address of this machine in node.listen (`ip address` shows them), or 0.0.0.0 and [::] for all",
        ),
        EngineError::Listen(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            failure.next("choose a port of 1024 or more in node.listen, or run as root")
        }
        EngineError::Listen(_) if role == Role::Relay => failure.next(RELAY_THERE),
        EngineError::Config(_) => failure.next("correct it, then try `shadowmesh config check`"),
        EngineError::Listen(_) => {
            failure.next("choose another node.listen, or stop the program that uses this port")
        }
        // These texts name the way out themselves.
        EngineError::Device(_) | EngineError::Host(_) => failure,
        EngineError::Threads(_) | EngineError::DataThread { .. } => {
            failure.next("start it again; --log-level debug tells more")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    // PROTOCOL SM-SF-8
    fn a_cipher_that_is_not_wanted_counts_as_refused() {
        let [aes, chacha] = cipher_speeds(CipherChoice::Auto);
        assert!(aes > 0 && chacha > 0);
        let [aes, chacha] = cipher_speeds(CipherChoice::Aes256Gcm);
        assert!(aes > 0 && chacha == 0);
        let [aes, chacha] = cipher_speeds(CipherChoice::ChaCha20Poly1305);
        assert!(aes == 0 && chacha > 0);
    }

    #[test]
    // PROTOCOL SM-HS-6
    fn keys_of_listed_peers_are_kept_and_those_of_others_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::open(directory.path()).unwrap();
        let [listed, other] = [Identity::generate(), Identity::generate()];
        let text = format!("[[peer]]\nid = \"{}\"\n", listed.peer_id());
        let config = crate::config::parse(Path::new("t.toml"), &text).unwrap();
        let mut learned = key_writer(state.clone(), &config);
        learned(Arc::clone(other.public()));
        learned(Arc::clone(listed.public()));

        let file = directory
            .path()
            .join(format!("keys/{}.key", listed.peer_id()));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !file.exists() && Instant::now() < deadline {
            thread::yield_now();
        }
        let kept = state.peer_keys(&[listed.peer_id(), other.peer_id()]);
        let kept: Vec<PeerId> = kept.iter().map(|key| key.peer_id()).collect();
        assert_eq!(kept, [listed.peer_id()]);
    }
}
