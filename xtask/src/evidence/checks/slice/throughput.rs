//! One TCP stream, beside the same stream on the bare cable.

use super::Measured;
use super::field::{Field, inner, text};
use serde_json::{Value, json};
use shadowmesh::lab::Family;
use shadowmesh::lab::bulk::{self, Amount, CONGESTION};
use shadowmesh_io::cpu;
use std::net::IpAddr;
use std::time::Duration;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(8);

/// Median of interleaved rounds. CPU-seconds are those of the whole machine, both ends and the
/// traffic itself included. Shown, not bounded: this is the first version of the hot path.
pub fn run() -> Result<Measured, String> {
    let field = Field::running(2, Family::V4)?;
    let (mut tunnel, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(measure(&field, field.node(1).underlay_v4.into())?);
        tunnel.push(measure(&field, inner(field.node(1), Family::V4))?);
    }
    let (tunnel, bare) = (median(tunnel), median(bare));
    Ok(Measured {
        pass: tunnel.gbit_s > 0.0,
        figure: format!(
            "tunnel {:.2} Gbit/s, {:.2} Gbit per CPU-second; bare veth {:.2}, {:.2}; inner {CONGESTION}",
            tunnel.gbit_s, tunnel.gbit_per_cpu_s, bare.gbit_s, bare.gbit_per_cpu_s
        ),
        values: json!({
            "tunnel": tunnel.to_json(),
            "bare_veth": bare.to_json(),
            "congestion": CONGESTION,
        }),
    })
}

#[derive(Clone, Copy)]
struct Rate {
    gbit_s: f64,
    gbit_per_cpu_s: f64,
}

impl Rate {
    fn to_json(self) -> Value {
        json!({ "gbit_s": self.gbit_s, "gbit_per_cpu_s": self.gbit_per_cpu_s })
    }
}

fn measure(field: &Field, address: IpAddr) -> Result<Rate, String> {
    let before = cpu::machine().map_err(text)?;
    let (from, to) = (&field.node(0).netns, &field.node(1).netns);
    let report = bulk::transfer(from, to, address, Amount::Time(ROUND)).map_err(text)?;
    let spent = cpu::machine().map_err(text)?.since(&before);
    let gbit = report.bytes as f64 * 8.0 / 1e9;
    Ok(Rate {
        gbit_s: report.gbit_s(),
        gbit_per_cpu_s: gbit / spent.busy.as_secs_f64().max(0.01),
    })
}

fn median(mut rates: Vec<Rate>) -> Rate {
    rates.sort_by(|a, b| a.gbit_s.total_cmp(&b.gbit_s));
    rates[rates.len() / 2]
}
