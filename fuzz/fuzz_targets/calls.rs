//! Calls with a liar on the path.
//!
//! One node calls another, whose address it has, of which somebody on the local network speaks, and which a
//! relay reaches too. The liar sees all that goes by one of these three ways, may drop it there, and forges what the
//! keys of Initial packets allow, which are public. The input is which way that is, and a list of steps: what is done, a
//! length, and as many bytes. Whatever comes, nothing panics, nobody becomes a peer who is none, the session
//! comes up in time by a way that the liar does not see, and does not end.

#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use quinn_proto::ConnectionId;
use shadowmesh_crypto::{HandshakeCounters, Identity, PeerBook, PublicIdentity, TlsConfigs};
use shadowmesh_net::{DataPlane, Net, NetConfig, NetEvent, PeerConfig, Received};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::envelope;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::sealed::{HEADER_LEN, TAG_LEN, receiver_index};
use shadowmesh_wire::way::{Label, Way};

const STEPS_MAX: usize = 40;
const DELAY: Duration = Duration::from_millis(10);
/// The session must be up so long after it was wanted: the calls by other ways begin 0.1 s apart at most.
const UP_WITHIN: Duration = Duration::from_millis(600);

const CALLER: usize = 0;
const PEER: usize = 1;
const RELAY: usize = 2;

const LIAR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 7, 66)), 7);

fn address(node: usize) -> SocketAddr {
    ([198, 51, 100, node as u8 + 1], 4433).into()
}

/// Making keys takes longer than all else here.
static IDENTITIES: LazyLock<[Arc<Identity>; 3]> =
    LazyLock::new(|| [7, 8, 9].map(|n| Arc::new(Identity::from_seeds(&[n; 32], &[n; 32]))));

#[derive(Debug)]
struct Anybody;

impl PeerBook for Anybody {
    fn is_member(&self, _: &PeerId) -> bool {
        true
    }

    fn public_identity(&self, _: &PeerId) -> Option<Arc<PublicIdentity>> {
        None
    }

    fn learned(&self, _: Arc<PublicIdentity>) {}
}

/// The liar's own keys, of which only what everybody can compute is used.
static TLS: LazyLock<TlsConfigs> = LazyLock::new(|| {
    let identity = Arc::new(Identity::from_seeds(&[1; 32], &[1; 32]));
    TlsConfigs::new(identity, Arc::new(Anybody), Arc::new(HandshakeCounters::default()))
});

/// Which way the liar sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sees {
    Configured,
    Hearsay,
    Relay,
}

fuzz_target!(|input: &[u8]| {
    let Some((&way, steps)) = input.split_first() else {
        return;
    };
    let sees = [Sees::Configured, Sees::Hearsay, Sees::Relay][usize::from(way % 3)];
    let mut stage = Stage::new(sees);
    // Who is on the way may also keep everything that goes by it.
    stage.keeps = way & 0x80 != 0;
    stage.call();
    for (kind, _, bytes) in shadowmesh_fuzz::steps(steps).take(STEPS_MAX) {
        stage.act(kind, bytes);
    }
    stage.judge();
});

struct Flight {
    source: SocketAddr,
    target: SocketAddr,
    data: Vec<u8>,
}

struct Stage {
    now: Instant,
    nets: Vec<Net>,
    queue: BTreeMap<(Instant, u64), Flight>,
    sequence: u64,
    sees: Sees,
    keeps: bool,
    /// First packets that the liar saw, of the caller and of the peer. Limit: eight of each.
    seen: [Vec<Vec<u8>>; 2],
    wanted_at: Instant,
    up_at: Option<Instant>,
}

