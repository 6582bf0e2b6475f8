//! `shadowmesh doctor`: what the network allows, which way each peer is reached, and why not a better one.
//!
//! Facts are gathered first (`facts`): what the running node knows, and what can be tried without it.
//! What they mean is decided apart from that (`network`, `peers`), so that every situation can be put to
//! a test. Each finding says what is so, and where it is not as it should be, what to do next.

mod facts;
mod host;
mod network;
mod peers;
mod verdict;

use serde::Serialize;

use super::args::{DoctorArgs, Global};
use super::failure::Failure;
use super::layout::Width;
use super::output;

pub fn run(global: &Global, args: &DoctorArgs) -> Result<(), Failure> {
    let facts = facts::gather(global, args.retry)?;
    let network = network::findings(&facts);
    let peers = peers::findings(&facts);
    let is_well = !network
        .iter()
        .chain(&peers)
        .any(|finding| finding.level == Level::Bad);
    if global.json {
        output::json(&DoctorOutput {
            ok: is_well,
            node_running: facts.node.is_some(),
            network,
            peers,
        });
    } else {
        output::line("network");
        let width = global.width();
        output::print(&text(&network, width));
        let only_relays = facts
            .node
            .as_ref()
            .is_some_and(|node| node.node.only_relays());
        if !only_relays {
            output::line("\npeers");
            output::print(&text(&peers, width));
        }
    }
    match is_well {
        true => Ok(()),
        false => Err(Failure::silent()),
    }
}

/// What `doctor` prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct DoctorOutput {
    /// Nothing is bad.
    ok: bool,
    /// Whether a node runs with this state directory.
    node_running: bool,
    /// What was found of the machine and the network.
    network: Vec<Finding>,
    /// A verdict for each peer, in the order of the configuration.
    peers: Vec<Finding>,
}

/// One thing found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Finding {
    /// What was looked at: a check, or a peer's name.
    about: String,
    /// How it is.
    level: Level,
    /// What was found.
    says: String,
    /// What to do about it.
    next: Option<String>,
    /// Lines of a configuration that belong to it.
    block: Option<String>,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, and could be better; or nobody knows.
    Note,
    /// It does not work.
    Bad,
}

impl Finding {
    fn new(about: impl Into<String>, level: Level, says: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            level,
            says: says.into(),
            next: None,
            block: None,
        }
    }

    fn ok(about: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(about, Level::Ok, says)
    }

    fn note(about: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(about, Level::Note, says)
    }

    fn bad(about: impl Into<String>, says: impl Into<String>) -> Self {
        Self::new(about, Level::Bad, says)
    }

    fn block(mut self, block: impl Into<String>) -> Self {
        self.block = Some(block.into());
        self
    }

    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// A line for each finding, with the advice below it.
fn text(findings: &[Finding], width: Width) -> String {
    if findings.is_empty() {
        return "  none: add a [[peer]]; `shadowmesh id` on the other machine prints it\n".into();
    }
    let names = findings.iter().map(|finding| finding.about.chars().count());
    let column = names.max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Ok => "ok  ",
            Level::Note => "note",
            Level::Bad => "BAD ",
        };
        let about = &finding.about;
        text += &width.hang(&format!("  {mark}  {about:<column$}  "), &finding.says);
        if let Some(next) = &finding.next {
            text += &width.hang(&format!("        {:<column$}  next: ", ""), next);
        }
        for line in finding.block.iter().flat_map(|block| block.lines()) {
            text += &format!("        {line}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests;
