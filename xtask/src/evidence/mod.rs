//! `cargo xtask evidence SUITE`: what is promised and the test command has no time for.
//!
//! | suite | promises |
//! |---|---|
//! | `slice` | the first slice: handshakes, floods, recovery, what is seen on the wire, a fresh clone |
//! | `speed` | the data plane: rates, latency, any MTU, endurance |
//! | `connect` | ways to peers: NAT, relays, migration, roaming, the web carrier, many peers |
//!
//! Each promise is a named check that measures something on real programs or on the simulated world
//! and compares it with its bound. One line each: verdict, name, what, figure. The exit status is
//! that of the worst line.
//!
//! The checks need the product's crates in a release build, xtask's other verbs do not: so the checks
//! stand behind the feature `evidence`, and the verb starts itself again with it.

#[cfg(feature = "evidence")]
mod checks;

use crate::failure::{Failure, Outcome};
use std::ops::RangeInclusive;

const USAGE: &str = "cargo xtask evidence slice --list, or speed, or connect";

/// The suites, for a build that has none of their checks.
const SUITES: [&str; 3] = ["slice", "speed", "connect"];

/// What the words after `evidence` ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    /// One of [`SUITES`].
    suite: String,
    /// Names of checks; empty means all.
    only: Vec<String>,
    list: bool,
    json: bool,
    /// For checks that watch something for a time, instead of the time that the promise names.
    seconds: Option<u64>,
    /// For checks of random worlds, instead of as many from 1 on as the promise names: `first-last`.
    seeds: Option<RangeInclusive<u64>>,
}

impl Request {
    fn parse(arguments: &[String]) -> Outcome<Self> {
        let suites = SUITES.join(", ");
        let Some((suite, rest)) = arguments.split_first() else {
            return Err(Failure::new(
                format!("evidence of what? There are: {suites}"),
                USAGE,
            ));
        };
        if !SUITES.contains(&suite.as_str()) {
            return Err(Failure::new(
                format!("no evidence named {suite:?}; there are: {suites}"),
                USAGE,
            ));
        }
        let mut request = Self {
            suite: suite.clone(),
            ..Self::default()
        };
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => request.list = true,
                "--json" => request.json = true,
                "--only" => {
                    let names = words.next().ok_or_else(|| {
                        Failure::new("--only takes names of checks, with commas between", USAGE)
                    })?;
                    request.only.extend(names.split(',').map(str::to_owned));
                }
                "--seconds" => {
                    let number = words.next().and_then(|word| word.parse().ok());
                    request.seconds =
                        Some(number.filter(|seconds| *seconds > 0).ok_or_else(|| {
                            Failure::new("--seconds takes a number above 0", USAGE)
                        })?);
                }
                "--seeds" => {
                    let seeds = words.next().and_then(|word| {
                        let (first, last) = word.split_once('-')?;
                        Some(first.parse().ok()?..=last.parse().ok()?)
                    });
                    request.seeds =
                        Some(seeds.filter(|seeds| !seeds.is_empty()).ok_or_else(|| {
                            Failure::new(
                                "--seeds takes the first and the last, such as 1-100",
                                USAGE,
                            )
                        })?);
                }
                other => return Err(Failure::new(format!("unknown argument {other:?}"), USAGE)),
            }
        }
        Ok(request)
    }
}

/// Runs the checks, in a release build of xtask with the product's crates.
#[cfg(not(feature = "evidence"))]
pub fn run(arguments: &[String]) -> Outcome {
    Request::parse(arguments)?;
    let mut command = crate::shell::cargo("run --quiet --release --package xtask");
    command
        .args(["--features", "evidence", "--", "evidence"])
        .args(arguments);
    crate::shell::run(&mut command, USAGE)
}

/// Runs the checks.
#[cfg(feature = "evidence")]
pub fn run(arguments: &[String]) -> Outcome {
    let request = Request::parse(arguments)?;
    let suite = checks::suite(&request.suite);
    if request.list {
        for check in suite {
            println!("{:<16} {}", check.name, check.what);
        }
        return Ok(());
    }
    let chosen = checks::choose(suite, &request.only)?;
    let time = request.seconds.map(std::time::Duration::from_secs);
    let lines = checks::run(&chosen, time, request.seeds.clone(), !request.json)?;
    if request.json {
        println!(
            "{}",
            serde_json::Value::from_iter(lines.iter().map(checks::Line::to_json))
        );
    }
    match lines.iter().find(|line| !line.pass) {
        None => Ok(()),
        Some(line) => Err(Failure::new(
            format!("evidence: {}: {}", line.name, line.figure),
            format!(
                "cargo xtask evidence {} --only {}",
                request.suite, line.name
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Outcome<Request> {
        Request::parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn the_words_of_the_verb_are_understood() {
        let request = parse("slice --only pings --json --only flood").unwrap();
        assert_eq!(request.only, ["pings", "flood"]);
        assert_eq!(
            parse("slice --only pings,flood").unwrap().only,
            request.only
        );
        assert_eq!((request.suite.as_str(), request.seconds), ("slice", None));
        assert!(request.json && !request.list);
        let request = parse("speed --list --seconds 60").unwrap();
        assert_eq!(
            (request.suite.as_str(), request.seconds),
            ("speed", Some(60))
        );
        assert_eq!(parse("connect --seeds 7-9").unwrap().seeds, Some(7..=9));
        assert!(parse("connect --seeds 9-7").is_err());
        assert!(parse("connect --seeds 9").is_err());
        assert!(parse("speed --seconds 0").is_err());
        assert!(parse("speed --seconds").is_err());
        assert!(parse("").is_err());
        assert!(parse("cake").is_err());
        assert!(parse("slice --only").is_err());
        assert!(parse("slice pings").is_err());
    }
}
