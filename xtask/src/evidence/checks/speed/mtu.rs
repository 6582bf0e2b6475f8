//! Every underlay MTU from 576 to 9000, and one that shrinks under a transfer.
//!
//! Two nodes with two routers between them; the cable in the middle is the narrow one, where neither
//! node has a device that could tell it. The nodes run with the settings of a user who set nothing, and
//! once more with the largest device that configuration allows, over a path that fits it and over one
//! that does not.
//!
//! That the cable was as narrow as it is called is shown by the sender itself: after the transfer it
//! must say which path MTU it found, and that must not exceed the cable's.

use super::stream::{self, Plan, Stream};
use super::{Measured, field, program};
use field::{REACH_MAX, inner, text};
use serde_json::{Value, json};
use shadowmesh::lab::routed::RoutedLab;
use shadowmesh::lab::{Family, wait_until};
use std::time::Duration;

/// In each case, each way of addressing.
const BYTES: usize = 64 << 20;

/// Of all cases: IPv6 has no path below 1280 (RFC 8200 §5).
const UNDERLAYS: [u32; 5] = [576, 1280, 1400, 1500, 9000];
const UNDERLAY_MIN_V6: u32 = 1280;

/// The largest device (`[device] mtu`), and what it is tried over.
const DEVICE_MAX: u16 = 9000;
const UNDERLAYS_OF_LARGE: [u32; 2] = [1500, 9000];

/// Before and after it shrinks.
const WIDE: u32 = 1500;
const NARROW: u32 = 1300;

/// Slow enough that the path shrinks in the middle of the stream, and not while all of it lies in
/// buffers: four seconds in all.
const DROP_RATE: usize = BYTES / 4;

const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A search for the path MTU takes less than a second.
const FOUND_MAX: Duration = Duration::from_secs(5);

/// 64 MiB in each direction of addressing for each underlay, then for each way of shrinking.
pub fn run() -> Result<Measured, String> {
    let mut rows = Vec::new();
    for outer in [Family::V4, Family::V6] {
        for mtu in UNDERLAYS {
            if outer == Family::V4 || mtu >= UNDERLAY_MIN_V6 {
                rows.extend(constant(outer, mtu, None));
            }
        }
        for mtu in UNDERLAYS_OF_LARGE {
            rows.extend(constant(outer, mtu, Some(DEVICE_MAX)));
        }
        for silent in [false, true] {
            for inside in [Family::V4, Family::V6] {
                rows.push(shrinking(outer, inside, silent));
            }
        }
    }
    let bad: Vec<String> = rows.iter().filter_map(Row::problem).collect();
    let worst = rows.iter().filter(|row| row.shrinks);
    let worst = worst
        .filter_map(|row| row.stream.as_ref().ok())
        .map(|stream| stream.silence)
        .max()
        .unwrap_or_default();
    let good = rows.len() - bad.len();
    let mut figure = format!(
        "{good} of {} transfers of 64 MiB intact; longest silence when {WIDE} became {NARROW}: {} ms",
        rows.len(),
        worst.as_millis()
    );
    for problem in &bad {
        figure.push_str("; ");
        figure.push_str(problem);
    }
    Ok(Measured {
        pass: bad.is_empty(),
        figure,
        values: rows.iter().map(Row::to_json).collect(),
    })
}

/// One transfer.
struct Row {
    name: String,
    shrinks: bool,
    stream: Result<Stream, String>,
    /// What the sender found the path MTU to be, and what the cable's is; of a cable that stays as it is.
    found: Option<(u64, u32)>,
}

impl Row {
    fn problem(&self) -> Option<String> {
        match &self.stream {
            Err(why) => Some(format!("{}: {why}", self.name)),
            Ok(stream) if !stream.intact => Some(format!("{}: NOT INTACT", self.name)),
            Ok(_) if self.is_wider_than_called() => Some(format!(
                "{}: THE CABLE WAS NOT NARROW, or the sender is wrong: it found {}",
                self.name,
                self.found.map_or(0, |(found, _)| found)
            )),
            Ok(stream) if self.shrinks && stream.silence > SILENCE_MAX => Some(format!(
                "{}: silent for {} ms",
                self.name,
                stream.silence.as_millis()
            )),
            Ok(_) => None,
        }
    }

    fn is_wider_than_called(&self) -> bool {
        self.found
            .is_some_and(|(found, cable)| found > u64::from(cable))
    }

