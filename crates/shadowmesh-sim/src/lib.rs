//! A simulated world for whole nodes: many of them, one clock, one seed.
//!
//! The nodes are the real ones (`shadowmesh_vpn::Node` with all that is below it, real handshakes
//! and real keys); only the network, the devices and time are made up. Links have delay, rate, loss
//! (also in bursts), reordering, duplication, corruption and an MTU; [boxes](middlebox) translate
//! addresses and filter what comes in, alone or in chains; hosts are killed and restarted, move, and
//! their clocks jump. A [`World`] runs as fast as the machine allows and, for the same seed and
//! code, always the same way: [`Trace`] is the proof.
//!
//! [`scenario`] holds the runs whose figures are also evidence, each as a function of its size, so
//! that the test command runs a small one and `cargo xtask evidence` the full one.
//!
//! In a [`siege`] the threads of one node are played one by one, and one of its peers is [`hostile`].
//!
//! A failing run prints its seed and the command that replays it ([`seeds`]).
#![forbid(unsafe_code)]

pub mod hostile;
pub mod ledger;
pub mod link;
pub mod middlebox;
pub mod packet;
pub mod scenario;
pub mod seeds;
pub mod siege;
pub mod trace;
pub mod world;

pub use ledger::Ledger;
pub use link::{LinkProfile, Loss};
pub use middlebox::{BoxProfile, NatKind};
pub use trace::Trace;
pub use world::{BoxId, Envelope, Host, HostConfig, HostId, Mischief, Passing, World};
