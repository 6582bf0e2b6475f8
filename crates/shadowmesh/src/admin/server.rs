//! The node's side of the admin socket.
//!
//! One task for each connection, at most `CONNECTIONS_MAX`; each reads one request, sends
//! [`Command`]s to the engine and writes the answers. A connection that hangs up ends its task at the
//! next write, so nothing is left behind by an impatient user.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};

use super::protocol::{
    ErrorReport, PING_COUNT_MAX, ProbeReport, REQUEST_LEN_MAX, Request, Response,
};
use super::{BenchFailure, Command, PingFailure, PingReply};
use crate::config::{Config, PeerConfig};
use shadowmesh_wire::PeerId;

/// Verbs served at once; the socket is private, so this only bounds accidents.
const CONNECTIONS_MAX: usize = 32;
/// A verb sends its request at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The engine answers between two batches; longer means it hangs.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stopping node lets verbs read their last answer.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Asking a peer may include connecting to it.
const BENCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest measurement a peer is asked for.
const BENCH_DURATION_MAX: Duration = Duration::from_secs(120);
/// How long a probe waits before it asks again whether there is a session now.
const SESSION_POLL: Duration = Duration::from_millis(20);
/// Most probes in flight of one `ping`; later ones wait.
const PROBES_IN_FLIGHT_MAX: usize = 256;

/// The bound socket; the file goes away with it.
#[derive(Debug)]
pub struct AdminServer {
    listener: UnixListener,
    path: PathBuf,
    config: Arc<Config>,
    commands: mpsc::Sender<Command>,
}

impl AdminServer {
    /// Binds the socket in the state directory, over one left by a dead node: the caller holds the
    /// lock of the directory. Must run inside a tokio runtime.
    pub fn bind(
        state_dir: &Path,
        config: Arc<Config>,
        commands: mpsc::Sender<Command>,
    ) -> io::Result<Self> {
        let path = super::socket_path(state_dir);
        // Between bind and chmod anyone who may enter the directory could connect; so it is bound
        // inside a private directory and moved out when its mode is right.
        let private = state_dir.join(format!(".admin.{}", std::process::id()));
        let _ = fs::remove_dir_all(&private);
        DirBuilder::new().mode(0o700).create(&private)?;
        let bound = bind_private(&private.join("s"), &path);
        let _ = fs::remove_dir_all(&private);
        Ok(Self {
            listener: bound?,
            path,
            config,
            commands,
        })
    }

