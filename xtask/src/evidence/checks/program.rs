//! The program under test: the release build, run as a user runs it.

use crate::failure::Outcome;
use crate::shell;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Builds it. Done once, before the first check, so that no check measures a compiler at work.
pub fn build() -> Outcome {
    let mut command = shell::cargo("build --quiet --release --package shadowmesh");
    // Standard output belongs to the evidence.
    shell::run(
        command.stdout(Stdio::null()),
        "cargo build --release --package shadowmesh",
    )
}

/// Where it is.
pub fn path() -> PathBuf {
    shell::target_dir().join("release/shadowmesh")
}

/// Runs a verb with `--json` to its end and reads the one object it prints.
pub fn json(arguments: &[&str]) -> Result<Value, String> {
    let shown = format!("shadowmesh {} --json", arguments.join(" "));
    let output = Command::new(path())
        .args(arguments)
        .arg("--json")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{shown}: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last = errors.lines().last().unwrap_or_default();
        return Err(format!("{shown}: {}: {last}", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(&text)
        .or_else(|_| serde_json::from_str(last))
        .map_err(|error| format!("{shown} printed no JSON: {error}"))
}
