//! The field of the namespace checks: a laboratory of real nodes, and an observer on its wire.

use super::observer::{Observer, Seen};
use super::program::{self, Build};
use shadowmesh::lab::{DEVICE, Family, Lab, LabNode};
use shadowmesh_io::lab::{Capture, CaptureStats};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Fast enough that several exchanges fall into every check; the lowest that configuration allows.
pub const REKEY_INTERVAL: Duration = Duration::from_secs(10);

/// How long freshly started nodes may take to reach each other.
pub const REACH_MAX: Duration = Duration::from_secs(20);

/// A running laboratory and the directory it lives in, which goes when this goes.
pub struct Field {
    /// The nodes and their bridge.
    pub lab: Lab,
    _directory: tempfile::TempDir,
}

impl Field {
    /// Nodes that are configured as each other's peers over `family` and do not run yet.
    pub fn build(count: usize, family: Family) -> Result<Self, String> {
        Self::with_program(&program::path(), count, family)
    }

    /// As [`Self::build`], of another build of the program, which is made now.
    pub fn of(build: Build, count: usize, family: Family) -> Result<Self, String> {
        Self::with_program(&build.make().map_err(text)?, count, family)
    }

    fn with_program(program: &Path, count: usize, family: Family) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(text)?;
        let mut lab = Lab::build(program, directory.path(), count).map_err(text)?;
        for node in &mut lab.nodes {
            // Long enough to be told from chance when it is searched for in a capture.
            node.name = format!("name-nobody-may-see-{}", node.name);
            node.settings.rekey_interval = REKEY_INTERVAL;
        }
        lab.configure_full_mesh(family).map_err(text)?;
        Ok(Self {
            lab,
            _directory: directory,
        })
    }

    /// As [`Self::build`], then starts all and waits until every pair answers.
    pub fn running(count: usize, family: Family) -> Result<Self, String> {
        let mut field = Self::build(count, family)?;
        field.start()?;
        Ok(field)
    }

    /// Starts all nodes and waits until every pair answers.
    pub fn start(&mut self) -> Result<(), String> {
        self.lab.start_all().map_err(text)?;
        self.lab.wait_until_reachable(REACH_MAX).map_err(text)
    }

    /// Node `index`, from 0.
    pub fn node(&self, index: usize) -> &LabNode {
        &self.lab.nodes[index]
    }

    /// Starts watching the cable of node 0, where it meets the bridge.
    pub fn observe(&self, plaintext: &[u8]) -> Result<Watch, String> {
        let observer = Observer::new(&self.lab.nodes, plaintext);
        let capture = self
            .lab
            .switch
            .run(|| Capture::start("port0", observer))
            .map_err(text)?;
        Ok(Watch(capture))
    }

    /// Starts watching the device of node 0, where everything is in clear: what a search finds here
    /// and not on the cable was hidden by the tunnel, and not missed by the search.
    pub fn observe_inside(&self, plaintext: &[u8]) -> Result<Watch, String> {
        let observer = Observer::new(&self.lab.nodes, plaintext);
        let start = || Capture::start(DEVICE, observer);
        Ok(Watch(self.node(0).netns.run(start).map_err(text)?))
    }

    /// The newest epoch that node `from` has with node `to`.
    pub fn epoch(&self, from: usize, to: usize) -> Result<u64, String> {
        let peers = self.node(from).query("peers", &[]).map_err(text)?;
        let id = self.node(to).id.to_string();
        find_peer(&peers, &id)
            .and_then(|peer| peer["epoch"].as_u64())
            .ok_or_else(|| format!("peers --json shows no epoch: {peers}"))
    }
}

/// A running observation.
pub struct Watch(Capture<Observer>);

impl Watch {
    /// Ends it.
    pub fn stop(self) -> Result<(Seen, CaptureStats), String> {
        let (observer, stats) = self.0.stop().map_err(text)?;
        Ok((observer.seen, stats))
    }
}

/// The address of a node inside the network, of the given kind.
pub fn inner(node: &LabNode, family: Family) -> IpAddr {
    match family {
        Family::V4 => node.overlay_v4().into(),
        Family::V6 => node.overlay_v6().into(),
    }
}

/// Any error as the figure of a failed line.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The object of a peer, at whatever depth the list of peers stands.
pub fn find_peer<'a>(value: &'a serde_json::Value, id: &str) -> Option<&'a serde_json::Value> {
    if value["id"] == id {
        return Some(value);
    }
    match value {
        serde_json::Value::Array(items) => items.iter().find_map(|item| find_peer(item, id)),
        serde_json::Value::Object(fields) => fields.values().find_map(|item| find_peer(item, id)),
        _ => None,
    }
}
