//! `cargo xtask lab`: the demo's network, left running so that a person can look around in it.

use crate::failure::Outcome;
use crate::shell;

/// Arguments go to `shadowmesh demo`, which with `--keep` says itself how to enter the nodes.
pub fn run(arguments: &[String]) -> Outcome {
    let mut command = shell::cargo("run --quiet --release --package shadowmesh");
    command.args(["--", "demo", "--keep"]).args(arguments);
    shell::run(&mut command, "cargo run --release -- demo")
}
