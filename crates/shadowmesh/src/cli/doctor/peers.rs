//! What the facts say of each peer: its way, and why it is not a better one.

use std::net::SocketAddr;

use super::Finding;
use super::facts::{Facts, UdpAnswer};
use super::network::{Mapping, way};
use super::verdict::{Evidence, verdict};
use crate::admin::report::{
    AddressKind, CallerReport, DoctorReport, PathKind, PeerReport, PeerState, WayReport, WayState,
};
use crate::cli::output::{age, duration, short_id};

/// Limit: addresses of this machine in the block for others.
const ADDRESSES_MAX: usize = 2;

/// One for each peer, in the order of the configuration.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    match &facts.node {
        Some(report) => {
            let mapping = Mapping::of(report);
            let ways = report.ways.iter().map(Vec::as_slice);
            let ways = ways.chain(std::iter::repeat(&[][..]));
            let peers = report.peers.iter().zip(ways);
            peers
                .map(|(peer, ways)| finding(facts, report, peer, ways, &mapping))
                .collect()
        }
        None => offline(facts),
    }
}

/// Without the node: whether anybody answers where the configuration says.
fn offline(facts: &Facts) -> Vec<Finding> {
    let block = own_block(facts);
    let peers = facts.config.peers.iter().map(|peer| {
        let id = peer.id.to_string();
        let name = peer.name.clone().unwrap_or_else(|| short_id(&id));
        let evidence = Evidence {
            cause: None,
            problem: None,
            seen_age_ms: None,
            asked: asked(facts, &name),
            elsewhere: elsewhere(facts, &name),
            caller: None,
            has_address: !peer.address.is_empty() || peer.web.is_some(),
            relay_up: false,
            node_runs: false,
            own_block: &block,
            name,
        };
        told(&evidence)
    });
    peers.collect()
}

fn asked<'f>(facts: &'f Facts, name: &str) -> Vec<&'f UdpAnswer> {
    let all = facts.udp.iter();
    all.filter(|answer| answer.whom == name && !answer.is_guess)
        .collect()
}

fn elsewhere(facts: &Facts, name: &str) -> Option<SocketAddr> {
    let mut guesses = facts
        .udp
        .iter()
        .filter(|answer| answer.whom == name && answer.is_guess);
    Some(guesses.find(|answer| answer.took.is_some())?.address)
}

fn told(evidence: &Evidence<'_>) -> Finding {
    let verdict = verdict(evidence);
    let found = Finding::new(evidence.name.clone(), verdict.level, verdict.says).next(verdict.next);
    match verdict.block {
        Some(block) => found.block(block),
        None => found,
    }
}

/// The block of this machine for the configuration of another, with where it listens.
fn own_block(facts: &Facts) -> String {
    let id = facts
        .own
        .as_deref()
        .unwrap_or("what `shadowmesh id` prints here");
    let mut block = format!("[[peer]]\nid = \"{id}\"\n");
    let candidates = facts.node.iter().flat_map(|report| &report.node.candidates);
    for candidate in candidates
        .filter(|own| own.kind == AddressKind::Host)
        .take(ADDRESSES_MAX)
    {
        match block.contains("address") {
            true => block += &format!(", \"{}\"", candidate.address),
            false => block += &format!("address = [\"{}\"", candidate.address),
        }
    }
    if block.contains("address") {
        block.push(']');
    }
    block
}

fn finding(
    facts: &Facts,
    report: &DoctorReport,
    peer: &PeerReport,
    ways: &[WayReport],
    mapping: &Mapping,
) -> Finding {
    let name = peer.name.clone().unwrap_or_else(|| short_id(&peer.id));
    if let Some(copied) = peer.copied {
        return Finding::bad(name, copied.says()).next(copied.next());
    }
    let Some(path) = &peer.path else {
        return unconnected(facts, report, peer, name);
    };
    if peer.state == PeerState::Silent {
        let since = peer
            .seen_age_ms
            .map_or(String::new(), |ms| format!(" for {}", age(ms)));
        let says = format!("silent: nothing has come back{since}, {}", way(path));
        let next = "is that machine on, and does its node run? it is called again as soon as it is given up";
        return Finding::bad(name, says).next(next);
    }
    match path.kind {
        PathKind::Direct => Finding::ok(name, way(path)),
        PathKind::Relay => {
            let why = why_not_direct(facts, ways);
            let found = Finding::note(name, format!("{}; not direct: {why}", way(path)));
            match advice(mapping, ways) {
                Some(advice) => found.next(advice),
                None => found,
            }
        }
        PathKind::Web => {
            let why = why_not_direct(facts, ways);
            Finding::note(name, format!("{}; not by UDP: {why}", way(path)))
                .next("if this network blocks UDP, nothing: this is what streams are for")
        }
    }
}

