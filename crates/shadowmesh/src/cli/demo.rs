//! `shadowmesh demo`

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::args::Global;
use super::failure::Failure;
use crate::demo::privilege::{self, Privilege};
use crate::demo::{self, DemoError, DemoOptions};

pub fn run(global: &Global, keep: bool) -> Result<ExitCode, Failure> {
    match privilege::ensure().map_err(refused)? {
        Privilege::Enough => {}
        // It said there what there was to say; only its result is ours to pass on.
        Privilege::RanElsewhere(status) => {
            return Ok(if status.success() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
    }
    let options = DemoOptions {
        keep,
        json: global.json,
    };
    let stop = stop_on_signal()?;
    let report = demo::run(options, &stop).map_err(failed)?;
    // The report, printed already, names each failure.
    Ok(if report.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Becomes true with the first SIGINT or SIGTERM; with the second the program ends at once.
fn stop_on_signal() -> Result<Arc<AtomicBool>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot wait for signals: {error}")))?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if seen.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(stop)
}

fn refused(why: String) -> Failure {
    match why.split_once('\n') {
        Some((what, next)) => Failure::new(what).next(next),
        None => Failure::new(why),
    }
}

fn failed(error: DemoError) -> Failure {
    let failure = Failure::new(&error);
    match error {
        DemoError::Interrupted => failure,
        DemoError::Lab(_) | DemoError::Io { .. } => {
            failure.next("nothing is left behind; try again with --log-level debug")
        }
    }
}
