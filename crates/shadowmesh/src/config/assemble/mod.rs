//! From words to the checked [`Config`]: every value by itself, then what must hold between them.

mod connect;
mod web;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use shadowmesh_net::DataPlane;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::overlay::derived;
use shadowmesh_wire::prefix::IpPrefix;

use super::layers::{Entry, Fields, Item, Layers, Setting};
use super::origin::{Origin, Problem};
use super::schema::{self, Section};
use super::value::{self, Place};
use super::{
    CipherChoice, Config, DeviceConfig, DeviceMode, NodeConfig, Offload, PeerConfig, Queues,
    SessionConfig,
};

/// Where the identity lives when nothing says otherwise.
pub const STATE_DIR_DEFAULT: &str = "/var/lib/shadowmesh";
/// Default of `node.listen`.
pub const LISTEN_DEFAULT: [&str; 2] = ["0.0.0.0:4433", "[::]:4433"];
/// Limit: addresses in `node.announce`. Peers are told 16 in all, and found ones must have room.
pub const ANNOUNCED_MAX: usize = 4;
/// What fits a 1500-byte path: IPv6 header 40, UDP 8, sealed frame 30, rounded down as others do.
pub const MTU_DEFAULT: u16 = 1420;
/// Default of `session.rekey_interval`.
pub const REKEY_INTERVAL_DEFAULT: Duration = Duration::from_secs(120);

/// Builds the configuration; everything wrong is pushed to `problems`, and what is returned then
/// holds defaults in those places and must not be used.
pub fn assemble(layers: &Layers, problems: &mut Vec<Problem>) -> Config {
    let mut reader = Reader { problems };
    let node = reader.node(layers);
    let device = reader.device(layers);
    let session = reader.session(layers);
    let peers = reader.peers(layers, &node.listen, &device, session.data_plane);
    let relay = reader.relay(layers, &node.listen, &peers);
    let web = reader.web(layers);
    let paths = reader.paths(layers);
    let metrics = reader.metrics(layers);
    Config {
        node,
        device,
        session,
        relay,
        web,
        paths,
        metrics,
        peers,
    }
}

