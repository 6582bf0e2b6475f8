//! What the demo measured: one shape for `--json` and for the table.

use std::fmt;

use serde::Serialize;

/// Everything the demo measured and what went wrong.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DemoReport {
    /// Every ordered pair of nodes.
    pub pairs: Vec<PairReport>,
    /// Key exchanges seen while the pings of the rekey step ran, over all pairs.
    pub rekeys: u64,
    /// Pings of the rekey step that were not answered.
    pub lost_in_rekey: u64,
    /// From the start of the killed node's new process to the first answered ping, milliseconds.
    pub recovery_ms: Option<u64>,
    /// What did not work, in words; empty when all went well.
    pub failures: Vec<String>,
}

/// One direction between two nodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PairReport {
    /// Who asked and sent.
    pub from: String,
    /// Who answered and received.
    pub to: String,
    /// Echo requests sent through the tunnel.
    pub sent: u32,
    /// Echo requests answered.
    pub received: u32,
    /// Round trip that half of the answers stay within, microseconds.
    pub rtt_p50_us: Option<u64>,
    /// Round trip that 99 of 100 answers stay within, microseconds.
    pub rtt_p99_us: Option<u64>,
    /// Payload rate of one TCP stream, Gbit/s.
    pub gbit_s: Option<f64>,
}

impl DemoReport {
    /// Whether everything the demo shows worked.
    pub fn is_success(&self) -> bool {
        self.failures.is_empty()
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("the report has only names and numbers")
    }
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12} {:>11} {:>12} {:>12} {:>10}",
            "pair", "answered", "rtt p50 us", "rtt p99 us", "Gbit/s"
        )?;
        for pair in &self.pairs {
            writeln!(
                f,
                "{:<12} {:>11} {:>12} {:>12} {:>10}",
                format!("{} -> {}", pair.from, pair.to),
                format!("{}/{}", pair.received, pair.sent),
                or_dash(pair.rtt_p50_us.map(|us| us.to_string())),
                or_dash(pair.rtt_p99_us.map(|us| us.to_string())),
                or_dash(pair.gbit_s.map(|rate| format!("{rate:.2}"))),
            )?;
        }
        writeln!(f)?;
        let rows = [
            ("rekeys under traffic", self.rekeys.to_string()),
            ("pings lost in them", self.lost_in_rekey.to_string()),
            (
                "back after kill -9",
                or_dash(self.recovery_ms.map(|ms| format!("{ms} ms"))),
            ),
        ];
        for (what, figure) in rows {
            writeln!(f, "{what:<22} {figure}")?;
        }
        for failure in &self.failures {
            writeln!(f, "\nFAILED: {failure}")?;
        }
        if self.is_success() {
            writeln!(f, "\nAll of it went well.")?;
        }
        Ok(())
    }
}

fn or_dash(figure: Option<String>) -> String {
    figure.unwrap_or_else(|| "-".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_the_documented_names() {
        let report = DemoReport {
            pairs: vec![PairReport::default()],
            ..DemoReport::default()
        };
        let value: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        for name in ["rekeys", "lost_in_rekey", "recovery_ms"] {
            assert!(value.get(name).is_some(), "{name}");
        }
        let pair = &value["pairs"][0];
        for name in ["sent", "received", "rtt_p50_us", "rtt_p99_us", "gbit_s"] {
            assert!(pair.get(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_failure_is_in_the_table_and_in_the_verdict() {
        let report = DemoReport {
            failures: vec!["n1 lost n2".into()],
            ..DemoReport::default()
        };
        assert!(!report.is_success());
        let table = report.to_string();
        assert!(table.contains("FAILED: n1 lost n2") && !table.contains("went well"));
    }
}