impl Stage {
    /// Caller and peer have a session with the relay.
    fn new(sees: Sees) -> Self {
        let now = Instant::now();
        let nets = (0..3).map(|which| {
            let identity = Arc::clone(&IDENTITIES[which]);
            let mut config = NetConfig::new(identity, [which as u8; 32], which as u64);
            config.relay.enabled = which == RELAY;
            Net::new(config, now).expect("the configuration is valid")
        });
        let mut stage = Self {
            now,
            nets: nets.collect(),
            queue: BTreeMap::new(),
            sequence: 0,
            sees,
            keeps: false,
            seen: [vec![], vec![]],
            wanted_at: now,
            up_at: None,
        };
        for node in [CALLER, PEER] {
            stage.nets[node].add_relay(peer(RELAY, true), now);
        }
        stage.run(Duration::from_millis(300));
        stage
    }

    fn call(&mut self) {
        let now = self.now;
        self.seen = [vec![], vec![]];
        self.wanted_at = now;
        self.nets[PEER].add_peer(peer(CALLER, false), now);
        self.nets[CALLER].add_peer(peer(PEER, true), now);
        let id = IDENTITIES[PEER].peer_id();
        self.nets[CALLER].learn_address(&id, LIAR, now);
        self.want();
        self.collect();
    }

    fn want(&mut self) {
        let (id, now) = (IDENTITIES[PEER].peer_id(), self.now);
        self.nets[CALLER].connect(&id, now);
    }

    /// One step: its lowest four bits say what is done, the highest at whom.
    fn act(&mut self, kind: u8, bytes: &[u8]) {
        let at = usize::from(kind >> 7);
        let which = usize::from(kind >> 4 & 7);
        let first = self.seen[1 - at].get(which).cloned();
        let forged = match (kind & 15, first) {
            (0, _) => {
                let ms = bytes.first().copied().unwrap_or(1).clamp(1, 100);
                self.want();
                return self.run(Duration::from_millis(u64::from(ms)));
            }
            (1, _) => bytes.to_vec(),
            (2, Some(first)) => changed(first, bytes),
            (3, Some(first)) => retry(&first, bytes),
            (4, Some(first)) => version_negotiation(&first),
            (5, Some(first)) => [&[0x40][..], source_id(&first), bytes].concat(),
            // TLS alert 49, and what an application would say.
            (6, Some(first)) => initial(&first, at, &[0x1c, 0x41, 0x31, 0, 0]),
            (7, Some(first)) => initial(&first, at, &[0x1d, bytes.first().map_or(6, |b| b & 7), 0]),
            (8, Some(first)) => initial(&first, at, &crypto(bytes)),
            (9, Some(first)) => initial(&first, at, &[0x02, 0, 0, 0, 0]),
            (_, Some(first)) => initial(&first, at, bytes),
            (_, None) => return,
        };
        self.inject(at, forged);
        self.run(Duration::from_millis(1));
    }

    /// From where the liar sits on the way, in whose name it likes.
    fn inject(&mut self, at: usize, data: Vec<u8>) {
        let (target, other) = (address(at), 1 - at);
        let (source, data) = match self.sees {
            Sees::Configured => (address(other), data),
            Sees::Hearsay => (LIAR, data),
            Sees::Relay => {
                let forwarding = self.nets[RELAY].forwarding();
                let Some(outbound) = forwarding.outbound(&IDENTITIES[at].peer_id()) else {
                    return;
                };
                let label = Label::of(&IDENTITIES[other].peer_id()).0.to_be_bytes();
                let kind = [u8::from(InnerType::Relayed)];
                let inner = [&kind[..], &label, &data].concat();
                let mut frame = [&[0; HEADER_LEN][..], &inner, &[0; TAG_LEN]].concat();
                let counter = outbound.sealer.reserve(1).expect("few were sent");
                outbound.sealer.seal(counter, &mut frame);
                (address(RELAY), frame)
            }
        };
        let flight = Flight { source, target, data };
        self.enqueue(flight, Duration::from_millis(1));
    }

