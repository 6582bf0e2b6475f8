//! What a running node tells about itself: the shapes behind `status`, `peers` and `ping`.
//!
//! These are also what `--json` prints, so a field once here keeps its name and unit. One thing has one name
//! in all verbs: `id` is the PeerId of what the object is about and `name` what people call it, `addresses` is a list
//! of texts, `addresses` of a device are overlay addresses with their prefix length. Units are in the names, and
//! times are whole numbers: `_us` for round trips and costs of a handshake, `_ms` for everything else.
//! `null` means unknown, never zero. The schemas in `docs/json` are made from these types by a test.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use shadowmesh_net::ConnectivityTotals;

/// The node as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeReport {
    /// PeerId of this node, `sm1…`.
    pub id: String,
    /// Version of the running program.
    pub version: String,
    /// Process id of the running node.
    pub pid: u32,
    /// Time since start.
    pub uptime_ms: u64,
    /// The device applications see.
    pub device: DeviceReport,
    /// UDP addresses really bound.
    pub listen: Vec<SocketAddr>,
    /// Configured peers.
    pub peers_total: usize,
    /// Peers with a session.
    pub peers_up: usize,
    /// Where others may reach us.
    #[serde(default)]
    pub candidates: Vec<CandidateReport>,
    /// The relays we use, in the order of the configuration.
    #[serde(default)]
    pub relays: Vec<RelayReport>,
    /// What we do as a relay for others; absent when we do not.
    #[serde(default)]
    pub relaying: Option<RelayingReport>,
    /// What people should know and do: one line each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Measured AEAD speed in MB/s, 0 when refused by configuration.
    pub cipher_speeds: CipherSpeeds,
    /// All sealed traffic.
    pub traffic: TrafficReport,
    /// Handshake work done since start.
    pub handshakes: HandshakeReport,
    /// Drops by reason, only reasons that happened.
    pub drops: BTreeMap<String, u64>,
    /// Who called and was refused, because no `[[peer]]` has its PeerId; the latest first, the last few only.
    #[serde(default)]
    pub refused_callers: Vec<CallerReport>,
    /// CPU time of the whole process.
    pub cpu_ms: u64,
    /// Resident memory of the process.
    pub memory_kib: u64,
    /// What is not as it should be although the node runs, in words.
    #[serde(default)]
    pub notices: Vec<String>,
}

impl NodeReport {
    /// Whether it has no part in any network and only relays for others.
    pub fn only_relays(&self) -> bool {
        self.device.addresses.is_empty() && self.device.clashes.is_empty()
    }
}

/// A caller that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CallerReport {
    /// What it calls itself, `sm1…`; it is refused before it has to prove it.
    pub id: String,
    /// Where it called from last.
    pub address: SocketAddr,
    /// Since it called last.
    pub age_ms: u64,
    /// How often it called.
    pub count: u64,
}

/// An underlay address of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CandidateReport {
    /// The address, with the port where we listen or the one that leads to it.
    pub address: SocketAddr,
    /// How we know it.
    pub kind: AddressKind,
    /// How many peers and relays see us there.
    pub seen_by: usize,
}

/// How we know an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum AddressKind {
    /// The configuration says that it leads to us.
    Announced,
    /// This host has it.
    Host,
    /// A router maps it to us, because we asked.
    Mapped,
    /// Peers see us there.
    Observed,
}

/// A relay we use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RelayReport {
    /// `sm1…`
    pub id: String,
    /// Name of the configuration, when it is a peer too.
    pub name: Option<String>,
    /// Where the session stands.
    pub state: PeerState,
    /// Why there is no session, in words, as far as known.
    pub problem: Option<String>,
    /// The path to it, when there is a session.
    pub path: Option<PathReport>,
    /// Our underlay address as it sees it.
    pub observed: Option<SocketAddr>,
    /// The same from its second port, where that was asked because nobody else told how we are translated.
    #[serde(default)]
    pub observed_second: Option<SocketAddr>,
}

