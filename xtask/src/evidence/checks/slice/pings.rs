//! Loss where there is no reason for any.

use super::Measured;
use super::field::{Field, inner, text};
use serde_json::{Value, json};
use shadowmesh::lab::Family;
use std::time::Duration;

const COUNT: u32 = 2000;
const INTERVAL: Duration = Duration::from_millis(1);

/// 2,000 pings, 1 ms apart, in each pairing of inner and outer IP version; none may be lost.
pub fn run() -> Result<Measured, String> {
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    let mut lost_total = 0;
    for outer in [Family::V4, Family::V6] {
        let field = Field::running(2, outer)?;
        let (from, to) = (field.node(0), field.node(1));
        for inner_family in [Family::V4, Family::V6] {
            let report = from
                .ping(inner(to, inner_family), COUNT, INTERVAL)
                .map_err(text)?;
            let us = |part| report.quantile(part).map(|time| time.as_micros() as u64);
            let (p50, p99) = (us(0.5), us(0.99));
            let lost = report.sent - report.received;
            lost_total += lost;
            figures.push(format!(
                "{inner_family:?} in {outer:?}: lost {} of {}, {}/{} us",
                lost,
                report.sent,
                p50.unwrap_or(0),
                p99.unwrap_or(0),
            ));
            rows.push(json!({
                "inner": format!("{inner_family:?}"),
                "outer": format!("{outer:?}"),
                "sent": report.sent,
                "received": report.received,
                "rtt_p50_us": p50,
                "rtt_p99_us": p99,
            }));
        }
    }
    Ok(Measured {
        pass: lost_total == 0,
        figure: figures.join("; "),
        values: Value::from(rows),
    })
}
