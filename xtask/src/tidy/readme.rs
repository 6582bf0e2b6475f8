//! README.md against the programs it names: a command that is shown must exist.

use super::{Findings, Sources};
use crate::failure::{Failure, Outcome};
use crate::{shell, verb_names};
use std::collections::BTreeSet;
use std::process::Stdio;

/// One of the documents in the workspace root.
pub fn document(name: &str) -> Outcome<String> {
    std::fs::read_to_string(shell::root().join(name))
        .map_err(|error| Failure::new(format!("{name}: {error}"), format!("git log -- {name}")))
}

/// Checks the verbs of `cargo xtask` and of `shadowmesh` in README.md's code blocks.
pub fn check(_: &Sources) -> Outcome<Findings> {
    let text = document("README.md")?;
    let mut findings = Vec::new();
    let known: BTreeSet<&str> = verb_names().collect();
    for verb in words_after(&text, "cargo xtask ") {
        if !known.contains(verb[0].as_str()) {
            findings.push(format!("README.md: cargo xtask {} is no verb", verb[0]));
        }
    }
    let mut verbs = words_after(&text, "shadowmesh ");
    verbs.extend(words_after(&text, "cargo run --release -- "));
    let verbs: BTreeSet<Vec<String>> = verbs.into_iter().collect();
    if !verbs.is_empty() {
        let next = "cargo build --package shadowmesh";
        shell::output(
            &mut shell::cargo("build --quiet --package shadowmesh"),
            next,
        )?;
    }
    for verb in verbs {
        // `--help` after the words parses them and does nothing else.
        let mut help = std::process::Command::new(shell::target_dir().join("debug/shadowmesh"));
        help.args(&verb).arg("--help").stdin(Stdio::null());
        let known = help.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !known.is_ok_and(|status| status.success()) {
            findings.push(format!(
                "README.md: shadowmesh {} is no verb",
                verb.join(" ")
            ));
        }
    }
    Ok(findings)
}

/// The plain words that follow `program` at the start of a code block's line: the verb, and its own
/// verb where it has one.
fn words_after(text: &str, program: &str) -> Vec<Vec<String>> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
            continue;
        }
        let line = line
            .trim_start()
            .trim_start_matches("$ ")
            .trim_start_matches("sudo ");
        let Some(rest) = line.strip_prefix(program).filter(|_| in_block) else {
            continue;
        };
        let plain = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let words: Vec<String> = rest
            .split_whitespace()
            .take_while(|word| plain(word) && !word.starts_with('-'))
            .take(2)
            .map(str::to_owned)
            .collect();
        if !words.is_empty() {
            found.push(words);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_read_from_code_blocks_only() {
        let text = "shadowmesh nothing\n```sh\nsudo shadowmesh up --config /etc/a.toml\n$ shadowmesh config check\n```\n";
        let found = words_after(text, "shadowmesh ");
        assert_eq!(
            found,
            [
                vec!["up".to_owned()],
                vec!["config".to_owned(), "check".to_owned()]
            ]
        );
    }
}
