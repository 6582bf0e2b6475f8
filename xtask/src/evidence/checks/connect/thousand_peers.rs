//! One program with very many connected peers.

use super::Measured;
use super::crowd::{self, Crowd, process_cpu};
use super::field::text;
use serde_json::{Value, json};
use shadowmesh::lab::{Family, LabNode, PeerSettings};
use shadowmesh_io::cpu;
use shadowmesh_wire::overlay;
use std::time::{Duration, Instant};

/// The promise, and ten times as many, which must connect too.
const PEERS: usize = 1000;
const PEERS_AIM: usize = 10_000;
/// Resident memory of the program in all, with [`PEERS`].
const MEMORY_MIB_MAX: u64 = 512;
/// Between two peers that call. A source may not begin many handshakes at once; all together may.
const CALL_PAUSE: Duration = Duration::from_millis(2);
/// How long those may take who are not connected when all have called, which for ten thousand takes 20 s.
const CONNECT_MAX: Duration = Duration::from_secs(60);
/// For which its CPU is looked at while nobody sends.
const IDLE: Duration = Duration::from_secs(5);

/// A thousand, then ten thousand.
pub fn run() -> Result<Measured, String> {
    let thousand = measure(PEERS)?;
    let aim = measure(PEERS_AIM)?;
    Ok(Measured {
        pass: thousand.connected == PEERS
            && thousand.resident <= MEMORY_MIB_MAX << 20
            && aim.connected == PEERS_AIM,
        figure: format!("{}; {}", thousand.figure(), aim.figure()),
        values: json!({ "promise": thousand.to_json(), "aim": aim.to_json() }),
    })
}

struct Load {
    peers: usize,
    connected: usize,
    resident: u64,
    empty: u64,
    connect_s: f64,
    connect_cpu_s: f64,
    idle_cpu: f64,
}

fn measure(peers: usize) -> Result<Load, String> {
    let directory = tempfile::tempdir().map_err(text)?;
    let identities = crowd::identities(peers);
    let mut node: LabNode = crowd::program(directory.path())?;
    let known: Vec<PeerSettings> = identities
        .iter()
        .map(|identity| identity.peer_id())
        .map(|id| PeerSettings {
            id,
            name: String::new(),
            web: None,
            addresses: Vec::new(),
            allowed_ips: vec![format!("{}/128", overlay::derived_ipv6(&id))],
        })
        .enumerate()
        .map(|(number, peer)| PeerSettings {
            name: format!("p{number}"),
            ..peer
        })
        .collect();
    node.configure(&known).map_err(text)?;
    let pid = crowd::start(&mut node)?;
    let empty = cpu::memory_of(pid).map_err(text)?.resident;
    let way = node.underlay(Family::V4);
    let mut crowd = Crowd::new(&node.netns, way, identities, |_, config| {
        config.peers = vec![crowd::peer(node.id, vec![way])];
    })?;
    let (start, cpu_start) = (Instant::now(), process_cpu(pid)?);
    let connected = crowd.call_all(CALL_PAUSE, CONNECT_MAX)?;
    let (connect_s, connect_cpu_s) = (start.elapsed(), process_cpu(pid)? - cpu_start);
    crowd.run(Duration::from_secs(2))?;
    let cpu_start = process_cpu(pid)?;
    crowd.run(IDLE)?;
    let idle = process_cpu(pid)? - cpu_start;
    Ok(Load {
        peers,
        connected,
        resident: cpu::memory_of(pid).map_err(text)?.resident,
        empty,
        connect_s: connect_s.as_secs_f64(),
        connect_cpu_s: connect_cpu_s.as_secs_f64(),
        idle_cpu: idle.as_secs_f64() / IDLE.as_secs_f64(),
    })
}

impl Load {
    fn each_kib(&self) -> f64 {
        self.resident.saturating_sub(self.empty) as f64 / 1024.0 / self.connected.max(1) as f64
    }

    fn figure(&self) -> String {
        format!(
            "{} of {} peers connected within {:.1} s ({:.1} s of CPU), resident {} MiB, {:.0} KiB a peer, \
             {:.1} % of a core while nobody sends",
            self.connected,
            self.peers,
            self.connect_s,
            self.connect_cpu_s,
            self.resident >> 20,
            self.each_kib(),
            self.idle_cpu * 100.0
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "peers": self.peers,
            "connected": self.connected,
            "resident_bytes": self.resident,
            "resident_empty_bytes": self.empty,
            "kib_a_peer": self.each_kib(),
            "connect_s": self.connect_s,
            "connect_cpu_s": self.connect_cpu_s,
            "idle_cpu": self.idle_cpu,
        })
    }
}
