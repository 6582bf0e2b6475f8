//! One connection: a request line, and what it is answered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use shadowmesh_wire::PeerId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::ping::{Ping, SESSION_POLL};
use crate::admin::protocol::{ErrorReport, PING_COUNT_MAX, REQUEST_LEN_MAX, Request, Response};
use crate::admin::{BenchFailure, Command};
use crate::config::{Config, PeerConfig};

/// A verb sends its request at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The engine answers between two batches; longer means it hangs.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(5);
/// Asking a peer may include connecting to it.
const BENCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit: how long a verb may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest measurement a peer is asked for.
const BENCH_DURATION_MAX: Duration = Duration::from_secs(120);

/// One verb's connection.
pub(super) struct Connection {
    pub(super) stream: BufReader<UnixStream>,
    pub(super) config: Arc<Config>,
    pub(super) commands: mpsc::Sender<Command>,
}

impl Connection {
    /// Reads the request and answers it.
    pub(super) async fn serve(mut self) -> io::Result<()> {
        let request = timeout(REQUEST_TIMEOUT, self.read())
            .await
            .map_err(io::Error::from)??;
        let answer = match request {
            Ok(Request::Ping {
                peer,
                count,
                interval_ms,
                timeout_ms,
            }) => {
                let ping = Ping {
                    count: count.min(PING_COUNT_MAX),
                    // tokio's timers have a resolution of 1 ms and refuse a period of zero.
                    interval: Duration::from_millis(interval_ms.max(1)),
                    timeout: Duration::from_millis(timeout_ms),
                };
                match self.find(&peer) {
                    Ok((id, name)) => return self.ping(id, name, ping).await,
                    Err(error) => Err(error),
                }
            }
            Ok(Request::Status) => self
                .ask(ENGINE_TIMEOUT, |reply| Command::Status { reply })
                .await
                .map(|report| Response::Status(Box::new(report))),
            Ok(Request::Peers) => self
                .ask(ENGINE_TIMEOUT, |reply| Command::Peers { reply })
                .await
                .map(Response::Peers),
            Ok(Request::Doctor) => self
                .ask(ENGINE_TIMEOUT, |reply| Command::Doctor { reply })
                .await
                .map(Response::Doctor),
            Ok(Request::Retry) => self
                .ask(ENGINE_TIMEOUT, |reply| Command::Retry { reply })
                .await
                .map(|()| Response::Retrying),
            Ok(Request::BenchPrepare { peer, duration_ms }) => {
                self.bench_prepare(&peer, Duration::from_millis(duration_ms))
                    .await
            }
            Ok(Request::Down) => self
                .ask(ENGINE_TIMEOUT, |reply| Command::Down { reply })
                .await
                .map(|()| Response::Stopped),
            Err(error) => Err(ErrorReport {
                error: format!("not a request this node understands: {error}"),
                next: "use the same version of shadowmesh as the running node".into(),
            }),
        };
        self.write(&answer.unwrap_or_else(Response::Error)).await
    }

    async fn read(&mut self) -> io::Result<Result<Request, serde_json::Error>> {
        let mut line = Vec::new();
        (&mut self.stream)
            .take(REQUEST_LEN_MAX)
            .read_until(b'\n', &mut line)
            .await?;
        Ok(serde_json::from_slice(&line))
    }

    pub(super) async fn write(&mut self, response: &Response) -> io::Result<()> {
        let mut line = serde_json::to_vec(response).expect("answers are plain data");
        line.push(b'\n');
        // Whoever does not read its answer must not keep a place for ever.
        timeout(WRITE_TIMEOUT, self.stream.write_all(&line))
            .await
            .map_err(io::Error::from)?
    }

    /// One command to the engine and its reply.
    async fn ask<T>(
        &self,
        patience: Duration,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ErrorReport> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands
                .send(command(reply))
                .await
                .map_err(|_| going_down())?;
            answer.await.map_err(|_| going_down())
        };
        timeout(patience, asked).await.unwrap_or_else(|_| {
            Err(ErrorReport {
                error: format!("the node did not answer within {} s", patience.as_secs()),
                next: "look at its log".into(),
            })
        })
    }

    fn find(&self, wanted: &str) -> Result<(PeerId, Option<String>), ErrorReport> {
        match self.config.find_peer(wanted) {
            Some(PeerConfig { id, name, .. }) => Ok((*id, name.clone())),
            None => Err(unknown_peer(&self.config, wanted)),
        }
    }

    async fn bench_prepare(&self, peer: &str, duration: Duration) -> Result<Response, ErrorReport> {
        let (id, name) = self.find(peer)?;
        let duration = duration.min(BENCH_DURATION_MAX);
        let deadline = Instant::now() + BENCH_TIMEOUT;
        loop {
            let asked = self
                .ask(BENCH_TIMEOUT, |reply| Command::BenchPrepare {
                    peer: id,
                    duration,
                    reply,
                })
                .await?;
            match asked {
                Ok(address) => {
                    return Ok(Response::BenchReady {
                        id: id.to_string(),
                        name,
                        address,
                    });
                }
                // The question made the engine connect.
                Err(BenchFailure::NoSession) if Instant::now() < deadline => {
                    tokio::time::sleep(SESSION_POLL).await;
                }
                Err(failure) => {
                    return Err(ErrorReport {
                        error: format!("cannot measure with {peer}: {failure}"),
                        next: format!("see `shadowmesh peers`, or `shadowmesh ping {peer}`"),
                    });
                }
            }
        }
    }
}

fn going_down() -> ErrorReport {
    ErrorReport {
        error: "the node is going down".into(),
        next: "start it again with `shadowmesh up`".into(),
    }
}

fn unknown_peer(config: &Config, wanted: &str) -> ErrorReport {
    let names: Vec<String> = config
        .peers
        .iter()
        .map(|peer| peer.name.clone().unwrap_or_else(|| peer.id.to_string()))
        .collect();
    let hint = crate::config::nearest(wanted, names.iter().map(String::as_str))
        .map_or(String::new(), |best| format!("; did you mean `{best}`?"));
    ErrorReport {
        error: format!("`{wanted}` is not a peer of this node{hint}"),
        next: match names.as_slice() {
            [] => "add a [[peer]] to the configuration".into(),
            _ => format!(
                "use a name, PeerId or overlay address; peers: {}",
                names.join(", ")
            ),
        },
    }
}
