//! The configuration file: whatever a person writes is either a checked configuration or a list of
//! problems, each with its place.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shadowmesh::config;
use std::path::Path;

fuzz_target!(|text: &str| {
    match config::parse(Path::new("shadowmesh.toml"), text) {
        Ok(config) => assert!(!config.node.listen.is_empty(), "a node listens somewhere"),
        Err(error) => assert!(!error.to_string().is_empty(), "an error says something"),
    }
});
