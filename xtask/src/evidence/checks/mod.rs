//! The suites of checks, what a check is, and what it returns.

mod connect;
mod field;
mod observer;
mod program;
mod quic;
mod slice;
mod speed;
mod worlds;

use crate::failure::{Failure, Outcome};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// One promise.
pub struct Check {
    /// For `--only`.
    pub name: &'static str,
    /// The promise, in one sentence.
    pub what: &'static str,
    run: Run,
}

/// How a check measures. An error is a failed line: it says why nothing could be measured.
pub enum Run {
    /// Takes as long as it takes.
    Once(fn() -> Result<Measured, String>),
    /// Watches something for a time; how long unless `--seconds` says otherwise, which is what the
    /// promise is about.
    For(Duration, fn(Duration) -> Result<Measured, String>),
    /// Runs in the simulated world: the program is not needed.
    Simulated(fn() -> Result<Measured, String>),
    /// Runs the simulated worlds of so many seeds from 1 on, or of those that `--seeds` names.
    Worlds(u64, fn(RangeInclusive<u64>) -> Result<Measured, String>),
}

/// The checks of a suite.
pub fn suite(name: &str) -> &'static [Check] {
    match name {
        "slice" => slice::CHECKS,
        "speed" => speed::CHECKS,
        "connect" => connect::CHECKS,
        _ => &[],
    }
}

/// The checks that were asked for; none named means all.
pub fn choose(suite: &'static [Check], only: &[String]) -> Outcome<Vec<&'static Check>> {
    for name in only {
        if !suite.iter().any(|check| check.name == name) {
            return Err(Failure::new(
                format!("there is no check {name:?}"),
                super::USAGE,
            ));
        }
    }
    let chosen = suite.iter();
    Ok(chosen
        .filter(|check| only.is_empty() || only.iter().any(|name| name == check.name))
        .collect())
}

/// What a check found.
pub struct Measured {
    /// Whether the promise holds.
    pub pass: bool,
    /// The figures, for a person.
    pub figure: String,
    /// The figures, for a program.
    pub values: Value,
}

/// One line of the evidence.
pub struct Line {
    /// Of the check.
    pub name: &'static str,
    what: &'static str,
    /// The figures, or why there are none.
    pub figure: String,
    /// The verdict.
    pub pass: bool,
    values: Value,
    seconds: f64,
}

impl Line {
    /// One object of `--json`.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "what": self.what,
            "figure": self.figure,
            "pass": self.pass,
            "values": self.values,
            "seconds": (self.seconds * 10.0).round() / 10.0,
        })
    }
}

/// Runs checks one after the other; a failed one does not stop the rest.
/// `time` is that of the checks that watch something for a time, if not their own, and `seeds` those of worlds.
pub fn run(
    chosen: &[&Check],
    time: Option<Duration>,
    seeds: Option<RangeInclusive<u64>>,
    print: bool,
) -> Outcome<Vec<Line>> {
    let on_programs = |check: &&Check| matches!(check.run, Run::Once(_) | Run::For(..));
    if chosen.iter().any(on_programs) {
        program::build()?;
    }
    let mut lines = Vec::new();
    for check in chosen {
        eprintln!("... {}: {}", check.name, check.what);
        let start = Instant::now();
        let found = match check.run {
            Run::Once(run) => run(),
            Run::For(usual, run) => run(time.unwrap_or(usual)),
            Run::Simulated(run) => run(),
            Run::Worlds(usual, run) => run(seeds.clone().unwrap_or(1..=usual)),
        };
        let measured = found.unwrap_or_else(|why| Measured {
            pass: false,
            figure: why,
            values: Value::Null,
        });
        let line = Line {
            name: check.name,
            what: check.what,
            figure: measured.figure,
            pass: measured.pass,
            values: measured.values,
            seconds: start.elapsed().as_secs_f64(),
        };
        if print {
            let verdict = if line.pass { "pass" } else { "FAIL" };
            println!(
                "{verdict}  {:<16} {}: {}",
                line.name, line.what, line.figure
            );
        }
        lines.push(line);
    }
    Ok(lines)
}
