//! The engine: the I/O loop around one `shadowmesh_vpn::Node`.
//!
//! Three threads work on one node. The **control** thread (whoever awaits [`run`], a current-thread
//! runtime) owns the state machine: it alone decides. The **sender** thread moves packets from the
//! device to the network and the **receiver** thread the other way; both work on an immutable snapshot
//! that control publishes, and hand what they cannot finish to control through bounded channels. What
//! is lost on the way is counted by reason, never silently.
