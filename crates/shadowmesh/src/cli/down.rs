//! `shadowmesh down`

use std::time::{Duration, Instant};

use super::args::Global;
use super::failure::Failure;
use super::{ask, output, state_dir, unexpected};
use crate::admin::protocol::{Request, Response};
use crate::state::{StateDir, StateError};

/// The node says it stopped when its device is gone; its process ends soon after.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

pub fn run(global: &Global) -> Result<(), Failure> {
    match ask(global, &Request::Down)? {
        Response::Stopped => {}
        other => return Err(unexpected(&other)),
    }
    wait_until_gone(&StateDir::open(&state_dir(global)?)?)?;
    if global.json {
        output::json(&serde_json::json!({ "stopped": true }));
    } else {
        output::line("stopped");
    }
    Ok(())
}

/// Whoever says `down` may say `up` the next moment, so the directory must be free by then.
fn wait_until_gone(state: &StateDir) -> Result<(), Failure> {
    let deadline = Instant::now() + EXIT_TIMEOUT;
    loop {
        match state.lock() {
            Ok(_) => return Ok(()),
            Err(StateError::InUse { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
