//! Tests that make network namespaces, also where the user is not root.

use std::process::Command;

use crate::netns::{self, Netns};

/// Set in the second run, so that there is no third.
const MARK: &str = "SHADOWMESH_TEST_IN_USER_NAMESPACE";

/// Runs the body of the test named `test` (as `cargo test` lists it) with the right to make
/// network namespaces: at once if this process has it, else by running this very test again in a
/// user namespace.
///
/// # Panics
/// When the machine allows neither, saying so: a test that could not run has not passed.
pub fn privileged(test: &str, body: impl FnOnce()) {
    let Err(refusal) = Netns::new() else {
        return body();
    };
    let help = "NOT RUN: this test makes network namespaces; run it as root, or allow user \
                namespaces (sysctl kernel.unprivileged_userns_clone=1, \
                kernel.apparmor_restrict_unprivileged_userns=0)";
    assert!(
        std::env::var_os(MARK).is_none(),
        "{help}: in a user namespace too: {refusal}"
    );
    let program = std::env::current_exe().expect("a test knows its own program");
    let mut command = Command::new(program);
    command
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(MARK, "1");
    match netns::in_user_namespace(&mut command).output() {
        Err(error) => panic!("{help}: {refusal}; user namespace: {error}"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            // "1 passed": a misspelt name would run no test, and succeed.
            let passed = output.status.success() && text.contains("1 passed");
            assert!(
                passed,
                "{test} failed in a user namespace:\n{text}\n{errors}"
            );
            // What a test says of itself is said here too.
            println!("{text}");
        }
    }
}
