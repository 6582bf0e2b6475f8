//! The server with an engine that answers what the tests look for.

use super::*;
use crate::admin::protocol::{ProbeReport, Request, Response};
use crate::admin::report::{NodeReport, PathKind, PathReport};
use crate::admin::{BenchFailure, COMMAND_QUEUE_MAX, PingFailure, PingReply, client, socket_path};
use crate::config;

/// An engine that answers what the tests look for, on a thread of its own like the real one.
fn serve(state_dir: &Path) -> std::thread::JoinHandle<()> {
    let config = Arc::new(config::parse(Path::new("t.toml"), &config::tests::two_peers()).unwrap());
    let state_dir = state_dir.to_path_buf();
    let (ready, bound) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (commands, inbox) = mpsc::channel(COMMAND_QUEUE_MAX);
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
            Command::Doctor { reply } => drop(reply.send(Box::default())),
            Command::Retry { reply } => drop(reply.send(())),
            Command::Metrics { reply } => drop(reply.send(Box::default())),
            Command::Ping { reply, .. } => {
                pings += 1;
                let path = PathReport {
                    kind: PathKind::Direct,
                    remote: Some("192.0.2.1:1".parse().unwrap()),
                    relay: None,
                    relay_name: None,
                    local: None,
                    rtt_us: None,
                    mtu: None,
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
    let socket = socket_path(state_dir);
    assert_eq!(
        fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let status = ask(state_dir, &Request::Status);
    assert!(matches!(&status[..], [Response::Status(report)] if report.peers_total == 2));

    assert_eq!(ask(state_dir, &Request::Retry), [Response::Retrying]);

    let refused = ask(
        state_dir,
        &Request::BenchPrepare {
            peer: "vps".into(),
            duration_ms: 1,
        },
    );
    assert!(matches!(&refused[..], [Response::Error(error)] if error.error.contains("refused")));

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
    assert!(matches!(&answers[0], Response::PingStart { name: Some(name), .. } if name == "vps"));
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
    let socket = socket_path(directory.path());
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream.write_all(b"hello\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("not a request"), "{text}");
    ask(directory.path(), &Request::Down);
    thread.join().unwrap();
}
