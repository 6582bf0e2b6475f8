use std::collections::{BTreeMap, BTreeSet};

use shadowmesh_net::{ConnectivityTotals, MIGRATION_BUCKETS_MS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::admin::report::{MetricsReport, QueueReport, RelayingReport};

/// The value of every sample, by name and labels as written.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
            (name, value.parse().expect("a sample's value is a number"))
        })
        .collect()
}

/// Each family is announced once, before its samples, and these are named as its kind demands (OpenMetrics
/// 1.0 §5).
fn assert_well_formed(text: &str) {
    let body = text.strip_suffix("# EOF\n").expect("the end is marked");
    let mut families = BTreeSet::new();
    let mut last = ("", "");
    for line in body.lines() {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let (what, name, rest) = (words.next(), words.next().unwrap(), words.next());
            if name != last.0 {
                assert!(families.insert(name), "{name} comes in two places");
                last = (name, "");
            }
            if what == Some("TYPE") {
                last.1 = rest.expect("a family has a type");
            }
        } else {
            let series = line.rsplit_once(' ').expect("a sample has a value").0;
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = name
                .strip_prefix(last.0)
                .expect("samples follow their family");
            let suffixes: &[&str] = match last.1 {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_count", "_sum"],
                other => panic!("{other} is no type that is used here"),
            };
            assert!(suffixes.contains(&suffix), "{line}");
            let labels = labels.strip_suffix('}').expect("labels end");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once('=').expect("a label has a value");
                let is_word = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                assert!(
                    is_word(name) && value.starts_with('"') && value.ends_with('"'),
                    "{line}"
                );
            }
        }
    }
}

fn report() -> MetricsReport {
    let mut report = MetricsReport {
        connectivity: ConnectivityTotals {
            connections_direct: 3,
            connections_relay: 4,
            migrations: 5,
            migrations_failed: 6,
            fallbacks: 7,
            retries_succeeded: 8,
            retries_failed: 9,
            migration_us: 230_000,
            ..ConnectivityTotals::default()
        },
        paths: [2, 1, 0],
        relays: [2, 0],
        peers: [0, 1, 3, 0],
        drops: vec![("seal_forged", 11), ("no_route", 0)],
        queues: vec![QueueReport {
            name: "control",
            len: 1,
            limit: 1024,
        }],
        ..MetricsReport::default()
    };
    report.connectivity.migration_durations[0] = 3;
    report.connectivity.migration_durations[3] = 1;
    report.connectivity.migration_durations[10] = 1;
    report.sessions.down.insert("silent", 2);
    report.node.traffic.bytes_in = 1234;
    report.node.relaying = Some(RelayingReport {
        clients: 17,
        datagrams: 18,
        bytes: 19,
    });
    report.node.id = "sm1secret".into();
    report
}

