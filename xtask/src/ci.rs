//! `cargo xtask ci`: what a change must pass before it is shared. `.ci/run` is this, with the tests
//! called by the README's own command.

use crate::failure::{Failure, Outcome};
use crate::{instructions, shell, test, tidy};
use std::process::Command;

/// The documentation is for those who work on ShadowMesh and shows private items, so links to them
/// lead somewhere.
const RUSTDOC_FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// `--without-tests` leaves the tests to the caller.
pub fn run(arguments: &[String]) -> Outcome {
    match arguments {
        [] => test::run(&[])?,
        [flag] if flag == "--without-tests" => {}
        _ => {
            return Err(Failure::new(
                "ci takes only --without-tests",
                "cargo xtask ci",
            ));
        }
    }
    for (mut command, next) in checks() {
        shell::run(&mut command, next)?;
    }
    tidy::run(&[])?;
    instructions::in_ci()?;
    eprintln!("\nci: all good");
    Ok(())
}

fn checks() -> Vec<(Command, &'static str)> {
    let mut doc = shell::cargo("doc --quiet --workspace --no-deps --document-private-items");
    doc.env("RUSTDOCFLAGS", RUSTDOC_FLAGS);
    vec![
        (shell::cargo("fmt --all --check"), "cargo fmt --all"),
        (
            shell::cargo(
                "clippy --quiet --workspace --all-targets --features xtask/evidence -- -D warnings",
            ),
            "cargo clippy --workspace --all-targets --fix --allow-dirty",
        ),
        (
            doc,
            "cargo xtask ci --without-tests (the first error above names file and line)",
        ),
    ]
}
