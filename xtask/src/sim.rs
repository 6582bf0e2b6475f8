//! `cargo xtask sim`: the scenarios of the simulated world.
//!
//! Every scenario draws its randomness from one seed. A failing run prints that seed and this verb
//! with it; the same seed on the same code replays the same run, event by event.

use crate::failure::{Failure, Outcome};
use crate::shell;

/// `[--seed N] [--runs N] [SCENARIO]`.
pub fn run(arguments: &[String]) -> Outcome {
    let mut command = shell::cargo("test --package shadowmesh-sim --");
    let mut words = arguments.iter();
    let mut next = String::from("cargo xtask sim --seed SEED_PRINTED_ABOVE");
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seed" | "--runs" => {
                let number: u64 = words
                    .next()
                    .and_then(|number| number.parse().ok())
                    .ok_or_else(|| {
                        Failure::new(format!("{word} takes a number"), "cargo xtask sim --help")
                    })?;
                if word == "--seed" {
                    command.env("SHADOWMESH_SIM_SEED", number.to_string());
                    next = format!("cargo xtask sim --seed {number} NAME_OF_THE_SCENARIO");
                } else {
                    command.env("SHADOWMESH_SIM_RUNS", number.to_string());
                }
            }
            scenario => {
                command.arg(scenario);
            }
        }
    }
    shell::run(command.arg("--nocapture"), &next)
}
