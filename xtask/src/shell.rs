//! Running other programs: always from the workspace root, always announced, never with a shell
//! in between.

use crate::failure::{Failure, Outcome};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
        .to_owned()
}

/// Where the build lands, as cargo itself decides it: `CARGO_TARGET_DIR`, else `target`.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A cargo command in the workspace root; `line` is what stands behind `cargo`.
///
/// The variables that the outer `cargo run` sets for xtask are taken away: they describe xtask, and
/// build scripts that watch them would rebuild on every change of verb.
pub fn cargo(line: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(line.split_whitespace()).current_dir(root());
    for (key, _) in std::env::vars_os() {
        let name = key.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&key);
        }
    }
    command
}

/// The command as a person would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut words = vec![
        program
            .file_stem()
            .unwrap_or(program.as_os_str())
            .to_string_lossy()
            .into_owned(),
    ];
    words.extend(
        command
            .get_args()
            .map(|word| quoted(&word.to_string_lossy())),
    );
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{word}'")
    }
}

/// Runs a command with this terminal's output; `next` is what to try when it fails.
pub fn run(command: &mut Command, next: &str) -> Outcome {
    let line = shown(command);
    eprintln!("\n$ {line}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .map_err(|error| Failure::new(format!("{line}: {error}"), next))?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("{line} ({status})"), next))
    }
}

/// Runs a command quietly and returns what it wrote.
pub fn output(command: &mut Command, next: &str) -> Outcome<String> {
    let line = shown(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure::new(format!("{line}: {error}"), next))?;
    if !output.status.success() {
        return Err(Failure::new(format!("{line} ({})", output.status), next));
    }
    String::from_utf8(output.stdout)
        .map_err(|_| Failure::new(format!("{line} wrote no UTF-8"), next))
}

/// Whether a cargo subcommand answers at all.
pub fn cargo_has(subcommand: &str) -> bool {
    cargo(subcommand)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
