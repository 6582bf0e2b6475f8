//! `shadowmesh config check`

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use shadowmesh_io::web::WebUrl;
use shadowmesh_net::{DataPlane, RelayAllow};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;
use shadowmesh_wire::traffic_class::OuterDscp;

use super::args::{Global, UpArgs};
use super::failure::Failure;
use super::output::{Table, short_id};
use super::{load, output};
use crate::config::{
    CONFIG_PATH_DEFAULT, CipherChoice, Config, DeviceConfig, Loaded, Offload, PathsConfig,
    PeerConfig, ProxyChoice, RelayConfig, RelayUse, WebConfig, WebUse,
};
use crate::engine::claims::{Clash, Wanted};
use crate::engine::host;
use crate::identity_file;
use crate::state::StateDir;

pub fn run(global: &Global) -> Result<(), Failure> {
    let loaded = load(global, &UpArgs::default())?;
    // Without an identity yet there is nothing to check against; one is not made here.
    let identity = match StateDir::open_existing(&loaded.config.node.state_dir)? {
        Some(state) => identity_file::load(state.directory())?,
        None => None,
    };
    let own = identity.map(|identity| identity.peer_id());
    if let Some(own) = &own {
        loaded.check_against(own)?;
    }
    let addresses = own.map(|own| config_addresses(&loaded.config, &own));
    let clashes = own.map_or(Vec::new(), |own| clashes(&loaded.config, &own));
    if global.json {
        let warnings = [loaded.warnings.clone(), not_passed_on(&loaded.config)].concat();
        output::json(&json!({
            "ok": true,
            "file": loaded.file,
            "warnings": warnings,
            "state_dir": loaded.config.node.state_dir,
            "listen": loaded.config.node.listen,
            "announce": loaded.config.node.announce,
            "peer_id": own.map(|own| own.to_string()),
            "addresses": addresses,
            "clashes": clashes.iter().map(clash_report).collect::<Value>(),
            "session": session_report(&loaded.config),
            "device": device_report(&loaded.config),
            "relay": relay_report(&loaded.config.relay),
            "web": web_report(&loaded.config.web),
            "paths": paths_report(&loaded.config.paths),
            "metrics": loaded.config.metrics.listen,
            "peers": loaded.config.peers.iter().map(peer_report).collect::<Value>(),
        }));
    } else {
        print_text(&loaded, addresses);
        for clash in clashes {
            output::line(format!("\nwarning: {clash}\n  next: {}", clash.next_step()));
        }
    }
    Ok(())
}

/// With the networks that this machine is in now.
fn clashes(config: &Config, own: &PeerId) -> Vec<Clash> {
    let addresses = config.overlay_addresses(own);
    let addresses: Vec<(IpAddr, u8)> = addresses.iter().map(|a| (a.ip, a.prefix_len)).collect();
    let prefixes = config.peers.iter().flat_map(|peer| {
        let name = peer
            .name
            .clone()
            .unwrap_or_else(|| short_id(&peer.id.to_string()));
        let prefixes = peer.allowed_ips.iter();
        prefixes.map(move |prefix| (*prefix, name.clone()))
    });
    let all = host::foresee(&Wanted::new(own, &addresses, prefixes));
    all.into_iter().filter(Clash::is_loss).collect()
}

fn clash_report(clash: &Clash) -> Value {
    json!({ "says": clash.to_string(), "next": clash.next_step() })
}

fn config_addresses(config: &Config, own: &PeerId) -> Vec<String> {
    let addresses = config.overlay_addresses(own);
    addresses.iter().map(ToString::to_string).collect()
}

fn print_text(loaded: &Loaded, addresses: Option<Vec<String>>) {
    let config = &loaded.config;
    let file = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => format!("no file ({CONFIG_PATH_DEFAULT} does not exist), defaults"),
    };
    let name = config.device.name.as_deref().unwrap_or("shadowN");
    let addresses =
        addresses.unwrap_or_else(|| vec!["no identity yet; `shadowmesh id` makes it".into()]);
    output::line(format!("ok: {file}"));
    output::line(format!("  state   {}", config.node.state_dir.display()));
    output::line(format!("  listen  {}", joined(&config.node.listen)));
    if !config.node.announce.is_empty() {
        output::line(format!("  announce {}", joined(&config.node.announce)));
    }
    output::line(format!(
        "  device  {name}, mtu {}, {}",
        config.device.mtu,
        addresses.join(", ")
    ));
    output::line(format!("  queues  {}", queues(&config.device)));
    let [offload, dscp, cipher, data_plane] = words(config);
    output::line(format!("  offload {offload}, DSCP {dscp}"));
    output::line(format!(
        "  plane   {data_plane}, cipher {cipher}, new keys every {}",
        duration(config.session.rekey_interval)
    ));
    output::line(format!("  relay   {}", relay(&config.relay)));
    output::line(format!("  web     {}", web(&config.web)));
    output::line(format!("  paths   {}", paths(&config.paths)));
    let metrics = match config.metrics.listen {
        Some(listen) => format!("http://{listen}/metrics"),
        None => "off".into(),
    };
    output::line(format!("  metrics {metrics}"));
    if config.peers.is_empty() {
        output::line(
            "  peers   none: add a [[peer]]; `shadowmesh id` on the other machine prints it",
        );
    } else {
        output::line(format!("  peers   {}\n", config.peers.len()));
        output::print(&table(&config.peers).to_string());
    }
    let warnings = not_passed_on(config);
    if !warnings.is_empty() {
        output::line(format!("\nwarning: {}", warnings.join("\nwarning: ")));
    }
}

