//! The namespace tests on the QUIC data plane: those that promise something of any plane run on each,
//! and here on that one alone.
//!
//! Which tests these are the tests themselves say, one line for each that passed; a run in which nobody
//! says so has shown nothing, and fails.

use super::Measured;
use crate::shell;
use serde_json::json;
use std::process::Stdio;

/// Read by the tests: they run on this data plane only, and leave out what is about none.
const ONLY_PLANE: &str = "SHADOWMESH_TEST_PLANE";

/// Behind it, a test that passed there says its name.
const PASSED: &str = "passed on the quic plane: ";

/// Runs them one after the other: each has the machine to itself.
pub fn quic() -> Result<Measured, String> {
    let line =
        "test --quiet --package shadowmesh --test namespaces -- --nocapture --test-threads 1";
    let mut command = shell::cargo(line);
    command.env(ONLY_PLANE, "quic");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cargo {line}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = passed(&text);
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprintln!("{text}\n{said}");
    }
    let failed = match output.status.success() {
        true => String::new(),
        false => format!(", and not all: cargo {line} ({})", output.status),
    };
    Ok(Measured {
        pass: output.status.success() && !passed.is_empty(),
        figure: format!("{} tests passed{failed}", passed.len()),
        values: json!({ "passed": passed }),
    })
}

/// Names of the tests that said that they passed.
fn passed(text: &str) -> Vec<&str> {
    let names = text.lines().filter_map(|line| line.split_once(PASSED));
    let mut names: Vec<_> = names.map(|(_, name)| name.trim()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_that_passed_on_the_plane_count_and_each_once() {
        let text = "test mesh::a ... passed on the quic plane: mesh::a\nok\n\
                    passed on the quic plane: mesh::a\n\
                    passed on the sealed plane: mesh::b\n\
                    host::c: left out, for SHADOWMESH_TEST_PLANE is set\n";
        assert_eq!(passed(text), ["mesh::a"]);
        assert!(passed("test result: ok. 40 passed; 0 failed").is_empty());
    }
}
