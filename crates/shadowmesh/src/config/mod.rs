//! One checked [`Config`] from a TOML file, `SHADOWMESH_*` variables and flags.
//!
//! Later sources win: file, then environment, then flags. Every value remembers where it came
//! from, so a wrong one is reported with its file, line, column and key (or its variable or flag),
//! the valid choices, and the nearest known spelling. All problems are reported at once, not one
//! for each try. What comes out is checked: nobody downstream looks at text again.
//!
//! Two checks need the node's own identity, which the configuration does not hold: see
//! [`Loaded::check_against`].

mod assemble;
mod connect;
mod file;
mod layers;
mod origin;
pub mod schema;
mod suggest;
pub mod value;
mod web;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use shadowmesh_io::files::{FileError, open_config, open_named};
use shadowmesh_io::web::WebUrl;
use shadowmesh_net::{DataPlane, RelayAllow};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::overlay;
use shadowmesh_wire::prefix::IpPrefix;
use shadowmesh_wire::traffic_class::OuterDscp;

pub use assemble::{
    LISTEN_DEFAULT, MTU_DEFAULT, REKEY_INTERVAL_DEFAULT, STATE_DIR_DEFAULT, derived_prefixes,
};
pub use connect::{MetricsConfig, PathsConfig, RelayConfig, RelayUse};
pub use origin::{ConfigError, Origin, Position, Problem, Source};
pub use web::{Certificate, ProxyChoice, WebConfig, WebUse};

pub(crate) use suggest::nearest;

use layers::Layers;

/// Read when no `--config` and no `SHADOWMESH_CONFIG` names another; it may be missing.
pub const CONFIG_PATH_DEFAULT: &str = "/etc/shadowmesh.toml";
/// A larger file is not a configuration; the limit keeps a slip (`--config /dev/zero`) harmless.
const FILE_LEN_MAX: u64 = 4 << 20;

/// The whole configuration of one node, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[node]`
    pub node: NodeConfig,
    /// `[device]`
    pub device: DeviceConfig,
    /// `[session]`
    pub session: SessionConfig,
    /// `[relay]` and every `[[relay.use]]`
    pub relay: RelayConfig,
    /// `[web]`
    pub web: WebConfig,
    /// `[paths]`
    pub paths: PathsConfig,
    /// `[metrics]`
    pub metrics: MetricsConfig,
    /// every `[[peer]]`, in the order written; ids are unique and `allowed_ips` do not overlap
    pub peers: Vec<PeerConfig>,
}

/// `[node]`: where the node lives and listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Directory of the identity, the key cache and the admin socket.
    pub state_dir: PathBuf,
    /// UDP addresses to bind; never empty.
    pub listen: Vec<SocketAddr>,
    /// Where others reach this node although nobody can find that out: a forwarded port, an address
    /// that is translated one to one. At most [`ANNOUNCED_MAX`](assemble::ANNOUNCED_MAX).
    pub announce: Vec<SocketAddr>,
}

/// `[device]`: the network device applications see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Kind of device.
    pub mode: DeviceMode,
    /// Name of the device; `None` takes the first free `shadowN`.
    pub name: Option<String>,
    /// Overlay addresses; an IP version without one gets the address derived from the PeerId.
    pub address: Vec<OverlayAddress>,
    /// Largest IP packet of the device, in bytes.
    pub mtu: u16,
    /// How many threads share the work.
    pub queues: Queues,
    /// Whether the device passes super-packets.
    pub offload: Offload,
    /// What the outer header says of the DSCP of the packet inside.
    pub dscp: OuterDscp,
}

/// How many queues the device has, and so how many senders and receivers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// By the number of cores.
    Auto,
    /// 1 to 16.
    Number(usize),
}

/// More pairs can gain little: receivers take turns at the socket and at the device, which is about half
/// of their work. Each costs 2.5 MB of buffers.
const QUEUES_AUTO_MAX: usize = 8;