/// Networks behind peers: packets for them are sent to the peer, and that takes only those for itself.
// PROTOCOL SM-OV-3
fn not_passed_on(config: &Config) -> Vec<String> {
    let behind = config.peers.iter().filter_map(|peer| {
        let longest = |prefix: &IpPrefix| if prefix.addr().is_ipv4() { 32 } else { 128 };
        let wide = peer.allowed_ips.iter();
        let wide: Vec<String> = wide
            .filter(|prefix| prefix.len() < longest(prefix))
            .map(ToString::to_string)
            .collect();
        let whose = peer.name.clone().unwrap_or_else(|| short_id(&peer.id.to_string()));
        (!wide.is_empty()).then(|| {
            format!(
                "allowed_ips of {whose} has the network {}: packets for it go to that peer, which takes only \
                 those for its own addresses and drops the others (not_for_us); it does not pass them on yet",
                wide.join(", ")
            )
        })
    });
    behind.collect()
}

/// How many there will be on this machine, and whether that is not what the key says.
fn queues(device: &DeviceConfig) -> String {
    let queues = device.queues.on(super::up::cores());
    match device.offload {
        Offload::Auto => queues.to_string(),
        Offload::Off => format!("1, and {queues} receivers: the device is without offload"),
    }
}

/// `device.offload`, `device.dscp`, `session.cipher` and `session.data_plane` as they are written.
fn words(config: &Config) -> [&'static str; 4] {
    [
        match config.device.offload {
            Offload::Auto => "auto",
            Offload::Off => "off",
        },
        match config.device.dscp {
            OuterDscp::Copy => "copy",
            OuterDscp::Hide => "hide",
        },
        match config.session.cipher {
            CipherChoice::Auto => "auto",
            CipherChoice::Aes256Gcm => "aes-256-gcm",
            CipherChoice::ChaCha20Poly1305 => "chacha20-poly1305",
        },
        data_plane(config.session.data_plane),
    ]
}

fn data_plane(plane: DataPlane) -> &'static str {
    match plane {
        DataPlane::Auto => "auto",
        DataPlane::Sealed => "sealed",
        DataPlane::Quic => "quic",
    }
}

/// For whom this node relays, and who relays for it.
fn relay(relay: &RelayConfig) -> String {
    let ours = match (relay.enabled, &relay.allow) {
        (false, _) => "not for others".to_owned(),
        (true, allow) => {
            let whom = match allow {
                RelayAllow::Any => "anybody".to_owned(),
                RelayAllow::Listed(ids) => format!("this network and {} others", ids.len()),
            };
            format!(
                "for {whom}, at most {}, {} of one address, with {} Mbit/s each",
                relay.clients_max, relay.clients_per_source, relay.client_mbit
            )
        }
    };
    let used = relay.uses.iter().map(|relay| {
        let id = short_id(&relay.id.to_string());
        match reached_at(&relay.addresses, relay.web.as_ref()) {
            None => id,
            Some(at) => format!("{id} at {at}"),
        }
    });
    let used: Vec<String> = used.collect();
    match used.is_empty() {
        true => format!("{ours}; uses none"),
        false => format!("{ours}; uses {}", used.join("; ")),
    }
}

