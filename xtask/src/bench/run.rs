//! The rounds: every contender is started once, then every measurement goes round all of them, again
//! and again.

use super::USAGE;
use super::contenders::{self, Contender, Rank, Stage, Tunnel};
use super::measures::{self, Measure, Memory, Subject};
use super::request::Request;
use super::results::{Results, Row};
use crate::failure::{Failure, Outcome};
use crate::shell;
use shadowmesh::lab::bulk::CONGESTION;
use shadowmesh_io::netns::Netns;
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// After a measurement, before the next: queues run empty, dying connections say goodbye.
const PAUSE: Duration = Duration::from_millis(100);
/// A contender that fails this often is not asked again.
const FAILURES_MAX: usize = 4;

/// A contender that was started.
struct Entrant {
    row: Row,
    memory: Memory,
    failures: usize,
    /// None where it did not start.
    running: Option<(Tunnel, Stage)>,
}

/// Measures what was asked for.
pub fn run(request: &Request) -> Outcome<Results> {
    let contenders = choose_contenders(&request.only)?;
    let chosen = choose_measures(&request.measures)?;
    prepare(request)?;
    let mut entrants: Vec<Entrant> = contenders
        .iter()
        .map(|contender| enter(*contender))
        .collect();
    let start = Instant::now();
    for round in 0..request.rounds {
        for measure in &chosen {
            eprintln!(
                "{:6.0} s  round {} of {}: {}",
                start.elapsed().as_secs_f64(),
                round + 1,
                request.rounds,
                measure.name
            );
            // Another begins each time, so that nobody always comes after the same neighbour.
            entrants.rotate_left(1);
            for entrant in &mut entrants {
                take_part(entrant, measure, round, request.seconds);
            }
        }
    }
    let order = |row: &Row| contenders.iter().position(|it| it.name() == row.name);
    let mut rows: Vec<Row> = entrants.into_iter().map(|entrant| entrant.row).collect();
    rows.sort_by_key(order);
    Ok(Results {
        machine: machine(request),
        rows,
    })
}

fn choose_contenders(only: &[String]) -> Outcome<Vec<&'static dyn Contender>> {
    for name in only {
        if !contenders::ALL.iter().any(|it| it.name() == name) {
            return Err(Failure::new(
                format!("there is no contender {name:?}"),
                USAGE,
            ));
        }
    }
    let all = contenders::ALL.iter().copied();
    Ok(all
        .filter(|it| only.is_empty() || only.iter().any(|name| name == it.name()))
        .collect())
}

fn choose_measures(names: &[String]) -> Outcome<Vec<&'static Measure>> {
    for name in names {
        if !measures::ALL.iter().any(|measure| measure.name == name) {
            return Err(Failure::new(
                format!("there is no measurement {name:?}"),
                USAGE,
            ));
        }
    }
    let all = measures::ALL.iter();
    Ok(all
        .filter(|measure| names.is_empty() || names.iter().any(|name| name == measure.name))
        .collect())
}

/// Builds the program under test, once, so that nothing measures a compiler at work; and says early
/// what the machine does not allow.
pub fn prepare(request: &Request) -> Outcome {
    if let Err(error) = Netns::new() {
        return Err(Failure::new(
            format!("{error}; the comparison makes network namespaces and devices in them"),
            "sudo --preserve-env=PATH cargo xtask bench (or --list, which needs nothing)",
        ));
    }
    if request.no_build {
        return Ok(());
    }
    let mut command = shell::cargo("build --quiet --release --package shadowmesh");
    shell::run(
        command.stdout(Stdio::null()),
        "cargo build --release --package shadowmesh",
    )
}

fn enter(contender: &dyn Contender) -> Entrant {
    eprintln!("starting {}", contender.name());
    let mut row = Row {
        name: contender.name().into(),
        version: String::new(),
        setup: contender.setup().into(),
        rank: contender.rank(),
        notes: Vec::new(),
        samples: BTreeMap::new(),
    };
    let running = contender
        .find()
        .map(|version| row.version = version)
        .map_err(|why| format!("not installed: {why}"))
        .and_then(|()| start(contender).map_err(|why| format!("did not start: {why}")));
    let running = running.map_err(|why| {
        eprintln!("  {why}");
        row.notes.push(why);
    });
    Entrant {
        row,
        memory: Memory::default(),
        failures: 0,
        running: running.ok(),
    }
}

fn start(contender: &dyn Contender) -> Result<(Tunnel, Stage), String> {
    let stage = Stage::build()?;
    let mut tunnel = contender.start(&stage).map_err(|why| stage.explain(why))?;
    tunnel
        .await_reachable(&stage)
        .map_err(|why| stage.explain(why))?;
    Ok((tunnel, stage))
}

fn take_part(entrant: &mut Entrant, measure: &Measure, round: usize, seconds: f64) {
    let Some((tunnel, stage)) = &entrant.running else {
        return;
    };
    let peer_done = entrant.row.rank == Rank::Peer && round >= measure.peer_rounds_max;
    if peer_done || entrant.failures >= FAILURES_MAX {
        return;
    }
    let subject = Subject {
        stage,
        tunnel,
        time: Duration::from_secs_f64(seconds),
    };
    match (measure.run)(&subject, &mut entrant.memory) {
        Ok(sample) => {
            for (key, value) in sample {
                let samples = entrant.row.samples.entry(key.to_owned());
                samples.or_default().push(value);
            }
        }
        Err(why) => {
            let note = format!("{} in round {}: {why}", measure.name, round + 1);
            eprintln!("  {}: {note}", entrant.row.name);
            entrant.row.notes.push(note);
            entrant.failures += 1;
        }
    }
    std::thread::sleep(PAUSE);
}

/// What the figures depend on.
fn machine(request: &Request) -> BTreeMap<String, String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name"));
    let cpu = cpu.unwrap_or_default().trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let pairs = [
        (
            "kernel",
            format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        ),
        ("processor", cpu.to_owned()),
        ("cores", cores.to_string()),
        ("inner congestion control", CONGESTION.to_owned()),
        ("rounds", request.rounds.to_string()),
        ("seconds of a TCP measurement", request.seconds.to_string()),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value)).into()
}
