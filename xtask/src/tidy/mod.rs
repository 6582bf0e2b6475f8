//! `cargo xtask tidy`: the house rules that neither the compiler nor clippy can hold.
//!
//! Each check is a function from the workspace to a list of findings. A finding names the file (and
//! line, where there is one) and what to do about it. A rule that is explained a second time in a
//! review belongs here.

mod citations;
mod crates;
mod imports;
mod readme;
mod sources;

use crate::failure::{Failure, Outcome};
use sources::Sources;

/// What one check found; empty when all is well.
type Findings = Vec<String>;

struct Check {
    name: &'static str,
    holds: &'static str,
    run: fn(&Sources) -> Outcome<Findings>,
}

const CHECKS: &[Check] = &[
    Check {
        name: "arrows",
        holds: "crates use each other only along the arrows of ARCHITECTURE.md",
        run: crates::arrows,
    },
    Check {
        name: "dependencies",
        holds: "no core crate's dependency tree reaches a socket or an async runtime",
        run: crates::dependencies,
    },
    Check {
        name: "imports",
        holds: "modules import only downwards in the order of ARCHITECTURE.md",
        run: imports::check,
    },
    Check {
        name: "citations",
        holds: "every number of PROTOCOL.md is cited by code and by a test",
        run: citations::check,
    },
    Check {
        name: "unsafe",
        holds: "unsafe code is forbidden outside shadowmesh-io",
        run: sources::forbid_unsafe,
    },
    Check {
        name: "platform",
        holds: "cfg(target_os) and its kin stand only in shadowmesh-io",
        run: sources::platform,
    },
    Check {
        name: "size",
        holds: "no file is longer than 800 lines",
        run: sources::size,
    },
    Check {
        name: "words",
        holds: "no unfinished work, no debug prints, no paths of one machine",
        run: sources::words,
    },
    Check {
        name: "readme",
        holds: "every command in README.md exists",
        run: readme::check,
    },
];

/// `--only CHECK` runs one of them.
pub fn run(arguments: &[String]) -> Outcome {
    let chosen: Vec<&Check> = match arguments {
        [] => CHECKS.iter().collect(),
        [flag, name] if flag == "--only" => CHECKS.iter().filter(|c| c.name == name).collect(),
        _ => Vec::new(),
    };
    if chosen.is_empty() {
        let names: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
        return Err(Failure::new(
            format!("tidy takes --only and one of: {}", names.join(", ")),
            "cargo xtask tidy",
        ));
    }
    let sources = Sources::read()?;
    let mut broken = Vec::new();
    for check in chosen {
        let findings = (check.run)(&sources)?;
        let mark = if findings.is_empty() { "ok  " } else { "FAIL" };
        println!("{mark} {:<13} {}", check.name, check.holds);
        for finding in &findings {
            println!("       {finding}");
        }
        if !findings.is_empty() {
            broken.push(check.name);
        }
    }
    match broken.first() {
        None => Ok(()),
        Some(first) => Err(Failure::new(
            format!("tidy: {}", broken.join(", ")),
            format!("cargo xtask tidy --only {first}"),
        )),
    }
}