/// What we do as a relay. Nothing says for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RelayingReport {
    /// Clients that are no peers of ours.
    pub clients: usize,
    /// Datagrams passed on.
    pub datagrams: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What `doctor` looks at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DoctorReport {
    /// The node as a whole.
    pub node: NodeReport,
    /// Every peer, in the order of the configuration.
    pub peers: Vec<PeerReport>,
    /// The ways to each of them, in the same order; the best first.
    pub ways: Vec<Vec<WayReport>>,
}

/// One way to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WayReport {
    /// Which.
    pub path: PathReport,
    /// What is known of it.
    pub state: WayState,
}

/// What is known of a way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WayState {
    /// It is tried now, or will be soon.
    Untried,
    /// Nothing came back.
    Unanswered,
    /// It answers.
    Proven,
    /// It answered once, and does not any more.
    Broken,
}

/// The network device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeviceReport {
    /// Name as `ip link` shows it.
    pub name: String,
    /// Largest IP packet.
    pub mtu: u16,
    /// Overlay addresses with prefix length.
    pub addresses: Vec<String>,
    /// What is wrong with it and is not in the node's hands; absent: nothing.
    #[serde(default)]
    pub problem: Option<String>,
    /// Where networks of this host and of the overlay do not go together.
    #[serde(default)]
    pub clashes: Vec<ClashReport>,
}

impl DeviceReport {
    /// What keeps packets from it, in words.
    pub fn troubles(&self) -> impl Iterator<Item = &str> {
        let lost = self.clashes.iter().filter(|clash| clash.is_loss);
        let lost = lost.map(|clash| clash.says.as_str());
        self.problem.as_deref().into_iter().chain(lost)
    }
}

/// A network of this host and one of the overlay that do not go together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClashReport {
    /// Something that was asked for is not there.
    pub is_loss: bool,
    /// What is so.
    pub says: String,
    /// What to do about it.
    pub next: String,
}

/// What each AEAD does on this machine, in MB/s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CipherSpeeds {
    /// AES-256-GCM
    pub aes_256_gcm: u32,
    /// ChaCha20-Poly1305
    pub chacha20_poly1305: u32,
}

/// Inner packets and bytes in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TrafficReport {
    /// Frames opened and accepted.
    pub packets_in: u64,
    /// Inner bytes of them.
    pub bytes_in: u64,
    /// Frames sealed and handed to the socket.
    pub packets_out: u64,
    /// Inner bytes of them.
    pub bytes_out: u64,
}

/// Post-quantum operations counted since start; the flood tests read these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HandshakeReport {
    /// ML-KEM-1024 operations.
    pub kem: u64,
    /// Composite signatures made.
    pub sign: u64,
    /// Composite signatures verified.
    pub verify: u64,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PeerReport {
    /// `sm1…`
    pub id: String,
    /// Name of the configuration.
    pub name: Option<String>,
    /// Where the session stands.
    pub state: PeerState,
    /// Why there is no session, in words, as far as known.
    #[serde(default)]
    pub problem: Option<String>,
    /// The same in one word.
    #[serde(default)]
    pub cause: Option<PeerCause>,
    /// Since it was last heard; `null`: never since this node started.
    #[serde(default)]
    pub seen_age_ms: Option<u64>,
    /// Since the last handshake with it; `null`: none since this node started.
    #[serde(default)]
    pub handshake_age_ms: Option<u64>,
    /// The path in use, when there is a session.
    pub path: Option<PathReport>,
    /// Key generation of the session.
    pub epoch: Option<u32>,
    /// `aes-256-gcm` or `chacha20-poly1305`.
    pub cipher: Option<String>,
    /// What carries its packets, and why: `sealed`, `quic` or `quic (sealed frames do not pass)`.
    #[serde(default)]
    pub data_plane: Option<String>,
    /// What is this peer's.
    pub allowed_ips: Vec<String>,
    /// Sealed traffic with this peer since start.
    pub traffic: TrafficReport,
    /// Age of the session.
    pub session_age_ms: Option<u64>,
    /// Age of the keys in use.
    pub key_age_ms: Option<u64>,
    /// Whether the handshake resumed an earlier one.
    pub resumed: Option<bool>,
    /// Our underlay address as this peer sees it.
    pub observed: Option<SocketAddr>,
    /// Whose identity two machines use, if that seems so.
    #[serde(default)]
    pub copied: Option<CopiedIdentity>,
}