struct Reader<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn node(&mut self, layers: &Layers) -> NodeConfig {
        let fields = section(layers, &schema::NODE);
        let listen = self.list(&schema::NODE, &fields, "listen", value::socket_address);
        if let Some(setting) = fields.get("listen") {
            self.no_duplicates("node.listen", setting, &listen);
            if setting.items.is_empty() {
                let what = "`node.listen` is empty: a node needs an address to listen on";
                self.problems.push(Problem::new(&setting.origin, what));
            }
        }
        let announce = self.list(&schema::NODE, &fields, "announce", value::announced);
        if let Some(setting) = fields.get("announce") {
            self.no_duplicates("node.announce", setting, &announce);
            if announce.len() > ANNOUNCED_MAX {
                let what = format!("`node.announce` has more than {ANNOUNCED_MAX} addresses");
                self.problems.push(Problem::new(&setting.origin, what));
            }
        }
        NodeConfig {
            announce,
            state_dir: self.state_dir(&fields),
            listen: if listen.is_empty() {
                listen_default()
            } else {
                listen
            },
        }
    }

    fn state_dir(&mut self, fields: &Fields) -> PathBuf {
        let Some(item) = fields
            .get("state_dir")
            .and_then(|setting| setting.items.first())
        else {
            return STATE_DIR_DEFAULT.into();
        };
        if item.text.is_empty() {
            let what = "`node.state_dir` is empty";
            self.problems.push(Problem::new(&item.origin, what));
        }
        item.path()
    }

    fn device(&mut self, layers: &Layers) -> DeviceConfig {
        let fields = section(layers, &schema::DEVICE);
        let address = self.list(&schema::DEVICE, &fields, "address", value::overlay_address);
        if let Some(setting) = fields.get("address") {
            let ips: Vec<IpAddr> = address.iter().map(|address| address.ip).collect();
            self.no_duplicates("device.address", setting, &ips);
        }
        DeviceConfig {
            mode: self
                .one(&schema::DEVICE, &fields, "mode", value::device_mode)
                .unwrap_or(DeviceMode::Tun),
            name: self.one(&schema::DEVICE, &fields, "name", value::device_name),
            address,
            mtu: self
                .one(&schema::DEVICE, &fields, "mtu", value::mtu)
                .unwrap_or(MTU_DEFAULT),
            queues: self
                .one(&schema::DEVICE, &fields, "queues", value::queues)
                .unwrap_or(Queues::Auto),
            offload: self
                .one(&schema::DEVICE, &fields, "offload", value::offload)
                .unwrap_or(Offload::Auto),
            dscp: self
                .one(&schema::DEVICE, &fields, "dscp", value::outer_dscp)
                .unwrap_or_default(),
        }
    }

    fn session(&mut self, layers: &Layers) -> SessionConfig {
        let fields = section(layers, &schema::SESSION);
        SessionConfig {
            rekey_interval: self
                .one(
                    &schema::SESSION,
                    &fields,
                    "rekey_interval",
                    value::rekey_interval,
                )
                .unwrap_or(REKEY_INTERVAL_DEFAULT),
            cipher: self
                .one(&schema::SESSION, &fields, "cipher", value::cipher)
                .unwrap_or(CipherChoice::Auto),
            data_plane: self
                .one(&schema::SESSION, &fields, "data_plane", value::data_plane)
                .unwrap_or_default(),
        }
    }

    fn peers(
        &mut self,
        layers: &Layers,
        listen: &[SocketAddr],
        device: &DeviceConfig,
        data_plane: DataPlane,
    ) -> Vec<PeerConfig> {
        let mut peers = Vec::new();
        let mut seen = Seen::default();
        for raw in &layers.peers {
            let Some(peer) = self.peer(raw, data_plane) else {
                continue;
            };
            self.unique(raw, &peer, &mut seen);
            let written = place(&schema::PEER, "address");
            self.reachable_family(written, raw, &peer.address, listen);
            self.outside_the_mesh(raw, &peer, device);
            peers.push(peer);
        }
        peers
    }

    /// Nobody is outside at the address that only the mesh gives him: a slip of those who write down the
    /// address that answers pings. An address outside that is led into the tunnel for others as well is none.
    fn outside_the_mesh(&mut self, raw: &Entry, peer: &PeerConfig, device: &DeviceConfig) {
        let Some(setting) = raw.fields.get("address") else {
            return;
        };
        for (address, item) in peer.address.iter().zip(&setting.items) {
            let host = IpPrefix::host(address.ip());
            let mut ours = device.address.iter();
            let is_inside = derived_prefixes(&peer.id).contains(&host)
                || ours
                    .any(|own| IpPrefix::containing(own.ip, own.prefix_len).contains(host.addr()));
            if is_inside && peer.allowed_ips.contains(&host) {
                let what = format!("{} is this peer's address inside the mesh", address.ip());
                let note = "write the one that reaches that machine from outside: of its network, \
                            or its public one";
                self.problems
                    .push(Problem::new(&item.origin, what).note(note));
            }
        }
    }

    fn peer(&mut self, raw: &Entry, data_plane: DataPlane) -> Option<PeerConfig> {
        let fields = &raw.fields;
        if !fields.contains_key("id") {
            let problem = Problem::new(&raw.origin, "this peer has no `id`");
            self.problems
                .push(problem.note(format!("expected {}", expects_id())));
        }
        let id = self.one(&schema::PEER, fields, "id", value::peer_id);
        let name = self.one(&schema::PEER, fields, "name", value::peer_name);
        let address = self.list(&schema::PEER, fields, "address", value::socket_address);
        let own_plane = self.one(&schema::PEER, fields, "data_plane", value::data_plane);
        let web = self.one(&schema::PEER, fields, "web", value::web_address);
        let mut allowed_ips = self.list(&schema::PEER, fields, "allowed_ips", value::prefix);
        if let Some(setting) = fields
            .get("allowed_ips")
            .filter(|written| written.items.is_empty())
        {
            let what = "`allowed_ips` is empty, which would allow this peer nothing";
            let note = "leave the key out to allow the addresses derived from the PeerId";
            self.problems
                .push(Problem::new(&setting.origin, what).note(note));
        }
        let id = id?;
        if allowed_ips.is_empty() {
            allowed_ips = derived_prefixes(&id);
        }
        Some(PeerConfig {
            id,
            name,
            address,
            allowed_ips,
            data_plane: own_plane.unwrap_or(data_plane),
            web,
        })
    }

    /// Ids, names and overlay addresses belong to one peer only: of two owners of an address, one
    /// could read or send what is meant for the other.
    // PROTOCOL SM-OV-3
    fn unique(&mut self, raw: &Entry, peer: &PeerConfig, seen: &mut Seen) {
        if let Some(first) = seen.ids.insert(peer.id, raw.origin.clone()) {
            let what = format!("peer {} stands twice", peer.id);
            self.problems
                .push(Problem::new(&origin_of(raw, "id"), what).note(format!("first at {first}")));
            return;
        }
        if let Some(name) = &peer.name
            && let Some(first) = seen.names.insert(name.clone(), raw.origin.clone())
        {
            let what = format!("two peers are named `{name}`");
            self.problems.push(
                Problem::new(&origin_of(raw, "name"), what).note(format!("first at {first}")),
            );
        }
        for (n, prefix) in peer.allowed_ips.iter().enumerate() {
            if let Some((other, owner)) = seen.prefixes.iter().find(|(p, _)| overlap(p, prefix)) {
                let written = raw.fields.get("allowed_ips");
                let origin = written
                    .and_then(|setting| setting.items.get(n))
                    .map_or(origin_of(raw, "id"), |item| item.origin.clone());
                let what = format!("allowed_ips {prefix} overlaps {other} of peer {owner}");
                let mut problem = Problem::new(&origin, what);
                if written.is_none() {
                    problem = problem.note(
                        "the address derived from this PeerId is taken: give this peer another \
                         with allowed_ips, and the same with device.address on its machine",
                    );
                } else {
                    problem = problem
                        .note("an address is one peer's only; make the prefixes stand apart");
                }
                self.problems.push(problem);
            }
        }
        let owner = peer.name.clone().unwrap_or_else(|| peer.id.to_string());
        seen.prefixes.extend(
            peer.allowed_ips
                .iter()
                .map(|prefix| (*prefix, owner.clone())),
        );
    }

    /// An IPv6 address of a peer or relay is out of reach for a node that listens on IPv4 only.
    fn reachable_family(
        &mut self,
        place: Place,
        raw: &Entry,
        addresses: &[SocketAddr],
        listen: &[SocketAddr],
    ) {
        let Some(setting) = raw.fields.get(place.key.name) else {
            return;
        };
        for (address, item) in addresses.iter().zip(&setting.items) {
            if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
                self.problems
                    .push(place.wrong(item, "no datagram can be sent there"));
            } else if !listen
                .iter()
                .any(|ours| ours.is_ipv4() == address.is_ipv4())
            {
                let (family, example) = if address.is_ipv4() {
                    ("IPv4", "0.0.0.0:4433")
                } else {
                    ("IPv6", "[::]:4433")
                };
                let whose = place.section.name.split('.').next().unwrap_or_default();
                let what =
                    format!("{whose} address {address} is {family}, but no listen address is");
                let note = format!("add \"{example}\" to node.listen, or remove this address");
                self.problems
                    .push(Problem::new(&item.origin, what).note(note));
            }
        }
    }

    fn no_duplicates<T: PartialEq + std::fmt::Display>(
        &mut self,
        name: &str,
        setting: &Setting,
        values: &[T],
    ) {
        for (n, value) in values.iter().enumerate() {
            if values[..n].contains(value) {
                let origin = setting
                    .items
                    .get(n)
                    .map_or(&setting.origin, |item| &item.origin);
                let what = format!("{value} stands twice in `{name}`");
                self.problems.push(Problem::new(origin, what));
            }
        }
    }

    fn one<T>(
        &mut self,
        section: &'static Section,
        fields: &Fields,
        name: &'static str,
        read: fn(Place, &Item) -> Result<T, Problem>,
    ) -> Option<T> {
        self.list(section, fields, name, read).pop()
    }

    fn list<T>(
        &mut self,
        section: &'static Section,
        fields: &Fields,
        name: &'static str,
        read: fn(Place, &Item) -> Result<T, Problem>,
    ) -> Vec<T> {
        let Some(setting) = fields.get(name) else {
            return Vec::new();
        };
        let place = place(section, name);
        let mut values = Vec::new();
        for item in &setting.items {
            match read(place, item) {
                Ok(value) => values.push(value),
                Err(problem) => self.problems.push(problem),
            }
        }
        values
    }
}

