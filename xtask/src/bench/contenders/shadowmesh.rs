//! ShadowMesh itself: the release build of this workspace, configured as a user would.

use super::{Contender, Process, Rank, Stage, Tunnel, tools};
use crate::shell;
use shadowmesh::lab::{Family, LabNode, wiring};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;

/// One way to set it up.
pub struct Ours {
    name: &'static str,
    setup: &'static str,
    cipher: &'static str,
    data_plane: &'static str,
}

/// With AES-256-GCM, named and not measured, so that a row is what it says.
pub const AES: Ours = Ours {
    name: "shadowmesh",
    setup: "AES-256-GCM",
    cipher: "aes-256-gcm",
    data_plane: "sealed",
};

/// With ChaCha20-Poly1305.
pub const CHACHA: Ours = Ours {
    name: "shadowmesh-chacha",
    setup: "ChaCha20-Poly1305",
    cipher: "chacha20-poly1305",
    data_plane: "sealed",
};

/// The same packets as QUIC DATAGRAMs.
pub const QUIC: Ours = Ours {
    name: "shadowmesh-quic",
    setup: "data_plane = \"quic\", AES-256-GCM",
    cipher: "aes-256-gcm",
    data_plane: "quic",
};

impl Contender for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rank(&self) -> Rank {
        Rank::Ours
    }

    fn setup(&self) -> &'static str {
        self.setup
    }

    fn find(&self) -> Result<String, String> {
        Ok(format!("this tree, {}", env!("CARGO_PKG_VERSION")))
    }

    fn start(&self, stage: &Stage) -> Result<Tunnel, String> {
        start(stage, self.cipher, self.data_plane)
    }
}

/// The program under test.
pub fn program() -> PathBuf {
    shell::target_dir().join("release/shadowmesh")
}

/// Both ends with the same cipher and data plane.
fn start(stage: &Stage, cipher: &str, data_plane: &str) -> Result<Tunnel, String> {
    let nodes = [0, 1].map(|end| node(stage, end, cipher, data_plane));
    let nodes = nodes.into_iter().collect::<Result<Vec<LabNode>, _>>()?;
    let mut processes = Vec::new();
    for (end, node) in nodes.iter().enumerate() {
        node.configure(&[nodes[1 - end].as_peer(Family::V4)])
            .map_err(tools::text)?;
        check(node)?;
        let process = Process::start(&node.netns, &stage.directory(end)?, node.command("up"))?;
        processes.push(process);
    }
    Ok(Tunnel {
        v4: Some([0, 1].map(|end| IpAddr::V4(nodes[end].overlay_v4()))),
        v6: Some([0, 1].map(|end| IpAddr::V6(nodes[end].overlay_v6()))),
        processes,
    })
}

fn node(stage: &Stage, end: usize, cipher: &str, data_plane: &str) -> Result<LabNode, String> {
    let netns = stage.ends[end].try_clone().map_err(tools::text)?;
    let addresses = (wiring::underlay_v4(end), wiring::underlay_v6(end));
    let home = stage.directory(end)?.join("node");
    let name = format!("n{}", end + 1);
    let mut node = LabNode::new(name, netns, &program(), home, addresses).map_err(tools::text)?;
    node.settings.cipher = cipher.into();
    node.settings.data_plane = data_plane.into();
    Ok(node)
}

/// Says at once what a file that is not right would say in a log.
fn check(node: &LabNode) -> Result<(), String> {
    let mut command = std::process::Command::new(program());
    command.args(["config", "check", "--config"]);
    let output = command
        .arg(node.config_path())
        .stdin(Stdio::null())
        .output()
        .map_err(tools::text)?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(errors
        .lines()
        .next()
        .unwrap_or("config check failed")
        .into())
}
