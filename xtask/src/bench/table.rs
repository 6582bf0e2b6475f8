//! The results for a person: a table for a terminal, or the tables of docs/PERFORMANCE.md.

use super::figures::{self, Better, Figure};
use super::results::{Results, Row};
use std::fmt::Write as _;

/// The row that is compared with the others.
const OURS: &str = "shadowmesh";
/// The row that nothing can beat.
const BARE: &str = "veth";

/// What stands together in a table of docs/PERFORMANCE.md: streams, datagrams one by one, datagrams in
/// super-packets, delay.
const TABLES: &[&[&str]] = &[
    &[
        "tcp_gbit_s",
        "tcp_gbit_per_cpu_s",
        "reverse_gbit_s",
        "four_gbit_s",
        "ipv6_gbit_s",
        "memory_mb",
    ],
    &[
        "flood_1300_gbit_s",
        "flood_1300_loss_percent",
        "flood_64_kpacket_s",
        "flood_64_loss_percent",
        "paced_gbit_s",
        "paced_80_loss_percent",
    ],
    &[
        "flood_1300_gso_gbit_s",
        "flood_1300_gso_loss_percent",
        "flood_64_gso_kpacket_s",
        "flood_64_gso_loss_percent",
        "paced_gso_gbit_s",
        "paced_gso_80_loss_percent",
    ],
    &[
        "ping_p50_us",
        "ping_p99_us",
        "load_p50_us",
        "load_p99_us",
        "load_gbit_s",
    ],
];

/// Medians, one row for each contender, then ours beside the best of the others.
pub fn terminal(results: &Results) -> String {
    let mut text = String::new();
    for (key, value) in &results.machine {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{key}: {value}");
    }
    let shown: Vec<&Figure> = shown(results);
    let _ = write!(text, "\n{:<18}", "median");
    for figure in &shown {
        let _ = write!(text, "{:>11}", figure.column);
    }
    for row in measured(results) {
        let _ = write!(text, "\n{:<18}", row.name);
        for figure in &shown {
            let _ = write!(text, "{:>11}", cell(row, figure));
        }
    }
    text.push_str("\n\n");
    for line in ratios(results) {
        let _ = writeln!(
            text,
            "{:<66} {:>9}   best peer {:>9} {:<14} {:>7}   bare {:>9} {:>7}",
            line.title, line.ours, line.best, line.best_name, line.ratio, line.bare, line.share
        );
    }
    text.push('\n');
    for row in &results.rows {
        for note in &row.notes {
            let _ = writeln!(text, "{}: {note}", row.name);
        }
    }
    text
}

/// The tables that stand between the markers of docs/PERFORMANCE.md.
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    let facts = results.machine.iter();
    let facts: Vec<String> = facts.map(|(key, value)| format!("{key} {value}")).collect();
    let _ = writeln!(text, "{}.\n", facts.join("; "));
    for keys in TABLES {
        let shown: Vec<&Figure> = shown(results)
            .into_iter()
            .filter(|figure| keys.contains(&figure.key))
            .collect();
        if shown.is_empty() {
            continue;
        }
        let titles = shown.iter().map(|figure| figure.title);
        table_head(&mut text, std::iter::once("median").chain(titles));
        for row in measured(results) {
            let cells = shown.iter().map(|figure| cell(row, figure));
            let cells: Vec<String> = cells.collect();
            let _ = writeln!(text, "| {} | {} |", row.name, cells.join(" | "));
        }
        text.push('\n');
    }
    let heads = [
        "shadowmesh",
        "figure",
        "best peer",
        "",
        "ratio",
        "bare veth",
        "ratio",
    ];
    table_head(&mut text, heads.into_iter());
    for line in ratios(results) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            line.title, line.ours, line.best, line.best_name, line.ratio, line.bare, line.share
        );
    }
    text.push('\n');
    table_head(&mut text, ["row", "version", "set up"].into_iter());
    for row in measured(results) {
        let _ = writeln!(text, "| {} | {} | {} |", row.name, row.version, row.setup);
    }
    let notes = results.rows.iter().flat_map(|row| {
        let notes = row.notes.iter();
        notes.map(move |note| format!("- {}: {note}\n", row.name))
    });
    let notes: String = notes.collect();
    if !notes.is_empty() {
        let _ = write!(text, "\n{notes}");
    }
    text
}

