//! What the facts say of each peer: its way, and why it is not a better one.

use super::Finding;
use super::facts::Facts;
use super::network::{Mapping, way};
use crate::admin::report::{DoctorReport, PathKind, PeerReport, PeerState, WayReport, WayState};
use crate::cli::output::{duration, short_id};

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
    let peers = facts.config.peers.iter().map(|peer| {
        let name = peer.name.clone();
        let name = name.unwrap_or_else(|| short_id(&peer.id.to_string()));
        if peer.address.is_empty() {
            return Finding::note(
                name,
                "has no address here: it must call us, or be met over a relay",
            );
        }
        let mut answers = facts.udp.iter().filter(|q| q.whom == name);
        match answers.find(|answer| answer.took.is_some()) {
            Some(answer) => Finding::good(name, format!("a node answers at {}", answer.address)),
            None => Finding::bad(name, "no node answers at its addresses")
                .next("is it running, and does its firewall let UDP 4433 in?"),
        }
    });
    peers.collect()
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
    match path.kind {
        PathKind::Direct => Finding::good(name, way(path)),
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
    let has_address = configured.any(|own| !own.address.is_empty() || own.web.is_some());
    let relayed = report.node.relays.iter();
    let relay_up = relayed
        .into_iter()
        .any(|relay| relay.state == PeerState::Up);
    let why = peer.problem.as_deref();
    match (has_address, relay_up, peer.state) {
        (false, false, _) => Finding::note(name, why.unwrap_or("waits for its call"))
            .next("give it `address` here or there, or add the same [[relay.use]] on both sides"),
        (true, _, PeerState::Idle) if why.is_none() => {
            Finding::note(name, "not connected, because nothing was sent to it yet").next(format!(
                "shadowmesh ping {}",
                peer.name.as_deref().unwrap_or(&peer.id)
            ))
        }
        (_, true, _) => Finding::bad(
            name,
            format!("not connected: {}", why.unwrap_or("no answer")),
        )
        .next(
            "is it running, and does it use the same relay? does its file hold this node's PeerId?",
        ),
        (true, false, _) => Finding::bad(
            name,
            format!("not connected: {}", why.unwrap_or("no answer")),
        )
        .next(
            "is it running, is the address right, and does its firewall let UDP 4433 in? a relay \
                   that both use would reach it at once",
        ),
    }
}
