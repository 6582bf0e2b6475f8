//! The README's two commands on what a new user gets: a fresh clone, nothing built yet.

use super::Measured;
use super::field::text;
use crate::shell;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const COMMANDS: [&str; 2] = ["cargo run --release -- demo", "cargo xtask test"];

/// Clones the last commit, runs both commands, and shows how long each took from nothing.
pub fn run() -> Result<Measured, String> {
    let readme = std::fs::read_to_string(shell::root().join("README.md")).map_err(text)?;
    if let Some(missing) = COMMANDS.iter().find(|command| !readme.contains(**command)) {
        return Err(format!("README.md does not say {missing:?}"));
    }
    let directory = tempfile::tempdir().map_err(text)?;
    let clone = directory.path().join("clone");
    let mut git = Command::new("git");
    git.args(["clone", "--quiet"])
        .arg(shell::root())
        .arg(&clone);
    run_in(directory.path(), &mut git)?;
    let mut seconds = Vec::new();
    for command in COMMANDS {
        let mut words = command.split_whitespace();
        let mut process = Command::new(words.next().unwrap_or_default());
        let start = Instant::now();
        run_in(&clone, process.args(words)).map_err(|why| format!("{command}: {why}"))?;
        seconds.push(start.elapsed().as_secs());
    }
    let figures: Vec<String> = COMMANDS
        .iter()
        .zip(&seconds)
        .map(|(command, s)| format!("{command}: {s} s"))
        .collect();
    Ok(Measured {
        pass: true,
        figure: figures.join("; "),
        values: json!({ "seconds": seconds }),
    })
}

/// Runs as a user's shell would, without what the outer cargo set; its words are kept for the case
/// that it fails.
fn run_in(directory: &Path, command: &mut Command) -> Result<(), String> {
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO") && name != "CARGO_HOME" {
            command.env_remove(&key);
        }
    }
    let output = command
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .map_err(text)?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{}: {}",
        output.status,
        errors.trim_end().lines().last().unwrap_or_default()
    ))
}
