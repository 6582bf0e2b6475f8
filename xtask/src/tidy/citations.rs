//! PROTOCOL.md against the code: every numbered requirement is met somewhere and proven somewhere.
//!
//! A requirement is a heading "#### SM-HS-3 ..."; a citation is the number in a comment. Cited from
//! code means outside test modules; cited from a test means inside one, in a `tests` folder, in the
//! simulated world or in the evidence checks.

use super::sources::Sources;
use super::{Findings, readme};
use crate::failure::Outcome;
use std::collections::{BTreeMap, BTreeSet};

const DOCUMENT: &str = "PROTOCOL.md";

/// Lists the numbers that lack a citation, and citations of numbers that do not exist.
pub fn check(sources: &Sources) -> Outcome<Findings> {
    let document = readme::document(DOCUMENT)?;
    let required: BTreeSet<String> = document
        .lines()
        .filter(|line| line.starts_with("#### "))
        .flat_map(|line| numbers(line).into_iter().take(1))
        .collect();
    let mut findings = Vec::new();
    if required.is_empty() {
        findings.push(format!("{DOCUMENT} numbers no requirement"));
    }
    let mut in_code = BTreeSet::new();
    let mut in_tests = BTreeSet::new();
    let mut unknown: BTreeMap<String, &str> = BTreeMap::new();
    for source in sources
        .0
        .iter()
        .filter(|source| !source.path.starts_with("xtask/src/tidy/"))
    {
        for (text, into) in [(&source.code, &mut in_code), (&source.tests, &mut in_tests)] {
            for number in comments(text).flat_map(numbers) {
                if required.contains(&number) {
                    into.insert(number);
                } else {
                    unknown.insert(number, &source.path);
                }
            }
        }
    }
    for number in &required {
        match (in_code.contains(number), in_tests.contains(number)) {
            (true, true) => {}
            (true, false) => findings.push(format!("{number}: no test cites it")),
            (false, true) => findings.push(format!("{number}: no code cites it")),
            (false, false) => findings.push(format!("{number}: neither code nor test cites it")),
        }
    }
    for (number, path) in unknown {
        findings.push(format!(
            "{path}: cites {number}, which {DOCUMENT} does not have"
        ));
    }
    Ok(findings)
}

fn comments(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter_map(|line| line.split_once("//").map(|(_, comment)| comment))
}

/// All `SM-XX-N` in a line.
fn numbers(line: &str) -> Vec<String> {
    line.match_indices("SM-")
        .filter_map(|(at, marker)| {
            let rest = &line[at + marker.len()..];
            let area = rest
                .get(..2)
                .filter(|a| a.chars().all(|c| c.is_ascii_uppercase()))?;
            let digits: String = rest
                .get(2..)?
                .strip_prefix('-')?
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            (!digits.is_empty()).then(|| format!("SM-{area}-{digits}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_whole() {
        assert_eq!(
            numbers("see SM-HS-1 and SM-HS-12, not SM-hs-3"),
            ["SM-HS-1", "SM-HS-12"]
        );
    }

    #[test]
    fn only_comments_cite() {
        let found: Vec<_> = comments("let x = 1;\n// PROTOCOL SM-ID-1\n")
            .flat_map(numbers)
            .collect();
        assert_eq!(found, ["SM-ID-1"]);
    }
}
