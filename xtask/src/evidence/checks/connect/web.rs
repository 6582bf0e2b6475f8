//! Where UDP does not pass.

use super::Measured;
use crate::evidence::checks::program;
use serde_json::json;
use shadowmesh::lab::LabNode;
use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh::lab::web::{Passes, WebLab};
use std::time::Duration;

/// What is promised, from the start of the process to the first answer.
const CONNECTED_MAX: Duration = Duration::from_secs(3);
/// How long is waited at most, to tell late from never.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Starts of each kind.
const STARTS: usize = 3;
/// One direction's transfer.
const TRANSFER: Duration = Duration::from_secs(3);

/// Connects where UDP is dropped, and where there is nothing but an HTTP proxy; then shows how much the
/// stream carries.
pub fn run() -> Result<Measured, String> {
    let (mut blocked, mut proxied, mut rates) = (Vec::new(), Vec::new(), [0.0; 2]);
    for start in 0..STARTS {
        let Joined { took, lab, .. } = &bring_up(Passes::NoUdp)?;
        blocked.push(*took);
        if start + 1 == STARTS {
            rates = [
                rate(&lab.client, &lab.server)?,
                rate(&lab.server, &lab.client)?,
            ];
        }
    }
    for _ in 0..STARTS {
        proxied.push(bring_up(Passes::Nothing)?.took);
    }
    let slowest = |times: &[Duration]| times.iter().max().copied().unwrap_or(WAIT_MAX);
    let (blocked, proxied) = (slowest(&blocked), slowest(&proxied));
    Ok(Measured {
        pass: blocked <= CONNECTED_MAX && proxied <= CONNECTED_MAX,
        figure: format!(
            "UDP dropped: {blocked:.2?}, only a proxy: {proxied:.2?} (slowest of {STARTS}); one TCP stream \
             ({}) {:.2} Gbit/s out, {:.2} back",
            bulk::CONGESTION,
            rates[0],
            rates[1],
        ),
        values: json!({
            "udp_dropped_s": blocked.as_secs_f64(),
            "only_proxy_s": proxied.as_secs_f64(),
            "gbit_s": rates,
        }),
    })
}

/// A laboratory whose nodes are joined by a stream.
struct Joined {
    /// How long that took.
    took: Duration,
    lab: WebLab,
    _directory: tempfile::TempDir,
}

/// Builds and starts one.
fn bring_up(passes: Passes) -> Result<Joined, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let directory = tempfile::tempdir().map_err(|error| text(&error))?;
    let lab = WebLab::build(&program::path(), directory.path(), passes);
    let mut lab = lab.map_err(|error| text(&error))?;
    let more = match passes {
        Passes::Nothing => {
            let proxy = lab.start_proxy().map_err(|error| text(&error))?;
            format!("[web]\nproxy = \"http://{}\"\n", proxy.address)
        }
        Passes::NoUdp | Passes::All => String::new(),
    };
    let took = lab
        .bring_up(&more, WAIT_MAX)
        .map_err(|error| text(&error))?;
    let kinds = lab.kinds();
    if kinds.iter().any(|kind| kind.as_deref() != Some("web")) {
        return Err(format!("reached, but not by a stream: {kinds:?}"));
    }
    Ok(Joined {
        took,
        lab,
        _directory: directory,
    })
}

fn rate(from: &LabNode, to: &LabNode) -> Result<f64, String> {
    let target = to.overlay_v6().into();
    let report = bulk::transfer(&from.netns, &to.netns, target, Amount::Time(TRANSFER));
    Ok(report.map_err(|error| error.to_string())?.gbit_s())
}
