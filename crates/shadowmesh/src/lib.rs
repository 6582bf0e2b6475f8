//! The program `shadowmesh`: everything that touches a clock, a task or a file.
//!
//! The core crates decide; this one carries out. It reads the configuration, keeps the identity
//! and the state directory, runs the engine that moves datagrams, and answers the command line.
//! It is a library with a thin `main` so that tests and fuzz targets can reach the parsers.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | the verbs, their help and their output |
//! | [`config`] | file, environment and flags into one checked [`config::Config`] |
//! | [`identity_file`], [`state`] | what the node keeps on disk |
//! | `keeper`, [`notices`] | what waits for room on disk; what is wrong while the node runs |
//! | [`admin`] | the Unix socket by which verbs talk to a running node |
//! | [`engine`] | the threads between device and UDP socket |
//! | [`metrics`] | the Prometheus endpoint |
//! | [`mod@bench`] | measuring: handshakes in-process, throughput and latency between two nodes |
//! | [`demo`] | the whole mesh at work on one machine, measured |
//! | [`lab`] | several real nodes on one machine, for the demo and the tests |
//! | [`log`] | tracing set-up and the limiter of repeated warnings |
#![forbid(unsafe_code)]

pub mod admin;
pub mod bench;
pub mod cli;
pub mod config;
pub mod demo;
mod disk;
pub mod engine;
pub mod identity_file;
mod keeper;
pub mod lab;
pub mod log;
pub mod metrics;
pub mod notices;
pub mod state;