impl Queues {
    /// The number for a machine with so many cores: a sender and a receiver for every two.
    pub fn on(self, cores: usize) -> usize {
        match self {
            Self::Auto => (cores / 2).clamp(1, QUEUES_AUTO_MAX),
            Self::Number(queues) => queues,
        }
    }
}

/// Whether the device passes super-packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Where the system can.
    Auto,
    /// One packet at a time, by the device that other systems have.
    Off,
}

/// Kind of network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceMode {
    /// Layer 3: IP packets.
    Tun,
}

/// One of our own overlay addresses with the length of the network it is in, as `10.100.1.5/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverlayAddress {
    /// The address itself, host bits included.
    pub ip: IpAddr,
    /// Prefix length of the on-link network.
    pub prefix_len: u8,
}

/// `[session]`: how data keys live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Time between two fresh key exchanges, 10 s to 60 min.
    pub rekey_interval: Duration,
    /// Which cipher seals frames.
    pub cipher: CipherChoice,
    /// What carries the packets of peers that do not say otherwise.
    pub data_plane: DataPlane,
}

/// Which AEAD a node is willing to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherChoice {
    /// What both machines do fastest, by measurement at start.
    Auto,
    /// AES-256-GCM only.
    Aes256Gcm,
    /// ChaCha20-Poly1305 only.
    ChaCha20Poly1305,
}

/// One `[[peer]]`: a member of this node's mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Who it is.
    pub id: PeerId,
    /// What people call it; unique when given.
    pub name: Option<String>,
    /// Where it may be reached; empty when only it can reach us.
    pub address: Vec<SocketAddr>,
    /// Overlay addresses that are this peer's; never empty (default: those derived from its id).
    pub allowed_ips: Vec<IpPrefix>,
    /// What carries its packets: its own setting, else that of `[session]`.
    pub data_plane: DataPlane,
    /// Where it takes WebSocket over TLS, when it does.
    pub web: Option<WebUrl>,
}

/// What was read, with where it stood, so that later checks can still point at a line.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// The file it came from; `None` when there was none.
    pub file: Option<PathBuf>,
    /// Things that are probably slips but not errors.
    pub warnings: Vec<String>,
    layers: Layers,
}

/// Where to look for values.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// File named by the user: it must exist. `None` takes [`CONFIG_PATH_DEFAULT`] if it exists.
    pub file: Option<PathBuf>,
    /// The environment; only names that begin with `SHADOWMESH_` are looked at.
    pub variables: BTreeMap<String, String>,
    /// Flags in the order written, as (`--flag`, text).
    pub flags: Vec<(&'static str, String)>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read configuration file {}: {error}", path.display())]
    Unreadable {
        /// as named
        path: PathBuf,
        /// why
        error: std::io::Error,
    },
    /// Somebody else can change it.
    #[error("configuration file not used: {0}")]
    Distrusted(FileError),
    /// Something in it, or in a variable or flag, is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigError),
}

/// Reads and checks everything.
pub fn load(sources: &Sources) -> Result<Loaded, LoadError> {
    let file = read_file(sources.file.as_deref())?;
    let mut problems = Vec::new();
    let mut layers = match &file {
        Some((path, text, _)) => file::parse(path, text, &mut problems),
        None => Layers::default(),
    };
    let mut warnings = layers.apply_variables(&sources.variables, &mut problems);
    layers.apply_flags(&sources.flags, &mut problems);
    let config = assemble::assemble(&layers, &mut problems);
    if let Some(error) = ConfigError::of(problems) {
        return Err(error.into());
    }
    if let Some((path, _, Some(caller))) = &file {
        warnings.push(format!(
            "{} or a directory above it belongs to user {caller}, who called sudo, and can be changed by that user; \
             a service should take it from /etc/shadowmesh/",
            path.display()
        ));
    }
    warnings.extend(config.peers.iter().filter_map(warning_of_default_route));
    Ok(Loaded {
        config,
        file: file.map(|(path, ..)| path),
        warnings,
        layers,
    })
}

