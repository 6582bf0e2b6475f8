//! What `cargo xtask evidence speed` promises of a run: the bounds, and the lines that judge.
//!
//! A comparison with peers is worth something only if the strongest are there. Which those are was
//! measured; where one of them is missing, the line fails and says which.

use super::figures;
use super::results::Results;
use std::fmt;

/// The fastest, the second, and the best with UDP; without them "the best peer" means nothing.
const PEERS_NEEDED: &[&str] = &["wireguard-go", "quincy", "gotatun"];
const AES: &str = "shadowmesh";
const CHACHA: &str = "shadowmesh-chacha";
const BARE: &str = "veth";
/// A median of fewer says little.
const SAMPLES_MIN: usize = 5;

/// What is left of the bare cable's rate where that is the limit.
const CABLE_PART_MIN: f64 = 0.85;

/// One promise and what became of it.
pub struct Verdict {
    /// Whether it holds.
    pub pass: bool,
    /// The figures behind it; what misses its bound is marked.
    pub figure: String,
}

/// One part of a promise.
struct Part {
    pass: bool,
    text: String,
}

/// One TCP stream of both ciphers, its siblings, and the memory.
pub fn tcp(results: &Results) -> Verdict {
    let tcp = results.median(AES, "tcp_gbit_s");
    let part_of_tcp = |key: &str| {
        let value = results.median(AES, key);
        Some(value? / tcp?)
    };
    verdict(
        results,
        &[(AES, "tcp_gbit_s"), (CHACHA, "tcp_gbit_s")],
        vec![
            at_least("AES-256-GCM Gbit/s", tcp, 9.0),
            at_least(
                "per CPU-second",
                results.median(AES, "tcp_gbit_per_cpu_s"),
                5.5,
            ),
            at_least("ChaCha20 Gbit/s", results.median(CHACHA, "tcp_gbit_s"), 5.5),
            at_least(
                "per CPU-second",
                results.median(CHACHA, "tcp_gbit_per_cpu_s"),
                3.3,
            ),
            at_least("reverse, of forward", part_of_tcp("reverse_gbit_s"), 0.9),
            more_than("four streams, of one", part_of_tcp("four_gbit_s"), 1.0),
            at_least("inner IPv6, of IPv4", part_of_tcp("ipv6_gbit_s"), 0.9),
            less_than("memory MB", results.median(AES, "memory_mb"), 64.0),
        ],
    )
}

/// The multiple of the best peer, in speed and in cost.
pub fn peers(results: &Results) -> Verdict {
    let mut parts = needed(results);
    parts.push(multiple(results, "tcp_gbit_s", 2.6));
    parts.push(multiple(results, "tcp_gbit_per_cpu_s", 2.6));
    verdict(results, &[(AES, "tcp_gbit_s")], parts)
}

/// What the tunnel adds to a ping, idle and beside a stream.
pub fn ping(results: &Results) -> Verdict {
    let added = |key: &str| Some(results.median(AES, key)? - results.median(BARE, key)?);
    let mut parts = needed(results);
    parts.extend([
        less_than("idle added p50 us", added("ping_p50_us"), 60.0),
        less_than("p99 us", added("ping_p99_us"), 250.0),
        below_best(results, "ping_p50_us"),
        below_best(results, "ping_p99_us"),
        less_than("beside a stream added p50 us", added("load_p50_us"), 1000.0),
        less_than("p99 us", added("load_p99_us"), 4000.0),
    ]);
    verdict(
        results,
        &[(AES, "ping_p50_us"), (AES, "load_p50_us")],
        parts,
    )
}

/// Datagrams one by one. At a pace the bare cable itself ends, with the same programs, before twice the
/// best peer: where that is so, the tunnel must come close to the cable, and [`udp_gso`] has the
/// multiple.
pub fn udp(results: &Results) -> Verdict {
    let paced = multiple_or_cable(results, "paced_gbit_s", 2.0);
    let keys = [
        "paced_gbit_s",
        "flood_1300_gbit_s",
        "flood_64_kpacket_s",
        "paced_80_loss_percent",
    ];
    datagrams(results, paced, keys)
}

/// Datagrams in super-packets, as QUIC libraries hand them over.
pub fn udp_gso(results: &Results) -> Verdict {
    let paced = multiple(results, "paced_gso_gbit_s", 2.0);
    let keys = [
        "paced_gso_gbit_s",
        "flood_1300_gso_gbit_s",
        "flood_64_gso_kpacket_s",
        "paced_gso_80_loss_percent",
    ];
    datagrams(results, paced, keys)
}

/// At a pace, as judged already, and without one.
fn datagrams(results: &Results, paced: Part, keys: [&str; 4]) -> Verdict {
    let [paced_key, flood_1300, flood_64, loss_at_80] = keys;
    let loss = results.median(AES, loss_at_80);
    let mut parts = needed(results);
    parts.extend([
        paced,
        multiple(results, flood_1300, 2.0),
        multiple(results, flood_64, 2.0),
        at_most("loss at 80 %, %", loss, 0.0),
    ]);
    verdict(results, &[(AES, paced_key), (AES, flood_64)], parts)
}

