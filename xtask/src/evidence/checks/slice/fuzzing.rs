//! Ten minutes of fuzzing for each parser.

use super::Measured;
use crate::fuzz;
use serde_json::Value;

const SECONDS: u32 = 600;

/// Every target, as many at once as there are cores.
pub fn run() -> Result<Measured, String> {
    let reports = fuzz::targets()
        .and_then(|targets| fuzz::campaign(targets, SECONDS))
        .map_err(|failure| failure.to_string())?;
    let broken: Vec<&str> = reports
        .iter()
        .filter(|report| !report.clean)
        .map(|report| report.target.as_str())
        .collect();
    let inputs: u64 = reports.iter().map(|report| report.inputs).sum();
    let figure = if broken.is_empty() {
        format!(
            "{} targets, {:.1} million inputs, clean",
            reports.len(),
            inputs as f64 / 1e6
        )
    } else {
        format!("broken: {}", broken.join(", "))
    };
    let values = reports.iter().map(|report| {
        serde_json::json!({"target": report.target, "inputs": report.inputs, "clean": report.clean})
    });
    Ok(Measured {
        pass: broken.is_empty(),
        figure,
        values: Value::from_iter(values),
    })
}
