//! `shadowmesh config check`

mod report;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use shadowmesh_io::web::WebUrl;
use shadowmesh_net::{DataPlane, RelayAllow};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;
use shadowmesh_wire::traffic_class::OuterDscp;

use super::args::{Global, UpArgs};
use super::failure::Failure;
use super::layout::{Column, Table, Width};
use super::output::short_id;
use super::{load, output};
use crate::config::{
    CONFIG_PATH_DEFAULT, CipherChoice, Config, DeviceConfig, Loaded, Offload, PathsConfig,
    PeerConfig, ProxyChoice, RelayConfig, WebConfig, WebUse,
};
use crate::engine::claims::{Clash, Wanted};
use crate::engine::host;
use crate::identity_file;
use crate::state::StateDir;
#[cfg(test)]
pub(super) use report::ConfigReport;

pub fn run(global: &Global) -> Result<(), Failure> {
    let mut loaded = load(global, &UpArgs::default())?;
    // Without an identity yet there is nothing to check against; one is not made here.
    let identity = match is_locked(&loaded.config.node.state_dir) {
        true => {
            let dir = loaded.config.node.state_dir.display();
            loaded.warnings.push(format!(
                "this user may not read the identity in {dir}: what depends on it is not checked (sudo checks all)"
            ));
            None
        }
        false => match StateDir::open_existing(&loaded.config.node.state_dir)? {
            Some(state) => identity_file::load(state.directory())?,
            None => None,
        },
    };
    let own = identity.map(|identity| identity.peer_id());
    if let Some(own) = &own {
        loaded.check_against(own)?;
    }
    let behind = not_passed_on(&loaded.config);
    loaded.warnings.extend(behind);
    let clashes = own.map_or(Vec::new(), |own| clashes(&loaded.config, &own));
    let width = global.width();
    if global.json {
        output::json(&report::of(&loaded, own.as_ref(), &clashes));
    } else {
        output::print(&text(&loaded, own.as_ref(), width));
        for clash in clashes {
            output::print(&format!(
                "\n{}",
                width.hang("warning: ", &clash.to_string())
            ));
            output::print(&width.hang("  next: ", &clash.next_step()));
        }
    }
    Ok(())
}

/// Whether the identity is another user's, root's most likely.
fn is_locked(state_dir: &Path) -> bool {
    let identity = std::fs::File::open(state_dir.join(identity_file::FILE_NAME));
    identity.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
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

fn config_addresses(config: &Config, own: &PeerId) -> Vec<String> {
    let addresses = config.overlay_addresses(own);
    addresses.iter().map(ToString::to_string).collect()
}

fn text(loaded: &Loaded, own: Option<&PeerId>, width: Width) -> String {
    let config = &loaded.config;
    let file = match &loaded.file {
        Some(file) => file.display().to_string(),
        None => format!("no file ({CONFIG_PATH_DEFAULT} does not exist), defaults"),
    };
    let name = config.device.name.as_deref().unwrap_or("shadowN");
    let addresses = match own {
        Some(own) => config_addresses(config, own),
        None => vec!["no identity yet; `shadowmesh id` makes it".into()],
    };
    let [offload, dscp, cipher, data_plane] = words(config);
    let metrics = match config.metrics.listen {
        Some(listen) => format!("http://{listen}/metrics"),
        None => "off".into(),
    };
    let peers = match config.peers.len() {
        0 => "none: add a [[peer]]; `shadowmesh id` on the other machine prints it".into(),
        peers => peers.to_string(),
    };
    let rows = [
        ("state", config.node.state_dir.display().to_string()),
        ("listen", listening(config)),
        (
            "device",
            format!(
                "{name}, mtu {}, {}",
                config.device.mtu,
                addresses.join(", ")
            ),
        ),
        ("queues", queues(&config.device)),
        ("offload", format!("{offload}, DSCP {dscp}")),
        (
            "plane",
            format!(
                "{data_plane}, cipher {cipher}, new keys every {}",
                duration(config.session.rekey_interval)
            ),
        ),
        ("relay", relay(&config.relay)),
        ("web", web(&config.web)),
        ("paths", paths(&config.paths)),
        ("metrics", metrics),
        ("peers", peers),
    ];
    let mut text = format!("ok: {file}\n");
    for warning in &loaded.warnings {
        text += &width.hang("warning: ", warning);
    }
    for (name, value) in rows {
        text += &width.hang(&format!("  {name:<7} "), &value);
    }
    if !config.peers.is_empty() {
        text += "\n";
        text += &table(&config.peers).to_text(width);
    }
    text
}

/// Where it listens, and what is announced besides.
fn listening(config: &Config) -> String {
    match config.node.announce.is_empty() {
        true => joined(&config.node.listen),
        false => format!(
            "{}; announces {}",
            joined(&config.node.listen),
            joined(&config.node.announce)
        ),
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

/// Who is where and owns what, to be compared with what was meant.
fn table(peers: &[PeerConfig]) -> Table {
    let mut table = Table::new([
        Column::new("NAME").wraps(8),
        Column::new("ID").rank(1),
        Column::new("REACHED AT").wraps(20),
        Column::new("ADDRESSES").wraps(15),
        Column::new("PLANE").rank(2),
    ]);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::id;
    use crate::config::{self, Sources};

    #[test]
    fn it_fits_the_terminal() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        let text_of_file = format!(
            "[device]\nqueues = 1\n[[relay.use]]\nid = \"{}\"\naddresses = [\"198.51.100.9:4433\"]\n[[peer]]\n\
             id = \"{}\"\nname = \"exit\"\naddress = [\"192.0.2.7:4433\"]\nallowed_ips = [\"0.0.0.0/0\"]\n",
            id(9),
            id(1),
        );
        std::fs::write(&file, text_of_file).unwrap();
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        let mut loaded = config::load(&sources).unwrap();
        loaded.file = Some("/etc/shadowmesh.toml".into());
        let own = PeerId::from_bytes([7; 32]);
        crate::cli::snapshots::hold("config-check", |width| text(&loaded, Some(&own), width));
    }
}