fn verdict(results: &Results, medians: &[(&str, &str)], mut parts: Vec<Part>) -> Verdict {
    for (name, key) in medians {
        let row = results.row(name);
        let count = row
            .and_then(|row| row.samples.get(*key))
            .map_or(0, Vec::len);
        if count < SAMPLES_MIN {
            parts.push(Part {
                pass: false,
                text: format!("{name} has {count} samples of {key}, {SAMPLES_MIN} are needed"),
            });
        }
    }
    let shown: Vec<String> = parts.iter().map(Part::to_string).collect();
    Verdict {
        pass: parts.iter().all(|part| part.pass),
        figure: shown.join(", "),
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.text,
            if self.pass { "" } else { " (MISSED)" }
        )
    }
}

fn bound(
    what: &str,
    value: Option<f64>,
    sign: &str,
    limit: f64,
    holds: fn(f64, f64) -> bool,
) -> Part {
    match value {
        Some(value) => Part {
            pass: holds(value, limit),
            text: format!("{what} {value:.2} ({sign} {limit})"),
        },
        None => Part {
            pass: false,
            text: format!("{what} not measured"),
        },
    }
}

fn at_least(what: &str, value: Option<f64>, limit: f64) -> Part {
    bound(what, value, ">=", limit, |value, limit| value >= limit)
}

fn more_than(what: &str, value: Option<f64>, limit: f64) -> Part {
    bound(what, value, ">", limit, |value, limit| value > limit)
}

fn less_than(what: &str, value: Option<f64>, limit: f64) -> Part {
    bound(what, value, "<", limit, |value, limit| value < limit)
}

fn at_most(what: &str, value: Option<f64>, limit: f64) -> Part {
    bound(what, value, "<=", limit, |value, limit| value <= limit)
}

/// Ours as a multiple of the best peer's rate.
fn multiple(results: &Results, key: &str, limit: f64) -> Part {
    let figure = figures::find(key).expect("a figure of the list");
    let best = results.best_peer(figure);
    let name = best.map_or("no peer", |(row, _)| row.name.as_str());
    let ratio = results.median(AES, key).zip(best);
    let ratio = ratio.map(|(ours, (_, best))| ours / best.max(f64::MIN_POSITIVE));
    at_least(&format!("{}: times {name}", figure.title), ratio, limit)
}

/// As [`multiple`]; or [`CABLE_PART_MIN`] of what the bare cable does, where that is less than the
/// multiple asks for.
fn multiple_or_cable(results: &Results, key: &str, limit: f64) -> Part {
    let figure = figures::find(key).expect("a figure of the list");
    let cable = results.median(BARE, key);
    match (cable, results.best_peer(figure)) {
        (Some(cable), Some((row, best))) if cable < best * limit => {
            let what = format!(
                "{}: the cable does {:.2} times {}; of the cable",
                figure.title,
                cable / best.max(f64::MIN_POSITIVE),
                row.name
            );
            let part = results.median(AES, key).map(|ours| ours / cable);
            at_least(&what, part, CABLE_PART_MIN)
        }
        _ => multiple(results, key, limit),
    }
}

/// Ours below the best peer's delay.
fn below_best(results: &Results, key: &str) -> Part {
    let figure = figures::find(key).expect("a figure of the list");
    let ours = results.median(AES, key);
    match (ours, results.best_peer(figure)) {
        (Some(ours), Some((row, best))) => less_than(
            &format!("{}, {} has", figure.title, row.name),
            Some(ours),
            best,
        ),
        _ => less_than(figure.title, None, 0.0),
    }
}

