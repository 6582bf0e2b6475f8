//! The configuration as one JSON object, with its defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;
use shadowmesh_net::RelayAllow;
use shadowmesh_wire::PeerId;

use super::{config_addresses, data_plane, words};
use crate::cli::output::millis;
use crate::cli::up;
use crate::config::{
    Config, Loaded, PathsConfig, PeerConfig, ProxyChoice, RelayConfig, RelayUse, WebConfig,
};
use crate::engine::claims::Clash;

/// What `config check` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct ConfigReport {
    /// Nothing is wrong; what is odd stands in `warnings`.
    ok: bool,
    /// PeerId of this machine; `null` while it has no identity.
    id: Option<String>,
    /// The file that was read; `null`: none.
    file: Option<PathBuf>,
    /// What is allowed and probably not meant.
    warnings: Vec<String>,
    /// `node.state_dir`
    state_dir: PathBuf,
    /// `node.listen`
    listen: Vec<SocketAddr>,
    /// `node.announce`
    announce: Vec<SocketAddr>,
    /// Where networks of this host and of the overlay do not go together.
    clashes: Vec<ClashSettings>,
    device: DeviceSettings,
    session: SessionSettings,
    relay: RelaySettings,
    web: WebSettings,
    paths: PathSettings,
    metrics: MetricsSettings,
    /// Every `[[peer]]`.
    peers: Vec<PeerSettings>,
}

/// A network of this host that takes something from the overlay.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ClashSettings {
    /// What is so.
    says: String,
    /// What to do about it.
    next: String,
}

/// `[device]`
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct DeviceSettings {
    name: Option<String>,
    mtu: u16,
    /// Overlay addresses with prefix length; `null` while there is no identity to derive them from.
    addresses: Option<Vec<String>>,
    /// As many as there will be on this machine.
    queues: usize,
    offload: &'static str,
    dscp: &'static str,
}

/// `[session]`
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct SessionSettings {
    rekey_interval_ms: u64,
    cipher: &'static str,
    data_plane: &'static str,
}

/// `[relay]`
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RelaySettings {
    enabled: bool,
    /// PeerIds; `null`: any.
    allow: Option<Vec<String>>,
    clients_max: usize,
    clients_per_source: usize,
    client_mbit: u64,
    /// Every `[[relay.use]]`.
    #[serde(rename = "use")]
    uses: Vec<RelayUseSettings>,
}

/// `[[relay.use]]`
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct RelayUseSettings {
    id: String,
    addresses: Vec<SocketAddr>,
    web: Option<String>,
}

/// `[web]`
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct WebSettings {
    listen: Vec<SocketAddr>,
    certificate: Option<PathBuf>,
    /// A URL, `environment` or `none`.
    proxy: String,
    #[serde(rename = "use")]
    usage: &'static str,
}

/// `[paths]`
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PathSettings {
    retry_interval_ms: u64,
    health_check_interval_ms: u64,
    connect_timeout_ms: u64,
    port_mapping: bool,
    lan_discovery: bool,
}

/// `[metrics]`
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct MetricsSettings {
    listen: Option<SocketAddr>,
}

/// `[[peer]]`
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PeerSettings {
    id: String,
    name: Option<String>,
    addresses: Vec<SocketAddr>,
    web: Option<String>,
    allowed_ips: Vec<String>,
    data_plane: &'static str,
}

/// All of it.
pub(super) fn of(loaded: &Loaded, own: Option<&PeerId>, clashes: &[Clash]) -> ConfigReport {
    let config = &loaded.config;
    ConfigReport {
        ok: true,
        id: own.map(ToString::to_string),
        file: loaded.file.clone(),
        warnings: loaded.warnings.clone(),
        state_dir: config.node.state_dir.clone(),
        listen: config.node.listen.clone(),
        announce: config.node.announce.clone(),
        clashes: clashes
            .iter()
            .map(|clash| ClashSettings {
                says: clash.to_string(),
                next: clash.next_step(),
            })
            .collect(),
        device: device(config, own),
        session: session(config),
        relay: relay(&config.relay),
        web: web(&config.web),
        paths: paths(&config.paths),
        metrics: MetricsSettings {
            listen: config.metrics.listen,
        },
        peers: config.peers.iter().map(peer).collect(),
    }
}

fn device(config: &Config, own: Option<&PeerId>) -> DeviceSettings {
    let [offload, dscp, ..] = words(config);
    DeviceSettings {
        name: config.device.name.clone(),
        mtu: config.device.mtu,
        addresses: own.map(|own| config_addresses(config, own)),
        queues: config.device.queues.on(up::cores()),
        offload,
        dscp,
    }
}

fn session(config: &Config) -> SessionSettings {
    let [_, _, cipher, data_plane] = words(config);
    SessionSettings {
        rekey_interval_ms: millis(config.session.rekey_interval),
        cipher,
        data_plane,
    }
}

fn relay(relay: &RelayConfig) -> RelaySettings {
    let used = |relay: &RelayUse| RelayUseSettings {
        id: relay.id.to_string(),
        addresses: relay.addresses.clone(),
        web: relay.web.as_ref().map(ToString::to_string),
    };
    RelaySettings {
        enabled: relay.enabled,
        allow: match &relay.allow {
            RelayAllow::Any => None,
            RelayAllow::Listed(ids) => Some(ids.iter().map(ToString::to_string).collect()),
        },
        clients_max: relay.clients_max,
        clients_per_source: relay.clients_per_source,
        client_mbit: relay.client_mbit,
        uses: relay.uses.iter().map(used).collect(),
    }
}

fn web(web: &WebConfig) -> WebSettings {
    let certificate = web.certificate.as_ref();
    WebSettings {
        listen: web.listen.clone(),
        certificate: certificate.map(|certificate| certificate.chain.clone()),
        proxy: match &web.proxy {
            ProxyChoice::Environment => "environment".into(),
            ProxyChoice::Direct => "none".into(),
            ProxyChoice::Proxy(url) => url.to_string(),
        },
        usage: web.usage.as_str(),
    }
}

fn paths(paths: &PathsConfig) -> PathSettings {
    PathSettings {
        retry_interval_ms: millis(paths.retry_interval),
        health_check_interval_ms: millis(paths.health_check_interval),
        connect_timeout_ms: millis(paths.connect_timeout),
        port_mapping: paths.port_mapping,
        lan_discovery: paths.lan_discovery,
    }
}

fn peer(peer: &PeerConfig) -> PeerSettings {
    PeerSettings {
        id: peer.id.to_string(),
        name: peer.name.clone(),
        addresses: peer.address.clone(),
        web: peer.web.as_ref().map(ToString::to_string),
        allowed_ips: peer.allowed_ips.iter().map(ToString::to_string).collect(),
        data_plane: data_plane(peer.data_plane),
    }
}
