//! The verbs. Each is one file with one function that does it and prints; errors come back as a
//! `Failure` and are printed in one place, as text or JSON.

mod addresses;
mod args;
mod bench;
mod config_check;
mod demo;
mod doctor;
mod down;
mod failure;
mod id;
mod layout;
mod mistyped;
mod output;
mod peers;
mod ping;
mod relay;
#[cfg(test)]
mod schemas;
#[cfg(test)]
mod snapshots;
mod status;
mod up;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::admin::client;
use crate::admin::protocol::{Request, Response};
use crate::config::{self, Loaded, Sources};
use args::{BenchVerb, Cli, ConfigVerb, Global, UpArgs, Verb};
use failure::{Failure, Kind};
use layout::Width;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = parse().unwrap_or_else(|error| refuse(error));
    match start_log(&cli).and_then(|()| run(&cli)) {
        Ok(code) => code,
        Err(failure) => failure.report(cli.global.json),
    }
}

/// The command line. Its help is as wide as the terminal, which must be known before anything is understood.
fn parse() -> Result<Cli, clap::Error> {
    let wide = std::env::args_os().any(|argument| argument == "--wide");
    let Width(columns) = Width::of_output(wide);
    let mut command = Cli::command().term_width(columns.unwrap_or(0));
    Cli::from_arg_matches(&command.try_get_matches_from_mut(std::env::args_os())?)
        .map_err(|error| error.format(&mut command))
}

/// A command line that says nothing, told by clap; and as an object to a script that asked for one.
fn refuse(mut error: clap::Error) -> ! {
    mistyped::correct(&mut error);
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        // Its first paragraph says what is wrong, the others what would be right.
        let text = error.to_string();
        let lines = text.lines().map(str::trim);
        let first: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        let what = first.join(" ");
        let what = what.trim_start_matches("error: ");
        output::json(&failure::ErrorObject::new(what, "see --help"));
    }
    error.exit()
}

fn run(cli: &Cli) -> Result<ExitCode, Failure> {
    let global = &cli.global;
    let done = match &cli.verb {
        Verb::Demo { keep } => return demo::run(global, *keep),
        Verb::Up(up) => up::run(global, up),
        Verb::Relay(relay) => relay::run(global, relay),
        Verb::Version => {
            version::run(global);
            Ok(())
        }
        Verb::Down => down::run(global),
        Verb::Id => id::run(global),
        Verb::Status => status::run(global),
        Verb::Peers => peers::run(global),
        Verb::Doctor(args) => doctor::run(global, args),
        Verb::Ping(ping) => ping::run(global, ping),
        Verb::Bench(bench) => match (&bench.verb, &bench.peer) {
            (Some(BenchVerb::Handshake { count }), _) => bench::handshake(global, *count),
            (None, Some(peer)) => bench::peer(global, peer, bench.seconds),
            (None, None) => Err(Failure::new("bench needs a peer, or `handshake`")
                .kind(Kind::Usage)
                .next("shadowmesh bench --help")),
        },
        Verb::Config {
            verb: ConfigVerb::Check,
        } => config_check::run(global),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// `up` and `relay` say what they do; other verbs answer on standard output and log only trouble.
fn start_log(cli: &Cli) -> Result<(), Failure> {
    let usual = if matches!(cli.verb, Verb::Up(_) | Verb::Relay(_)) {
        "info"
    } else {
        "warn"
    };
    let level = cli.global.log_level.as_deref().unwrap_or(usual);
    crate::log::init(level, cli.global.log_format).map_err(|error| {
        Failure::new(error).kind(Kind::Usage).next(
            "use error, warn, info, debug, trace, or a list such as info,shadowmesh_net=debug",
        )
    })
}

/// The flags of the command line that set configuration keys.
fn flags(global: &Global, up: &UpArgs) -> Vec<(&'static str, String)> {
    let state_dir = global
        .state_dir
        .iter()
        .map(|dir| ("--state-dir", dir.clone()));
    state_dir.chain(up.flags()).collect()
}

fn sources(global: &Global, up: &UpArgs) -> Sources {
    // Variables that are not UTF-8 cannot be ours: every valid value is.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("SHADOWMESH_"))
        .collect();
    Sources {
        file: global.config.clone(),
        variables,
        flags: flags(global, up),
    }
}

/// The whole configuration, with its warnings told.
fn load(global: &Global, up: &UpArgs) -> Result<Loaded, Failure> {
    let loaded = config::load(&sources(global, up))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    Ok(loaded)
}

/// Where the running node is to be found; the rest of the configuration may be wrong by now.
fn state_dir(global: &Global) -> Result<PathBuf, Failure> {
    Ok(config::load_state_dir(&sources(
        global,
        &UpArgs::default(),
    ))?)
}

/// One question to the running node with one answer.
fn ask(global: &Global, request: &Request) -> Result<Response, Failure> {
    let mut answers = client::request(&state_dir(global)?, request)?;
    match answers.next() {
        Some(Ok(Response::Error(report))) => Err(report.into()),
        Some(answer) => Ok(answer?),
        None => Err(no_answer()),
    }
}

fn no_answer() -> Failure {
    Failure::new("the node went down without answering").next("look at its log")
}

fn unexpected(answer: &Response) -> Failure {
    Failure::new(format!("the node answers something else: {answer:?}"))
        .next("use the same version of shadowmesh as the running node")
}
