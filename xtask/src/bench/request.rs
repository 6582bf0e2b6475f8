//! The words of `cargo xtask bench`.

use super::USAGE;
use crate::failure::{Failure, Outcome};
use std::path::PathBuf;

/// Rounds unless told otherwise; a median of fewer says little on a machine with neighbours.
const ROUNDS: usize = 5;
/// Seconds of each TCP measurement.
const SECONDS: f64 = 1.5;
/// More is not more exact, only longer.
const ROUNDS_MAX: usize = 50;
const SECONDS_MAX: f64 = 60.0;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Names of contenders; empty means all that are installed.
    pub only: Vec<String>,
    /// Names of measurements; empty means all.
    pub measures: Vec<String>,
    /// How often everything is measured.
    pub rounds: usize,
    /// Length of one TCP measurement.
    pub seconds: f64,
    /// Show what could be measured, measure nothing.
    pub list: bool,
    /// Where the samples go.
    pub json: Option<PathBuf>,
    /// Where the plots go; `target/bench` when nothing else is said.
    pub svg: Option<PathBuf>,
    /// Show an earlier run's samples instead of measuring.
    pub from: Option<PathBuf>,
    /// Print the tables of docs/PERFORMANCE.md.
    pub markdown: bool,
    /// Print the verdicts of `evidence speed`.
    pub judge: bool,
    /// Measure the release build that is there, however old.
    pub no_build: bool,
    /// Measure how cost grows with flows and peers instead.
    pub growth: bool,
}

impl Request {
    /// Reads the words.
    pub fn parse(arguments: &[String]) -> Outcome<Self> {
        let mut request = Self {
            only: Vec::new(),
            measures: Vec::new(),
            rounds: ROUNDS,
            seconds: SECONDS,
            list: false,
            json: None,
            svg: None,
            from: None,
            markdown: false,
            judge: false,
            no_build: false,
            growth: false,
        };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                let value = words.next().cloned();
                value.ok_or_else(|| Failure::new(format!("{word} takes a value"), USAGE))
            };
            match word.as_str() {
                "--only" => request.only.extend(names(&value()?)),
                "--measure" => request.measures.extend(names(&value()?)),
                "--rounds" => request.rounds = number(word, &value()?, 1, ROUNDS_MAX)?,
                "--seconds" => request.seconds = number(word, &value()?, 0.2, SECONDS_MAX)?,
                // A look, not a measurement.
                "--quick" => (request.rounds, request.seconds) = (1, 0.5),
                "--list" => request.list = true,
                "--json" => request.json = Some(value()?.into()),
                "--svg" => request.svg = Some(value()?.into()),
                "--from" => request.from = Some(value()?.into()),
                "--markdown" => request.markdown = true,
                "--judge" => request.judge = true,
                "--no-build" => request.no_build = true,
                "--growth" => request.growth = true,
                other => return Err(Failure::new(format!("unknown argument {other:?}"), USAGE)),
            }
        }
        Ok(request)
    }
}

fn names(list: &str) -> impl Iterator<Item = String> {
    list.split(',').map(str::to_owned)
}

fn number<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
    word: &str,
    value: &str,
    min: T,
    max: T,
) -> Outcome<T> {
    match value.parse() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(Failure::new(
            format!("{word} takes a number from {min} to {max}, not {value:?}"),
            USAGE,
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Outcome<Request> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Request::parse(&words)
    }

    #[test]
    fn the_words_of_the_verb_are_understood() {
        let request = parse("--only shadowmesh,veth --only tinc --rounds 7 --json a.json").unwrap();
        assert_eq!(request.only, ["shadowmesh", "veth", "tinc"]);
        assert_eq!(request.rounds, 7);
        assert_eq!(request.json, Some("a.json".into()));
        assert_eq!(parse("--quick").unwrap().rounds, 1);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        assert!(parse("--rounds 0").is_err());
        assert!(parse("--rounds").is_err());
        assert!(parse("--seconds NaN").is_err());
        assert!(parse("--loud").is_err());
    }
}