/// What earlier peers own, with where they stand.
#[derive(Default)]
struct Seen {
    ids: BTreeMap<PeerId, Origin>,
    names: BTreeMap<String, Origin>,
    prefixes: Vec<(IpPrefix, String)>,
}

/// Where a key of a peer stands, or the peer when it is not written.
pub(super) fn origin_of(raw: &Entry, name: &str) -> Origin {
    raw.fields
        .get(name)
        .map_or(&raw.origin, |setting| &setting.origin)
        .clone()
}

/// The two host prefixes that are a peer's without `allowed_ips`.
// PROTOCOL SM-OV-1 SM-OV-2
pub fn derived_prefixes(id: &PeerId) -> Vec<IpPrefix> {
    derived(id)
        .map(|(address, _)| IpPrefix::host(address))
        .into()
}

fn overlap(a: &IpPrefix, b: &IpPrefix) -> bool {
    a.contains(b.addr()) || b.contains(a.addr())
}

fn section(layers: &Layers, section: &Section) -> Fields {
    layers
        .sections
        .get(section.name)
        .cloned()
        .unwrap_or_default()
}

fn place(section: &'static Section, name: &str) -> Place {
    let key = section
        .key(name)
        .expect("names in this file are in the schema");
    Place { section, key }
}

fn expects_id() -> &'static str {
    place(&schema::PEER, "id").key.expects
}

fn listen_default() -> Vec<SocketAddr> {
    LISTEN_DEFAULT
        .map(|address| address.parse().expect("a constant address"))
        .into()
}
