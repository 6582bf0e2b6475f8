//! What every test here needs: a laboratory, and the nodes' logs when it fails.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::time::Duration;

use shadowmesh::lab::{Family, Internet, Lab, LabError, LabNode, Pair, RelayedLab, RoutedLab};
use shadowmesh_io::lab::{NatBoxConfig, privileged};
use tempfile::TempDir;

/// A handshake takes milliseconds; a machine that also compiles may take its time.
pub const REACHABLE_MAX: Duration = Duration::from_secs(10);
/// Pings of tests that count them.
pub const PING_INTERVAL: Duration = Duration::from_millis(10);

/// A laboratory that prints what its nodes said if the test fails.
pub struct TestLab {
    lab: Lab,
    /// What the nodes are told to carry packets by, where the test is about that.
    plane: Option<&'static str>,
    _directory: TempDir,
}

/// Names one data plane, and then only the tests that are run on each run at all, on that one:
/// `cargo xtask evidence speed --only quic-plane` counts what they say.
const ONLY_PLANE: &str = "SHADOWMESH_TEST_PLANE";

/// Whether a test that is about no data plane is left out.
fn left_out(name: &str) -> bool {
    let left_out = std::env::var_os(ONLY_PLANE).is_some();
    if left_out {
        println!("{name}: left out, for {ONLY_PLANE} is set");
    }
    left_out
}

/// Runs a test in a laboratory of `count` nodes that are not configured yet. `name` is the name of
/// the test as `cargo test` lists it: without root it runs again in a user namespace.
pub fn in_lab(name: &str, count: usize, body: impl FnOnce(&mut TestLab)) {
    if !left_out(name) {
        privileged(name, || body(&mut TestLab::build(count, None)));
    }
}

/// Runs a test twice, in a laboratory whose packets travel in sealed frames and in one where they
/// travel in QUIC datagrams: what is promised holds for both.
pub fn in_lab_on_each_plane(name: &str, count: usize, body: impl Fn(&mut TestLab)) {
    privileged(name, || {
        let only = std::env::var(ONLY_PLANE).ok();
        let wanted = |plane: &&str| only.as_deref().is_none_or(|only| only == *plane);
        for plane in ["sealed", "quic"].into_iter().filter(wanted) {
            body(&mut TestLab::build(count, Some(plane)));
            println!("passed on the {plane} plane: {name}");
        }
    });
}

/// A laboratory whose nodes have routers between them, and which prints what they said if the test
/// fails.
pub struct RoutedTestLab {
    lab: RoutedLab,
    _directory: TempDir,
}

/// Runs a test in a laboratory of two nodes with routers between them; `name` as for [`in_lab`].
pub fn in_routed_lab(name: &str, body: impl FnOnce(&mut RoutedTestLab)) {
    if left_out(name) {
        return;
    }
    privileged(name, || {
        let directory = tempfile::tempdir().expect("a directory for the nodes");
        let program = Path::new(env!("CARGO_BIN_EXE_shadowmesh"));
        let lab = RoutedLab::build(program, directory.path()).expect("a laboratory");
        body(&mut RoutedTestLab {
            lab,
            _directory: directory,
        });
    });
}

impl Deref for RoutedTestLab {
    type Target = RoutedLab;

    fn deref(&self) -> &RoutedLab {
        &self.lab
    }
}

impl DerefMut for RoutedTestLab {
    fn deref_mut(&mut self) -> &mut RoutedLab {
        &mut self.lab
    }
}

impl Drop for RoutedTestLab {
    fn drop(&mut self) {
        show_logs(&self.lab.nodes);
    }
}

/// A laboratory whose nodes have relays between them, and which prints what they said if the test fails.
pub struct RelayedTestLab {
    lab: RelayedLab,
    _directory: TempDir,
}

/// Runs a test in a laboratory of two nodes and relays that `build` makes; `name` as for [`in_lab`].
pub fn in_relayed_lab(
    name: &str,
    build: impl FnOnce(&Path, &Path) -> Result<RelayedLab, LabError>,
    body: impl FnOnce(&mut RelayedTestLab),
) {
    if left_out(name) {
        return;
    }
    privileged(name, || {
        let directory = tempfile::tempdir().expect("a directory for the nodes");
        let program = Path::new(env!("CARGO_BIN_EXE_shadowmesh"));
        let lab = build(program, directory.path()).expect("a laboratory");
        body(&mut RelayedTestLab {
            lab,
            _directory: directory,
        });
    });
}

