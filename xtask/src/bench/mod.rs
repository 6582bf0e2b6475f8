//! `cargo xtask bench`: ShadowMesh beside the bare cable and every other tunnel that is installed.
//!
//! Each contender gets two network namespaces joined by a veth pair of MTU 1500, and both its ends,
//! the traffic and the kernel share this machine. All contenders run from the start, idle but for
//! the one being measured, and every measurement goes round all of them before the next begins, so
//! that whatever else the machine does hits them alike. A figure is the median over the rounds.
//!
//! The traffic programs are our own (`shadowmesh::lab`), the same for all. docs/PERFORMANCE.md says
//! what each measurement does and how to install the others.
//!
//! | module | what it does |
//! |---|---|
//! | `request` | the words of the verb |
//! | `contenders` | one file for each program: found, configured, started, stopped |
//! | `measures` | what is measured, and how |
//! | `figures` | the list of figures, with their units |
//! | `run` | the rounds |
//! | `results` | all samples, as JSON and back; medians |
//! | `table`, `plots` | what a person sees |
//! | `verdicts` | the bounds that `cargo xtask evidence speed` holds |
//! | `growth` | how cost grows with flows and with peers |

#[cfg(feature = "evidence")]
mod contenders;
#[cfg(feature = "evidence")]
mod figures;
#[cfg(feature = "evidence")]
mod growth;
#[cfg(feature = "evidence")]
mod measures;
#[cfg(feature = "evidence")]
mod plots;
mod request;
#[cfg(feature = "evidence")]
pub mod results;
#[cfg(feature = "evidence")]
mod run;
#[cfg(feature = "evidence")]
mod table;
#[cfg(feature = "evidence")]
pub mod verdicts;

use crate::failure::Outcome;
use crate::shell;
use request::Request;

const USAGE: &str = "cargo xtask bench --list";

/// `bench handshake ...` and `bench PEER ...` are the program's own verb; everything else is the
/// comparison, in a release build of xtask with the product's crates.
pub fn run(arguments: &[String]) -> Outcome {
    if let Some(word) = arguments.first()
        && !word.starts_with('-')
    {
        let mut command = shell::cargo("run --quiet --release --package shadowmesh");
        command.args(["--", "bench"]).args(arguments);
        return shell::run(&mut command, "cargo run --release -- bench --help");
    }
    compare(arguments, Request::parse(arguments)?)
}

#[cfg(not(feature = "evidence"))]
fn compare(arguments: &[String], _: Request) -> Outcome {
    let mut command = shell::cargo("run --quiet --release --package xtask");
    command
        .args(["--features", "evidence", "--", "bench"])
        .args(arguments);
    shell::run(&mut command, USAGE)
}

#[cfg(feature = "evidence")]
fn compare(_: &[String], request: Request) -> Outcome {
    if request.list {
        contenders::list();
        return Ok(());
    }
    if request.growth {
        run::prepare(&request)?;
        return growth::run(&request);
    }
    let results = match &request.from {
        Some(file) => results::Results::read(file)?,
        None => run::run(&request)?,
    };
    if let Some(file) = &request.json {
        results.write(file)?;
    }
    match (&request.svg, &request.from) {
        (Some(directory), _) => drop(plots::write(&results, directory)?),
        (None, None) => drop(plots::write(&results, &shell::target_dir().join("bench"))?),
        (None, Some(_)) => {}
    }
    if request.markdown {
        print!("{}", table::markdown(&results));
    } else {
        print!("{}", table::terminal(&results));
    }
    if request.judge {
        for (name, verdict) in judge(&results) {
            let word = if verdict.pass { "pass" } else { "FAIL" };
            println!("{word}  {name:<16} {}", verdict.figure);
        }
    }
    Ok(())
}

/// One whole run for `evidence speed`, with its samples and plots left in `target/bench`.
#[cfg(feature = "evidence")]
pub fn evidence() -> Outcome<results::Results> {
    let directory = shell::target_dir().join("bench");
    let results = run::run(&Request::parse(&[])?)?;
    plots::write(&results, &directory)?;
    results.write(&directory.join("results.json"))?;
    eprintln!("{}", table::terminal(&results));
    Ok(results)
}

/// The lines that judge a run.
#[cfg(feature = "evidence")]
fn judge(results: &results::Results) -> [(&'static str, verdicts::Verdict); 5] {
    [
        ("tcp", verdicts::tcp(results)),
        ("peers", verdicts::peers(results)),
        ("ping", verdicts::ping(results)),
        ("udp", verdicts::udp(results)),
        ("udp-gso", verdicts::udp_gso(results)),
    ]
}
