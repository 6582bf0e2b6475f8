//! One TCP stream between two laboratory nodes, beside the same stream on the bare cable, with the
//! CPU time of every thread: the first thing to look at before and after touching the hot path.
//!
//! ```sh
//! cargo build --release && cargo run --release --example throughput -- [seconds] [cipher] [data plane] [queues]
//! ```

use std::error::Error;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use shadowmesh::lab::bulk::{self, Amount, CONGESTION};
use shadowmesh::lab::{Family, Lab, LabNode};
use shadowmesh_io::cpu;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let cipher = arguments.next().unwrap_or_else(|| "auto".into());
    let plane = arguments.next().unwrap_or_else(|| "auto".into());
    let queues = arguments.next().map(|text| text.parse()).transpose()?;
    let directory = tempfile::tempdir()?;
    let mut lab = Lab::build(&program()?, directory.path(), 2)?;
    for node in &mut lab.nodes {
        node.settings.cipher.clone_from(&cipher);
        node.settings.queues = queues;
        node.settings.data_plane.clone_from(&plane);
        node.settings.rekey_interval = Duration::from_secs(10);
    }
    lab.configure_full_mesh(Family::V4)?;
    lab.start_all()?;
    lab.wait_until_reachable(Duration::from_secs(10))?;

    println!(
        "inner congestion {CONGESTION}, cipher {cipher}, data plane {plane}, new keys every 10 s, {seconds} s each"
    );
    let amount = Amount::Time(Duration::from_secs(seconds));
    let [first, second] = &lab.nodes[..] else {
        unreachable!("two nodes were built");
    };
    let (v4, v6) = (second.overlay_v4().into(), second.overlay_v6().into());
    let cable = second.underlay_v4.into();
    ping("ping, bare cable", first, cable)?;
    ping("ping, tunnel", first, v4)?;
    measure("bare cable", first, second, cable, amount)?;
    measure("tunnel, IPv4", first, second, v4, amount)?;
    measure(
        "tunnel, reverse",
        second,
        first,
        first.overlay_v4().into(),
        amount,
    )?;
    measure("tunnel, IPv6", first, second, v6, amount)?;
    std::thread::scope(|scope| {
        let load = scope.spawn(|| bulk::transfer(&first.netns, &second.netns, v4, amount));
        std::thread::sleep(Duration::from_millis(500));
        let pinged = ping("ping, tunnel under load", first, v4);
        load.join().expect("the load does not panic")?;
        pinged
    })?;
    for node in &lab.nodes {
        let status = node.query("status", &[])?;
        println!("{}: drops {}", node.name, status["drops"]);
    }
    lab.stop_all()?;
    Ok(())
}

/// The `shadowmesh` built beside this example.
fn program() -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(|examples| examples.parent());
    Ok(folder.ok_or("no build folder")?.join("shadowmesh"))
}

fn ping(what: &str, from: &LabNode, address: IpAddr) -> Result<(), Box<dyn Error + Send + Sync>> {
    let report = from.ping(address, 1000, Duration::from_millis(2))?;
    let micros = |part| report.quantile(part).map_or(0, |rtt| rtt.as_micros());
    println!(
        "{what}: {} of {} answered, p50 {} us, p99 {} us",
        report.received,
        report.sent,
        micros(0.5),
        micros(0.99)
    );
    Ok(())
}

fn measure(
    what: &str,
    from: &LabNode,
    to: &LabNode,
    address: IpAddr,
    amount: Amount,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let nodes = [from, to];
    let (machine, own) = (cpu::machine()?, cpu::process()?);
    let before = nodes.map(threads);
    let report = bulk::transfer(&from.netns, &to.netns, address, amount)?;
    let (own, machine) = (cpu::process()?.since(&own), cpu::machine()?.since(&machine));
    let gbit = report.bytes as f64 * 8.0 / 1e9;
    println!(
        "{what}: {:.2} Gbit/s, {:.2} Gbit per CPU-second of the machine (traffic threads {:.2} s)",
        report.gbit_s(),
        gbit / machine.busy.as_secs_f64(),
        own.total().as_secs_f64(),
    );
    for (node, before) in nodes.iter().zip(before) {
        let spent: Vec<String> = threads(node)
            .into_iter()
            .zip(before)
            .map(|((name, user, system), (_, user_before, system_before))| {
                let seconds = |ticks: u64| ticks as f64 / 100.0;
                let (user, system) = (seconds(user - user_before), seconds(system - system_before));
                format!("{name} {user:.2} user {system:.2} system")
            })
            .collect();
        println!("  {}: {}", node.name, spent.join(", "));
    }
    Ok(())
}

/// Name, user and system ticks of every thread of a node.
fn threads(node: &LabNode) -> Vec<(String, u64, u64)> {
    let pid = node.pid().unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let mut all: Vec<_> = tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            let (head, rest) = stat.rsplit_once(')')?;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let name = head.rsplit_once('(')?.1.to_owned();
            Some((
                name,
                fields.get(11)?.parse().ok()?,
                fields.get(12)?.parse().ok()?,
            ))
        })
        .collect();
    all.sort();
    all
}
