//! What a handshake costs each side in processor time and bytes, beside a classical one.
//!
//! `cargo run --release -p shadowmesh-crypto --example handshake`
//!
//! Both kinds run over the same TLS and QUIC code, with raw public keys and client authentication;
//! only the algorithms differ. Times are medians of what a side spends inside its own TLS session,
//! so the table says what the cryptography costs and nothing about any network.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

#[path = "common/classical.rs"]
mod classical;
#[path = "common/handshake.rs"]
mod handshake;

use std::rc::Rc;
use std::time::{Duration, Instant};

use handshake::{Dial, Nodes};
use quinn_proto::crypto::Session;

/// Handshakes for each row.
const HANDSHAKES: usize = 300;

fn main() {
    println!("medians of {HANDSHAKES} handshakes, microseconds and bytes of TLS");
    println!("                        client us  server us  client bytes  server bytes");
    row("first contact", || Rc::new(Nodes::new(false)));
    row("short certificates", || Rc::new(Nodes::new(true)));

    let nodes = Rc::new(Nodes::new(false));
    nodes.connect();
    row("resumed", || Rc::clone(&nodes) as Rc<dyn Dial>);

    let classical = Rc::new(classical::Nodes::new());
    row("X25519 + Ed25519", || Rc::clone(&classical) as Rc<dyn Dial>);
}

/// Runs handshakes and prints what they cost.
fn row(name: &str, mut nodes: impl FnMut() -> Rc<dyn Dial>) {
    let mut costs: Vec<[Cost; 2]> = (0..HANDSHAKES).map(|_| measure(&*nodes())).collect();
    let [client, server] = [0, 1].map(|side| {
        costs.sort_unstable_by_key(|cost| cost[side].time);
        costs[HANDSHAKES / 2][side]
    });
    println!(
        "{name:<22} {:>10.0} {:>10.0} {:>13} {:>13}",
        client.time.as_nanos() as f64 / 1e3,
        server.time.as_nanos() as f64 / 1e3,
        client.bytes,
        server.bytes
    );
}

/// One handshake; what it cost the client and the server.
fn measure(nodes: &dyn Dial) -> [Cost; 2] {
    let start = Instant::now();
    let mut client = nodes.client();
    let mut client_cost = Cost {
        time: start.elapsed(),
        bytes: 0,
    };
    let start = Instant::now();
    let mut server = nodes.server();
    let mut server_cost = Cost {
        time: start.elapsed(),
        bytes: 0,
    };
    while client.is_handshaking() || server.is_handshaking() {
        step(
            &mut *client,
            &mut client_cost,
            &mut *server,
            &mut server_cost,
        );
        step(
            &mut *server,
            &mut server_cost,
            &mut *client,
            &mut client_cost,
        );
    }
    [client_cost, server_cost]
}

/// What one side of one handshake spent.
#[derive(Clone, Copy)]
struct Cost {
    time: Duration,
    bytes: usize,
}

/// Carries everything that `from` has to say to `to`, on both sides' accounts.
fn step(from: &mut dyn Session, from_cost: &mut Cost, to: &mut dyn Session, to_cost: &mut Cost) {
    loop {
        let mut bytes = Vec::new();
        let start = Instant::now();
        let keys = from.write_handshake(&mut bytes);
        from_cost.time += start.elapsed();
        from_cost.bytes += bytes.len();
        if bytes.is_empty() && keys.is_none() {
            return;
        }
        if !bytes.is_empty() {
            let start = Instant::now();
            to.read_handshake(&bytes).expect("both nodes are honest");
            to_cost.time += start.elapsed();
        }
    }
}
