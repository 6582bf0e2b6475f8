//! `shadowmesh config check`

use serde_json::json;
use shadowmesh_wire::PeerId;

use super::args::{Global, UpArgs};
use super::failure::Failure;
use super::output::{Table, short_id};
use super::{load, output};
use crate::config::{CONFIG_PATH_DEFAULT, Config, DeviceConfig, Loaded, Offload, PeerConfig};
use crate::identity_file;

pub fn run(global: &Global) -> Result<(), Failure> {
    let loaded = load(global, &UpArgs::default())?;
    let identity = loaded.config.node.state_dir.join(identity_file::FILE_NAME);
    // Without an identity yet there is nothing to check against; one is not made here.
    let own = identity_file::load(&identity)?.map(|identity| identity.peer_id());
    if let Some(own) = &own {
        loaded.check_against(own)?;
    }
    let addresses = own.map(|own| config_addresses(&loaded.config, &own));
    if global.json {
        output::json(&json!({
            "ok": true,
            "file": loaded.file,
            "warnings": loaded.warnings,
            "state_dir": loaded.config.node.state_dir,
            "peer_id": own.map(|own| own.to_string()),
            "addresses": addresses,
            "peers": loaded.config.peers.len(),
        }));
    } else {
        print_text(&loaded, addresses);
    }
    Ok(())
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
    output::line(format!(
        "  device  {name}, mtu {}, {}",
        config.device.mtu,
        addresses.join(", ")
    ));
    output::line(format!("  queues  {}", queues(&config.device)));
    if config.peers.is_empty() {
        output::line(
            "  peers   none: add a [[peer]]; `shadowmesh id` on the other machine prints it",
        );
    } else {
        output::line(format!("  peers   {}\n", config.peers.len()));
        output::print(&table(&config.peers).to_string());
    }
}

/// How many there will be on this machine, and whether that is not what the key says.
fn queues(device: &DeviceConfig) -> String {
    let queues = device.queues.on(super::up::cores());
    match device.offload {
        Offload::Auto => queues.to_string(),
        Offload::Off => format!("1, and {queues} receivers: the device is without offload"),
    }
}

/// Who is where and owns what, to be compared with what was meant.
fn table(peers: &[PeerConfig]) -> Table {
    let mut table = Table::new(["NAME", "ID", "REACHED AT", "ADDRESSES"]);
    for peer in peers {
        table.row([
            peer.name.clone().unwrap_or_else(|| "-".into()),
            short_id(&peer.id.to_string()),
            match peer.address.as_slice() {
                [] => "it must call us".into(),
                known => joined(known),
            },
            joined(&peer.allowed_ips),
        ]);
    }
    table
}

fn joined<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}
