//! What the post-quantum handshake costs.

use super::{Measured, program};
use serde_json::Value;

/// Shown, not bounded: the promise is that the figures stand beside the classical ones of the same
/// run.
pub fn run() -> Result<Measured, String> {
    let values = program::json(&["bench", "handshake"])?;
    let kinds = values["handshakes"]
        .as_array()
        .ok_or("bench handshake printed no list")?;
    let figures: Vec<String> = kinds.iter().map(figure).collect();
    Ok(Measured {
        pass: kinds.iter().any(|kind| kind["kind"] == "classical") && kinds.len() > 1,
        figure: figures.join("; "),
        values,
    })
}

fn figure(kind: &Value) -> String {
    let side = |name: &str| {
        let number = |field: &str| kind[name][field].as_f64().unwrap_or(f64::NAN);
        format!(
            "{name} {:.0} us {:.0} bytes",
            number("cpu_us"),
            number("bytes_sent")
        )
    };
    let name = kind["kind"].as_str().unwrap_or("?");
    format!("{name}: {}, {}", side("client"), side("server"))
}