/// The default route of a machine is left alone, which is probably not what somebody wants who writes this.
fn warning_of_default_route(peer: &PeerConfig) -> Option<String> {
    let all = peer.allowed_ips.iter().find(|prefix| prefix.len() == 0)?;
    let whom = peer.name.clone().unwrap_or_else(|| peer.id.to_string());
    Some(format!(
        "allowed_ips {all} of peer {whom} does not lead this machine's traffic out through it: the default route is \
         left alone; it lets packets of any source in from there, so write the prefixes that are really its own"
    ))
}

/// Only where the node keeps its state: what verbs need to find a running node, whatever else in the
/// configuration has become wrong since it started.
pub fn load_state_dir(sources: &Sources) -> Result<PathBuf, LoadError> {
    Ok(load_usable(sources)?.node.state_dir)
}

/// What can be understood, with defaults for everything else. An error only when it might lead to the
/// wrong state directory.
pub fn load_usable(sources: &Sources) -> Result<Config, LoadError> {
    let file = read_file(sources.file.as_deref())?;
    let mut problems = Vec::new();
    let mut layers = match &file {
        Some((path, text, _)) => file::parse(path, text, &mut problems),
        None => Layers::default(),
    };
    // A file that is not TOML at all may hide a state_dir; any other problem is not in the way.
    let unreadable = layers == Layers::default() && !problems.is_empty();
    layers.apply_variables(&sources.variables, &mut Vec::new());
    layers.apply_flags(&sources.flags, &mut Vec::new());
    let config = assemble::assemble(&layers, &mut Vec::new());
    if unreadable && config.node.state_dir == Path::new(STATE_DIR_DEFAULT) {
        return Err(ConfigError { problems }.into());
    }
    Ok(config)
}

/// Reads and checks the text of a file alone: what the fuzz target feeds.
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let layers = file::parse(path, text, &mut problems);
    let config = assemble::assemble(&layers, &mut problems);
    ConfigError::of(problems).map_or(Ok(config), Err)
}

impl Loaded {
    /// What needs to know who this node is. A file may be shared by all machines of a network, so this node's own
    /// entries are left out, with a word about it, which is also returned; no other peer may own its overlay
    /// addresses.
    pub fn check_against(&mut self, own: &PeerId) -> Result<Vec<String>, ConfigError> {
        let notes = self.skip_own_entries(own);
        self.warnings.extend(notes.iter().cloned());
        let own_ips: Vec<IpAddr> = self
            .config
            .overlay_addresses(own)
            .iter()
            .map(|address| address.ip)
            .collect();
        let mut problems = Vec::new();
        for (peer, raw) in self.config.peers.iter().zip(&self.layers.peers) {
            for ip in own_ips
                .iter()
                .filter(|ip| peer.allowed_ips.contains(&IpPrefix::host(**ip)))
            {
                let origin = assemble::origin_of(raw, "allowed_ips");
                let what = format!("{ip} is an address of this node, so it cannot be this peer's");
                let note = "give one of the two another address (device.address, allowed_ips)";
                problems.push(Problem::new(&origin, what).note(note));
            }
        }
        ConfigError::of(problems).map_or(Ok(notes), Err)
    }

    fn skip_own_entries(&mut self, own: &PeerId) -> Vec<String> {
        let mut notes = Vec::new();
        let own_addresses = self.config.overlay_addresses(own);
        let peers = self.config.peers.iter().zip(&self.layers.peers);
        for (peer, raw) in peers.filter(|(peer, _)| peer.id == *own) {
            let place = assemble::origin_of(raw, "id");
            notes.push(format!(
                "this [[peer]] is this machine itself and is skipped ({place}); where another machine was meant, \
                 its identity is a copy: remove it there, and `shadowmesh id` makes a new one"
            ));
            let is_own = |prefix: &IpPrefix| {
                let mut ours = own_addresses.iter();
                ours.any(|ours| prefix.contains(ours.ip))
            };
            if let Some(strange) = peer.allowed_ips.iter().find(|prefix| !is_own(prefix)) {
                notes.push(format!(
                    "the others lead {strange} to this machine, which does not have it: set `address` in [device]"
                ));
            }
        }
        for raw in &self.layers.relays {
            let relay = raw.fields.get("id").and_then(|id| id.items.first());
            if relay.is_some_and(|id| id.text == own.to_string()) {
                let place = assemble::origin_of(raw, "id");
                notes.push(format!(
                    "this [[relay.use]] is this machine itself and is skipped ({place}); `enabled` in [relay] makes a \
                     relay of it"
                ));
            }
        }
        let others = |entries: &mut Vec<layers::Entry>| {
            entries.retain(|raw| {
                let id = raw.fields.get("id").and_then(|id| id.items.first());
                id.is_none_or(|id| id.text != own.to_string())
            });
        };
        others(&mut self.layers.peers);
        others(&mut self.layers.relays);
        self.config.peers.retain(|peer| peer.id != *own);
        self.config.relay.uses.retain(|relay| relay.id != *own);
        notes
    }

