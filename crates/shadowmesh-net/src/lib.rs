//! Reaching peers: control connections, sessions and paths, as one machine without I/O.
//!
//! [`Net`] decides how a peer is reached and under which keys. It takes in datagrams and time, and
//! gives out datagrams, events and a [`Forwarding`] snapshot for the threads that move packets. It
//! opens no socket, reads no clock and starts no task; `now` and the seed of all randomness that is
//! not a key are arguments. So many nodes run in one test, under one clock and one seed.
//!
//! The layers, from the wire up:
//!
//! - [`gate`] decides which first packets of strangers are worth any work at all;
//! - `control` holds the QUIC connections (quinn-proto), their ids and their one control stream;
//! - `spending` bounds what is sent to addresses that have never answered, whoever named them;
//! - `session` turns an authenticated connection into data keys, renews them, and notices their end;
//! - `paths` knows the real addresses. QUIC sees one constant address for each connection, so that
//!   moving a peer to another way changes one field here and nothing there;
//! - `net` is the dispatcher, one file for each kind of input.
//!
//! What is left to others: sealing and opening frames (the data plane, with what [`Forwarding`]
//! names), what an IP packet is (`shadowmesh-vpn`; nothing here ever parses one), key bytes
//! (`shadowmesh-crypto`), and all I/O (the program).
#![forbid(unsafe_code)]

mod bucket;
mod callers;
mod calls;
mod config;
mod connectivity;
mod control;
mod credit;
mod drops;
mod event;
mod forwarding;
mod fragments;
pub mod gate;
mod lives;
mod memory;
mod net;
mod pacing;
mod paths;
mod peer;
mod plane;
mod relay;
mod roster;
mod session;
mod shards;
mod spending;
mod timers;

#[cfg(test)]
mod tests;

pub use bucket::Bucket;
pub use callers::RefusedCaller;
pub use config::{
    ConfigError, NetConfig, PathTimers, PeerConfig, REKEY_INTERVAL_MAX, REKEY_INTERVAL_MIN,
    RelayAllow, RelayConfig,
};
pub use connectivity::{Connectivity, ConnectivityTotals, MIGRATION_BUCKETS_MS};
pub use drops::{DropCounters, DropReason};
pub use event::{
    AddressKind, CandidateReport, CandidateState, DownReason, NO_ANSWER, NOT_LISTED, NetEvent,
    OwnAddress, PathInfo, PathReport, PeerState, PeerStatus, Received, SECOND_SOCKET,
    STOPPED_THERE, SessionStatus, Transmit,
};
pub use forwarding::{Forwarding, Inbound, Outbound, RelayTo, Traffic, TrafficTotals, Via};
pub use fragments::{Pieces, Reassembled, Reassembler, pieces};
pub use lives::Copied;
pub use net::{Net, NetError};
pub use plane::{DataPlane, Plane, PlaneStatus};
pub use relay::wrap;
