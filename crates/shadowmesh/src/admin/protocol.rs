//! The lines on the admin socket.
//!
//! One request for each connection, then answers until the server closes. Every answer is one JSON
//! object with one member that says its kind. Unknown requests are answered with an error, so an
//! older node and a newer verb part in peace.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

use super::report::{DoctorReport, NodeReport, PathReport, PeerReport};

/// Longest request line in bytes; a longer one is not ours.
pub const REQUEST_LEN_MAX: u64 = 4096;
/// Most probes in one `ping`.
pub const PING_COUNT_MAX: u32 = 1_000_000;

/// What a verb asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The node as a whole.
    Status,
    /// Every peer.
    Peers,
    /// What keeps peers from better paths.
    Doctor,
    /// Look for better paths now.
    Retry,
    /// Probes through the tunnel.
    Ping {
        /// name, PeerId or overlay address
        peer: String,
        /// how many
        count: u32,
        /// time between two
        interval_ms: u64,
        /// how long to wait for each
        timeout_ms: u64,
    },
    /// A listener at a peer for a measurement.
    BenchPrepare {
        /// name, PeerId or overlay address
        peer: String,
        /// how long the measurement takes in all
        duration_ms: u64,
    },
    /// Stop the node.
    Down,
}

/// What the node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// to [`Request::Status`]
    Status(Box<NodeReport>),
    /// to [`Request::Peers`]
    Peers(Vec<PeerReport>),
    /// to [`Request::Doctor`]
    Doctor(Box<DoctorReport>),
    /// to [`Request::Retry`]: the search has begun
    Retrying,
    /// to [`Request::Ping`], first: whom the name meant
    PingStart {
        /// `sm1…`
        id: String,
        /// name of the configuration
        name: Option<String>,
    },
    /// to [`Request::Ping`], once for each probe, in the order they end
    Probe(ProbeReport),
    /// to [`Request::BenchPrepare`]
    BenchReady {
        /// `sm1…`
        id: String,
        /// name of the configuration
        name: Option<String>,
        /// where the peer listens, on the overlay
        address: SocketAddr,
    },
    /// to [`Request::Down`]: device and routes are gone
    Stopped,
    /// to any: it cannot be done
    Error(ErrorReport),
}

/// How one probe ended.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Counted from 1.
    pub sequence: u32,
    /// Round trip; `null` when lost.
    pub rtt_us: Option<u64>,
    /// Path taken; `null` when lost.
    pub path: Option<PathReport>,
    /// Why it is lost, when known.
    pub lost: Option<String>,
}

/// Something that cannot be done, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// What is wrong.
    pub error: String,
    /// What to try.
    pub next: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_documented_shape() {
        let ping = Request::Ping {
            peer: "vps".into(),
            count: 3,
            interval_ms: 10,
            timeout_ms: 1000,
        };
        let line =
            r#"{"request":"ping","peer":"vps","count":3,"interval_ms":10,"timeout_ms":1000}"#;
        assert_eq!(serde_json::to_string(&ping).unwrap(), line);
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), ping);
        assert_eq!(
            serde_json::to_string(&Response::Stopped).unwrap(),
            r#""stopped""#
        );
    }

    #[test]
    fn unknown_requests_and_members_are_refused() {
        assert!(serde_json::from_str::<Request>(r#"{"request":"fly"}"#).is_err());
        let extra =
            r#"{"request":"ping","peer":"a","count":1,"interval_ms":1,"timeout_ms":1,"x":1}"#;
        assert!(serde_json::from_str::<Request>(extra).is_err());
    }
}
