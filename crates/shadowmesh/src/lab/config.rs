//! Writes the configuration file of a laboratory node, in the words a user would use.
//!
//! Text and not the parsed type: the laboratory then also exercises the reading of configuration,
//! and what it leaves behind under `--keep` is an example a user can copy.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use shadowmesh_wire::PeerId;

/// What may differ between laboratory nodes.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// UDP addresses to bind.
    pub listen: Vec<SocketAddr>,
    /// Where others reach it, as it is told.
    pub announce: Vec<SocketAddr>,
    /// Time between fresh key exchanges.
    pub rekey_interval: Duration,
    /// `auto`, `aes-256-gcm` or `chacha20-poly1305`.
    pub cipher: String,
    /// `auto`, `sealed` or `quic`.
    pub data_plane: String,
    /// Own overlay addresses, as `10.100.1.5/16`; empty for the derived ones.
    pub addresses: Vec<String>,
    /// Name of the device.
    pub device: String,
    /// `copy` or `hide`.
    pub dscp: String,
    /// Largest IP packet of the device; `None` leaves the default.
    pub mtu: Option<u16>,
    /// Queues of the device; `None` leaves the default.
    pub queues: Option<usize>,
    /// Whether the device passes super-packets.
    pub offload: bool,
    /// Whether peers are looked for by multicast. Not unless a test is about it: what a capture sees is
    /// then the mesh's datagrams and nothing else.
    pub lan_discovery: bool,
    /// Whether the router is asked for a port.
    pub port_mapping: bool,
    /// It relays for everybody, at so many Mbit/s for each client.
    pub relays_at_mbit: Option<u64>,
    /// The relays it uses.
    pub relays: Vec<RelaySettings>,
    /// The other sections, as they are written.
    pub more: String,
}

/// A `[[relay.use]]` of a laboratory node.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// Who.
    pub id: PeerId,
    /// Where it is.
    pub addresses: Vec<SocketAddr>,
    /// Where it takes WebSocket over TLS, when it does.
    pub web: Option<String>,
}

impl Default for NodeSettings {
    fn default() -> Self {
        let port = super::PORT;
        Self {
            listen: vec![
                ([0, 0, 0, 0], port).into(),
                (std::net::Ipv6Addr::UNSPECIFIED, port).into(),
            ],
            announce: Vec::new(),
            rekey_interval: Duration::from_secs(120),
            cipher: "auto".into(),
            data_plane: "auto".into(),
            addresses: Vec::new(),
            device: super::DEVICE.into(),
            dscp: "copy".into(),
            mtu: None,
            queues: None,
            offload: true,
            relays_at_mbit: None,
            relays: Vec::new(),
            lan_discovery: false,
            port_mapping: false,
            more: String::new(),
        }
    }
}

/// A `[[peer]]` of a laboratory node.
#[derive(Debug, Clone)]
pub struct PeerSettings {
    /// Who.
    pub id: PeerId,
    /// What people call it.
    pub name: String,
    /// Where it may be reached; empty when only it can reach us.
    pub addresses: Vec<SocketAddr>,
    /// What is this peer's; empty for the addresses derived from its id.
    pub allowed_ips: Vec<String>,
    /// Where it takes WebSocket over TLS, when it does.
    pub web: Option<String>,
}

/// The whole file.
pub fn render(state_dir: &Path, settings: &NodeSettings, peers: &[PeerSettings]) -> String {
    let mut text = String::new();
    let rekey_s = settings.rekey_interval.as_secs();
    // Writing to a `String` cannot fail.
    let _ = write!(
        text,
        "[node]\nstate_dir = {}\nlisten = {}\nannounce = {}\n\n\
         [device]\nmode = \"tun\"\nname = {}\ndscp = {}\n",
        quote(&state_dir.display().to_string()),
        list(&settings.listen),
        list(&settings.announce),
        quote(&settings.device),
        quote(&settings.dscp),
    );
    if !settings.addresses.is_empty() {
        let _ = writeln!(text, "address = {}", list(&settings.addresses));
    }
    if let Some(mtu) = settings.mtu {
        let _ = writeln!(text, "mtu = {mtu}");
    }
    if let Some(queues) = settings.queues {
        let _ = writeln!(text, "queues = {queues}");
    }
    if !settings.offload {
        let _ = writeln!(text, "offload = \"off\"");
    }
    let _ = write!(
        text,
        "\n[session]\nrekey_interval = \"{rekey_s}s\"\ncipher = {}\ndata_plane = {}\n",
        quote(&settings.cipher),
        quote(&settings.data_plane)
    );
    if let Some(mbit) = settings.relays_at_mbit {
        let _ = write!(text, "\n[relay]\nenabled = true\nclient_mbit = {mbit}\n");
    }
    for relay in &settings.relays {
        let (id, addresses) = (&relay.id, list(&relay.addresses));
        let _ = write!(
            text,
            "\n[[relay.use]]\nid = \"{id}\"\naddresses = {addresses}\n"
        );
        if let Some(web) = &relay.web {
            let _ = writeln!(text, "web = {}", quote(web));
        }
    }
    let _ = write!(
        text,
        "\n[paths]\nlan_discovery = {}\nport_mapping = {}\n",
        settings.lan_discovery, settings.port_mapping
    );
    if !settings.more.is_empty() {
        let _ = writeln!(text, "\n{}", settings.more);
    }
    for peer in peers {
        let _ = write!(
            text,
            "\n[[peer]]\nid = \"{}\"\nname = {}\naddress = {}\n",
            peer.id,
            quote(&peer.name),
            list(&peer.addresses)
        );
        if !peer.allowed_ips.is_empty() {
            let _ = writeln!(text, "allowed_ips = {}", list(&peer.allowed_ips));
        }
        if let Some(web) = &peer.web {
            let _ = writeln!(text, "web = {}", quote(web));
        }
    }
    text
}

fn list(items: &[impl ToString]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quote(&item.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

fn quote(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_quotes_in_it_survives() {
        let text = render(Path::new("/tmp/a \"b\""), &NodeSettings::default(), &[]);
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["node"]["state_dir"].as_str(), Some("/tmp/a \"b\""));
        assert_eq!(table["session"]["rekey_interval"].as_str(), Some("120s"));
    }
}
