//! `shadowmesh version`

use serde::Serialize;

use super::args::Global;
use super::output;

/// What `version` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct VersionReport {
    /// Of this program; a running node says its own in `status`.
    version: &'static str,
}

pub fn run(global: &Global) {
    let report = VersionReport {
        version: env!("CARGO_PKG_VERSION"),
    };
    match global.json {
        true => output::json(&report),
        false => output::line(format!("shadowmesh {}", report.version)),
    }
}