    /// Serves until told to stop; answers under way are still given.
    pub async fn run(self, mut stop: oneshot::Receiver<()>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = places.clone().acquire_owned().await.expect("never closed");
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = &mut stop => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to be closed.
                    tracing::warn!(%error, "cannot accept on the admin socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let connection = Connection {
                stream: BufReader::new(stream),
                config: self.config.clone(),
                commands: self.commands.clone(),
            };
            tokio::spawn(async move {
                if let Err(error) = connection.serve().await {
                    tracing::debug!(%error, "admin connection ended early");
                }
                drop(place);
            });
        }
        let all = places.acquire_many(CONNECTIONS_MAX as u32);
        let _ = timeout(LAST_ANSWER_TIMEOUT, all).await;
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn bind_private(private: &Path, public: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(private)?;
    fs::set_permissions(private, Permissions::from_mode(0o600))?;
    fs::rename(private, public)?;
    Ok(listener)
}

struct Connection {
    stream: BufReader<UnixStream>,
    config: Arc<Config>,
    commands: mpsc::Sender<Command>,
}

impl Connection {
    async fn serve(mut self) -> io::Result<()> {
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

    async fn write(&mut self, response: &Response) -> io::Result<()> {
        let mut line = serde_json::to_vec(response).expect("answers are plain data");
        line.push(b'\n');
        self.stream.write_all(&line).await
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
                        address,
                        peer: id.to_string(),
                        name,
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

    async fn ping(mut self, peer: PeerId, name: Option<String>, ping: Ping) -> io::Result<()> {
        self.write(&Response::PingStart {
            peer: peer.to_string(),
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
struct Ping {
    count: u32,
    interval: Duration,
    timeout: Duration,
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

#[cfg(test)]
mod tests {
    use super::super::{client, report::*};
    use super::*;
    use crate::config;

    /// An engine that answers what the tests look for, on a thread of its own like the real one.
    fn serve(state_dir: &Path) -> std::thread::JoinHandle<()> {
        let config =
            Arc::new(config::parse(Path::new("t.toml"), &config::tests::two_peers()).unwrap());
        let state_dir = state_dir.to_path_buf();
        let (ready, bound) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (commands, inbox) = mpsc::channel(super::super::COMMAND_QUEUE_MAX);
                let server = AdminServer::bind(&state_dir, config, commands).unwrap();
                let (stop_server, stop) = oneshot::channel();
                let server = tokio::spawn(server.run(stop));
                ready.send(()).unwrap();
                answer_until_down(inbox).await;
                stop_server.send(()).unwrap();
                server.await.unwrap();
            });
        });
        bound.recv().unwrap();
        thread
    }

    async fn answer_until_down(mut inbox: mpsc::Receiver<Command>) {
        let mut pings = 0;
        while let Some(command) = inbox.recv().await {
            match command {
                Command::Status { reply } => {
                    let _ = reply.send(NodeReport {
                        peers_total: 2,
                        ..Default::default()
                    });
                }
                Command::Peers { reply } => drop(reply.send(Vec::new())),
                Command::Ping { reply, .. } => {
                    pings += 1;
                    let path = PathReport {
                        kind: PathKind::Direct,
                        remote: "192.0.2.1:1".parse().unwrap(),
                        local: None,
                        rtt_us: None,
                    };
                    let _ = match pings {
                        1 => reply.send(Err(PingFailure::NoSession)),
                        // One probe is never answered.
                        3 => {
                            std::mem::forget(reply);
                            continue;
                        }
                        _ => reply.send(Ok(PingReply {
                            rtt: Duration::from_micros(70),
                            path,
                        })),
                    };
                }
                Command::BenchPrepare { reply, .. } => {
                    let _ = reply.send(Err(BenchFailure::Refused));
                }
                Command::Down { reply } => {
                    let _ = reply.send(());
                    return;
                }
            }
        }
    }

    fn ask(state_dir: &Path, request: &Request) -> Vec<Response> {
        client::request(state_dir, request)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn verbs_reach_the_engine_and_the_socket_is_private_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path();
        let thread = serve(state_dir);
        let socket = super::super::socket_path(state_dir);
        assert_eq!(
            fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
            0o600
        );

        let status = ask(state_dir, &Request::Status);
        assert!(matches!(&status[..], [Response::Status(report)] if report.peers_total == 2));

        let refused = ask(
            state_dir,
            &Request::BenchPrepare {
                peer: "vps".into(),
                duration_ms: 1,
            },
        );
        assert!(
            matches!(&refused[..], [Response::Error(error)] if error.error.contains("refused"))
        );

        assert_eq!(ask(state_dir, &Request::Down), [Response::Stopped]);
        thread.join().unwrap();
        assert!(!socket.exists());
        assert_eq!(fs::read_dir(state_dir).unwrap().count(), 0);
        let error = client::request(state_dir, &Request::Status).err().unwrap();
        assert!(matches!(error, client::ClientError::NotRunning { .. }));
    }

    #[test]
    fn ping_waits_for_a_session_and_reports_what_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let thread = serve(directory.path());
        let ping = Request::Ping {
            peer: "vps".into(),
            count: 3,
            interval_ms: 40,
            timeout_ms: 200,
        };
        let answers = ask(directory.path(), &ping);
        assert!(
            matches!(&answers[0], Response::PingStart { name: Some(name), .. } if name == "vps")
        );
        let probes: Vec<&ProbeReport> = answers[1..]
            .iter()
            .map(|answer| match answer {
                Response::Probe(probe) => probe,
                other => panic!("{other:?}"),
            })
            .collect();
        let mut sequences: Vec<u32> = probes.iter().map(|probe| probe.sequence).collect();
        sequences.sort();
        assert_eq!(sequences, [1, 2, 3]);
        assert_eq!(
            probes
                .iter()
                .filter(|probe| probe.rtt_us == Some(70))
                .count(),
            2
        );
        let lost: Vec<_> = probes
            .iter()
            .filter_map(|probe| probe.lost.as_deref())
            .collect();
        assert_eq!(lost, ["no reply in time"]);
        ask(directory.path(), &Request::Down);
        thread.join().unwrap();
    }

    #[test]
    fn an_unknown_peer_and_a_line_that_is_no_request_are_answered_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let thread = serve(directory.path());
        let wrong = Request::BenchPrepare {
            peer: "vpss".into(),
            duration_ms: 1,
        };
        match &ask(directory.path(), &wrong)[..] {
            [Response::Error(error)] => {
                assert!(error.error.contains("did you mean `vps`?"), "{error:?}");
                assert!(error.next.contains("laptop"), "{error:?}");
            }
            other => panic!("{other:?}"),
        }
        use std::io::{Read, Write};
        let socket = super::super::socket_path(directory.path());
        let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
        stream.write_all(b"hello\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.contains("not a request"), "{text}");
        ask(directory.path(), &Request::Down);
        thread.join().unwrap();
    }
}
