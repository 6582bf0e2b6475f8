//! `shadowmesh ping`

use serde::Serialize;

use super::args::{Global, PingArgs};
use super::failure::Failure;
use super::output::{self, rtt, short_id};
use super::peers::{path_text, problem_of};
use super::{no_answer, state_dir, unexpected};
use crate::admin::client;
use crate::admin::protocol::{ProbeReport, Request, Response};
use crate::bench::stats::Summary;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct PingReport {
    /// PeerId of the other side.
    id: String,
    /// Name of the configuration.
    name: Option<String>,
    /// Probes sent.
    sent: usize,
    /// Probes that came back.
    received: usize,
    /// `null` when nothing came back.
    rtt: Option<Summary>,
    /// In the order they ended.
    probes: Vec<ProbeReport>,
}

pub fn run(global: &Global, args: &PingArgs) -> Result<(), Failure> {
    let request = Request::Ping {
        peer: args.peer.clone(),
        count: args.count,
        interval_ms: args.interval.as_millis() as u64,
        timeout_ms: args.timeout.as_millis() as u64,
    };
    let mut answers = client::request(&state_dir(global)?, &request)?;
    let (id, name) = match answers.next().ok_or_else(no_answer)?? {
        Response::PingStart { id, name } => (id, name),
        Response::Error(report) => return Err(report.into()),
        other => return Err(unexpected(&other)),
    };
    let who = name.clone().unwrap_or_else(|| short_id(&id));
    let mut probes = Vec::new();
    for answer in answers {
        match answer? {
            Response::Probe(probe) => {
                if !args.quiet && !global.json {
                    output::print(&global.width().hang("", &probe_text(&who, &probe)));
                }
                probes.push(probe);
            }
            Response::Error(report) => return Err(report.into()),
            other => return Err(unexpected(&other)),
        }
    }
    finish(global, &who, report(id, name, probes))
}

fn report(id: String, name: Option<String>, probes: Vec<ProbeReport>) -> PingReport {
    let times: Vec<u64> = probes.iter().filter_map(|probe| probe.rtt_us).collect();
    PingReport {
        id,
        name,
        sent: probes.len(),
        received: times.len(),
        rtt: Summary::of(times),
        probes,
    }
}

fn finish(global: &Global, who: &str, report: PingReport) -> Result<(), Failure> {
    if global.json {
        output::json(&report);
    } else {
        output::print(&global.width().hang("", &summary_text(who, &report)));
    }
    match report.received {
        // The JSON object already says so; a second one would break its reader.
        0 if global.json => Err(Failure::silent()),
        0 => Err(nothing_came_back(who, problem_of(global, &report.id))),
        _ => Ok(()),
    }
}

fn nothing_came_back(who: &str, problem: Option<String>) -> Failure {
    let why = problem.map_or(String::new(), |problem| format!(": {problem}"));
    Failure::new(format!("no probe came back from {who}{why}")).next(
        "the node there must be up and list this node's PeerId, and UDP must get through one way",
    )
}

fn probe_text(who: &str, probe: &ProbeReport) -> String {
    match (probe.rtt_us, &probe.path) {
        (Some(us), path) => {
            let path = path
                .as_ref()
                .map_or(String::new(), |path| format!(" by {}", path_text(path)));
            format!("{who}: probe {} back in {}{path}", probe.sequence, rtt(us))
        }
        (None, _) => {
            let why = probe.lost.as_deref().unwrap_or("lost");
            format!("{who}: probe {} lost: {why}", probe.sequence)
        }
    }
}

fn summary_text(who: &str, report: &PingReport) -> String {
    let lost = report.sent - report.received;
    let percent = 100.0 * lost as f64 / report.sent.max(1) as f64;
    let mut text = format!(
        "{who}: {} sent, {} received, {percent:.1} % lost",
        report.sent, report.received
    );
    if let Some(times) = &report.rtt {
        text += &format!(
            "; min {}, p50 {}, p99 {}, max {}",
            rtt(times.min_us),
            rtt(times.p50_us),
            rtt(times.p99_us),
            rtt(times.max_us)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_is_lost() {
        let probe = |sequence, rtt_us| ProbeReport {
            sequence,
            rtt_us,
            path: None,
            lost: None,
        };
        let probes = vec![
            probe(1, Some(400)),
            probe(2, None),
            probe(3, Some(600)),
            probe(4, None),
        ];
        let report = report("sm1x".into(), None, probes);
        assert_eq!(
            summary_text("vps", &report),
            "vps: 4 sent, 2 received, 50.0 % lost; \
             min 0.400 ms, p50 0.400 ms, p99 0.600 ms, max 0.600 ms"
        );
    }
}
