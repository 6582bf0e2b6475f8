//! Much data both ways at once, while keys change.

use super::Measured;
use super::field::{Field, inner, text};
use serde_json::{Value, json};
use shadowmesh::lab::Family;
use shadowmesh::lab::bulk::{self, Amount, BulkReport};
use std::thread;

/// Each way.
const BYTES: u64 = 4 << 30;

/// 4 GiB each way, hashed at both ends, IPv4 in IPv4 and IPv6 in IPv6, a key exchange every 10 s. The
/// capture runs beside it and judges what it can keep up with.
pub fn run() -> Result<Measured, String> {
    let mut pass = true;
    let mut figures = Vec::new();
    let mut rows = Vec::new();
    for family in [Family::V4, Family::V6] {
        let round = round(family)?;
        pass &= round.pass;
        figures.push(round.figure);
        rows.push(round.values);
    }
    Ok(Measured {
        pass,
        figure: figures.join("; "),
        values: Value::from(rows),
    })
}

fn round(family: Family) -> Result<Measured, String> {
    let mut field = Field::build(2, family)?;
    let watch = field.observe(b"nothing sent here contains this sentence")?;
    field.start()?;
    let before = field.epoch(0, 1)?;
    let (there, back) = thread::scope(|scope| {
        let there = scope.spawn(|| transfer(&field, 0, 1, family));
        let back = transfer(&field, 1, 0, family);
        (there.join().expect("a transfer does not panic"), back)
    });
    let (there, back) = (there?, back?);
    let rekeys = field.epoch(0, 1)?.saturating_sub(before);
    let (seen, stats) = watch.stop()?;
    let whole = |report: &BulkReport| report.intact && report.bytes == BYTES;
    Ok(Measured {
        pass: whole(&there) && whole(&back) && rekeys > 0 && seen.is_clean(),
        figure: format!(
            "{family:?}: hashes {} and {}, {:.1} + {:.1} Gbit/s, {rekeys} rekeys; {} ({} missed)",
            verdict(&there),
            verdict(&back),
            there.gbit_s(),
            back.gbit_s(),
            seen.figure(),
            stats.lost,
        ),
        values: json!({
            "family": format!("{family:?}"),
            "bytes": [there.bytes, back.bytes],
            "intact": [there.intact, back.intact],
            "gbit_s": [there.gbit_s(), back.gbit_s()],
            "rekeys": rekeys,
            "capture": seen.to_json(),
            "capture_missed": stats.lost,
        }),
    })
}

fn transfer(field: &Field, from: usize, to: usize, family: Family) -> Result<BulkReport, String> {
    let (from, to) = (field.node(from), field.node(to));
    bulk::transfer(
        &from.netns,
        &to.netns,
        inner(to, family),
        Amount::Bytes(BYTES),
    )
    .map_err(text)
}

fn verdict(report: &BulkReport) -> &'static str {
    if report.intact { "right" } else { "WRONG" }
}
