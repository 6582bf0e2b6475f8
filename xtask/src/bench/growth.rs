//! How the cost of ShadowMesh grows: with streams between two nodes, and with nodes that send to one.

use super::contenders::{self, Stage};
use super::request::Request;
use crate::failure::{Failure, Outcome};
use serde_json::{Value, json};
use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh::lab::{Family, Lab, load};
use shadowmesh_io::cpu;
use std::thread;
use std::time::Duration;

const FLOWS: &[usize] = &[1, 4, 16, 64];
/// Nodes that send, all to one more.
const SENDERS: &[usize] = &[1, 2, 4, 8, 15];
const REACH_MAX: Duration = Duration::from_secs(20);

/// Measures, prints a table, and writes the samples where `--json` says.
pub fn run(request: &Request) -> Outcome {
    let failure = |why: String| Failure::new(why, "cargo xtask bench --growth --rounds 1");
    let time = Duration::from_secs_f64(request.seconds);
    let flows = flows(time, request.rounds).map_err(failure)?;
    let nodes = senders(time, request.rounds).map_err(failure)?;
    println!("| streams between two nodes | Gbit/s | Gbit per CPU-second |\n|---|---|---|");
    flows.iter().for_each(Point::print);
    println!(
        "\n| nodes that send to one | Gbit/s, all together | Gbit per CPU-second |\n|---|---|---|"
    );
    nodes.iter().for_each(Point::print);
    let Some(file) = &request.json else {
        return Ok(());
    };
    let list = |points: &[Point]| points.iter().map(Point::to_json).collect::<Vec<_>>();
    let all = json!({ "flows": list(&flows), "senders": list(&nodes) });
    std::fs::write(file, format!("{all:#}\n")).map_err(|error| failure(error.to_string()))
}

/// One line of a table.
struct Point {
    count: usize,
    gbit_s: Vec<f64>,
    gbit_per_cpu_s: Vec<f64>,
}

impl Point {
    fn new(count: usize) -> Self {
        Self {
            count,
            gbit_s: Vec::new(),
            gbit_per_cpu_s: Vec::new(),
        }
    }

    /// Runs `work`, which says Gbit/s and bytes, and keeps what it cost.
    fn take(&mut self, work: impl FnOnce() -> Result<(f64, u64), String>) -> Result<(), String> {
        let before = cpu::machine().map_err(text)?;
        let (gbit_s, bytes) = work()?;
        let busy = cpu::machine().map_err(text)?.since(&before).busy;
        let gbit = bytes as f64 * 8.0 / 1e9;
        self.gbit_s.push(gbit_s);
        self.gbit_per_cpu_s
            .push(gbit / busy.as_secs_f64().max(0.01));
        Ok(())
    }

    fn print(&self) {
        let (rate, cost) = (middle(&self.gbit_s), middle(&self.gbit_per_cpu_s));
        println!("| {} | {rate:.2} | {cost:.2} |", self.count);
    }

    fn to_json(&self) -> Value {
        json!({
            "count": self.count,
            "gbit_s": self.gbit_s,
            "gbit_per_cpu_s": self.gbit_per_cpu_s,
        })
    }
}

fn flows(time: Duration, rounds: usize) -> Result<Vec<Point>, String> {
    let stage = Stage::build()?;
    let mut tunnel = contenders::start_ours(&stage)?;
    tunnel.await_reachable(&stage)?;
    let target = tunnel.v4.ok_or("no inner IPv4")?[1];
    let [from, to] = &stage.ends;
    let mut points: Vec<Point> = FLOWS.iter().copied().map(Point::new).collect();
    for _ in 0..rounds {
        for point in &mut points {
            let count = point.count;
            point.take(|| load::streams(from, to, target, count, time).map_err(text))?;
        }
    }
    Ok(points)
}

fn senders(time: Duration, rounds: usize) -> Result<Vec<Point>, String> {
    let directory = tempfile::tempdir().map_err(text)?;
    let count_max = SENDERS.iter().max().copied().unwrap_or(1);
    let program = contenders::program();
    let mut lab = Lab::build(&program, directory.path(), count_max + 1).map_err(text)?;
    star(&lab)?;
    lab.start_all().map_err(text)?;
    let centre = &lab.nodes[0];
    for node in &lab.nodes[1..] {
        let met = node.ping_until_answered(centre.overlay_v4().into(), REACH_MAX);
        met.ok_or_else(|| format!("{} did not reach the node in the middle", node.name))?;
    }
    let mut points: Vec<Point> = SENDERS.iter().copied().map(Point::new).collect();
    for _ in 0..rounds {
        for point in &mut points {
            let count = point.count;
            point.take(|| together(&lab, count, time))?;
        }
    }
    lab.stop_all().map_err(text)?;
    Ok(points)
}

/// The first node knows all others, they know only it.
fn star(lab: &Lab) -> Result<(), String> {
    let (centre, others) = lab.nodes.split_first().ok_or("an empty laboratory")?;
    let all: Vec<_> = others.iter().map(|node| node.as_peer(Family::V4)).collect();
    centre.configure(&all).map_err(text)?;
    for node in others {
        node.configure(&[centre.as_peer(Family::V4)])
            .map_err(text)?;
    }
    Ok(())
}

/// One stream from each of the first `count` nodes beside the middle, all at once.
fn together(lab: &Lab, count: usize, time: Duration) -> Result<(f64, u64), String> {
    let centre = &lab.nodes[0];
    let target = centre.overlay_v4().into();
    let one = |netns| bulk::transfer(netns, &centre.netns, target, Amount::Time(time));
    thread::scope(|scope| {
        let senders = lab.nodes[1..=count].iter();
        let streams: Vec<_> = senders
            .map(|node| scope.spawn(move || one(&node.netns)))
            .collect();
        let (mut gbit_s, mut bytes) = (0.0, 0);
        for stream in streams {
            let report = stream
                .join()
                .expect("a stream does not panic")
                .map_err(text)?;
            gbit_s += report.gbit_s();
            bytes += report.bytes;
        }
        Ok((gbit_s, bytes))
    })
}

/// The median, of a list that is not empty.
fn middle(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
