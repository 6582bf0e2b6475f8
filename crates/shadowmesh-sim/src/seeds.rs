//! Which seeds a test runs with, and what is printed when one of them fails.
//!
//! `cargo xtask sim --seed N` and `--runs N` arrive here as environment variables. With `RUST_LOG` set
//! (`debug`, say), the nodes' own log is printed beside.

use std::env;

use tracing_subscriber::EnvFilter;

const SEED: &str = "SHADOWMESH_SIM_SEED";
const RUNS: &str = "SHADOWMESH_SIM_RUNS";

/// Runs `scenario` with each seed: the one asked for, or as many as asked for, or `runs` of them.
/// `name` is part of the test's own path, so that the command finds it.
///
/// # Panics
/// When the scenario does, after printing the command that replays the run.
pub fn each(name: &str, runs: u64, scenario: impl Fn(u64)) {
    show_log();
    let (first, runs) = match (number(SEED), number(RUNS)) {
        (Some(seed), runs) => (seed, runs.unwrap_or(1)),
        (None, asked) => (1, asked.unwrap_or(runs)),
    };
    for seed in first..first + runs {
        let told = TellOnPanic { name, seed };
        scenario(seed);
        drop(told);
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
    )
}

/// Without times: those of the machine mean nothing in a world with a clock of its own.
fn show_log() {
    if env::var_os(EnvFilter::DEFAULT_ENV).is_some() {
        let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env());
        // A second test in the same process finds it set already.
        let _ = log.without_time().with_test_writer().try_init();
    }
}

/// Prints the replay command if the scenario panics while this is alive.
struct TellOnPanic<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for TellOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { name, seed } = self;
            eprintln!(
                "{name} failed with seed {seed}; replay it with: cargo xtask sim --seed {seed} {name}"
            );
        }
    }
}
