//! A flood of first packets from addresses that do not exist.
//!
//! The attacker is the worst kind that cannot receive: it knows the victim's PeerId, so what it sends
//! are whole and valid first flights, both datagrams of the ClientHello, each flight from another
//! source. Real ones are made ahead, by the real handshake code, and sent again and again.

use super::Measured;
use super::field::{Field, inner, text};
use super::flow::Flow;
use serde_json::{Value, json};
use shadowmesh::lab::{Family, LabNode, PORT, wiring};
use shadowmesh_crypto::Identity;
use shadowmesh_io::lab::{FloodReport, SpoofedFlood};
use shadowmesh_io::netlink::{Handle, Route};
use shadowmesh_io::netns::Netns;
use shadowmesh_net::{Net, NetConfig, PeerConfig};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const RATE: u32 = 50_000;
const DURATION: Duration = Duration::from_secs(10);

/// When in the flood the newcomer is started.
const NEWCOMER_AFTER: Duration = Duration::from_secs(3);
const NEWCOMER_MAX: Duration = Duration::from_secs(2);

/// Of the established session: 500 Mbit/s.
const BYTES_PER_SECOND: u64 = 500_000_000 / 8;
const KEPT_MIN: f64 = 0.95;
const BASELINE: Duration = Duration::from_secs(5);

/// Different first flights; each comes back from other sources.
const FLIGHTS: usize = 1000;

/// Datagrams of a first flight: a post-quantum ClientHello does not fit one.
const FLIGHT_DATAGRAMS: usize = 2;

/// The newcomer's own handshake; half a million unproven packets may cause none.
const HANDSHAKES_MAX: u64 = 1;

/// Growth of the victim's memory under the flood.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

const VICTIM: usize = 0;
const FRIEND: usize = 1;
const NEWCOMER: usize = 2;
/// Place on the bridge, next after the nodes.
const ATTACKER: usize = 3;

/// 50,000 a second for 10 s, beside a session that carries 500 Mbit/s and a newcomer that wants in.
pub fn run() -> Result<Measured, String> {
    let mut field = calm_field()?;
    let attacker = wiring::attach_namespace(&field.lab.switch, ATTACKER).map_err(text)?;
    route_everything_to_the_attacker(&field.node(VICTIM).netns)?;
    let flights = first_flights(field.node(VICTIM))?;
    let flow = established_flow(&field)?;
    std::thread::sleep(Duration::from_secs(1));
    let calm_mbit_s = flow.mbit_s_during(BASELINE);
    let before = Status::of(field.node(VICTIM))?;

    let target = SocketAddrV4::new(field.node(VICTIM).underlay_v4, PORT);
    let (flood, flooded_mbit_s, newcomer) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&attacker, target, &flights));
        let rate = scope.spawn(|| flow.mbit_s_during(DURATION));
        std::thread::sleep(NEWCOMER_AFTER);
        let newcomer = join(&mut field);
        let flood = flood.join().expect("the flood does not panic");
        (
            flood,
            rate.join().expect("measuring does not panic"),
            newcomer,
        )
    });
    let (flood, newcomer) = (flood?, newcomer?);
    let after = Status::of(field.node(VICTIM))?;
    flow.stop().map_err(text)?;

    let kept = flooded_mbit_s / calm_mbit_s;
    let handshakes = after.work.saturating_sub(before.work);
    let growth_kib = after.memory_kib.saturating_sub(before.memory_kib);
    let sent_enough = flood.sent as f64 >= f64::from(RATE) * DURATION.as_secs_f64() * 0.95
        && flood.elapsed < DURATION.mul_f64(1.2);
    let newcomer_in_time = newcomer.is_some_and(|time| time <= NEWCOMER_MAX);
    Ok(Measured {
        pass: sent_enough
            && kept >= KEPT_MIN
            && newcomer_in_time
            && handshakes <= HANDSHAKES_MAX
            && growth_kib <= GROWTH_KIB_MAX,
        figure: format!(
            "{} first packets in {:.1} s; session {calm_mbit_s:.0} -> {flooded_mbit_s:.0} Mbit/s \
             ({:.1} %); newcomer {}; {handshakes} post-quantum handshakes; memory +{growth_kib} KiB",
            flood.sent,
            flood.elapsed.as_secs_f64(),
            kept * 100.0,
            newcomer.map_or("never".to_owned(), |time| format!(
                "{} ms",
                time.as_millis()
            )),
        ),
        values: json!({
            "sent": flood.sent,
            "seconds": flood.elapsed.as_secs_f64(),
            "mbit_s_calm": calm_mbit_s,
            "mbit_s_flooded": flooded_mbit_s,
            "newcomer_ms": newcomer.map(|time| time.as_millis() as u64),
            "handshakes": handshakes,
            "memory_growth_kib": growth_kib,
        }),
    })
}

