//! The registry of checks and what a check returns.

mod bulk;
mod demo;
mod field;
mod flood;
mod flow;
mod fresh_clone;
mod fuzzing;
mod handshake_cost;
mod handshakes;
mod observer;
mod pings;
mod program;
mod quic;
mod recovery;
mod throughput;
mod wire;
mod worlds;

use crate::failure::Outcome;
use serde_json::{Value, json};
use std::time::Instant;

/// One promise of the slice.
pub struct Check {
    /// For `--only`.
    pub name: &'static str,
    /// The promise, in one sentence.
    pub what: &'static str,
    /// Measures. An error is a failed line: it says why nothing could be measured.
    run: fn() -> Result<Measured, String>,
}

/// All of them, quick ones first.
pub const ALL: &[Check] = &[
    Check {
        name: "demo",
        what: "shadowmesh demo ends in success",
        run: demo::run,
    },
    Check {
        name: "handshake-cost",
        what: "CPU and bytes of a handshake on each side, beside classical X25519 + Ed25519",
        run: handshake_cost::run,
    },
    Check {
        name: "handshake-time",
        what: "the client is done within 1.15 round trips, on first contact and on return",
        run: handshakes::time,
    },
    Check {
        name: "handshake-loss",
        what: "of 1,000 handshakes at 5 % loss and at 20 % none hangs",
        run: handshakes::loss,
    },
    Check {
        name: "worlds",
        what: "random simulated worlds stay safe and recover",
        run: worlds::run,
    },
    Check {
        name: "pings",
        what: "2,000 pings at 1 ms lose none, IPv4 and IPv6 inside and outside",
        run: pings::run,
    },
    Check {
        name: "wire",
        what: "on the wire no plaintext, address or name, and nothing that is not QUIC version 1",
        run: wire::run,
    },
    Check {
        name: "recovery",
        what: "after kill -9 of either side packets flow within 1.5 s of its restart",
        run: recovery::run,
    },
    Check {
        name: "flood",
        what: "50,000 spoofed first packets a second cost little and keep nobody out",
        run: flood::run,
    },
    Check {
        name: "throughput",
        what: "one TCP stream through the tunnel, beside the bare veth",
        run: throughput::run,
    },
    Check {
        name: "bulk",
        what: "4 GiB each way arrive unchanged while keys rotate every 10 s",
        run: bulk::run,
    },
    Check {
        name: "fresh-clone",
        what: "the README's two commands succeed in a fresh clone",
        run: fresh_clone::run,
    },
    Check {
        name: "fuzz",
        what: "every fuzz target runs ten minutes clean",
        run: fuzzing::run,
    },
];

/// What a check found.
pub struct Measured {
    /// Whether the promise holds.
    pub pass: bool,
    /// The figures, for a person.
    pub figure: String,
    /// The figures, for a program.
    pub values: Value,
}

/// One line of the evidence.
pub struct Line {
    /// Of the check.
    pub name: &'static str,
    what: &'static str,
    /// The figures, or why there are none.
    pub figure: String,
    /// The verdict.
    pub pass: bool,
    values: Value,
    seconds: f64,
}

impl Line {
    /// One object of `--json`.
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "what": self.what,
            "figure": self.figure,
            "pass": self.pass,
            "values": self.values,
            "seconds": (self.seconds * 10.0).round() / 10.0,
        })
    }
}

/// Runs checks one after the other; a failed one does not stop the rest.
pub fn run(chosen: &[&Check], print: bool) -> Outcome<Vec<Line>> {
    program::build()?;
    let mut lines = Vec::new();
    for check in chosen {
        eprintln!("... {}: {}", check.name, check.what);
        let start = Instant::now();
        let measured = (check.run)().unwrap_or_else(|why| Measured {
            pass: false,
            figure: why,
            values: Value::Null,
        });
        let line = Line {
            name: check.name,
            what: check.what,
            figure: measured.figure,
            pass: measured.pass,
            values: measured.values,
            seconds: start.elapsed().as_secs_f64(),
        };
        if print {
            let verdict = if line.pass { "pass" } else { "FAIL" };
            println!(
                "{verdict}  {:<16} {}: {}",
                line.name, line.what, line.figure
            );
        }
        lines.push(line);
    }
    Ok(lines)
}
