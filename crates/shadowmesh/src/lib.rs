//! The program: the only crate with a clock, tasks, threads and files.
//!
//! Everything that decides lives in the crates below (`shadowmesh-vpn` and down); this one feeds them
//! what the operating system says and does what they ask. It is a library beside its thin `main.rs`
//! so that the integration tests and the `demo` verb share one laboratory (`lab`).

pub mod engine;
pub mod lab;
