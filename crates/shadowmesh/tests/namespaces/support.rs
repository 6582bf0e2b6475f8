//! What every test here needs: a laboratory, and the nodes' logs when it fails.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use shadowmesh::lab::{Family, Lab, LabNode};
use shadowmesh_io::lab::privileged;
use tempfile::TempDir;

/// A handshake takes milliseconds; a machine that also compiles may take its time.
pub const REACHABLE_MAX: Duration = Duration::from_secs(10);
/// Pings of tests that count them.
pub const PING_INTERVAL: Duration = Duration::from_millis(10);

/// A laboratory that prints what its nodes said if the test fails.
pub struct TestLab {
    lab: Lab,
    _directory: TempDir,
}

/// Runs a test in a laboratory of `count` nodes that are not configured yet. `name` is the name of
/// the test as `cargo test` lists it: without root it runs again in a user namespace.
pub fn in_lab(name: &str, count: usize, body: impl FnOnce(&mut TestLab)) {
    privileged(name, || {
        let directory = tempfile::tempdir().expect("a directory for the nodes");
        let program = Path::new(env!("CARGO_BIN_EXE_shadowmesh"));
        let lab = Lab::build(program, directory.path(), count).expect("a laboratory");
        body(&mut TestLab {
            lab,
            _directory: directory,
        });
    });
}

impl TestLab {
    /// Everybody lists everybody; returns when every pair has reached each other.
    pub fn bring_up_full_mesh(&mut self, family: Family) {
        self.configure_full_mesh(family).unwrap();
        self.start_all().unwrap();
        self.wait_until_reachable(REACHABLE_MAX).unwrap();
    }
}

impl Deref for TestLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for TestLab {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.lab.nodes {
                let status = node.query("status", &[]).unwrap_or_default();
                eprintln!("--- {}: {}\n{}\n{status:#}", node.name, node.id, node.log());
            }
        }
    }
}

/// How often `node` dropped something for `reason`, by its own account.
pub fn drops(node: &LabNode, reason: &str) -> u64 {
    let status = node.query("status", &[]).expect("a running node");
    status["drops"][reason].as_u64().unwrap_or(0)
}
