//! The results for a person: a table for a terminal.

use super::figures::{self, Figure};
use super::results::{Results, Row};
use std::fmt::Write as _;

/// Medians, one row for each contender.
pub fn terminal(results: &Results) -> String {
    let mut text = String::new();
    for (key, value) in &results.machine {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{key}: {value}");
    }
    let shown: Vec<&Figure> = shown(results);
    let _ = write!(text, "\n{:<20}", "median");
    for figure in &shown {
        let _ = write!(text, "{:>11}", figure.column);
    }
    for row in &results.rows {
        let _ = write!(text, "\n{:<20}", row.name);
        for figure in &shown {
            let _ = write!(text, "{:>11}", cell(row, figure));
        }
    }
    text.push_str("\n\n");
    for row in &results.rows {
        for note in &row.notes {
            let _ = writeln!(text, "{}: {note}", row.name);
        }
    }
    text
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