/// Who may come by WebSocket, and when we do.
fn web(web: &WebConfig) -> String {
    let listen = match (&web.listen[..], &web.certificate) {
        ([], _) => "takes no streams".to_owned(),
        (listen, None) => format!("listens on {} (self-signed)", joined(listen)),
        (listen, Some(certificate)) => {
            format!(
                "listens on {} with {}",
                joined(listen),
                certificate.chain.display()
            )
        }
    };
    let usage = match web.usage {
        WebUse::Auto => "opens streams where UDP brings no answer",
        WebUse::Always => "always opens streams",
        WebUse::Never => "opens none",
    };
    let proxy = match &web.proxy {
        ProxyChoice::Proxy(url) => format!(" by proxy {url}"),
        ProxyChoice::Environment | ProxyChoice::Direct => String::new(),
    };
    format!("{listen}, {usage}{proxy}")
}

fn paths(paths: &PathsConfig) -> String {
    let or_not = |on, what| {
        if on {
            format!(", {what}")
        } else {
            format!(", no {what}")
        }
    };
    format!(
        "retry every {}, idle ones checked every {}, {} for an attempt{}{}",
        duration(paths.retry_interval),
        duration(paths.health_check_interval),
        duration(paths.connect_timeout),
        or_not(paths.port_mapping, "port mapping"),
        or_not(paths.lan_discovery, "LAN discovery"),
    )
}

/// As it is written in the configuration: `90s`, `250ms`.
fn duration(time: Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{}s", time.as_secs()),
        _ => format!("{}ms", time.as_millis()),
    }
}

fn web_report(web: &WebConfig) -> Value {
    json!({
        "listen": web.listen,
        "certificate": web.certificate.as_ref().map(|certificate| &certificate.chain),
        "proxy": match &web.proxy {
            ProxyChoice::Environment => json!("environment"),
            ProxyChoice::Direct => json!("none"),
            ProxyChoice::Proxy(url) => json!(url.to_string()),
        },
        "use": web.usage.as_str(),
    })
}

fn session_report(config: &Config) -> Value {
    let [_, _, cipher, data_plane] = words(config);
    json!({
        "rekey_interval_ms": millis(config.session.rekey_interval),
        "cipher": cipher,
        "data_plane": data_plane,
    })
}

fn device_report(config: &Config) -> Value {
    let [offload, dscp, ..] = words(config);
    json!({
        "name": config.device.name,
        "mtu": config.device.mtu,
        "queues": config.device.queues.on(super::up::cores()),
        "offload": offload,
        "dscp": dscp,
    })
}

fn peer_report(peer: &PeerConfig) -> Value {
    let allowed_ips: Vec<String> = peer.allowed_ips.iter().map(ToString::to_string).collect();
    json!({
        "id": peer.id.to_string(),
        "name": peer.name,
        "address": peer.address,
        "web": peer.web.as_ref().map(ToString::to_string),
        "allowed_ips": allowed_ips,
        "data_plane": data_plane(peer.data_plane),
    })
}

fn relay_report(relay: &RelayConfig) -> Value {
    let allow = match &relay.allow {
        RelayAllow::Any => json!("any"),
        RelayAllow::Listed(ids) => ids.iter().map(ToString::to_string).collect(),
    };
    let used = |relay: &RelayUse| {
        json!({
            "id": relay.id.to_string(),
            "addresses": relay.addresses,
            "web": relay.web.as_ref().map(ToString::to_string),
        })
    };
    json!({
        "enabled": relay.enabled,
        "allow": allow,
        "clients_max": relay.clients_max,
        "clients_per_source": relay.clients_per_source,
        "client_mbit": relay.client_mbit,
        "use": relay.uses.iter().map(used).collect::<Value>(),
    })
}

fn paths_report(paths: &PathsConfig) -> Value {
    json!({
        "retry_interval_ms": millis(paths.retry_interval),
        "health_check_interval_ms": millis(paths.health_check_interval),
        "connect_timeout_ms": millis(paths.connect_timeout),
        "port_mapping": paths.port_mapping,
        "lan_discovery": paths.lan_discovery,
    })
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Who is where and owns what, to be compared with what was meant.
fn table(peers: &[PeerConfig]) -> Table {
    let mut table = Table::new(["NAME", "ID", "REACHED AT", "ADDRESSES", "PLANE"]);
    for peer in peers {
        table.row([
            peer.name.clone().unwrap_or_else(|| "-".into()),
            short_id(&peer.id.to_string()),
            reached_at(&peer.address, peer.web.as_ref())
                .unwrap_or_else(|| "it must call us".into()),
            joined(&peer.allowed_ips),
            data_plane(peer.data_plane).into(),
        ]);
    }
    table
}

fn reached_at(addresses: &[SocketAddr], web: Option<&WebUrl>) -> Option<String> {
    let udp = addresses.iter().map(ToString::to_string);
    let known: Vec<String> = udp.chain(web.map(ToString::to_string)).collect();
    (!known.is_empty()).then(|| known.join(", "))
}

fn joined<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}
