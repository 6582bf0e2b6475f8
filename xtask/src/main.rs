//! `cargo xtask`: the chores of the workspace, in Rust so that they need nothing but Rust.
//!
//! Every verb runs the same tools a person would run by hand, says which, and on failure prints the
//! next command to try. The crate itself builds in seconds: it depends on none of the product's
//! crates, except under the feature `evidence`, which the verb `evidence` turns on by itself.

#![forbid(unsafe_code)]

mod bench;
mod ci;
mod evidence;
mod failure;
mod fuzz;
mod instructions;
mod lab;
mod shell;
mod sim;
mod test;
mod tidy;

use failure::{Failure, Outcome};
use std::process::ExitCode;

/// One verb of `cargo xtask`.
struct Verb {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Outcome,
}

const VERBS: &[Verb] = &[
    Verb {
        name: "test",
        usage: "test [ARGUMENTS OF THE TEST RUNNER]",
        about: "all tests: documentation examples, then everything else (nextest when installed)",
        run: test::run,
    },
    Verb {
        name: "ci",
        usage: "ci [--without-tests]",
        about: "what a change must pass: tests, fmt, clippy, documentation, tidy, instruction counts",
        run: ci::run,
    },
    Verb {
        name: "tidy",
        usage: "tidy [--only CHECK]",
        about: "the house rules: crate walls, module order, PROTOCOL.md citations, file sizes",
        run: tidy::run,
    },
    Verb {
        name: "sim",
        usage: "sim [--seed N] [--runs N] [SCENARIO]",
        about: "the simulated world's scenarios; a seed replays one run exactly",
        run: sim::run,
    },
    Verb {
        name: "lab",
        usage: "lab [ARGUMENTS OF shadowmesh demo]",
        about: "three real nodes in network namespaces, left running to look around",
        run: lab::run,
    },
    Verb {
        name: "bench",
        usage: "bench [--only NAME,..] [--measure NAME,..] [--rounds N] [--seconds S] [--quick] [--list]\n        [--json FILE] [--svg DIR] [--from FILE] [--markdown] [--judge] [--growth] [--no-build]\n  bench ARGUMENTS OF shadowmesh bench",
        about: "ShadowMesh beside the bare cable and every other tunnel that is installed; or, with words, the program's own bench",
        run: bench::run,
    },
    Verb {
        name: "instructions",
        usage: "instructions [--only CASE] [--bless]",
        about: "instructions of the hot path, piece by piece, against the baseline (needs valgrind)",
        run: instructions::run,
    },
    Verb {
        name: "fuzz",
        usage: "fuzz [--seconds N] [--list] [TARGET]",
        about: "every fuzz target, or one, for N seconds each (default 60)",
        run: fuzz::run,
    },
    Verb {
        name: "evidence",
        usage: "evidence slice|speed|connect [--only NAME,..] [--list] [--json] [--seconds N]",
        about: "the checks too long for the test command, one line each",
        run: evidence::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("\n{failure}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[String]) -> Outcome {
    let Some((name, rest)) = arguments.split_first() else {
        println!("{}", help());
        return Ok(());
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        println!("{}", help());
        return Ok(());
    }
    match VERBS.iter().find(|verb| verb.name == name) {
        Some(verb) if rest.first().is_some_and(|word| word == "--help") => {
            println!("cargo xtask {}\n{}", verb.usage, verb.about);
            Ok(())
        }
        Some(verb) => (verb.run)(rest),
        None => Err(Failure::new(
            format!("there is no verb {name:?}"),
            "cargo xtask help",
        )),
    }
}

fn help() -> String {
    let mut text = String::from("cargo xtask VERB\n");
    for verb in VERBS {
        text.push_str(&format!("\n  {}\n      {}", verb.usage, verb.about));
    }
    text
}

/// The names of all verbs, for the check that README.md names only real ones.
fn verb_names() -> impl Iterator<Item = &'static str> {
    VERBS.iter().map(|verb| verb.name)
}