    fn to_json(&self) -> Value {
        match &self.stream {
            Err(why) => json!({ "case": self.name, "error": why }),
            Ok(stream) => json!({
                "case": self.name,
                "intact": stream.intact,
                "path_mtu_found": self.found.map(|(found, _)| found),
                "silence_ms": stream.silence.as_millis() as u64,
                "mbit_s": BYTES as f64 * 8.0 / 1e6 / stream.elapsed.as_secs_f64().max(1e-9),
            }),
        }
    }
}

/// Both ways of addressing over one underlay that stays as it is.
fn constant(outer: Family, mtu: u32, device: Option<u16>) -> Vec<Row> {
    let field = Routed::running(outer, mtu, device);
    let of = device.map_or(String::new(), |device| format!(", device {device}"));
    let plan = Plan {
        bytes: BYTES,
        bytes_per_second: None,
    };
    let families = [Family::V4, Family::V6];
    families
        .map(|inside| {
            let moved = field.as_ref().map_err(Clone::clone).and_then(|field| {
                let stream = field.stream(inside, plan, || Ok(()))?;
                Ok((stream, field.found()?))
            });
            Row {
                name: format!("{inside:?} in {outer:?} at {mtu}{of}"),
                shrinks: false,
                found: moved.as_ref().ok().map(|(_, found)| (*found, mtu)),
                stream: moved.map(|(stream, _)| stream),
            }
        })
        .into()
}

/// One way of addressing over an underlay that shrinks halfway.
fn shrinking(outer: Family, inside: Family, silent: bool) -> Row {
    let how = if silent { "silently" } else { "with ICMP" };
    let plan = Plan {
        bytes: BYTES,
        bytes_per_second: Some(DROP_RATE),
    };
    let stream = Routed::running(outer, WIDE, None).and_then(|field| {
        if silent {
            field.lab.filter_icmp().map_err(text)?;
        }
        field.stream(inside, plan, || {
            field.lab.set_middle_mtu(NARROW).map_err(text)
        })
    });
    Row {
        name: format!("{inside:?} in {outer:?} from {WIDE} to {NARROW} {how}"),
        shrinks: true,
        stream,
        found: None,
    }
}

/// Two nodes that reach each other through the routers, and their directory.
struct Routed {
    lab: RoutedLab,
    _directory: tempfile::TempDir,
}

impl Routed {
    fn running(outer: Family, mtu: u32, device: Option<u16>) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(text)?;
        let mut lab = RoutedLab::build(&program::path(), directory.path()).map_err(text)?;
        // At the edge nothing is narrower than usual; only there could a node see it.
        lab.set_edge_mtu(mtu.max(WIDE)).map_err(text)?;
        lab.set_middle_mtu(mtu).map_err(text)?;
        for node in &mut lab.nodes {
            node.settings.mtu = device;
        }
        lab.configure_full_mesh(outer).map_err(text)?;
        lab.start_all().map_err(text)?;
        lab.wait_until_reachable(REACH_MAX).map_err(text)?;
        Ok(Self {
            lab,
            _directory: directory,
        })
    }

    fn stream(
        &self,
        inside: Family,
        plan: Plan,
        halfway: impl FnOnce() -> Result<(), String> + Send,
    ) -> Result<Stream, String> {
        let [from, to] = &self.lab.nodes[..] else {
            return Err("not two nodes".into());
        };
        stream::run(&from.netns, &to.netns, inner(to, inside), plan, halfway)
    }

    /// The path MTU that the sender has found, once its search is over.
    fn found(&self) -> Result<u64, String> {
        let [from, to] = &self.lab.nodes[..] else {
            return Err("not two nodes".into());
        };
        let id = to.id.to_string();
        let mut found = None;
        wait_until(FOUND_MAX, || {
            let peers = from.query("peers", &[]).unwrap_or_default();
            found = field::find_peer(&peers, &id).and_then(|peer| peer["path"]["mtu"].as_u64());
            found.is_some()
        });
        found.ok_or_else(|| "the sender never said which path MTU it found".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cable_that_is_wider_than_it_is_called_fails_its_row() {
        let row = |found| Row {
            name: "row".into(),
            shrinks: false,
            stream: Ok(Stream {
                intact: true,
                silence: Duration::ZERO,
                elapsed: Duration::from_secs(1),
            }),
            found: Some((found, 576)),
        };
        assert_eq!(row(576).problem(), None);
        assert!(row(577).problem().is_some());
    }
}
