//! `cargo xtask fuzz`: libFuzzer over every parser of bytes that a stranger or a person hands us.
//!
//! Plain stable Rust and a C++ compiler are enough: the coverage that libFuzzer needs is asked of
//! the compiler by ordinary `-C` flags, and an address sanitizer (the one part that needs nightly)
//! would watch over code that forbids `unsafe` anyway. The layout is that of cargo-fuzz, so
//! `cargo +nightly fuzz run TARGET` works too where that is installed.
//!
//! Found inputs grow in `fuzz/corpus` (not committed); `fuzz/seeds` is committed: first examples,
//! and every input that once broke something.

use crate::failure::{Failure, Outcome};
use crate::shell;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// What cargo-fuzz passes, without the sanitizer.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1";

/// A parser that takes longer than this for one input is a way to stall a node.
const SECONDS_PER_INPUT_MAX: u32 = 10;

/// A parser that needs more than this can be made to eat the machine.
const MEMORY_MB_MAX: u32 = 2048;

const SECONDS_DEFAULT: u32 = 60;

/// `[--seconds N] [--list] [TARGET]`.
pub fn run(arguments: &[String]) -> Outcome {
    let mut seconds = SECONDS_DEFAULT;
    let mut chosen = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => {
                targets()?.iter().for_each(|target| println!("{target}"));
                return Ok(());
            }
            "--seconds" => {
                let number = words.next().and_then(|number| number.parse().ok());
                seconds = number.ok_or_else(|| usage("--seconds takes a number"))?;
            }
            target => chosen.push(target.to_owned()),
        }
    }
    let all = targets()?;
    if let Some(stranger) = chosen.iter().find(|target| !all.contains(target)) {
        return Err(usage(&format!(
            "no target {stranger:?}; there are {}",
            all.join(", ")
        )));
    }
    let reports = campaign(if chosen.is_empty() { all } else { chosen }, seconds)?;
    match reports.iter().find(|report| !report.clean) {
        None => Ok(()),
        Some(report) => Err(Failure::new(
            format!(
                "fuzz target {} found something, see {}",
                report.target,
                report.log.display()
            ),
            format!(
                "{} fuzz/artifacts/{}/*",
                binary(&report.target).display(),
                report.target
            ),
        )),
    }
}

fn usage(what: &str) -> Failure {
    Failure::new(what, "cargo xtask fuzz --list")
}

/// How one target fared.
pub struct Report {
    /// Its name.
    pub target: String,
    /// Inputs tried.
    pub inputs: u64,
    /// No crash, no stall, no memory eaten.
    pub clean: bool,
    /// What libFuzzer wrote.
    pub log: PathBuf,
}

/// Every target there is.
pub fn targets() -> Outcome<Vec<String>> {
    let folder = shell::root().join("fuzz/fuzz_targets");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display()), "git status"))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds once, then runs the targets side by side, as many as the machine has cores.
pub fn campaign(targets: Vec<String>, seconds: u32) -> Outcome<Vec<Report>> {
    build()?;
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(targets.len());
    let waiting = Mutex::new(targets.into_iter());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(target) = take(&waiting) {
                    let result = fuzz_one(&target, seconds);
                    done.lock().expect("no worker panics").push(result);
                }
            });
        }
    });
    let results = done.into_inner().expect("no worker panics");
    let mut reports = results.into_iter().collect::<Outcome<Vec<Report>>>()?;
    reports.sort_by(|a, b| a.target.cmp(&b.target));
    for report in &reports {
        let verdict = if report.clean { "clean" } else { "BROKEN" };
        eprintln!(
            "{verdict:<6} {:<16} {} inputs",
            report.target, report.inputs
        );
    }
    Ok(reports)
}

fn take(waiting: &Mutex<std::vec::IntoIter<String>>) -> Option<String> {
    waiting.lock().expect("no worker panics").next()
}

fn build() -> Outcome {
    let next = "cargo build --manifest-path fuzz/Cargo.toml (libFuzzer needs a C++ compiler, g++ or clang++)";
    let mut command = shell::cargo("build --release --manifest-path fuzz/Cargo.toml");
    // A target given by name keeps the flags away from build scripts, which cannot link them.
    command
        .args(["--target", &host()?])
        .env("RUSTFLAGS", COVERAGE);
    command.env("CARGO_TARGET_DIR", target_dir());
    shell::run(&mut command, next)
}

fn host() -> Outcome<String> {
    let text = shell::output(Command::new("rustc").arg("-vV"), "rustc -vV")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| Failure::new("rustc names no host", "rustc -vV"))
}

/// Apart from the workspace's own: every crate is compiled with other flags here.
fn target_dir() -> PathBuf {
    shell::root().join("fuzz/target")
}

fn binary(target: &str) -> PathBuf {
    let host = host().unwrap_or_default();
    target_dir().join(host).join("release").join(target)
}

fn fuzz_one(target: &str, seconds: u32) -> Outcome<Report> {
    let fuzz = shell::root().join("fuzz");
    let broken = |error: std::io::Error| Failure::new(format!("{target}: {error}"), "df -h .");
    let corpus = fuzz.join("corpus").join(target);
    let seeds = fuzz.join("seeds").join(target);
    let artifacts = fuzz.join("artifacts").join(target);
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder).map_err(broken)?;
    }
    let log = artifacts.join("log.txt");
    let file = std::fs::File::create(&log).map_err(broken)?;
    let mut command = Command::new(binary(target));
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={SECONDS_PER_INPUT_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MB_MAX}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg("-print_final_stats=1")
        .arg(&corpus);
    if seeds.exists() {
        command.arg(seeds);
    }
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone().map_err(broken)?)
        .stderr(file);
    let status = command.status().map_err(broken)?;
    Ok(Report {
        target: target.to_owned(),
        inputs: inputs(&log),
        clean: status.success(),
        log,
    })
}

fn inputs(log: &Path) -> u64 {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let stat = text
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    stat.and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}
