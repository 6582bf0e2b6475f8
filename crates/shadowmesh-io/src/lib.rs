//! Everything ShadowMesh takes from the operating system, and nothing that decides.
//!
//! The protocol crates are state machines without sockets; this crate is the other side of that
//! wall: UDP sockets that move batches ([`udp`]), multicast on the local network ([`multicast`]), the
//! TUN device with its offload header ([`tun`]), addresses, routes and links ([`netlink`]), waiting for
//! several of them at once ([`poll`]), asking the router for a port ([`port_map`]), noticing that the machine slept ([`wake`]), ending other programs
//! ([`process`]), telling a
//! service manager ([`service`]), how wide the terminal is ([`terminal`]), who goes first ([`sched`]), what the machine spends on it
//! ([`cpu`]), message streams that look like web traffic ([`web`]), files that may be believed ([`files`]), who is
//! at the other end of a Unix socket ([`local`]), listening ahead of an address ([`late`]), and the
//! means to build and observe a small network on one machine ([`netns`], [`lab`]).
//!
//! Policy:
//! - This is the only crate with `unsafe` and the only one with `cfg(target_os)`. Every unsafe
//!   block says which facts make it sound; most of them are in the private module `sys`, behind
//!   safe wrappers.
//! - No threads of its own for traffic, no queues, no retries beyond `EINTR`, no protocol
//!   knowledge. Bytes go through untouched; who waits, drops or counts is the caller's decision.
//! - Errors name the operation and, where we know it, the way out. They never name keys, and
//!   nothing here logs an address above DEBUG.
//! - Linux first. For other Unix systems [`udp`], [`poll`] and [`tun`] (on top of `tun-rs`) are
//!   written so that they should work; the rest answers with an "unsupported on this platform" error,
//!   except [`lab`], a measuring tool, which exists on Linux only. None of it was ever compiled there:
//!   only Linux toolchains were at hand. Windows has no descriptors to wait for and needs another
//!   [`poll`].

pub mod cpu;
pub mod files;
#[cfg(target_os = "linux")]
pub mod lab;
pub mod late;
pub mod local;
pub mod multicast;
pub mod netlink;
pub mod netns;
pub mod poll;
pub mod port_map;
pub mod process;
pub mod sched;
pub mod service;
mod sys;
pub mod terminal;
pub mod tun;
pub mod udp;
pub mod underlay;
pub mod wake;
pub mod web;
