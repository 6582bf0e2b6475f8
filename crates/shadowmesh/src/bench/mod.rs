//! Measuring: what the tunnel carries between two nodes, and what a handshake costs.
//!
//! Between nodes the measurement is ordinary TCP over the overlay, made by the verb itself and not
//! by the node, so it takes the whole way an application's traffic takes: device, seal, UDP, open,
//! device. The other end is a temporary listener the remote node opens when asked ([`responder`]).

mod classical;
pub mod handshake;
pub mod responder;
pub mod stats;
pub mod stream;