    fn enqueue(&mut self, flight: Flight, delay: Duration) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), flight);
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timers = self.nets.iter().filter_map(|net| Some(net.poll_timeout()?.0));
            let next = timers.chain(self.queue.keys().map(|(at, _)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let flight = entry.remove();
                self.arrive(flight);
            }
            for net in &mut self.nets {
                if net.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                    net.handle_timeout(self.now);
                }
            }
            self.collect();
        }
        self.now = end;
        self.collect();
    }

    fn collect(&mut self) {
        for node in 0..self.nets.len() {
            while let Some((received, data)) = self.nets[node].poll_early() {
                self.judge_datagram(node, received, &data);
            }
            while let Some(event) = self.nets[node].poll_event() {
                self.on_event(node, &event);
            }
            while let Some(transmit) = self.nets[node].poll_transmit() {
                let len = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
                for data in transmit.contents.chunks(len) {
                    let flight = Flight {
                        source: address(node),
                        target: transmit.remote,
                        data: data.to_vec(),
                    };
                    self.leave(node, flight);
                }
            }
        }
    }

    fn leave(&mut self, node: usize, flight: Flight) {
        let straight = node < RELAY && flight.target == address(1 - node);
        let sees = match self.sees {
            Sees::Configured => straight,
            Sees::Hearsay => flight.target == LIAR,
            Sees::Relay => false,
        };
        if sees {
            self.notice(node, &flight.data);
        }
        if !(sees && self.keeps) {
            self.enqueue(flight, DELAY);
        }
    }

    fn notice(&mut self, by: usize, data: &[u8]) {
        let is_first = data.len() >= 1200 && data[0] & 0xf0 == 0xc0;
        if is_first && self.seen[by].len() < 8 {
            self.seen[by].push(data.to_vec());
        }
    }

    fn arrive(&mut self, flight: Flight) {
        if let Some(node) = (0..self.nets.len()).find(|node| address(*node) == flight.target) {
            self.judge_datagram(node, Received::from_remote(flight.source), &flight.data);
        }
    }

    /// As the data plane of a node does it.
    fn judge_datagram(&mut self, node: usize, received: Received, data: &[u8]) {
        let now = self.now;
        let forwarding = self.nets[node].forwarding();
        let inbound = receiver_index(data).and_then(|index| forwarding.inbound(index));
        let Some(inbound) = inbound else {
            let data = BytesMut::from(data);
            return self.nets[node].handle_datagram(received, data, now);
        };
        let mut data = data.to_vec();
        let authentic = inbound.opener.open(&mut data, inbound.window.highest());
        let Ok(opened) = authentic.and_then(|frame| inbound.window.lock().accept(&frame)) else {
            return;
        };
        let inner = &data[opened.inner];
        inbound.traffic.received(1, inner.len() as u64 - 1);
        if inner[0] != u8::from(InnerType::Relayed) {
            let from = (0..2).find(|from| IDENTITIES[*from].peer_id() == inbound.peer);
            if let (RELAY, Sees::Relay, Some(from)) = (node, self.sees, from)
                && let Some((_, inside)) = envelope::decode(&inner[1..])
            {
                let inside = inside.to_vec();
                self.notice(from, &inside);
                if self.keeps {
                    return;
                }
            }
            return self.nets[node].handle_inner(&inbound.peer, received, inner, now);
        }
        let (Some((label, inside)), Some(slot)) = (envelope::decode(&inner[1..]), inbound.relay_slot)
        else {
            return;
        };
        if !received.is_relayed() {
            let remote = Way::Relayed { slot, label }.address();
            let inside = inside.to_vec();
            self.judge_datagram(node, received.over_relay(remote), &inside);
        }
    }

    fn on_event(&mut self, node: usize, event: &NetEvent) {
        let known = |id: &PeerId| IDENTITIES.iter().any(|identity| identity.peer_id() == *id);
        match event {
            NetEvent::PeerUp { peer, .. } => {
                assert!(known(peer), "somebody unknown became a peer");
                if node == CALLER && *peer == IDENTITIES[PEER].peer_id() {
                    self.up_at.get_or_insert(self.now);
                }
            }
            NetEvent::PeerDown { peer, .. } if node == CALLER => {
                assert!(*peer != IDENTITIES[PEER].peer_id(), "the session ended");
            }
            _ => {}
        }
    }

    fn judge(mut self) {
        while self.up_at.is_none() && self.now < self.wanted_at + UP_WITHIN {
            self.want();
            self.run(Duration::from_millis(20));
        }
        let up_at = self.up_at.expect("there are ways that the liar does not see");
        assert!(up_at <= self.wanted_at + UP_WITHIN, "the liar held the call up");
        self.run(Duration::from_secs(2));
        let forwarding = self.nets[CALLER].forwarding();
        assert!(forwarding.outbound(&IDENTITIES[PEER].peer_id()).is_some());
    }
}

