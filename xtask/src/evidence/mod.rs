//! `cargo xtask evidence slice`: what the first slice promises and the test command has no time for.
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

const USAGE: &str = "cargo xtask evidence slice --list";

/// What the words after `evidence slice` ask for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    /// Names of checks; empty means all.
    only: Vec<String>,
    list: bool,
    json: bool,
}

impl Request {
    fn parse(arguments: &[String]) -> Outcome<Self> {
        let Some((slice, rest)) = arguments.split_first() else {
            return Err(Failure::new("evidence of what? There is: slice", USAGE));
        };
        if slice != "slice" {
            return Err(Failure::new(
                format!("no evidence named {slice:?}; there is: slice"),
                USAGE,
            ));
        }
        let mut request = Self::default();
        let mut words = rest.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => request.list = true,
                "--json" => request.json = true,
                "--only" => {
                    let name = words.next();
                    request.only.push(
                        name.ok_or_else(|| {
                            Failure::new("--only takes the name of a check", USAGE)
                        })?
                        .clone(),
                    );
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
    if request.list {
        for check in checks::ALL {
            println!("{:<16} {}", check.name, check.what);
        }
        return Ok(());
    }
    let chosen = choose(&request.only)?;
    let lines = checks::run(&chosen, !request.json)?;
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
            format!("cargo xtask evidence slice --only {}", line.name),
        )),
    }
}

#[cfg(feature = "evidence")]
fn choose(only: &[String]) -> Outcome<Vec<&'static checks::Check>> {
    for name in only {
        if !checks::ALL.iter().any(|check| check.name == name) {
            return Err(Failure::new(format!("there is no check {name:?}"), USAGE));
        }
    }
    let all = checks::ALL.iter();
    Ok(all
        .filter(|check| only.is_empty() || only.iter().any(|name| name == check.name))
        .collect())
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
        assert!(request.json && !request.list);
        assert!(parse("").is_err());
        assert!(parse("cake").is_err());
        assert!(parse("slice --only").is_err());
        assert!(parse("slice pings").is_err());
    }
}