    /// Leaves only what applies to a bare relay: it has no peers, and uses no relays. Whom the file lists as peers
    /// is admitted, as it is by a member that relays.
    pub fn for_bare_relay(&mut self) {
        if let RelayAllow::Listed(ids) = &mut self.config.relay.allow {
            ids.extend(self.config.peers.iter().map(|peer| peer.id));
        }
        self.config.peers.clear();
        self.config.relay.uses.clear();
        self.layers.peers.clear();
        self.layers.relays.clear();
    }
}

impl Config {
    /// The addresses of this node's device: those configured, and for an IP version without one the
    /// one derived from its id, in the network that all derived ones share.
    // PROTOCOL SM-OV-1 SM-OV-2
    pub fn overlay_addresses(&self, own: &PeerId) -> Vec<OverlayAddress> {
        let mut addresses = self.device.address.clone();
        for (ip, prefix_len) in overlay::derived(own) {
            if !addresses
                .iter()
                .any(|ours| ours.ip.is_ipv4() == ip.is_ipv4())
            {
                addresses.push(OverlayAddress { ip, prefix_len });
            }
        }
        addresses
    }

    /// Everybody this node opens a session with: its peers, and the relays that are none of them.
    pub fn acquaintances(&self) -> Vec<PeerId> {
        let peers = self.peers.iter().map(|peer| peer.id);
        let relays = self.relay.uses.iter().map(|relay| relay.id);
        let mut all: Vec<PeerId> = peers.collect();
        for relay in relays {
            if !all.contains(&relay) {
                all.push(relay);
            }
        }
        all
    }

    /// The peer called so: by name, by id, or by an overlay address that is its own.
    pub fn find_peer(&self, wanted: &str) -> Option<&PeerConfig> {
        let ip: Option<IpAddr> = wanted.parse().ok();
        self.peers.iter().find(|peer| {
            peer.name.as_deref() == Some(wanted)
                || peer.id.to_string() == wanted
                || ip.is_some_and(|ip| peer.allowed_ips.iter().any(|own| own.contains(ip)))
        })
    }
}

impl std::fmt::Display for OverlayAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

/// A file, its text, and the caller of `sudo` where it is believed because of that.
type ReadFile = (PathBuf, String, Option<u32>);

/// `None` when no file was named and the default one is missing.
fn read_file(named: Option<&Path>) -> Result<Option<ReadFile>, LoadError> {
    use std::io::Read;
    let path = named
        .unwrap_or(Path::new(CONFIG_PATH_DEFAULT))
        .to_path_buf();
    let mut text = String::new();
    // PROTOCOL SM-ID-4
    let opened = match named {
        Some(path) => open_config(path),
        None => open_named(&path).map(|file| (file, None)),
    };
    let (file, caller) = match opened {
        Ok(opened) => opened,
        Err(error) if error.is_not_found() && named.is_none() => return Ok(None),
        Err(FileError::Io { error, .. }) => return Err(LoadError::Unreadable { path, error }),
        Err(error) => return Err(LoadError::Distrusted(error)),
    };
    match file.take(FILE_LEN_MAX).read_to_string(&mut text) {
        Ok(_) => Ok(Some((path, text, caller))),
        Err(error) => Err(LoadError::Unreadable { path, error }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
