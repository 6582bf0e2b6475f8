//! A relay with a thousand clients, one of which wants more than its share.

use super::Measured;
use super::crowd::{self, Crowd, process_cpu};
use super::field::text;
use serde_json::json;
use shadowmesh::lab::Family;
use shadowmesh_io::cpu;
use shadowmesh_vpn::NodeRelay;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// The promise.
const CLIENTS: usize = 1000;
/// What each may have relayed, each way.
const CLIENT_MBIT: u64 = 20;
/// Resident memory of the relay in all.
const MEMORY_MIB_MAX: u64 = 512;
/// Between two clients that call.
const CALL_PAUSE: Duration = Duration::from_millis(5);
const CONNECT_MAX: Duration = Duration::from_secs(40);
/// How long they send, in steps of which each gives every client one packet.
const TIME: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(100);
const PACKET_LEN: usize = 1000;
/// What the greedy one sends in a step: 80 Mbit/s, four times what it may.
const GREEDY_PACKETS: usize = CLIENTS + 1;
/// What it may get of its rate. Not all is packets: headers count too; nor is it sent evenly. Much less would
/// mean that the relay punishes it, and it is to be limited only.
const GREEDY_SHARE: RangeInclusive<f64> = 0.5..=1.05;
/// Packets sent between two looks at the socket.
const LOOK_EVERY: usize = 25;
/// Of the packets of all others, what a busy machine may lose.
const LOSS_MAX: f64 = 0.001;

/// Clients in pairs that reach each other over the relay alone. All send a little, the first as much as it
/// can.
pub fn run() -> Result<Measured, String> {
    let directory = tempfile::tempdir().map_err(text)?;
    let mut relay = crowd::program(directory.path())?;
    relay.settings.relays_at_mbit = Some(CLIENT_MBIT);
    relay.configure(&[]).map_err(text)?;
    let pid = crowd::start(&mut relay)?;
    let empty = cpu::memory_of(pid).map_err(text)?.resident;
    let identities = crowd::identities(CLIENTS);
    let ids: Vec<_> = identities
        .iter()
        .map(|identity| identity.peer_id())
        .collect();
    let way = relay.underlay(Family::V4);
    let mut crowd = Crowd::new(&relay.netns, way, identities, |number, config| {
        config.peers = vec![crowd::peer(ids[number ^ 1], Vec::new())];
        config.relays = vec![NodeRelay {
            id: relay.id,
            underlay: vec![way],
            known_key: None,
        }];
    })?;
    let (start, cpu_start) = (Instant::now(), process_cpu(pid)?);
    let connected = crowd.call_all(CALL_PAUSE, CONNECT_MAX)?;
    let (connect_s, connect_cpu) = (start.elapsed(), process_cpu(pid)? - cpu_start);
    // The rest of what connecting leads to is not what the load costs.
    crowd.run(Duration::from_secs(2))?;
    let resident = cpu::memory_of(pid).map_err(text)?.resident;
    let before: Vec<u64> = crowd
        .members
        .iter()
        .map(|member| member.delivered)
        .collect();
    let (start, cpu_start) = (Instant::now(), process_cpu(pid)?);
    let mut steps = 0;
    while start.elapsed() < TIME {
        for number in 0..CLIENTS {
            crowd.send(number, ids[number ^ 1], PACKET_LEN);
            // The greedy one does not stop for anybody.
            crowd.send(0, ids[1], PACKET_LEN);
            if number % LOOK_EVERY == 0 {
                crowd.run(Duration::ZERO)?;
            }
        }
        steps += 1;
        crowd.run((STEP * steps).saturating_sub(start.elapsed()))?;
    }
    let (elapsed, load_cpu) = (start.elapsed(), process_cpu(pid)? - cpu_start);
    crowd.run(Duration::from_millis(300))?;
    let all = crowd.members.iter().zip(&before);
    let delivered: Vec<u64> = all
        .map(|(member, before)| member.delivered - before)
        .collect();
    let greedy_mbit = (delivered[1] * PACKET_LEN as u64 * 8) as f64 / 1e6 / elapsed.as_secs_f64();
    let offered_mbit = (u64::from(steps) * (GREEDY_PACKETS * PACKET_LEN * 8) as u64) as f64
        / 1e6
        / elapsed.as_secs_f64();
    let others: u64 = delivered.iter().sum::<u64>() - delivered[1];
    let sent = u64::from(steps) * (CLIENTS as u64 - 1);
    let loss = 1.0 - others as f64 / sent as f64;
    let cpu = load_cpu.as_secs_f64() / elapsed.as_secs_f64();
    let relayed = (others + delivered[1]) as f64 / elapsed.as_secs_f64();
    let pass = connected == CLIENTS
        && resident <= MEMORY_MIB_MAX << 20
        && GREEDY_SHARE.contains(&(greedy_mbit / CLIENT_MBIT as f64))
        && loss <= LOSS_MAX;
    let each_kib = resident.saturating_sub(empty) as f64 / 1024.0 / CLIENTS as f64;
    Ok(Measured {
        pass,
        figure: format!(
            "{connected} of {CLIENTS} clients connected, to the relay and in pairs over it, within \
             {:.1} s ({:.1} s of its CPU); resident {} MiB, {each_kib:.0} KiB a client; {relayed:.0} \
             packets/s passed on with {:.0} % of a core; the greedy one offers {offered_mbit:.0} Mbit/s and \
             gets {greedy_mbit:.1} of its {CLIENT_MBIT}, the others lose {:.3} %",
            connect_s.as_secs_f64(),
            connect_cpu.as_secs_f64(),
            resident >> 20,
            cpu * 100.0,
            loss * 100.0,
        ),
        values: json!({
            "connected": connected,
            "connect_s": connect_s.as_secs_f64(),
            "connect_cpu_s": connect_cpu.as_secs_f64(),
            "resident_bytes": resident,
            "resident_empty_bytes": empty,
            "packets_s": relayed,
            "cpu": cpu,
            "greedy_offered_mbit_s": offered_mbit,
            "greedy_mbit_s": greedy_mbit,
            "others_loss": loss,
        }),
    })
}
