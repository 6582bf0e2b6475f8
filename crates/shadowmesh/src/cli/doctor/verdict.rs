//! Why a peer has no session: one verdict, by the strongest evidence there is.
//!
//! The table below is the whole decision. What the peer itself said goes before what a datagram met on its way,
//! and that before what can only be supposed; the first rule that holds is the verdict, so no two lines can
//! contradict each other.

use std::net::SocketAddr;

use super::Level;
use super::facts::UdpAnswer;
use crate::admin::report::{CallerReport, PeerCause};
use crate::cli::output::{age, short_id};

/// Everything known of a peer without a session.
pub struct Evidence<'a> {
    /// What people call it.
    pub name: String,
    /// What the last attempt came to, by the running node; `None`: nothing yet, or no node.
    pub cause: Option<PeerCause>,
    /// The same in words.
    pub problem: Option<&'a str>,
    /// Since it was last heard.
    pub seen_age_ms: Option<u64>,
    /// Its addresses in the configuration, and what came of a question to each.
    pub asked: Vec<&'a UdpAnswer>,
    /// Another port of one of these at which a node answers.
    pub elsewhere: Option<SocketAddr>,
    /// Who was refused here and may be this peer.
    pub caller: Option<&'a CallerReport>,
    /// Whether it has an address or `web` in the configuration.
    pub has_address: bool,
    /// Whether a relay of ours is connected.
    pub relay_up: bool,
    /// Whether a node runs here.
    pub node_runs: bool,
    /// The `[[peer]]` block of this machine for the file of the other.
    pub own_block: &'a str,
}

/// What is so, and what to do.
pub struct Verdict {
    pub level: Level,
    pub says: String,
    pub next: String,
    pub block: Option<String>,
}

