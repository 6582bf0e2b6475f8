//! How fast frames are sealed and opened: GB/s and ns a frame, for both ciphers.
//!
//! `cargo run --release -p shadowmesh-crypto --example frames`
//!
//! A whole session is set up for it, so what runs is what the engine runs: counters reserved by the
//! batch, header protection and replay window included.
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod handshake;

use std::time::{Duration, Instant};

use quinn_proto::Side;
use shadowmesh_crypto::{Cipher, KeyChain, SharedWindow, measure_speeds};
use shadowmesh_wire::sealed::ReceiverIndex;

/// A full datagram at the default MTU, and a small one.
const LENGTHS: [usize; 2] = [1420, 100];
/// Datagrams of a large GSO send.
const BATCH: usize = 46;
const BATCHES: usize = 20_000;

fn main() {
    let (client, server) = handshake::connect();
    let start = Instant::now();
    let [aes, chacha] = measure_speeds(|| start.elapsed());
    println!(
        "measured at start in {:?}: AES {aes} MB/s, ChaCha20 {chacha} MB/s",
        start.elapsed()
    );
    println!("ns a frame, and GB/s from the median: over {BATCHES} batches of {BATCH} frames");
    println!("cipher             bytes  seal best  median  GB/s    open best  median  GB/s");
    for cipher in Cipher::ALL {
        let indices = (ReceiverIndex(1), ReceiverIndex(2));
        let sender = KeyChain::export(&*client, Side::Client, cipher, indices.0, indices.1)
            .expect("the handshake is finished");
        let receiver = KeyChain::export(&*server, Side::Server, cipher, indices.1, indices.0)
            .expect("the handshake is finished");
        for len in LENGTHS {
            let [seal, open] = batches(&sender, &receiver, len);
            let speed = |ns: f64| len as f64 / ns;
            println!(
                "{:<18} {len:>5}  {:>9.0}  {:>6.0}  {:>4.2}    {:>9.0}  {:>6.0}  {:>4.2}",
                cipher.name(),
                seal.best,
                seal.median,
                speed(seal.median),
                open.best,
                open.median,
                speed(open.median)
            );
        }
    }
}

/// Nanoseconds a frame.
struct Figures {
    /// Of the batch that nothing disturbed.
    best: f64,
    /// Of the batch in the middle.
    median: f64,
}

/// Seals and opens many batches, and gives the figures of both.
fn batches(sender: &KeyChain, receiver: &KeyChain, len: usize) -> [Figures; 2] {
    let (sealer, opener) = (sender.sealer(), receiver.opener());
    let window = SharedWindow::new();
    let mut authentic = Vec::with_capacity(BATCH);
    let mut batch = vec![vec![0; len]; BATCH];
    let (mut sealing, mut opening) = (Vec::new(), Vec::new());
    for _ in 0..BATCHES {
        let start = Instant::now();
        let first = sealer.reserve(BATCH as u64).expect("the epoch is young");
        for (counter, datagram) in (first..).zip(&mut batch) {
            sealer.seal(counter, datagram);
        }
        sealing.push(start.elapsed());
        let start = Instant::now();
        for datagram in &mut batch {
            let frame = opener.open(datagram, window.highest());
            authentic.push(frame.expect("it was sealed a moment ago"));
        }
        let mut acceptance = window.lock();
        for frame in authentic.drain(..) {
            acceptance.accept(&frame).expect("it was never here before");
        }
        drop(acceptance);
        opening.push(start.elapsed());
    }
    [sealing, opening].map(figures)
}

fn figures(mut batches: Vec<Duration>) -> Figures {
    batches.sort_unstable();
    let ns = |batch: Duration| batch.as_nanos() as f64 / BATCH as f64;
    Figures {
        best: ns(batches[0]),
        median: ns(batches[batches.len() / 2]),
    }
}
