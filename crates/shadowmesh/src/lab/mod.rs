//! A laboratory on one machine: namespaces joined by a bridge, real node processes in them, traffic
//! between them. The `demo` verb, the integration tests and the evidence run are built on it.
//!
//! ```text
//!  n1            n2            n3          one namespace each: eth0, and shadow0 once it runs
//!   └────────────┼─────────────┘
//!              bridge                      one more namespace, where a capture sees everything
//! ```
//!
//! Everything is made through netlink and lives in namespaces without a name, so nothing is left
//! behind however the laboratory ends: the kernel takes a namespace away with its last process. Only
//! the directory of the configurations stays, for whoever made it to remove.
//!
//! | module | what it does |
//! |---|---|
//! | [`node`] | one node: namespace, identity, process |
//! | [`config`] | writes its configuration file |
//! | [`wiring`] | bridge, veth pairs and underlay addresses |
//! | [`web`] | two nodes and a router that lets little pass but TCP |
//! | [`routed`] | two nodes with routers and a narrow cable between them |
//! | [`relayed`] | two nodes that reach each other over relays only |
//! | [`internet`] | an internet with two relays, and pairs of nodes behind NATs of the kernel |
//! | [`bulk`] | TCP transfers, hashed or timed |
//! | [`datagrams`] | UDP floods and paced series, every loss counted |
//! | [`load`] | several of them at once, and pings beside them |

pub mod bulk;
pub mod config;
pub mod datagrams;
pub mod internet;
pub mod load;
pub mod node;
pub mod relayed;
pub mod routed;
pub mod web;
pub mod wiring;

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use shadowmesh_io::netlink::NetlinkError;
use shadowmesh_io::netns::Netns;
use thiserror::Error;

pub use config::{NodeSettings, PeerSettings, RelaySettings};
pub use internet::{Internet, Meeting, Pair};
pub use node::{Family, LabNode};
pub use relayed::RelayedLab;
pub use routed::RoutedLab;

/// UDP port of every laboratory node.
pub const PORT: u16 = 4433;
/// Name of the device of every laboratory node.
pub const DEVICE: &str = "shadow0";
/// Nodes get one address each from a /24.
pub const NODES_MAX: usize = 200;

/// What went wrong in the laboratory itself.
#[derive(Debug, Error)]
pub enum LabError {
    /// The operating system refused something.
    #[error("the laboratory could not be built or used: {0}")]
    Io(#[from] io::Error),
    /// The kernel refused a device or an address.
    #[error("the laboratory could not be wired: {0}")]
    Netlink(#[from] NetlinkError),
    /// A verb of the program failed.
    #[error("`shadowmesh {verb}` failed for {node}: {said}")]
    Verb {
        /// Which verb.
        verb: String,
        /// For which node.
        node: String,
        /// What it said.
        said: String,
    },
    /// A process did not end when asked.
    #[error("node {0} did not end within its time and was killed")]
    Hung(String),
    /// The node has no process.
    #[error("the node is not running")]
    NotRunning,
    /// A pair did not reach each other in time.
    #[error("{from} did not reach {to} within {limit:?}")]
    Unreachable {
        /// Who pinged.
        from: String,
        /// Whom.
        to: String,
        /// For how long.
        limit: Duration,
    },
}

/// The namespaces, the bridge and the nodes.
pub struct Lab {
    /// The namespace of the bridge: a capture here sees every datagram of the underlay.
    pub switch: Netns,
    /// The nodes, `n1` first.
    pub nodes: Vec<LabNode>,
}

impl Lab {
    /// Builds `count` nodes with fresh identities, nothing running yet. `program` is the `shadowmesh`
    /// binary, `directory` takes one folder for each node.
    pub fn build(program: &Path, directory: &Path, count: usize) -> Result<Self, LabError> {
        assert!(count <= NODES_MAX, "at most {NODES_MAX} laboratory nodes");
        let switch = wiring::make_switch()?;
        let mut nodes = Vec::with_capacity(count);
        for index in 0..count {
            let name = format!("n{}", index + 1);
            let netns = wiring::attach_namespace(&switch, index)?;
            let addresses = (wiring::underlay_v4(index), wiring::underlay_v6(index));
            let home = directory.join(&name);
            nodes.push(LabNode::new(name, netns, program, home, addresses)?);
        }
        Ok(Self { switch, nodes })
    }

    /// Configures every node with every other as its peer, reached over `family`.
    pub fn configure_full_mesh(&self, family: Family) -> Result<(), LabError> {
        for node in &self.nodes {
            let others = self.nodes.iter().filter(|other| other.id != node.id);
            let peers: Vec<PeerSettings> = others.map(|other| other.as_peer(family)).collect();
            node.configure(&peers)?;
        }
        Ok(())
    }

    /// Starts every node that does not run yet.
    pub fn start_all(&mut self) -> Result<(), LabError> {
        for node in &mut self.nodes {
            if !node.is_running() {
                node.start()?;
            }
        }
        Ok(())
    }

    /// Waits until every node reaches every other, in both IP versions of the overlay.
    pub fn wait_until_reachable(&self, limit: Duration) -> Result<(), LabError> {
        let deadline = Instant::now() + limit;
        for (from, to) in self.pairs() {
            for address in [to.overlay_v4().into(), to.overlay_v6().into()] {
                let left = deadline.saturating_duration_since(Instant::now());
                if from.ping_until_answered(address, left).is_none() {
                    return Err(LabError::Unreachable {
                        from: from.name.clone(),
                        to: to.name.clone(),
                        limit,
                    });
                }
            }
        }
        Ok(())
    }

    /// Every ordered pair of nodes.
    pub fn pairs(&self) -> impl Iterator<Item = (&LabNode, &LabNode)> {
        let with_others = |from| self.nodes.iter().map(move |to| (from, to));
        self.nodes
            .iter()
            .flat_map(with_others)
            .filter(|(from, to): &(&LabNode, &LabNode)| from.id != to.id)
    }

    /// Asks every running node to end and waits for it.
    pub fn stop_all(&mut self) -> Result<(), LabError> {
        for node in &mut self.nodes {
            if node.is_running() {
                node.stop()?;
            }
        }
        Ok(())
    }
}

/// Asks `condition` every 10 ms until it holds; whether it did within `limit`.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}
