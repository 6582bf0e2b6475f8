//! `shadowmesh down`

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::Global;
use super::failure::Failure;
use super::{ask, output, state_dir, unexpected};
use crate::admin::protocol::{Request, Response};
use crate::state;

/// The node says it stopped when its device is gone; its process ends soon after.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What `down` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct DownReport {
    /// The node is gone, with its device and routes.
    stopped: bool,
}

pub fn run(global: &Global) -> Result<(), Failure> {
    match ask(global, &Request::Down)? {
        Response::Stopped => {}
        other => return Err(unexpected(&other)),
    }
    wait_until_gone(&state_dir(global)?)?;
    if global.json {
        output::json(&DownReport { stopped: true });
    } else {
        output::line("stopped");
    }
    Ok(())
}

/// Whoever says `down` may say `up` the next moment, so the directory must be free by then.
fn wait_until_gone(state_dir: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + EXIT_TIMEOUT;
    while state::is_in_use(state_dir) {
        if Instant::now() >= deadline {
            let what = format!("the node of {} does not end", state_dir.display());
            return Err(Failure::new(what).next("look at its log"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