fn table_head<'a>(text: &mut String, columns: impl Iterator<Item = &'a str>) {
    let columns: Vec<&str> = columns.collect();
    let _ = writeln!(text, "| {} |", columns.join(" | "));
    let _ = writeln!(text, "|{}", "---|".repeat(columns.len()));
}

/// Ours beside the best of the others and the cable, at one figure.
struct Ratio {
    title: &'static str,
    ours: String,
    best: String,
    best_name: String,
    ratio: String,
    bare: String,
    share: String,
}

fn ratios(results: &Results) -> Vec<Ratio> {
    let line = |figure: &&'static Figure| {
        let ours = results.median(OURS, figure.key)?;
        let best = results.best_peer(figure);
        let bare = results.median(BARE, figure.key);
        let shown = |value: Option<f64>| match value {
            Some(value) => format!("{value:.*}", figure.digits),
            None => "-".into(),
        };
        let ratio = |other: Option<f64>| match other {
            Some(other) if other > 0.0 && ours > 0.0 => times(figure, ours, other),
            _ => "-".into(),
        };
        Some(Ratio {
            title: figure.title,
            ours: shown(Some(ours)),
            best: shown(best.map(|(_, value)| value)),
            best_name: best.map_or("-".into(), |(row, _)| row.name.clone()),
            ratio: ratio(best.map(|(_, value)| value)),
            bare: shown(bare),
            share: ratio(bare),
        })
    };
    shown(results).iter().filter_map(line).collect()
}

/// How many times better: above 1 is in our favour, for rates and for costs.
fn times(figure: &Figure, ours: f64, other: f64) -> String {
    let ratio = match figure.better {
        Better::Higher => ours / other,
        Better::Lower => other / ours,
    };
    format!("{ratio:.2}x")
}

/// Who has any figure at all.
fn measured(results: &Results) -> impl Iterator<Item = &Row> {
    results.rows.iter().filter(|row| !row.samples.is_empty())
}

/// The figures that anybody has.
fn shown(results: &Results) -> Vec<&'static Figure> {
    let any = |figure: &&Figure| {
        let mut rows = results.rows.iter();
        rows.any(|row| row.median(figure.key).is_some())
    };
    figures::ALL.iter().filter(any).collect()
}

fn cell(row: &Row, figure: &Figure) -> String {
    match row.median(figure.key) {
        Some(median) => format!("{median:.*}", figure.digits),
        None => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::contenders::Rank;
    use super::super::results::example;
    use super::*;

    #[test]
    fn a_ratio_above_one_is_in_our_favour_for_rates_and_for_costs() {
        let results = example(&[
            (
                "veth",
                Rank::Bare,
                &[("tcp_gbit_s", 40.0), ("ping_p50_us", 20.0)],
            ),
            (
                "shadowmesh",
                Rank::Ours,
                &[("tcp_gbit_s", 12.0), ("ping_p50_us", 50.0)],
            ),
            (
                "other",
                Rank::Peer,
                &[("tcp_gbit_s", 3.0), ("ping_p50_us", 200.0)],
            ),
        ]);
        let lines = ratios(&results);
        let ratios: Vec<&str> = lines.iter().map(|line| line.ratio.as_str()).collect();
        assert_eq!(ratios, ["4.00x", "4.00x"]);
        assert_eq!(lines[0].share, "0.30x");
        let text = markdown(&results);
        assert!(text.contains("| other | 3.00 |") && text.contains("| other | 200 |"));
    }

    #[test]
    fn every_figure_stands_in_one_table() {
        let mut keys: Vec<&str> = TABLES.concat();
        let mut all: Vec<&str> = figures::ALL.iter().map(|figure| figure.key).collect();
        keys.sort_unstable();
        all.sort_unstable();
        assert_eq!(keys, all);
    }

    #[test]
    fn what_nobody_measured_has_no_column() {
        let results = example(&[("veth", Rank::Bare, &[("tcp_gbit_s", 40.0)])]);
        assert!(!terminal(&results).contains("ping50us"));
    }
}
