//! Datagrams from strangers into a whole `Net`: arbitrary bytes, and real first packets that were
//! tampered with, between two of which time may pass. Nothing may panic, and nobody becomes a peer.
//!
//! The input is a list of steps: a kind, a length, and as many bytes.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use shadowmesh_crypto::Identity;
use shadowmesh_net::{Net, NetConfig, NetEvent, PeerConfig, Received};
use shadowmesh_wire::PeerId;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

/// Making keys takes longer than all else here.
static IDENTITIES: LazyLock<[Arc<Identity>; 2]> = LazyLock::new(|| {
    [7, 8].map(|n| Arc::new(Identity::from_seeds(&[n; 32], &[n; 32])))
});

/// What a stranger sends first, both datagrams of it.
static FIRST_PACKETS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let now = Instant::now();
    let mut stranger = net(1, now);
    let victim = IDENTITIES[0].peer_id();
    stranger.add_peer(peer(victim, VICTIM), now);
    stranger.connect(&victim, now);
    std::iter::from_fn(|| stranger.poll_transmit())
        .map(|transmit| transmit.contents)
        .collect()
});

const VICTIM: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    4433,
);
const STEPS_MAX: usize = 32;

fuzz_target!(|input: &[u8]| {
    let mut now = Instant::now();
    let mut victim = net(0, now);
    // A peer that it calls, so that there are a connection, ids and addresses to hit.
    let friend = IDENTITIES[1].peer_id();
    let address = SocketAddr::from(([192, 0, 2, 9], 4433));
    victim.add_peer(peer(friend, address), now);
    victim.connect(&friend, now);
    drain(&mut victim);
    for (kind, len, bytes) in shadowmesh_fuzz::steps(input).take(STEPS_MAX) {
        let from = match kind & 3 {
            0 => address,
            n => SocketAddr::from(([198, 51, 100, n], 1000 + u16::from(kind))),
        };
        match kind >> 6 {
            0 => deliver(&mut victim, from, bytes, now),
            1 => deliver(&mut victim, from, &tampered(kind, bytes), now),
            2 => victim.handle_inner(&friend, Received::from_remote(from), bytes, now),
            _ => {
                now += Duration::from_millis(u64::from(len) * 20);
                while victim.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    victim.handle_timeout(now);
                    drain(&mut victim);
                }
            }
        }
        drain(&mut victim);
    }
});

fn net(which: usize, now: Instant) -> Net {
    let config = NetConfig::new(
        Arc::clone(&IDENTITIES[which]),
        [which as u8; 32],
        which as u64,
    );
    Net::new(config, now).expect("the default configuration is valid")
}

fn peer(id: PeerId, address: SocketAddr) -> PeerConfig {
    PeerConfig {
        id,
        addresses: vec![address],
        known_key: None,
        data_plane: Default::default(),
        relay: false,
    }
}

/// A real first packet with some of its bytes changed, as pairs of place and value say.
fn tampered(kind: u8, changes: &[u8]) -> Vec<u8> {
    let mut datagram = FIRST_PACKETS[usize::from(kind >> 2 & 3) % FIRST_PACKETS.len()].clone();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % datagram.len();
        datagram[at] = change[2];
    }
    datagram
}

fn deliver(victim: &mut Net, from: SocketAddr, bytes: &[u8], now: Instant) {
    victim.handle_datagram(Received::from_remote(from), BytesMut::from(bytes), now);
}

fn drain(victim: &mut Net) {
    while victim.poll_transmit().is_some() {}
    while victim.poll_early().is_some() {}
    while let Some(event) = victim.poll_event() {
        assert!(
            !matches!(event, NetEvent::PeerUp { .. }),
            "nobody proved who they are"
        );
    }
}
