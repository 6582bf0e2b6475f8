//! `cargo xtask instructions`: how many instructions the hot path takes, piece by piece.
//!
//! Time on a shared machine moves by a third; instructions do not move at all. So a change that makes
//! sealing, opening, splitting, merging, a lookup or a verdict dearer shows here before any benchmark
//! could tell. The program is the example `instructions` of shadowmesh-sim, run once for each case
//! under valgrind's callgrind, which counts only inside the case. Valgrind shows every program the same
//! processor, without AVX-512, so AWS-LC and fearless_simd choose the same code on every machine with AVX2.
//!
//! The counts are held against `baseline.json` beside this file. One that grew by more than its
//! tolerance fails; `--bless` writes the counts of today.

mod baseline;

use crate::failure::{Failure, Outcome};
use crate::shell;
use baseline::{Baseline, Verdict};
use std::process::{Command, Stdio};

const USAGE: &str = "cargo xtask instructions";

/// How to get valgrind.
const INSTALL: &str = "sudo apt-get install valgrind";

/// The functions whose instructions count; see the example.
const COUNTED: &str = "--toggle-collect=*counted_case*";

/// Counts, compares, prints.
pub fn run(arguments: &[String]) -> Outcome {
    let (mut bless, mut only) = (false, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bless" => bless = true,
            "--only" => only = words.next(),
            other => return Err(Failure::new(format!("unknown argument {other:?}"), USAGE)),
        }
    }
    if !has_valgrind() {
        return Err(Failure::new(
            "counting instructions needs valgrind, which does not answer",
            INSTALL,
        ));
    }
    let line = "build --quiet --release --package shadowmesh-sim --example instructions";
    shell::run(&mut shell::cargo(line), &format!("cargo {line}"))?;
    let mut baseline = Baseline::read()?;
    let mut failed = Vec::new();
    for (name, items) in cases()? {
        if only.is_some_and(|only| *only != name) {
            continue;
        }
        let count = count(&name)? / items;
        if bless {
            baseline.set(&name, count);
        }
        let verdict = baseline.judge(&name, count);
        println!("{verdict}  {name:<18} {count:>9.1} instructions");
        if verdict.is_failure() {
            failed.push(name);
        }
    }
    if bless {
        baseline.write()?;
    }
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(
            format!("more instructions than before: {}", failed.join(", ")),
            format!(
                "cargo xtask instructions --only {first}; if it is worth it: --bless, and say why in the commit"
            ),
        )),
    }
}

/// For `cargo xtask ci`: without valgrind it says so and goes on, except where `CI` is set.
pub fn in_ci() -> Outcome {
    if !has_valgrind() && std::env::var_os("CI").is_none() {
        eprintln!("\nNOT CHECKED: instruction counts need valgrind ({INSTALL})");
        return Ok(());
    }
    run(&[])
}

fn has_valgrind() -> bool {
    let mut valgrind = Command::new("valgrind");
    let quiet = valgrind.arg("--version").stdout(Stdio::null());
    quiet
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn program() -> std::path::PathBuf {
    shell::target_dir().join("release/examples/instructions")
}

/// Name and number of items of each.
fn cases() -> Outcome<Vec<(String, f64)>> {
    let listed = shell::output(&mut Command::new(program()), USAGE)?;
    let case = |line: &str| -> Option<(String, f64)> {
        let (name, items) = line.split_once(' ')?;
        Some((name.to_owned(), items.parse().ok()?))
    };
    Ok(listed.lines().filter_map(case).collect())
}

/// Instructions of one case in all.
fn count(name: &str) -> Outcome<f64> {
    let file = shell::target_dir().join(format!("instructions.{name}.callgrind"));
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args([
            "--tool=callgrind",
            "--quiet",
            "--collect-atstart=no",
            COUNTED,
        ])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program())
        .arg(name);
    shell::output(&mut valgrind, USAGE)?;
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failure::new(format!("{}: {error}", file.display()), USAGE))?;
    // What callgrind kept is of no use to anybody else, and the figure is printed.
    let _ = std::fs::remove_file(&file);
    total(&text)
        .filter(|total| *total > 0.0)
        .ok_or_else(|| Failure::new(format!("callgrind counted nothing in {name}"), USAGE))
}

/// The sum at the end of callgrind's file.
fn total(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
    line?.trim().parse().ok()
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Same => write!(f, "ok                "),
            Self::Fewer(percent) => write!(f, "ok      ({percent:>+7.1} %)"),
            Self::More(percent) => write!(f, "FAIL    ({percent:>+7.1} %)"),
            Self::Unknown => write!(f, "NO BASELINE       "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_from_callgrinds_file() {
        let text = "version: 1\nevents: Ir\nfn=(1)\n0 12\ntotals: 3437193\n";
        assert_eq!(total(text), Some(3_437_193.0));
        assert_eq!(total("events: Ir\n"), None);
    }
}