impl Deref for RelayedTestLab {
    type Target = RelayedLab;

    fn deref(&self) -> &RelayedLab {
        &self.lab
    }
}

impl DerefMut for RelayedTestLab {
    fn deref_mut(&mut self) -> &mut RelayedLab {
        &mut self.lab
    }
}

impl Drop for RelayedTestLab {
    fn drop(&mut self) {
        show_logs(&self.lab.nodes);
    }
}

/// An internet whose relays, and whose pairs, print what they said if the test fails.
pub struct TestInternet {
    internet: Internet,
    _directory: TempDir,
}

/// A pair of it.
pub struct TestPair {
    pair: Pair,
}

/// Runs a test on an internet with two relays that do not run yet; `name` as for [`in_lab`].
pub fn in_internet(name: &str, body: impl FnOnce(&mut TestInternet)) {
    if left_out(name) {
        return;
    }
    privileged(name, || {
        let directory = tempfile::tempdir().expect("a directory for the nodes");
        let program = Path::new(env!("CARGO_BIN_EXE_shadowmesh"));
        let internet = Internet::build(program, directory.path()).expect("a laboratory");
        body(&mut TestInternet {
            internet,
            _directory: directory,
        });
    });
}

impl TestInternet {
    /// As [`Internet::pair`].
    pub fn test_pair(&mut self, sites: [&[NatBoxConfig]; 2]) -> TestPair {
        TestPair {
            pair: self.internet.pair(sites).expect("a pair"),
        }
    }
}

impl Deref for TestInternet {
    type Target = Internet;

    fn deref(&self) -> &Internet {
        &self.internet
    }
}

impl DerefMut for TestInternet {
    fn deref_mut(&mut self) -> &mut Internet {
        &mut self.internet
    }
}

impl Drop for TestInternet {
    fn drop(&mut self) {
        show_logs(&self.internet.relays);
    }
}

impl Deref for TestPair {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        &self.pair
    }
}

impl DerefMut for TestPair {
    fn deref_mut(&mut self) -> &mut Pair {
        &mut self.pair
    }
}

impl Drop for TestPair {
    fn drop(&mut self) {
        show_logs(&self.pair.nodes);
    }
}

impl TestLab {
    fn build(count: usize, plane: Option<&'static str>) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the nodes");
        let program = Path::new(env!("CARGO_BIN_EXE_shadowmesh"));
        let mut lab = Lab::build(program, directory.path(), count).expect("a laboratory");
        for node in lab.nodes.iter_mut().filter(|_| plane.is_some()) {
            node.settings.data_plane = plane.unwrap_or_default().into();
        }
        Self {
            lab,
            plane,
            _directory: directory,
        }
    }

    /// Everybody lists everybody; returns when every pair has reached each other.
    pub fn bring_up_full_mesh(&mut self, family: Family) {
        self.configure_full_mesh(family).unwrap();
        self.start_all().unwrap();
        self.wait_until_reachable(REACHABLE_MAX).unwrap();
        for (node, plane) in self.lab.nodes.iter().zip(self.plane.iter().cycle()) {
            let peers = node.query("peers", &[]).unwrap();
            for peer in peers["peers"].as_array().expect("a list") {
                assert_eq!(peer["data_plane"], *plane, "{peer:#}");
            }
        }
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
            eprintln!("--- data plane: {}", self.plane.unwrap_or("auto"));
        }
        show_logs(&self.lab.nodes);
    }
}

/// What a test leaves behind when it fails.
fn show_logs(nodes: &[LabNode]) {
    if std::thread::panicking() {
        for node in nodes {
            let status = node.query("status", &[]).unwrap_or_default();
            eprintln!("--- {}: {}\n{}\n{status:#}", node.name, node.id, node.log());
        }
    }
}

/// How often `node` dropped something for `reason`, by its own account.
pub fn drops(node: &LabNode, reason: &str) -> u64 {
    let status = node.query("status", &[]).expect("a running node");
    status["drops"][reason].as_u64().unwrap_or(0)
}
