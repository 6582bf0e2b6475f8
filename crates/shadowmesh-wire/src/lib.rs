//! Bytes to types and back.
//!
//! Every format of ShadowMesh that another machine, or the kernel, can put in front of us is read
//! here and nowhere else: peer ids, the header of a sealed frame, the inner frame types, probes,
//! control messages, IP packets, and the super-packets of the TUN device with their virtio header.
//! A parser turns bytes into a checked type once; the layers above trust the type.
//!
//! What is absent is the point: no keys and no cryptography (`shadowmesh-crypto`), no clock, no
//! sockets, no tasks, no randomness. Every function is a function of its arguments, and no input
//! may make one panic; the tests at the bottom of each module throw random bytes at all of them.
//!
//! | module | reads and writes |
//! |---|---|
//! | [`PeerId`] | the name of a peer, `sm1…` |
//! | [`sealed`] | the QUIC-shaped header of a sealed frame |
//! | [`inner`] | the type byte inside a sealed frame |
//! | [`probe`] | the sealed ping |
//! | [`bundle`] | datagrams in one message of a stream link |
//! | [`fragment`] | a piece of a packet too long for the path |
//! | [`envelope`] | a datagram that a relay is to pass on |
//! | [`way`] | relays and streams, written as socket addresses |
//! | [`beacon`] | what a node says on its local network |
//! | [`control`] | messages on the control stream |
//! | [`ip`], [`prefix`], [`overlay`] | IP packets, prefixes, addresses derived from a [`PeerId`] |
//! | [`traffic_class`] | DSCP and ECN of an IP packet, across the tunnel |
//! | [`icmp`], [`mss`] | what tells inner senders that a packet was too long |
//! | [`offload`] | the super-packets of the TUN device: split and coalesce |
#![forbid(unsafe_code)]

pub mod beacon;
pub mod bundle;
mod checksum;
pub mod control;
pub mod envelope;
pub mod fragment;
pub mod icmp;
pub mod inner;
pub mod ip;
pub mod mss;
pub mod offload;
pub mod overlay;
mod peer_id;
pub mod prefix;
pub mod probe;
pub mod sealed;
pub mod traffic_class;
pub mod way;

pub use peer_id::{PeerId, PeerIdError};
