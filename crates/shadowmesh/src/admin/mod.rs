//! How verbs talk to a running node: JSON lines over the Unix socket `admin.sock`.
//!
//! A verb connects, writes one request line and reads answer lines until the server closes or the
//! answer says it is the last. The server is a task that knows nothing of networks: it turns each
//! request into a [`Command`] for the engine and waits for the reply on a oneshot channel. The
//! socket is mode 0600 in a directory of mode 0700, so whoever can connect may already do
//! everything the node may: there is no second permission check.
//!
//! Everything that takes time is paced here, not in the engine: `ping` with a count becomes that
//! many single-probe commands, so the engine keeps no state for it beyond the open replies.

pub mod client;
pub mod protocol;
pub mod report;
pub mod server;

use shadowmesh_io::files::own_uid;
use shadowmesh_wire::PeerId;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;

use report::{DoctorReport, MetricsReport, NodeReport, PathReport, PeerReport};

/// Where the running node of a state directory listens.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("admin.sock")
}

/// Where it listens when no socket can be made in the state directory, because that is full or
/// read-only: in the directory of things that last no longer than the machine runs, by the number that
/// the file system gave the state directory. The first that can be had.
// PROTOCOL SM-ST-1
fn other_socket_paths(state_dir: &Path) -> Vec<PathBuf> {
    let Ok(found) = std::fs::metadata(state_dir) else {
        return Vec::new();
    };
    let name = format!("{:x}-{:x}.sock", found.dev(), found.ino());
    let system = (own_uid() == 0).then(|| PathBuf::from("/run"));
    let user = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let places = system.into_iter().chain(user);
    places
        .map(|place| place.join("shadowmesh").join(&name))
        .collect()
}

/// Most commands that wait for the engine at once; a full queue makes the admin server wait.
pub const COMMAND_QUEUE_MAX: usize = 64;

/// What the engine is asked to do. A dropped reply sender means the engine is going down.
#[derive(Debug)]
pub enum Command {
    /// How is the node?
    Status {
        /// takes the answer
        reply: oneshot::Sender<NodeReport>,
    },
    /// How is every peer? In the order of the configuration.
    Peers {
        /// takes the answer
        reply: oneshot::Sender<Vec<PeerReport>>,
    },
    /// What keeps peers from better paths?
    Doctor {
        /// takes the answer
        reply: oneshot::Sender<Box<DoctorReport>>,
    },
    /// Look for better paths now, and call peers that have no session.
    Retry {
        /// takes the answer, which comes at once
        reply: oneshot::Sender<()>,
    },
    /// What is counted, for the metrics endpoint.
    Metrics {
        /// takes the answer
        reply: oneshot::Sender<Box<MetricsReport>>,
    },
    /// Send one probe through the session of `peer`. Without a session the engine starts to
    /// connect and answers [`PingFailure::NoSession`] at once. The asker gives up by dropping the
    /// receiver (`reply.is_closed()`), so the engine needs no timer, only to forget closed ones.
    Ping {
        /// whom
        peer: PeerId,
        /// takes the answer
        reply: oneshot::Sender<Result<PingReply, PingFailure>>,
    },
    /// Ask `peer` over the control stream (`ControlMessage::BenchRequest`) to open a temporary TCP
    /// listener on its overlay address, and answer with that address when its `BenchReply` comes.
    BenchPrepare {
        /// whom
        peer: PeerId,
        /// how long the measurement will take in all; the listener closes soon after
        duration: Duration,
        /// takes the answer
        reply: oneshot::Sender<Result<SocketAddr, BenchFailure>>,
    },
    /// Say goodbye to every peer, take addresses and routes away, and return from `engine::run`.
    /// Answered when the device is gone.
    Down {
        /// takes the answer
        reply: oneshot::Sender<()>,
    },
}

/// A probe came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingReply {
    /// Round trip inside the tunnel.
    pub rtt: Duration,
    /// The path it took.
    pub path: PathReport,
}

/// Why a probe was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PingFailure {
    /// No session yet; the engine is connecting.
    #[error("no session")]
    NoSession,
    /// Not in the configuration.
    #[error("not a peer of this node")]
    UnknownPeer,
}

/// Why a peer opened no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BenchFailure {
    /// No session with the peer.
    #[error("no session with that peer")]
    NoSession,
    /// Not in the configuration.
    #[error("not a peer of this node")]
    UnknownPeer,
    /// The peer answered no: it is busy with other measurements.
    #[error("the peer refused: it serves as many measurements as it allows")]
    Refused,
}
