//! `cargo xtask bench`: measurements of a release build.

use crate::failure::Outcome;
use crate::shell;

/// Arguments go to `shadowmesh bench`; without any, the handshake is measured, because it needs no
/// second node.
pub fn run(arguments: &[String]) -> Outcome {
    let mut command = shell::cargo("run --quiet --release --package shadowmesh");
    command.args(["--", "bench"]);
    if arguments.is_empty() {
        command.arg("handshake");
    }
    shell::run(
        command.args(arguments),
        "cargo run --release -- bench --help",
    )
}
