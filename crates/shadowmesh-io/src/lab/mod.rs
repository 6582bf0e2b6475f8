//! Building, loading and observing a small network on one machine, for the demo, the evidence
//! runs and tests. Not part of a running node.
//!
//! - [`Capture`] records what passes an interface, to memory, a pcap file or a closure, and knows
//!   where a super-packet is cut, so that every datagram on the wire can be judged.
//! - [`SpoofedFlood`] sends datagrams that claim any source, at a given rate.
//! - [`DatagramSource`] and [`DatagramSink`] send and count numbered datagrams, one by one or as
//!   super-packets.
//! - [`disable_offloads`] makes every packet of a device travel alone.
//! - [`Injector`] puts IP packets onto a device as they are, right or wrong.
//! - [`Echo`] pings, IPv4 and IPv6, thousands of times if asked, and keeps every round trip.
//! - [`PathMtuProbe`] shows what the kernel believes the MTU of a path to be, and what ICMP made of it.
//! - [`NatBox`] is a NAT router of the kernel's own making, of several kinds; [`lay_cable`] and
//!   [`plug_in`] join namespaces without one.
//! - [`privileged()`] runs a test that needs namespaces, by way of a user namespace if need be.
//!
//! This is measuring equipment, so it reads the clock. All of it opens its sockets in the network
//! namespace of the calling thread; use [`Netns::run`](crate::netns::Netns::run) to choose.
//! Everything is bounded: bytes kept, datagrams sent, time waited.

mod batch;
mod capture;
mod checksum;
mod datagrams;
mod echo;
mod frame;
mod inject;
mod nat_box;
mod offloads;
mod path_mtu;
mod pcap;
mod privileged;
mod spoof;
mod super_packet;

pub use capture::{Capture, CaptureStats, FrameSink, MemorySink, StoredFrame};
pub use datagrams::{
    Batching, DATAGRAM_PAYLOAD_LEN_MIN, DatagramSink, DatagramSource, SinkReport, SourceReport,
};
pub use echo::{Echo, EchoReport};
pub use frame::{Frame, UdpDatagram};
pub use inject::Injector;
pub use nat_box::{NatBox, NatBoxConfig, NatBoxKind, lay_cable, plug_in};
pub use offloads::disable_offloads;
pub use path_mtu::PathMtuProbe;
pub use pcap::PcapSink;
pub use privileged::privileged;
pub use spoof::{FloodReport, SpoofedFlood};