/// A failed part for each peer that should be there and has no figures.
fn needed(results: &Results) -> Vec<Part> {
    let missing = PEERS_NEEDED.iter().filter_map(|name| {
        let row = results.row(name);
        if row.is_some_and(|row| row.median("tcp_gbit_s").is_some()) {
            return None;
        }
        let why = row.and_then(|row| row.notes.first());
        let why = why.map_or("was not part of the run", String::as_str);
        Some(Part {
            pass: false,
            text: format!("{name}: {why}"),
        })
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::super::contenders::Rank;
    use super::super::results::example;
    use super::*;

    const OURS: &[(&str, f64)] = &[
        ("tcp_gbit_s", 12.0),
        ("tcp_gbit_per_cpu_s", 6.0),
        ("reverse_gbit_s", 11.5),
        ("four_gbit_s", 12.5),
        ("ipv6_gbit_s", 11.8),
        ("memory_mb", 20.0),
        ("ping_p50_us", 60.0),
        ("ping_p99_us", 120.0),
        ("load_p50_us", 600.0),
        ("load_p99_us", 2000.0),
        ("flood_1300_gbit_s", 2.0),
        ("flood_64_kpacket_s", 200.0),
        ("paced_gbit_s", 2.0),
        ("paced_80_loss_percent", 0.0),
        ("flood_1300_gso_gbit_s", 8.0),
        ("flood_64_gso_kpacket_s", 900.0),
        ("paced_gso_gbit_s", 7.0),
        ("paced_gso_80_loss_percent", 0.0),
    ];
    const PEER: &[(&str, f64)] = &[
        ("tcp_gbit_s", 3.0),
        ("tcp_gbit_per_cpu_s", 1.8),
        ("ping_p50_us", 120.0),
        ("ping_p99_us", 300.0),
        ("flood_1300_gbit_s", 0.5),
        ("flood_64_kpacket_s", 60.0),
        ("paced_gbit_s", 0.7),
        ("flood_1300_gso_gbit_s", 2.0),
        ("flood_64_gso_kpacket_s", 300.0),
        ("paced_gso_gbit_s", 2.0),
    ];

    fn good() -> Results {
        let bare = [
            ("ping_p50_us", 20.0),
            ("ping_p99_us", 40.0),
            ("load_p50_us", 20.0),
            ("load_p99_us", 40.0),
        ];
        let chacha = [("tcp_gbit_s", 7.0), ("tcp_gbit_per_cpu_s", 4.0)];
        example(&[
            ("veth", Rank::Bare, &bare),
            ("shadowmesh", Rank::Ours, OURS),
            ("shadowmesh-chacha", Rank::Ours, &chacha),
            ("wireguard-go", Rank::Peer, PEER),
            ("quincy", Rank::Peer, PEER),
            ("gotatun", Rank::Peer, PEER),
        ])
    }

    fn with(key: &str, value: f64) -> Results {
        let mut results = good();
        results.rows[1].samples.insert(key.into(), vec![value; 5]);
        results
    }

    #[test]
    fn a_good_run_keeps_every_promise() {
        for judge in [tcp, peers, ping, udp, udp_gso] {
            let verdict = judge(&good());
            assert!(verdict.pass, "{}", verdict.figure);
        }
    }

    #[test]
    fn every_bound_can_fail() {
        for (judge, key, bad) in [
            (tcp as fn(&Results) -> Verdict, "tcp_gbit_s", 8.9),
            (tcp, "tcp_gbit_per_cpu_s", 5.4),
            (tcp, "reverse_gbit_s", 10.7),
            (tcp, "four_gbit_s", 12.0),
            (tcp, "ipv6_gbit_s", 10.7),
            (tcp, "memory_mb", 64.0),
            (peers, "tcp_gbit_s", 7.7),
            (peers, "tcp_gbit_per_cpu_s", 4.6),
            (ping, "ping_p50_us", 80.0),
            (ping, "ping_p99_us", 301.0),
            (ping, "load_p50_us", 1020.0),
            (ping, "load_p99_us", 4040.0),
            (udp, "paced_gbit_s", 1.3),
            (udp, "flood_1300_gbit_s", 0.9),
            (udp, "flood_64_kpacket_s", 119.0),
            (udp, "paced_80_loss_percent", 0.001),
            (udp_gso, "paced_gso_gbit_s", 3.9),
            (udp_gso, "flood_1300_gso_gbit_s", 3.9),
            (udp_gso, "flood_64_gso_kpacket_s", 599.0),
            (udp_gso, "paced_gso_80_loss_percent", 0.001),
        ] {
            let verdict = judge(&with(key, bad));
            assert!(!verdict.pass && verdict.figure.contains("MISSED"), "{key}");
        }
    }

    #[test]
    fn where_the_cable_ends_before_the_multiple_the_tunnel_must_come_close_to_it() {
        let mut results = good();
        let mut cable = |gbit_s: f64| {
            let samples = &mut results.rows[0].samples;
            samples.insert("paced_gbit_s".into(), vec![gbit_s; 5]);
            results.rows[1]
                .samples
                .insert("paced_gbit_s".into(), vec![1.1; 5]);
            udp(&results)
        };
        // Twice the peer's 0.7 is 1.4.
        assert!(cable(1.29).pass);
        assert!(!cable(1.3).pass);
        assert!(!cable(1.41).pass, "the cable would allow twice the peer");
    }

    #[test]
    fn a_strong_peer_that_is_missing_fails_the_comparison_and_says_so() {
        let mut results = good();
        results.rows[4].samples.clear();
        results.rows[4].notes.push("not installed".into());
        for judge in [peers, ping, udp, udp_gso] {
            let verdict = judge(&results);
            assert!(!verdict.pass && verdict.figure.contains("quincy: not installed"));
        }
        assert!(tcp(&results).pass);
    }

    #[test]
    fn too_few_rounds_prove_nothing() {
        let mut results = good();
        results.rows[1]
            .samples
            .insert("tcp_gbit_s".into(), vec![12.0; 4]);
        assert!(!tcp(&results).pass);
    }
}
