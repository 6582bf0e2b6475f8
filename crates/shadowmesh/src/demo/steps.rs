//! What the demo does, one function a step, in the order of [`all`].

use std::thread;
use std::time::{Duration, Instant};

use shadowmesh_io::lab::EchoReport;

use super::report::{DemoReport, PairReport};
use super::{DemoError, Stage};
use crate::lab::bulk::{self, Amount};
use crate::lab::{Family, Lab, LabNode, wait_until};

/// How long the first contact of all pairs may take; a loaded small machine needs a few seconds.
const REACHABLE_MAX: Duration = Duration::from_secs(20);
/// Echo requests for each pair, and the time between them.
const PINGS: u32 = 200;
const PING_INTERVAL: Duration = Duration::from_millis(2);
/// One timed stream, and one whose content is checked.
const STREAM_TIME: Duration = Duration::from_secs(1);
const CHECKED_BYTES: u64 = 64 << 20;
/// The shortest interval the program allows, so that visitors need not wait for minutes.
const REKEY_INTERVAL: Duration = Duration::from_secs(10);
/// Pings run this long, at a request every [`REKEY_PING_INTERVAL`]: longer than one interval, so
/// every pair changes its keys at least once.
const REKEY_STEP: Duration = Duration::from_secs(13);
const REKEY_PING_INTERVAL: Duration = Duration::from_millis(2);
/// Traffic towards the killed node goes on this long before it starts again.
const DOWN_TIME: Duration = Duration::from_millis(500);
/// When the demo stops waiting for the killed node.
const RECOVERY_MAX: Duration = Duration::from_secs(20);

/// All steps. Failed checks are collected in the report; only what makes going on senseless is an
/// error.
pub(super) fn all(lab: &mut Lab, stage: &Stage<'_>) -> Result<DemoReport, DemoError> {
    let mut report = DemoReport::default();
    connect(lab, stage)?;
    ping_pairs(lab, stage, &mut report)?;
    move_data(lab, stage, &mut report)?;
    rekey_under_traffic(lab, stage, &mut report)?;
    kill_and_recover(lab, stage, &mut report)?;
    Ok(report)
}

fn connect(lab: &mut Lab, stage: &Stage<'_>) -> Result<(), DemoError> {
    stage.say("Starting a node on each; post-quantum handshakes between all of them")?;
    for node in &mut lab.nodes {
        node.settings.rekey_interval = REKEY_INTERVAL;
    }
    lab.configure_full_mesh(Family::V4)
        .map_err(DemoError::from)?;
    lab.start_all()?;
    let started = Instant::now();
    lab.wait_until_reachable(REACHABLE_MAX)
        .inspect_err(|_| show_logs(lab))?;
    let ms = started.elapsed().as_millis();
    stage.say(&format!(
        "Every node reaches every other, over IPv4 and IPv6, {ms} ms after the start"
    ))
}

fn ping_pairs(lab: &Lab, stage: &Stage<'_>, report: &mut DemoReport) -> Result<(), DemoError> {
    stage.say(&format!("Pinging every pair, {PINGS} times each"))?;
    for (from, to) in lab.pairs() {
        let echo = ping(from, to, PINGS, PING_INTERVAL)?;
        if echo.received < echo.sent {
            report.failures.push(format!(
                "{} of {} pings from {} to {} were not answered",
                echo.sent - echo.received,
                echo.sent,
                from.name,
                to.name
            ));
        }
        report.pairs.push(PairReport {
            from: from.name.clone(),
            to: to.name.clone(),
            sent: echo.sent,
            received: echo.received,
            rtt_p50_us: quantile_us(&echo, 0.50),
            rtt_p99_us: quantile_us(&echo, 0.99),
            gbit_s: None,
        });
    }
    Ok(())
}

fn move_data(lab: &Lab, stage: &Stage<'_>, report: &mut DemoReport) -> Result<(), DemoError> {
    stage.say(
        "Moving data over every pair: one TCP stream for a second, then 64 MiB with a checksum",
    )?;
    for ((from, to), pair) in lab.pairs().zip(&mut report.pairs) {
        let move_over = |amount| {
            bulk::transfer(&from.netns, &to.netns, to.overlay_v4().into(), amount).map_err(
                |source| DemoError::Io {
                    doing: "move data through the tunnel",
                    source,
                },
            )
        };
        pair.gbit_s = Some(move_over(Amount::Time(STREAM_TIME))?.gbit_s());
        let checked = move_over(Amount::Bytes(CHECKED_BYTES))?;
        if !checked.intact {
            report.failures.push(format!(
                "what {} sent is not what {} received",
                from.name, to.name
            ));
        }
    }
    Ok(())
}