/// Whose identity two machines use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum CopiedIdentity {
    /// The peer's.
    Theirs,
    /// Ours.
    Ours,
}

impl CopiedIdentity {
    /// What is so, said of the peer.
    pub fn says(self) -> &'static str {
        match self {
            CopiedIdentity::Theirs => {
                "two machines use this peer's identity and take its session in turns"
            }
            CopiedIdentity::Ours => {
                "it says that another machine uses this node's identity too; they take the session in turns"
            }
        }
    }

    /// What to do.
    pub fn next(self) -> &'static str {
        match self {
            CopiedIdentity::Theirs => {
                "on one of the two: stop it, move `identity` in its state directory away, start it, and list its new PeerId here"
            }
            CopiedIdentity::Ours => {
                "on one of the two: stop it, move `identity` in its state directory away, start it, and list its new PeerId at its peers"
            }
        }
    }
}

/// Why there is no session with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PeerCause {
    /// Its configuration does not list us.
    Refused,
    /// Its node said goodbye.
    Stopped,
    /// Nothing came back.
    NoAnswer,
    /// Something else, which `problem` says.
    Said,
}

/// Where the session with a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// Nobody wanted it yet, or no address is known.
    Idle,
    /// A handshake is under way.
    Connecting,
    /// There is a session, and what was asked in it was answered.
    Up,
    /// There is a session, and nothing has come back for some seconds although something was asked.
    Silent,
}

/// The way frames take to a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PathReport {
    /// Kind of path.
    pub kind: PathKind,
    /// Underlay address of the other end; `None` where datagrams go over somebody or something else.
    #[serde(default)]
    pub remote: Option<SocketAddr>,
    /// PeerId of the relay between.
    #[serde(default)]
    pub relay: Option<String>,
    /// What people call this relay.
    #[serde(default)]
    pub relay_name: Option<String>,
    /// Local underlay address, when known.
    pub local: Option<IpAddr>,
    /// Smoothed round trip.
    pub rtt_us: Option<u64>,
    /// Largest IP packet of the underlay that is known to pass; nothing longer than our own frames is
    /// asked for. `None` while it is searched for.
    #[serde(default)]
    pub mtu: Option<usize>,
}

/// Kind of path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// UDP straight to the peer.
    Direct,
    /// Over a relay.
    Relay,
    /// WebSocket over TLS straight to the peer.
    Web,
}

/// Everything the metrics endpoint tells. It names no peer: who talks to whom is nobody's business who
/// may only read figures.
#[derive(Clone, Debug, Default)]
pub struct MetricsReport {
    /// The node as a whole.
    pub node: NodeReport,
    /// Peers by [`PeerState`]: idle, connecting, up, silent.
    pub peers: [usize; 4],
    /// Sessions by [`PathKind`]: direct, relay, web.
    pub paths: [usize; 3],
    /// How peers were reached since the start.
    pub connectivity: ConnectivityTotals,
    /// What happened to sessions since the start.
    pub sessions: SessionCounts,
    /// Drops by reason, also reasons that never happened.
    pub drops: Vec<(&'static str, u64)>,
    /// Relays we use: with a session, and without.
    pub relays: [usize; 2],
    /// What waits for the control thread: name of the queue, how much is in it, how much may be.
    pub queues: Vec<QueueReport>,
}

/// What happened to sessions since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Handshakes that we began and completed, with the whole exchange of keys and signatures.
    pub handshakes_full: u64,
    /// Those that resumed an earlier session.
    pub handshakes_resumed: u64,
    /// Sessions that came up.
    pub up: u64,
    /// Sessions that ended, by reason.
    pub down: BTreeMap<&'static str, u64>,
    /// Fresh keys.
    pub rekeys: u64,
    /// Times a peer's datagrams took another way.
    pub path_changes: u64,
    /// Times a peer's packets were carried by something else.
    pub plane_changes: u64,
}