/// Victim and friend running, newcomer configured everywhere but not started. Keys stay as they are
/// for the time of the check, so that every post-quantum operation counted is a handshake's.
fn calm_field() -> Result<Field, String> {
    let mut field = Field::build(3, Family::V4)?;
    for node in &mut field.lab.nodes {
        node.settings.rekey_interval = Duration::from_secs(3600);
    }
    field.lab.configure_full_mesh(Family::V4).map_err(text)?;
    for index in [VICTIM, FRIEND] {
        field.lab.nodes[index].start().map_err(text)?;
    }
    let victim = inner(field.node(VICTIM), Family::V4);
    field
        .node(FRIEND)
        .ping_until_answered(victim, Duration::from_secs(20))
        .ok_or("the two nodes do not reach each other")?;
    Ok(field)
}

/// Answers to the invented sources must leave the victim as they would on the internet.
fn route_everything_to_the_attacker(victim: &Netns) -> Result<(), String> {
    let gateway = IpAddr::V4(wiring::underlay_v4(ATTACKER));
    let route = Route::via(Ipv4Addr::UNSPECIFIED.into(), 0, gateway);
    victim
        .run(|| Handle::new()?.add_route(&route))
        .map_err(text)
}

fn established_flow(field: &Field) -> Result<Flow, String> {
    let (from, to) = (field.node(FRIEND), field.node(VICTIM));
    let pattern = b"established ";
    Flow::start(
        &from.netns,
        &to.netns,
        inner(to, Family::V4),
        BYTES_PER_SECOND,
        pattern,
    )
    .map_err(text)
}

/// The first flights of many handshakes with the victim, by one who knows it and whom it does not.
fn first_flights(victim: &LabNode) -> Result<Vec<Vec<Vec<u8>>>, String> {
    let identity = Arc::new(Identity::generate());
    let address = SocketAddr::new(victim.underlay_v4.into(), PORT);
    let make = |number: usize| {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let now = Instant::now();
        let config = NetConfig::new(Arc::clone(&identity), seed, number as u64);
        let mut net = Net::new(config, now).map_err(text)?;
        let peer = PeerConfig {
            id: victim.id,
            addresses: vec![address],
            known_key: None,
            data_plane: shadowmesh_net::DataPlane::default(),
            relay: false,
        };
        net.add_peer(peer, now);
        net.connect(&victim.id, now);
        // A node sends each of them twice; the attacker has a better use for its rate.
        let mut flight: Vec<Vec<u8>> = Vec::new();
        while let Some(transmit) = net.poll_transmit() {
            if flight.last() != Some(&transmit.contents) {
                flight.push(transmit.contents);
            }
        }
        if flight.len() == FLIGHT_DATAGRAMS {
            Ok(flight)
        } else {
            Err(format!("a first flight of {} datagrams", flight.len()))
        }
    };
    (0..FLIGHTS).map(make).collect()
}

fn flood(
    attacker: &Netns,
    destination: SocketAddrV4,
    flights: &[Vec<Vec<u8>>],
) -> Result<FloodReport, String> {
    let flood = SpoofedFlood {
        destination,
        rate: RATE,
        duration: DURATION,
    };
    let make = |number: u64, payload: &mut Vec<u8>| {
        let datagram = number as usize % FLIGHT_DATAGRAMS;
        let number = number / FLIGHT_DATAGRAMS as u64;
        payload.extend_from_slice(&flights[number as usize % flights.len()][datagram]);
        // 198.18.0.0/15 is reserved for measurements (RFC 2544): nobody's real address.
        let host = (number as u32).wrapping_mul(2_654_435_761) & 0x1_ffff;
        SocketAddrV4::new(
            Ipv4Addr::from(0xc612_0000 | host),
            1024 + (number % 60_000) as u16,
        )
    };
    attacker
        .run(|| flood.run(&AtomicBool::new(false), make))
        .map_err(text)
}

/// Starts the newcomer; the time until the victim answers it.
fn join(field: &mut Field) -> Result<Option<Duration>, String> {
    let victim = inner(field.node(VICTIM), Family::V4);
    let newcomer = &mut field.lab.nodes[NEWCOMER];
    newcomer.start().map_err(text)?;
    Ok(newcomer.ping_until_answered(victim, NEWCOMER_MAX * 5))
}

/// What the victim says of itself.
struct Status {
    /// Handshakes that cost it post-quantum work.
    work: u64,
    memory_kib: u64,
}

impl Status {
    fn of(node: &LabNode) -> Result<Self, String> {
        let status = node.query("status", &[]).map_err(text)?;
        let number = |value: &Value| value.as_u64();
        let work = &status["handshakes"];
        let counts = ["kem", "sign", "verify"].map(|name| number(&work[name]));
        match (counts, number(&status["memory_kib"])) {
            ([Some(kem), Some(sign), Some(verify)], Some(memory_kib)) => Ok(Self {
                work: kem.max(sign).max(verify),
                memory_kib,
            }),
            _ => Err(format!(
                "status --json lacks handshakes or memory: {status}"
            )),
        }
    }
}
