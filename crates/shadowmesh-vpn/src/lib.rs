//! What may flow: the node as one state machine, without sockets, clock or tasks.
//!
//! A [`Node`] stands between the device (IP packets) and `net` (sessions with peers). It decides for
//! each packet whose it is and whether it may go, by one rule in both directions: a peer sends from,
//! and is sent to, exactly the prefixes that are its own ([`members`]). The decision itself is a pure
//! function of an immutable [`Snapshot`], so the data threads of the engine and the slow path of the
//! simulated world run the same code.
//!
//! Packets that may go wait for their turn in a [`fair_queue`], so that nothing waits long.
//!
//! The rest of this crate is what a verdict needs around it: a longest-prefix-match table
//! ([`route_table`]), a short queue for packets whose session is still coming ([`demand`]), and
//! checks that say what is wrong with a configuration before anything starts ([`config`]).
//!
//! How a peer is reached is left to `net`: socket addresses pass through here unread. Keys are left
//! to `crypto`; this crate holds only handles that seal and open.
#![forbid(unsafe_code)]

pub mod config;
pub mod demand;
pub mod fair_queue;
pub mod members;
pub mod node;
mod outbounds;
pub mod oversize;
pub mod route_table;
pub mod snapshot;

pub use config::{ConfigError, NodeConfig, NodePeer, NodeRelay};
pub use members::Members;
pub use node::{Node, NodePeerStatus, NodeStatus};
pub use oversize::{Fragments, TooBigSignals};
pub use route_table::RouteTable;
pub use snapshot::{Inbound, Snapshot};
