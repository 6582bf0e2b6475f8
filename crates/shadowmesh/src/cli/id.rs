//! `shadowmesh id`

use serde::Serialize;
use shadowmesh_wire::overlay::{derived_ipv4, derived_ipv6};

use super::args::{Global, UpArgs};
use super::failure::Failure;
use super::{load, output, sources};
use crate::config::{self, Config};
use crate::identity_file;
use crate::state::StateDir;

/// What `id` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct IdReport {
    /// PeerId of this machine, `sm1…`.
    id: String,
    /// IPv4 address derived from the PeerId.
    ipv4: String,
    /// IPv6 address derived from the PeerId.
    ipv6: String,
    /// What is set on the device: configured, else the two derived ones.
    addresses: Vec<String>,
    /// Where the identity lies.
    identity_file: String,
    /// Made just now.
    created: bool,
    /// The block for the other machines.
    peer: PeerBlock,
}

/// A `[[peer]]` block.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PeerBlock {
    /// PeerId.
    id: String,
    /// Name of this machine, when it can be one of a peer.
    name: Option<String>,
    /// Absent when the derived addresses are meant.
    allowed_ips: Option<Vec<String>>,
    /// Of `node.announce`; absent where nothing is announced.
    address: Option<Vec<String>>,
}

pub fn run(global: &Global) -> Result<(), Failure> {
    let config = &usable_config(global)?;
    let state = StateDir::open(&config.node.state_dir)?;
    let path = state.path().join(identity_file::FILE_NAME);
    let created = !path.exists();
    let id = identity_file::load_or_create(state.directory())?.peer_id();

    let addresses = config.overlay_addresses(&id);
    let chosen = !config.device.address.is_empty();
    let longest = |ip: std::net::IpAddr| if ip.is_ipv4() { 32 } else { 128 };
    let hosts = || {
        addresses
            .iter()
            .map(|a| format!("{}/{}", a.ip, longest(a.ip)))
            .collect()
    };
    let announced: Vec<String> = config
        .node
        .announce
        .iter()
        .map(ToString::to_string)
        .collect();
    let report = IdReport {
        id: id.to_string(),
        ipv4: derived_ipv4(&id).to_string(),
        ipv6: derived_ipv6(&id).to_string(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        identity_file: path.display().to_string(),
        created,
        peer: PeerBlock {
            id: id.to_string(),
            name: host_name(),
            allowed_ips: chosen.then(hosts),
            address: (!announced.is_empty()).then_some(announced),
        },
    };
    if global.json {
        output::json(&report);
    } else {
        print_text(&report);
    }
    Ok(())
}

/// The identity does not depend on most of the configuration, and whoever writes one needs it first.
fn usable_config(global: &Global) -> Result<Config, Failure> {
    load(global, &UpArgs::default())
        .map(|loaded| loaded.config)
        .or_else(|_| {
            let usable = config::load_usable(&sources(global, &UpArgs::default()))?;
            tracing::warn!(
                "the configuration is not valid yet, and addresses that it sets may be missing here; \
                 `shadowmesh config check` says what is wrong"
            );
            Ok(usable)
        })
}

fn print_text(report: &IdReport) {
    if report.created {
        output::line(format!(
            "# new identity in {} (keep this file secret)",
            report.identity_file
        ));
    }
    // Comments, so that the whole output can be appended to a configuration.
    output::line(format!("# PeerId     {}", report.id));
    output::line(format!("# addresses  {}", report.addresses.join(", ")));
    output::line("\n# for the configuration of the other machines:");
    output::line("[[peer]]");
    output::line(format!("id = \"{}\"", report.peer.id));
    if let Some(name) = &report.peer.name {
        output::line(format!("name = \"{name}\""));
    }
    if let Some(allowed) = &report.peer.allowed_ips {
        output::line(format!("allowed_ips = {allowed:?}"));
    }
    match &report.peer.address {
        Some(announced) => output::line(format!("address = {announced:?}")),
        None => output::line(
            "# address = [\"192.0.2.7:4433\"]  # where this machine can be reached, if it can",
        ),
    }
}

/// The name of this machine, when it is a valid peer name.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let plain = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let valid =
        plain && (1..=63).contains(&name.len()) && name.parse::<std::net::IpAddr>().is_err();
    (valid && !matches!(name, "(none)" | "localhost")).then(|| name.into())
}
