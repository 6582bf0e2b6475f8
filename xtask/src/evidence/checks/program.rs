//! The program under test: the release build unless a check says otherwise, run as a user runs it.

use crate::failure::Outcome;
use crate::shell;
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Which build of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// As users run it.
    Release,
    /// With debug assertions and overflow checks.
    Asserting,
}

impl Build {
    /// What it is called in a figure.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release build",
            Self::Asserting => "build with debug assertions",
        }
    }

    /// Builds it and says where it is.
    pub fn make(self) -> Outcome<PathBuf> {
        let (line, place) = match self {
            Self::Release => (
                "build --quiet --release --package shadowmesh",
                "release/shadowmesh",
            ),
            Self::Asserting => ("build --quiet --package shadowmesh", "debug/shadowmesh"),
        };
        let mut command = shell::cargo(line);
        // Standard output belongs to the evidence.
        shell::run(command.stdout(Stdio::null()), &format!("cargo {line}"))?;
        Ok(shell::target_dir().join(place))
    }
}

/// Builds it. Done once, before the first check, so that no check measures a compiler at work.
pub fn build() -> Outcome {
    Build::Release.make().map(|_| ())
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
