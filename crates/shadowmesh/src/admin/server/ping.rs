//! The answers to `ping`: probes at their times, each reported when it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use shadowmesh_wire::PeerId;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use super::connection::Connection;
use crate::admin::protocol::{ProbeReport, Response};
use crate::admin::{Command, PingFailure, PingReply};

/// How long a probe waits before it asks again whether there is a session now.
pub(super) const SESSION_POLL: Duration = Duration::from_millis(20);
/// Most probes in flight of one `ping`; later ones wait.
const PROBES_IN_FLIGHT_MAX: usize = 256;

impl Connection {
    /// Sends the probes and writes how each ended.
    pub(super) async fn ping(
        mut self,
        peer: PeerId,
        name: Option<String>,
        ping: Ping,
    ) -> io::Result<()> {
        self.write(&Response::PingStart {
            id: peer.to_string(),
            name,
        })
        .await?;
        let (report, mut reports) = mpsc::channel(PROBES_IN_FLIGHT_MAX);
        let pacer = tokio::spawn(pace(self.commands.clone(), peer, ping, report));
        let mut result = Ok(());
        while let Some(report) = reports.recv().await {
            result = self.write(&Response::Probe(report)).await;
            if result.is_err() {
                pacer.abort();
                break;
            }
        }
        result
    }
}

/// How to ping.
#[derive(Clone, Copy)]
pub(super) struct Ping {
    pub(super) count: u32,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
}

/// Starts the probes at their times. Each waits for its reply by itself, so a slow one does not
/// delay the next.
async fn pace(
    commands: mpsc::Sender<Command>,
    peer: PeerId,
    ping: Ping,
    reports: mpsc::Sender<ProbeReport>,
) {
    let mut ticks = interval(ping.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let in_flight = Arc::new(Semaphore::new(PROBES_IN_FLIGHT_MAX));
    for sequence in 1..=ping.count {
        ticks.tick().await;
        let place = in_flight
            .clone()
            .acquire_owned()
            .await
            .expect("never closed");
        if reports.is_closed() {
            return;
        }
        let (commands, reports) = (commands.clone(), reports.clone());
        tokio::spawn(async move {
            let outcome = probe(&commands, peer, Instant::now() + ping.timeout).await;
            let _ = reports.send(probe_report(sequence, outcome)).await;
            drop(place);
        });
    }
}

/// One probe; while there is no session yet, asks again until the deadline.
async fn probe(
    commands: &mpsc::Sender<Command>,
    peer: PeerId,
    deadline: Instant,
) -> Result<PingReply, String> {
    loop {
        let (reply, answer) = oneshot::channel();
        if commands.send(Command::Ping { peer, reply }).await.is_err() {
            return Err("the node is going down".into());
        }
        match timeout_at(deadline, answer).await {
            Err(_) => return Err("no reply in time".into()),
            Ok(Err(_)) => return Err("the session ended".into()),
            Ok(Ok(Ok(reply))) => return Ok(reply),
            Ok(Ok(Err(PingFailure::NoSession))) if Instant::now() + SESSION_POLL < deadline => {
                sleep_until(Instant::now() + SESSION_POLL).await;
            }
            Ok(Ok(Err(failure))) => return Err(failure.to_string()),
        }
    }
}

fn probe_report(sequence: u32, outcome: Result<PingReply, String>) -> ProbeReport {
    match outcome {
        Ok(PingReply { rtt, path }) => ProbeReport {
            sequence,
            rtt_us: Some(rtt.as_micros() as u64),
            path: Some(path),
            lost: None,
        },
        Err(why) => ProbeReport {
            sequence,
            rtt_us: None,
            path: None,
            lost: Some(why),
        },
    }
}
