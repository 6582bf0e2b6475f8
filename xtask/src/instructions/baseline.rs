//! What every case took when it was last blessed, and how far from that it may go.

use crate::failure::{Failure, Outcome};
use crate::shell;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Unless a case says otherwise. The same program counts the same to a thousandth; another compiler or
/// C library moves a few instructions a packet.
const TOLERANCE_PERCENT: f64 = 2.0;

/// The file, as JSON: for each architecture, for each case, `instructions` for each item, and where
/// it is not the usual one `tolerance_percent` with its `reason`.
pub struct Baseline(Value);

/// What to think of a count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Within its tolerance.
    Same,
    /// Less, by so many percent, more than its tolerance: worth blessing.
    Fewer(f64),
    /// More than its tolerance allows, by so many percent.
    More(f64),
    /// The file does not know it.
    Unknown,
}

impl Verdict {
    /// A case without a baseline would never fail, so it does at once.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::More(_) | Self::Unknown)
    }
}

impl Baseline {
    /// Reads the committed file.
    pub fn read() -> Outcome<Self> {
        let text = std::fs::read_to_string(path()).map_err(failure)?;
        serde_json::from_str(&text).map(Self).map_err(failure)
    }

    /// Writes it back.
    pub fn write(&self) -> Outcome {
        let text = serde_json::to_string_pretty(&self.0).map_err(failure)?;
        std::fs::write(path(), text + "\n").map_err(failure)
    }

    /// Sets the count of a case; what else stands there stays.
    pub fn set(&mut self, name: &str, count: f64) {
        let case = &mut self.0[std::env::consts::ARCH][name];
        if case.is_null() {
            *case = json!({});
        }
        case["instructions"] = json!((count * 10.0).round() / 10.0);
    }

    /// Holds a count against the file.
    pub fn judge(&self, name: &str, count: f64) -> Verdict {
        let case = &self.0[std::env::consts::ARCH][name];
        let Some(expected) = case["instructions"].as_f64().filter(|count| *count > 0.0) else {
            return Verdict::Unknown;
        };
        let tolerance = case["tolerance_percent"].as_f64();
        let tolerance = tolerance.unwrap_or(TOLERANCE_PERCENT);
        let percent = (count / expected - 1.0) * 100.0;
        if percent > tolerance {
            Verdict::More(percent)
        } else if percent < -tolerance {
            Verdict::Fewer(percent)
        } else {
            Verdict::Same
        }
    }
}

fn path() -> PathBuf {
    shell::root().join("xtask/src/instructions/baseline.json")
}

fn failure(error: impl std::fmt::Display) -> Failure {
    Failure::new(
        format!("{}: {error}", path().display()),
        "git status xtask; cargo xtask instructions --bless",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Baseline {
        let mut cases = json!({});
        cases[std::env::consts::ARCH] = json!({
            "seal": { "instructions": 1000.0 },
            "split": { "instructions": 1000.0, "tolerance_percent": 10.0, "reason": "a test" },
        });
        Baseline(cases)
    }

    #[test]
    fn a_count_that_grew_by_more_than_its_tolerance_fails() {
        let baseline = baseline();
        assert_eq!(baseline.judge("seal", 1019.0), Verdict::Same);
        assert!(!baseline.judge("seal", 1019.0).is_failure());
        let Verdict::More(percent) = baseline.judge("seal", 1021.0) else {
            panic!("two percent are allowed and no more");
        };
        assert!((percent - 2.1).abs() < 1e-9);
        assert!(baseline.judge("seal", 1021.0).is_failure());
        assert_eq!(baseline.judge("split", 1021.0), Verdict::Same);
        assert!(baseline.judge("split", 1101.0).is_failure());
    }

    #[test]
    fn fewer_pass_and_an_unknown_case_does_not() {
        let baseline = baseline();
        assert!(matches!(baseline.judge("seal", 900.0), Verdict::Fewer(_)));
        assert!(!baseline.judge("seal", 900.0).is_failure());
        assert_eq!(baseline.judge("new", 1.0), Verdict::Unknown);
        assert!(baseline.judge("new", 1.0).is_failure());
    }

    #[test]
    fn blessing_keeps_tolerances() {
        let mut baseline = baseline();
        baseline.set("split", 1234.56);
        baseline.set("new", 5.0);
        assert_eq!(baseline.judge("split", 1350.0), Verdict::Same);
        assert!(baseline.judge("split", 1360.0).is_failure());
        assert_eq!(baseline.judge("new", 5.0), Verdict::Same);
    }
}
