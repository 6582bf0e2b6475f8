//! What the contenders have in common: finding programs, running their key tools, giving devices
//! their addresses.

use super::{inner_v4, inner_v6};
use shadowmesh_io::netlink::Handle;
use shadowmesh_io::netns::Netns;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to make its device.
const DEVICE_MAX: Duration = Duration::from_secs(10);

/// Any error as text.
pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Where a program is, by PATH.
pub fn on_path(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| format!("{program} is not on PATH"))
}

/// The first word with a digit in what `program ARGUMENTS` prints: its version.
pub fn version(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(on_path(program)?)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let word = said
        .split_whitespace()
        .find(|word| word.contains('.') && word.contains(|char: char| char.is_ascii_digit()));
    let word = word.ok_or_else(|| format!("{program} does not tell its version"))?;
    Ok(format!("{program} {}", word.trim_start_matches('v')))
}

/// The version of a program that `cargo install` put there; cargo keeps a list beside its `bin`.
pub fn cargo_version(program: &str) -> Result<String, String> {
    let path = on_path(program)?;
    let list = path.parent().and_then(Path::parent);
    let list = list.map(|root| root.join(".crates.toml"));
    let list = list.and_then(|list| std::fs::read_to_string(list).ok());
    let line = list.as_deref().unwrap_or_default().lines().find(|line| {
        let binaries = line.split_once('=').map_or("", |(_, binaries)| binaries);
        binaries.contains(&format!("\"{program}\""))
    });
    // `"boringtun-cli 0.7.1 (registry+...)" = ["boringtun-cli"]`
    let version = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(format!(
        "{program} {}",
        version.unwrap_or("of unknown version")
    ))
}

/// Runs a tool to its end, with `input`, and returns what it printed.
pub fn tool(
    program: &str,
    arguments: &[&str],
    directory: &Path,
    input: &str,
) -> Result<String, String> {
    let said = |what: &str| format!("{program} {}: {what}", arguments.first().unwrap_or(&""));
    let mut child = Command::new(on_path(program)?)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| said(&text(error)))?;
    let mut pipe = child.stdin.take().expect("it was asked for");
    // A tool that does not read its input closes it; then this error means nothing.
    let _ = pipe.write_all(input.as_bytes());
    drop(pipe);
    let output = child
        .wait_with_output()
        .map_err(|error| said(&text(error)))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let errors = String::from_utf8_lossy(&output.stderr);
        Err(said(errors.lines().last().unwrap_or("failed")))
    }
}

/// Waits until the device exists.
pub fn await_device(netns: &Netns, device: &str) -> Result<(), String> {
    let start = Instant::now();
    netns.run(|| {
        let netlink = Handle::new().map_err(text)?;
        while netlink.link_by_name(device).is_err() {
            if start.elapsed() > DEVICE_MAX {
                return Err(format!("the device {device} did not appear"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    })
}

/// Waits for the device, sets its MTU and the inner addresses of end `end`, and sets it up.
pub fn configure_device(netns: &Netns, device: &str, end: usize, mtu: u32) -> Result<(), String> {
    await_device(netns, device)?;
    netns.run(|| {
        let netlink = Handle::new().map_err(text)?;
        let index = netlink.link_by_name(device).map_err(text)?.index;
        netlink.set_mtu(index, mtu).map_err(text)?;
        netlink.set_up(index).map_err(text)?;
        netlink
            .add_address(index, inner_v4(end).into(), 24)
            .map_err(text)?;
        netlink
            .add_address(index, inner_v6(end).into(), 64)
            .map_err(text)
    })
}