#[test]
fn the_promised_names_and_labels_are_there_with_their_values() {
    let text = text::of(report());
    let samples = samples(&text);
    for (name, value) in [
        (r#"shadowmesh_p2p_connections_total{type="direct"}"#, 3.0),
        (r#"shadowmesh_p2p_connections_total{type="relay"}"#, 4.0),
        (r#"shadowmesh_p2p_migrations_total{status="success"}"#, 5.0),
        (r#"shadowmesh_p2p_migrations_total{status="failure"}"#, 6.0),
        ("shadowmesh_p2p_fallbacks_total", 7.0),
        (r#"shadowmesh_p2p_retries_total{status="success"}"#, 8.0),
        (r#"shadowmesh_p2p_retries_total{status="failure"}"#, 9.0),
        ("shadowmesh_p2p_migration_duration_seconds_sum", 0.23),
        ("shadowmesh_p2p_migration_duration_seconds_count", 5.0),
        (
            r#"shadowmesh_p2p_migration_duration_seconds_bucket{le="0.01"}"#,
            3.0,
        ),
        (
            r#"shadowmesh_p2p_migration_duration_seconds_bucket{le="10.0"}"#,
            4.0,
        ),
        (
            r#"shadowmesh_p2p_migration_duration_seconds_bucket{le="+Inf"}"#,
            5.0,
        ),
        (r#"shadowmesh_relays{state="up"}"#, 2.0),
        ("shadowmesh_relay_clients", 17.0),
        ("shadowmesh_relay_bytes_total", 19.0),
        (r#"shadowmesh_paths{type="relay"}"#, 1.0),
        (r#"shadowmesh_peers{state="up"}"#, 3.0),
        (r#"shadowmesh_drops_total{reason="seal_forged"}"#, 11.0),
        (r#"shadowmesh_drops_total{reason="no_route"}"#, 0.0),
        (r#"shadowmesh_sessions_down_total{reason="silent"}"#, 2.0),
        (r#"shadowmesh_traffic_bytes_total{direction="in"}"#, 1234.0),
        (r#"shadowmesh_queue_length{queue="control"}"#, 1.0),
        ("shadowmesh_rekeys_total", 0.0),
        ("shadowmesh_uptime_seconds", 0.0),
        ("shadowmesh_cpu_seconds_total", 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} in\n{text}");
    }
    assert_well_formed(&text);
    assert!(!text.contains("sm1"), "no PeerId is told: {text}");
}

#[test]
fn a_bucket_of_the_histogram_holds_all_that_took_no_longer() {
    let text = text::of(report());
    let name = "shadowmesh_p2p_migration_duration_seconds_bucket{le=\"";
    let buckets = samples(&text).into_iter().filter_map(|(series, count)| {
        let bound = series.strip_prefix(name)?.strip_suffix("\"}")?;
        Some((bound.parse::<f64>().expect("a bound is a number"), count))
    });
    let mut buckets: Vec<(f64, f64)> = buckets.collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(buckets.len(), MIGRATION_BUCKETS_MS.len() + 1);
    assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, 5.0)));
}

/// Sends these bytes and reads until the endpoint closes.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// An endpoint in front of an engine that counts how often it is asked.
async fn endpoint() -> (SocketAddr, oneshot::Sender<()>) {
    let (commands, mut inbox) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut report = report();
        while let Some(Command::Metrics { reply }) = inbox.recv().await {
            report.connectivity.fallbacks += 1;
            let _ = reply.send(Box::new(report.clone()));
        }
    });
    let any = "127.0.0.1:0".parse().unwrap();
    let server = MetricsServer::bind(any, commands).await.unwrap();
    let address = server.address().unwrap();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(server.run(stopped));
    (address, stop)
}

#[tokio::test]
async fn figures_are_read_by_get_and_nothing_else_is_there() {
    let (address, _stop) = endpoint().await;
    let ok = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(ok.starts_with("HTTP/1.1 200 "), "{ok}");
    assert!(ok.contains(OPENMETRICS), "{ok}");
    let body = ok.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(samples(body)["shadowmesh_p2p_fallbacks_total"], 8.0);

    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
        ("GET /etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\ncontent-length: 0\r\n\r\n",
            "405",
        ),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let answer = ask(address, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2 * REQUEST_LEN_MAX));
    let answer = ask(address, &long).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn many_readers_within_a_second_are_one_question_to_the_engine() {
    let (address, _stop) = endpoint().await;
    let get = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let first = ask(address, get).await;
    let again = ask(address, get).await;
    assert_eq!(
        first.split_once("\r\n\r\n").unwrap().1,
        again.split_once("\r\n\r\n").unwrap().1
    );
    tokio::time::sleep(FRESH).await;
    let later = ask(address, get).await;
    assert!(
        later.contains("shadowmesh_p2p_fallbacks_total 9"),
        "{later}"
    );
}

#[tokio::test]
async fn a_node_that_goes_down_is_told_as_such() {
    let (commands, inbox) = mpsc::channel(1);
    drop(inbox);
    let any = "127.0.0.1:0".parse().unwrap();
    let server = MetricsServer::bind(any, commands).await.unwrap();
    let address = server.address().unwrap();
    let (_stop, stopped) = oneshot::channel();
    tokio::spawn(server.run(stopped));
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}
