//! `cargo xtask test`: every test of the workspace.
//!
//! Documentation examples first, because only rustdoc runs them; then everything else under nextest,
//! whose summary is then the closing line. Without nextest, `cargo test` does the same work with one
//! thread: the tests that own the machine's network or measure real time must run alone, and only
//! nextest can be told which those are (`.config/nextest.toml`).

use crate::failure::Outcome;
use crate::shell;

/// Arguments go to the test runner, so `cargo xtask test replay` runs the tests of that name.
pub fn run(arguments: &[String]) -> Outcome {
    if arguments.is_empty() {
        let next = "cargo test --workspace --doc";
        shell::run(&mut shell::cargo("test --quiet --workspace --doc"), next)?;
    }
    if shell::cargo_has("nextest") {
        with_nextest(arguments)
    } else {
        with_cargo(arguments)
    }
}

fn with_nextest(arguments: &[String]) -> Outcome {
    let mut command = shell::cargo("nextest run --workspace --features xtask/evidence");
    if std::env::var_os("CI").is_some() {
        command.args(["--profile", "ci"]);
    }
    command.args(arguments);
    shell::run(
        &mut command,
        "cargo xtask test NAME_OF_THE_FAILED_TEST --no-capture",
    )
}

fn with_cargo(arguments: &[String]) -> Outcome {
    let mut command =
        shell::cargo("test --workspace --features xtask/evidence --lib --bins --tests");
    command.args(arguments).env("RUST_TEST_THREADS", "1");
    shell::run(
        &mut command,
        "cargo xtask test NAME_OF_THE_FAILED_TEST -- --nocapture",
    )
}