/// A queue in front of the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueReport {
    /// What waits in it.
    pub name: &'static str,
    /// Messages in it.
    pub len: usize,
    /// Messages it may hold; what comes beyond is dropped and counted.
    pub limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn names(of: &impl Serialize) -> Vec<String> {
        let Value::Object(fields) = serde_json::to_value(of).unwrap() else {
            panic!("a report is an object")
        };
        fields.keys().cloned().collect()
    }

    /// Scripts live by these: a name may come, and none may go or change.
    #[test]
    fn what_json_calls_things_stays_as_it_is() {
        let way = PathReport {
            kind: PathKind::Direct,
            remote: None,
            relay: None,
            relay_name: None,
            local: None,
            rtt_us: None,
            mtu: None,
        };
        let peer = PeerReport {
            id: String::new(),
            name: None,
            state: PeerState::Idle,
            problem: None,
            cause: None,
            seen_age_ms: None,
            handshake_age_ms: None,
            path: None,
            epoch: None,
            cipher: None,
            data_plane: None,
            allowed_ips: Vec::new(),
            traffic: TrafficReport::default(),
            session_age_ms: None,
            key_age_ms: None,
            resumed: None,
            observed: None,
            copied: None,
        };
        let relay = RelayReport {
            id: String::new(),
            name: None,
            state: PeerState::Idle,
            problem: None,
            path: None,
            observed: None,
            observed_second: None,
        };
        let address = CandidateReport {
            address: "192.0.2.1:1".parse().unwrap(),
            kind: AddressKind::Host,
            seen_by: 0,
        };
        for (found, promised) in [
            (
                names(&NodeReport::default()),
                "candidates cipher_speeds cpu_ms device drops handshakes id listen memory_kib notices peers_total \
                 peers_up pid refused_callers relaying relays traffic uptime_ms version warnings",
            ),
            (
                names(&peer),
                "allowed_ips cause cipher copied data_plane epoch handshake_age_ms id key_age_ms name observed path problem resumed \
                 seen_age_ms session_age_ms state traffic",
            ),
            (names(&way), "kind local mtu relay relay_name remote rtt_us"),
            (
                names(&relay),
                "id name observed observed_second path problem state",
            ),
            (names(&address), "address kind seen_by"),
            (names(&RelayingReport::default()), "bytes clients datagrams"),
            (
                names(&TrafficReport::default()),
                "bytes_in bytes_out packets_in packets_out",
            ),
            (
                names(&DeviceReport::default()),
                "addresses clashes mtu name problem",
            ),
            (names(&HandshakeReport::default()), "kem sign verify"),
            (
                names(&CipherSpeeds::default()),
                "aes_256_gcm chacha20_poly1305",
            ),
            (names(&DoctorReport::default()), "node peers ways"),
        ] {
            let mut found = found;
            found.sort_unstable();
            assert_eq!(found.join(" "), promised);
        }
        let words = (
            [
                AddressKind::Host,
                AddressKind::Mapped,
                AddressKind::Observed,
            ],
            [
                PeerState::Idle,
                PeerState::Connecting,
                PeerState::Up,
                PeerState::Silent,
            ],
            [PathKind::Direct, PathKind::Relay, PathKind::Web],
            [CopiedIdentity::Theirs, CopiedIdentity::Ours],
            [
                WayState::Untried,
                WayState::Unanswered,
                WayState::Proven,
                WayState::Broken,
            ],
        );
        assert_eq!(
            serde_json::to_value(words).unwrap(),
            serde_json::json!([
                ["host", "mapped", "observed"],
                ["idle", "connecting", "up", "silent"],
                ["direct", "relay", "web"],
                ["theirs", "ours"],
                ["untried", "unanswered", "proven", "broken"],
            ])
        );
    }
}