type Rule = fn(&Evidence<'_>) -> Option<Verdict>;

/// The strongest evidence first.
const RULES: [Rule; 11] = [
    refused,
    another_id_calls,
    stopped,
    said,
    another_id_answers,
    another_port,
    no_program,
    no_machine,
    no_answer,
    waits,
    supposed,
];

pub fn verdict(evidence: &Evidence<'_>) -> Verdict {
    let mut found = RULES.iter().filter_map(|rule| rule(evidence));
    found
        .next()
        .unwrap_or_else(|| bad("not connected", "ask again in some seconds"))
}

fn bad(says: impl Into<String>, next: impl Into<String>) -> Verdict {
    Verdict {
        level: Level::Bad,
        says: says.into(),
        next: next.into(),
        block: None,
    }
}

fn with_block(verdict: Verdict, block: &str) -> Verdict {
    Verdict {
        block: Some(block.into()),
        ..verdict
    }
}

/// Its own word.
fn refused(evidence: &Evidence<'_>) -> Option<Verdict> {
    (evidence.cause? == PeerCause::Refused).then(|| {
        let says = "it refuses this machine: no [[peer]] in its configuration has this PeerId";
        let next = "add this block to the configuration there, or correct the one that means this machine, and \
                    start its node again:";
        with_block(bad(says, next), evidence.own_block)
    })
}

/// A caller from where it is, or one that may be it because nobody knows where it is.
fn another_id_calls(evidence: &Evidence<'_>) -> Option<Verdict> {
    let caller = evidence.caller?;
    let from = caller.address.ip();
    let says = format!(
        "a node at {from} calls this one as {}, which is refused: that is not the PeerId of {} in this configuration",
        short_id(&caller.id),
        evidence.name
    );
    let next = format!(
        "if that is {}, write this in its [[peer]] here, and start this node again:",
        evidence.name
    );
    Some(with_block(
        bad(says, next),
        &format!("id = \"{}\"", caller.id),
    ))
}

/// Its last word.
fn stopped(evidence: &Evidence<'_>) -> Option<Verdict> {
    (evidence.cause? == PeerCause::Stopped).then(|| {
        let ago = evidence
            .seen_age_ms
            .map_or(String::new(), |ms| format!(" {} ago", age(ms)));
        bad(
            format!("stopped there: its node said goodbye{ago}"),
            "start it there (`sudo shadowmesh up`, or `sudo systemctl start shadowmesh`)",
        )
    })
}

/// Another reason that it gave or that we found, whose words name the remedy.
fn said(evidence: &Evidence<'_>) -> Option<Verdict> {
    (evidence.cause? == PeerCause::Said).then(|| {
        bad(
            evidence.problem.unwrap_or("not connected"),
            "`shadowmesh doctor` there tells the other half",
        )
    })
}

fn another_id_answers(evidence: &Evidence<'_>) -> Option<Verdict> {
    let answer = evidence.asked.iter().find(|answer| answer.took.is_some())?;
    if !evidence.node_runs {
        return Some(Verdict {
            level: Level::Note,
            says: format!("a node answers at {}", answer.address),
            next: "start the node here: only it can tell whether that is this peer".into(),
            block: None,
        });
    }
    if evidence.cause.is_none() {
        return Some(Verdict {
            level: Level::Note,
            says: format!(
                "a node answers at {}, and the first call is under way",
                answer.address
            ),
            next: "ask again in some seconds".into(),
            block: None,
        });
    }
    Some(bad(
        format!(
            "a node answers at {}, but not to this PeerId",
            answer.address
        ),
        format!(
            "write the id that `shadowmesh id` prints on that machine into the [[peer]] of {} here",
            evidence.name
        ),
    ))
}

fn another_port(evidence: &Evidence<'_>) -> Option<Verdict> {
    let elsewhere = evidence.elsewhere?;
    let asked = evidence.asked.first()?.address;
    Some(with_block(
        bad(
            format!("nothing answers at {asked}, but a node answers at {elsewhere}"),
            format!(
                "write that in the [[peer]] of {} here, and start this node again:",
                evidence.name
            ),
        ),
        &format!("address = [\"{elsewhere}\"]"),
    ))
}

fn no_program(evidence: &Evidence<'_>) -> Option<Verdict> {
    let closed = evidence.asked.iter().find(|answer| answer.is_closed)?;
    let (ip, port) = (closed.address.ip(), closed.address.port());
    Some(bad(
        format!("the machine {ip} is there, but no program has UDP port {port}"),
        format!(
            "start the node there (`sudo shadowmesh up`); if it runs, `shadowmesh status` there says under `listen` \
             which port to write here instead of {port}"
        ),
    ))
}

fn no_machine(evidence: &Evidence<'_>) -> Option<Verdict> {
    let gone = evidence.asked.iter().find(|answer| answer.is_unreachable)?;
    Some(bad(
        format!("no machine answers at {}", gone.address.ip()),
        format!(
            "switch it on and connect it, or correct `address` in the [[peer]] of {} here",
            evidence.name
        ),
    ))
}

fn no_answer(evidence: &Evidence<'_>) -> Option<Verdict> {
    let asked: Vec<String> = evidence
        .asked
        .iter()
        .map(|answer| answer.address.to_string())
        .collect();
    let port = evidence.asked.first()?.address.port();
    Some(bad(
        format!("nothing comes back from {}", asked.join(", ")),
        format!(
            "is that machine on, does its node run (`shadowmesh status` there), and does the firewall there let UDP \
             {port} in?{}",
            match evidence.relay_up {
                true => " is it on the same relay?",
                false => " a relay that both use would reach it at once",
            }
        ),
    ))
}

fn waits(evidence: &Evidence<'_>) -> Option<Verdict> {
    if evidence.has_address {
        return None;
    }
    let (says, next) = match evidence.relay_up {
        true => (
            "not met over the relay, and this configuration has no address of it",
            "is it running, and does it use the same [[relay.use]]? its configuration must hold:",
        ),
        false => (
            "waits for its call: this configuration has no address of it",
            "start it there; its configuration must hold this (or give it `address` here, or add the same \
             [[relay.use]] on both sides):",
        ),
    };
    Some(Verdict {
        level: Level::Note,
        ..with_block(bad(says, next), evidence.own_block)
    })
}

fn supposed(evidence: &Evidence<'_>) -> Option<Verdict> {
    let why = evidence.problem.unwrap_or("nothing was sent to it yet");
    Some(Verdict {
        level: match evidence.problem {
            Some(_) => Level::Bad,
            None => Level::Note,
        },
        ..bad(
            format!("not connected: {why}"),
            format!("shadowmesh ping {}", evidence.name),
        )
    })
}