/// In words, what became of the addresses at which it could be reached straight.
fn why_not_direct(facts: &Facts, ways: &[WayReport]) -> String {
    let direct = ways.iter().filter(|way| way.path.kind == PathKind::Direct);
    let count = |state| direct.clone().filter(|way| way.state == state).count();
    let retry = duration(facts.config.paths.retry_interval);
    let [untried, unanswered, proven, broken] = [
        WayState::Untried,
        WayState::Unanswered,
        WayState::Proven,
        WayState::Broken,
    ]
    .map(count);
    let addresses = |n: usize| match n {
        1 => "1 address".to_owned(),
        n => format!("{n} addresses"),
    };
    if proven > 0 {
        return format!(
            "{} of it answer, and it moves there shortly",
            addresses(proven)
        );
    }
    if untried > 0 {
        return format!("{} of it are being tried", addresses(untried));
    }
    match (unanswered, broken) {
        (0, 0) => "neither side knows an address of the other yet".into(),
        (0, broken) => format!(
            "{} of it answered once and do no more; tried again every {retry}",
            addresses(broken)
        ),
        (unanswered, 0) => format!(
            "{} of it were tried and none answers; tried again every {retry}",
            addresses(unanswered)
        ),
        (unanswered, broken) => format!(
            "{} of it do not answer and {broken} answered once; tried again every {retry}",
            addresses(unanswered)
        ),
    }
}

/// What could bring a direct path.
fn advice(mapping: &Mapping, ways: &[WayReport]) -> Option<String> {
    let tried = ways.iter().any(|way| {
        way.path.kind == PathKind::Direct
            && matches!(way.state, WayState::Unanswered | WayState::Broken)
    });
    if !tried {
        return None;
    }
    Some(match mapping {
        Mapping::Open(_) => "this side can be reached: let UDP 4433 in through its firewall; the NAT is on \
                             the other side, where `shadowmesh doctor` tells more"
            .into(),
        Mapping::Ports(_) | Mapping::Addresses => {
            "one side must be reachable: forward UDP 4433 or switch on UPnP here, or IPv6 on both sides"
                .into()
        }
        _ => "ask `shadowmesh doctor` on the other side too; forwarding UDP 4433 on one of the two helps, \
              and so does IPv6 on both"
            .into(),
    })
}

fn unconnected(facts: &Facts, report: &DoctorReport, peer: &PeerReport, name: String) -> Finding {
    let configured = facts.config.peers.iter();
    let mut configured = configured.filter(|own| own.id.to_string() == peer.id);
    let configured = configured.next();
    let mut relays = report.node.relays.iter();
    let block = own_block(facts);
    let asked = asked(facts, &name);
    let is_there = |caller: &&CallerReport| match asked.is_empty() {
        // Nobody knows where it is: it may be anybody who never came as itself.
        true => peer.seen_age_ms.is_none(),
        false => asked
            .iter()
            .any(|answer| answer.address.ip() == caller.address.ip()),
    };
    let evidence = Evidence {
        cause: peer.cause,
        problem: peer.problem.as_deref(),
        seen_age_ms: peer.seen_age_ms,
        elsewhere: elsewhere(facts, &name),
        caller: report.node.refused_callers.iter().find(is_there),
        has_address: configured.is_some_and(|own| !own.address.is_empty() || own.web.is_some()),
        relay_up: relays.any(|relay| relay.state == PeerState::Up),
        node_runs: true,
        own_block: &block,
        name,
        asked,
    };
    told(&evidence)
}
