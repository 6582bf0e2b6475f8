//! `shadowmesh demo`: the whole mesh at work on one machine, measured.
//!
//! It builds three namespaces joined by a bridge, starts the very program it is part of in each,
//! and then does what a sceptical visitor would do: pings every pair, moves data over every pair,
//! watches keys change while pings run, kills one node without warning and waits for it to come
//! back. Nothing here is a special mode of the node: the nodes read configuration files and know
//! nothing of the demo, so what it shows is what two real machines do.
//!
//! It ends well only if every single thing went well; a measurement that is merely slow is shown,
//! never judged.
//!
//! | module | what it does |
//! |---|---|
//! | `steps` | what is done, in order, and what counts as success |
//! | [`report`] | the figures, as one JSON object or as a table |
//! | [`privilege`] | root, or a user namespace in which we are root |

pub mod privilege;
pub mod report;
mod steps;

use std::fs::DirBuilder;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::lab::{Lab, LabError};
pub use report::DemoReport;

/// Nodes of the demo. Three is the smallest mesh in which a pair can be undisturbed by the third.
const NODES: usize = 3;

/// What the demo is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct DemoOptions {
    /// Leave the nodes running until the user ends them.
    pub keep: bool,
    /// Print one JSON object and nothing else to standard output.
    pub json: bool,
}

/// Why there is no result.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The laboratory or a node in it failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// Something of the operating system failed.
    #[error("the demo could not {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The user ended it.
    #[error("interrupted; every namespace and file of the demo has been removed")]
    Interrupted,
}

/// Runs the demo to its end. `stop` becomes true when the user wants out. The report comes back
/// also when a check in it failed: [`DemoReport::failures`] says which.
///
/// # Errors
/// When there is nothing to report: the machine refuses what the demo needs, or the user left.
pub fn run(options: DemoOptions, stop: &AtomicBool) -> Result<DemoReport, DemoError> {
    let program = std::env::current_exe().map_err(|source| DemoError::Io {
        doing: "find its own program file",
        source,
    })?;
    let directory = Directory::make()?;
    let stage = Stage {
        progress: Progress::new(options.json),
        stop,
    };
    stage.say(&format!(
        "Building {NODES} machines out of network namespaces"
    ))?;
    let mut lab = Lab::build(&program, &directory.0, NODES)?;
    let report = steps::all(&mut lab, &stage)?;
    if options.keep {
        stage.show(&report)?;
        stage.explain(&mut lab);
        wait_for(stop);
    }
    lab.stop_all()?;
    if !options.keep {
        stage.show(&report)?;
    }
    Ok(report)
}

/// Where the demo tells what it does, and where it learns that it should end.
struct Stage<'a> {
    progress: Progress,
    stop: &'a AtomicBool,
}

impl Stage<'_> {
    /// Says what comes next, unless the user wants out.
    fn say(&self, what: &str) -> Result<(), DemoError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(DemoError::Interrupted);
        }
        self.progress.line(what);
        Ok(())
    }

    fn show(&self, report: &DemoReport) -> Result<(), DemoError> {
        let text = if self.progress.json {
            report.to_json() + "\n"
        } else {
            format!("\n{report}")
        };
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|source| DemoError::Io {
            doing: "print its result",
            source,
        })
    }

    /// How to look around in a mesh that was left running.
    fn explain(&self, lab: &mut Lab) {
        let mut text =
            String::from("\nThe mesh is running. To look around, from another terminal:\n");
        for node in &mut lab.nodes {
            let Some(pid) = node.pid() else { continue };
            let config = node.config_path();
            text += &format!(
                "\n  {}  {}\n    shadowmesh status --config {}\n    nsenter --net --target {pid} --preserve-credentials\n",
                node.name,
                node.overlay_v4(),
                config.display(),
            );
        }
        text += "\nnsenter opens a shell on that machine; ping and connect to the other addresses from \
                 it.\nCtrl-C here ends the mesh and removes everything.\n";
        eprint!("{text}");
    }
}

fn wait_for(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Progress goes to standard error, so that `--json` alone owns standard output.
struct Progress {
    json: bool,
    start: std::time::Instant,
    colour: bool,
}

impl Progress {
    fn new(json: bool) -> Self {
        Self {
            json,
            start: std::time::Instant::now(),
            colour: io::stderr().is_terminal(),
        }
    }

    fn line(&self, what: &str) {
        let seconds = self.start.elapsed().as_secs_f64();
        let (dim, plain) = if self.colour {
            ("\x1b[2m", "\x1b[0m")
        } else {
            ("", "")
        };
        eprintln!("{dim}{seconds:6.1} s{plain}  {what}");
    }
}

/// A directory for configurations and identities that goes away with the demo.
struct Directory(PathBuf);

impl Directory {
    /// Named by the process, in the system's place for temporary files, and only for this user:
    /// it holds identities.
    fn make() -> Result<Self, DemoError> {
        let name = format!("shadowmesh-demo-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Fails when the name is taken: what somebody else put there is not to be used.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| DemoError::Io {
            doing: "make a directory for its files",
            source,
        })?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed lies in the place for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