fn rekey_under_traffic(
    lab: &Lab,
    stage: &Stage<'_>,
    report: &mut DemoReport,
) -> Result<(), DemoError> {
    stage.say(&format!(
        "Changing keys while pings run, for {} seconds",
        REKEY_STEP.as_secs()
    ))?;
    let before = epochs(lab)?;
    let count = REKEY_STEP.as_millis() / REKEY_PING_INTERVAL.as_millis();
    let count = u32::try_from(count).expect("some thousands");
    let echoes: Vec<_> = thread::scope(|scope| {
        // One direction of a pair carries both: the answers go the other way.
        let runs: Vec<_> = lab
            .pairs()
            .filter(|(from, to)| from.name < to.name)
            .map(|(from, to)| scope.spawn(move || ping(from, to, count, REKEY_PING_INTERVAL)))
            .collect();
        let joined = runs
            .into_iter()
            .map(|run| run.join().expect("pings do not panic"));
        joined.collect()
    });
    for echo in echoes {
        let echo = echo?;
        report.lost_in_rekey += u64::from(echo.sent - echo.received);
    }
    let after = epochs(lab)?;
    // Both ends of a session count the same epochs, hence half.
    report.rekeys = after.saturating_sub(before) / 2;
    if report.rekeys == 0 {
        report.failures.push("no keys were changed".into());
    }
    if report.lost_in_rekey > 0 {
        report.failures.push(format!(
            "{} pings were lost while keys changed",
            report.lost_in_rekey
        ));
    }
    Ok(())
}

fn kill_and_recover(
    lab: &mut Lab,
    stage: &Stage<'_>,
    report: &mut DemoReport,
) -> Result<(), DemoError> {
    let (others, last) = lab.nodes.split_at_mut(super::NODES - 1);
    let (observer, killed) = (&others[0], &mut last[0]);
    stage.say(&format!("Killing {} without warning", killed.name))?;
    let target = killed.overlay_v4().into();
    killed.kill().map_err(|source| DemoError::Io {
        doing: "kill a node",
        source,
    })?;
    if observer.ping_until_answered(target, DOWN_TIME).is_some() {
        report
            .failures
            .push(format!("{} answers although it is dead", killed.name));
    }
    stage.say(&format!("Starting {} again", killed.name))?;
    killed.start()?;
    match observer.ping_until_answered(target, RECOVERY_MAX) {
        Some(time) => report.recovery_ms = u64::try_from(time.as_millis()).ok(),
        None => report.failures.push(format!(
            "{} did not reach {} within {} s of its restart",
            observer.name,
            killed.name,
            RECOVERY_MAX.as_secs()
        )),
    }
    if !wait_until(RECOVERY_MAX, || killed.is_running()) {
        report
            .failures
            .push(format!("{} ended by itself", killed.name));
    }
    Ok(())
}

fn ping(
    from: &LabNode,
    to: &LabNode,
    count: u32,
    interval: Duration,
) -> Result<EchoReport, DemoError> {
    from.ping(to.overlay_v4().into(), count, interval)
        .map_err(|source| DemoError::Io {
            doing: "send pings",
            source,
        })
}

fn quantile_us(echo: &EchoReport, part: f64) -> Option<u64> {
    echo.quantile(part)
        .and_then(|rtt| u64::try_from(rtt.as_micros()).ok())
}

/// The epochs of all sessions of all nodes, summed.
fn epochs(lab: &Lab) -> Result<u64, DemoError> {
    let mut sum = 0;
    for node in &lab.nodes {
        let peers = node.query("peers", &[])?;
        let listed = peers.as_array().or_else(|| peers["peers"].as_array());
        let each = listed.into_iter().flatten();
        sum += each.filter_map(|peer| peer["epoch"].as_u64()).sum::<u64>();
    }
    Ok(sum)
}

/// What the nodes said, for a person who must find out why they did not meet.
fn show_logs(lab: &Lab) {
    for node in &lab.nodes {
        eprintln!("--- log of {} ---\n{}", node.name, node.log());
    }
}