fn peer(node: usize, with_address: bool) -> PeerConfig {
    PeerConfig {
        id: IDENTITIES[node].peer_id(),
        addresses: with_address.then(|| address(node)).into_iter().collect(),
        known_key: None,
        data_plane: DataPlane::default(),
        relay: false,
    }
}

fn connection_id(bytes: &[u8]) -> (&[u8], &[u8]) {
    let len = usize::from(bytes[0]).min(bytes.len() - 1);
    bytes[1..].split_at(len)
}

fn destination_id(first: &[u8]) -> &[u8] {
    connection_id(&first[5..]).0
}

fn source_id(first: &[u8]) -> &[u8] {
    connection_id(connection_id(&first[5..]).1).0
}

/// A CRYPTO frame: an offset, and what is left.
fn crypto(bytes: &[u8]) -> Vec<u8> {
    let (offset, data) = bytes.split_first().unwrap_or((&0, &[]));
    let data = &data[..data.len().min(63)];
    [&[0x06, offset & 63, data.len() as u8][..], data].concat()
}

/// An Initial packet with these frames, which answers a first packet: to the client, or in its place.
fn initial(first: &[u8], at: usize, frames: &[u8]) -> Vec<u8> {
    let (dcid, scid) = (destination_id(first), source_id(first));
    let Ok(keys) = TLS.server().initial_keys(1, &ConnectionId::new(dcid)) else {
        return Vec::new();
    };
    let to = if at == CALLER { scid } else { dcid };
    let mut packet = [&[0xc3, 0, 0, 0, 1, to.len() as u8][..], to].concat();
    packet.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
    let mut payload = frames.to_vec();
    payload.resize(frames.len().max(40), 0);
    let length = (4 + payload.len() + 16) as u16;
    packet.extend((0x4000 | length).to_be_bytes());
    let number_at = packet.len();
    packet.extend([0; 4]);
    let header_len = packet.len();
    packet.extend(payload);
    packet.extend([0; 16]);
    let (packet_key, header_key) = match at {
        CALLER => (&keys.packet.local, &keys.header.local),
        _ => (&keys.packet.remote, &keys.header.remote),
    };
    packet_key.encrypt(0, &mut packet, header_len);
    header_key.encrypt(number_at, &mut packet);
    packet
}

fn retry(first: &[u8], token: &[u8]) -> Vec<u8> {
    let (dcid, scid) = (destination_id(first), source_id(first));
    let mut packet = [&[0xf0, 0, 0, 0, 1, scid.len() as u8][..], scid].concat();
    packet.extend([8, 1, 2, 3, 4, 5, 6, 7, 8]);
    packet.extend(token);
    let tag = TLS.server().retry_tag(1, &ConnectionId::new(dcid), &packet);
    packet.extend(tag);
    packet
}

fn version_negotiation(first: &[u8]) -> Vec<u8> {
    let (dcid, scid) = (destination_id(first), source_id(first));
    let ids = [&[scid.len() as u8][..], scid, &[dcid.len() as u8], dcid];
    [&[0xc0, 0, 0, 0, 0][..], &ids.concat(), &[0, 0, 0, 2]].concat()
}

/// A first packet with some of its bytes changed, as pairs of place and value say.
fn changed(mut first: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % first.len();
        first[at] = change[2];
    }
    first
}
