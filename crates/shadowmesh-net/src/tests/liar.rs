//! Somebody sees copies of first packets of calls, and answers them before the peer does.
//!
//! Initial keys are made of nothing but a connection id that stands in clear in the first packet, so whoever
//! sees that can write what the client takes for a server's packet.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::ConnectionId;
use shadowmesh_crypto::{HandshakeCounters, Identity, PeerBook, PublicIdentity, TlsConfigs};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::envelope;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::sealed::{HEADER_LEN, TAG_LEN, receiver_index};
use shadowmesh_wire::way::Label;

use super::harness::{World, ms, sealed};
use crate::{DropReason, NetEvent};

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

/// What is forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forgery {
    /// The alert of a peer that does not know us.
    AccessDenied,
    /// The refusal of a relay.
    NotServed,
    /// Something that is no ServerHello.
    ServerHello,
    /// The beginning of one, and no more.
    HalfAServerHello,
    /// All that was sent came through.
    Ack,
    /// Come back with a token.
    Retry,
    /// Speak another version.
    VersionNegotiation,
    /// The other side has lost its keys.
    StatelessReset,
}

const ALL: [Forgery; 8] = [
    Forgery::AccessDenied,
    Forgery::NotServed,
    Forgery::ServerHello,
    Forgery::HalfAServerHello,
    Forgery::Ack,
    Forgery::Retry,
    Forgery::VersionNegotiation,
    Forgery::StatelessReset,
];

struct Liar {
    tls: TlsConfigs,
}

impl Liar {
    fn new() -> Self {
        let identity = Arc::new(Identity::from_seeds(&[9; 32], &[8; 32]));
        let counters = Arc::new(HandshakeCounters::default());
        Self {
            tls: TlsConfigs::new(identity, Arc::new(Anybody), counters),
        }
    }

    /// An answer to a first packet, made of nothing but its bytes.
    fn answer(&self, initial: &[u8], forgery: Forgery) -> Option<Vec<u8>> {
        if initial.len() < 1200 || initial[0] & 0xf0 != 0xc0 {
            return None;
        }
        let (dcid, rest) = connection_id(&initial[5..]);
        let (scid, _) = connection_id(rest);
        let payload: Vec<u8> = match forgery {
            // CONNECTION_CLOSE: TLS alert 49.
            Forgery::AccessDenied => vec![0x1c, 0x41, 0x31, 0, 0],
            // CONNECTION_CLOSE of the application: code 6.
            Forgery::NotServed => vec![0x1d, 6, 0],
            Forgery::ServerHello => vec![0x06, 0, 4, 2, 0, 0, 0],
            Forgery::HalfAServerHello => vec![0x06, 0, 6, 2, 0, 4, 0, 3, 3],
            Forgery::Ack => vec![0x02, 0, 0, 0, 0],
            Forgery::Retry => return Some(self.retry(dcid, scid)),
            Forgery::VersionNegotiation => {
                let ids = [&[scid.len() as u8][..], scid, &[dcid.len() as u8], dcid];
                return Some([&[0xc0, 0, 0, 0, 0][..], &ids.concat(), &[0, 0, 0, 2]].concat());
            }
            Forgery::StatelessReset => return Some([&[0x40][..], scid, &[7; 40]].concat()),
        };
        Some(self.initial(dcid, scid, payload))
    }

    fn initial(&self, dcid: &[u8], scid: &[u8], mut payload: Vec<u8>) -> Vec<u8> {
        let keys = self.tls.server().initial_keys(1, &ConnectionId::new(dcid));
        let keys = keys.expect("version 1 has such keys");
        let mut packet = [&[0xc3, 0, 0, 0, 1, scid.len() as u8][..], scid].concat();
        packet.extend([8, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
        payload.resize(40, 0);
        let length = (4 + payload.len() + 16) as u16;
        packet.extend((0x4000 | length).to_be_bytes());
        let number_at = packet.len();
        packet.extend([0; 4]);
        let header_len = packet.len();
        packet.extend(payload);
        packet.extend([0; 16]);
        keys.packet.local.encrypt(0, &mut packet, header_len);
        keys.header.local.encrypt(number_at, &mut packet);
        packet
    }

    fn retry(&self, dcid: &[u8], scid: &[u8]) -> Vec<u8> {
        let mut packet = [&[0xf0, 0, 0, 0, 1, scid.len() as u8][..], scid].concat();
        packet.extend([8, 1, 2, 3, 4, 5, 6, 7, 8]);
        packet.extend([7; 32]);
        let tag = self
            .tls
            .server()
            .retry_tag(1, &ConnectionId::new(dcid), &packet);
        packet.extend(tag);
        packet
    }
}

fn connection_id(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes[1..].split_at(usize::from(bytes[0]))
}

type Sight = Rc<RefCell<Vec<(SocketAddr, Vec<u8>)>>>;

/// What node 0 sends, from now on.
fn tap(world: &mut World) -> Sight {
    let seen: Sight = Rc::default();
    let notes = seen.clone();
    world.lost = Box::new(move |flight| {
        if flight.from == 0 {
            notes
                .borrow_mut()
                .push((flight.target, flight.data.clone()));
        }
        false
    });
    seen
}

/// It takes a datagram of the liar 1 ms.
fn inject(world: &mut World, source: SocketAddr, data: Vec<u8>) {
    let own = world.nodes[0].address;
    let delay = std::mem::replace(&mut world.delay, ms(1));
    world.inject(source, own, data);
    world.delay = delay;
}

const LIAR: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 66)),
    7,
);

/// How long node 0 takes to reach the last node under constant demand. `lies`: what is done about each datagram
/// that it sends.
fn time_to_reach(
    world: &mut World,
    peer: usize,
    mut lies: impl FnMut(&mut World, SocketAddr, &[u8]),
) -> Duration {
    let seen = tap(world);
    let begun = world.now;
    while !world.is_up(0, peer) {
        if world.now - begun > Duration::from_secs(30) {
            return Duration::MAX;
        }
        world.connect(0, peer);
        world.run(ms(1));
        for (target, data) in std::mem::take(&mut *seen.borrow_mut()) {
            lies(world, target, &data);
        }
    }
    world.now - begun
}

fn on_the_local_network(forgery: Option<Forgery>, with_address: bool) -> (Duration, u32) {
    let mut world = World::new(2, 1);
    world.introduce(0, 1, with_address);
    world.introduce(1, 0, false);
    world.delay = ms(20);
    let (id, now, liar) = (world.id(1), world.now, Liar::new());
    let mut forged = 0;
    world.nodes[0].net.learn_address(&id, LIAR, now);
    if !with_address {
        let address = world.nodes[1].address;
        world.nodes[0].net.learn_address(&id, address, now);
    }
    world.collect(0);
    let took = time_to_reach(&mut world, 1, |world, target, data| {
        let answer = forgery.and_then(|forgery| liar.answer(data, forgery));
        if let Some(answer) = answer.filter(|_| target == LIAR) {
            forged += 1;
            inject(world, LIAR, answer);
        }
    });
    (took, forged)
}

// PROTOCOL SM-PA-12
// PROTOCOL SM-PA-1
#[test]
fn a_liar_on_the_local_network_keeps_nobody_from_a_peer_that_is_elsewhere() {
    for with_address in [true, false] {
        let (honest, _) = on_the_local_network(None, with_address);
        assert!(honest < ms(200), "{honest:?}");
        for forgery in ALL {
            let (took, forged) = on_the_local_network(Some(forgery), with_address);
            let late = took.saturating_sub(honest);
            assert!(late <= ms(5) && forged > 0, "{forgery:?}: {took:?}");
        }
    }
}

/// What the relay writes to node 0 in the name of the node behind it.
fn over_relay(world: &World, from: usize, relay: usize, data: &[u8]) -> Option<Vec<u8>> {
    let forwarding = world.nodes[relay].net.forwarding();
    let outbound = forwarding.outbound(&world.id(0))?;
    let label = Label::of(&world.id(from)).0.to_be_bytes();
    let frame = sealed(outbound, InnerType::Relayed, &[&label[..], data].concat());
    Some(frame.contents)
}

/// Node 0 calls node 1, which it reaches straight if `straight`, else over node 2. The first relay, the last
/// node, answers whatever it is to pass on, and what it sees on the straight way.
fn with_a_lying_relay(forgery: Option<Forgery>, straight: bool) -> Duration {
    let mut world = World::new(4, 3);
    world.delay = ms(20);
    let (peer, honest, lying) = (1, 2, 3);
    for relay in [lying, honest] {
        world.configure(relay, |config| config.relay.enabled = true);
        world.introduce_relay(0, relay);
    }
    world.introduce_relay(peer, honest);
    world.introduce(0, peer, straight);
    world.introduce(peer, 0, false);
    world.run(ms(1_000));
    assert!(world.is_up(0, lying) && world.is_up(peer, honest));
    let (liar, relay_address) = (Liar::new(), world.nodes[lying].address);
    time_to_reach(&mut world, peer, |world, target, data| {
        let Some(forgery) = forgery else { return };
        let passed = (target == relay_address)
            .then(|| opened(world, lying, data))
            .flatten();
        let sees = passed.unwrap_or_else(|| data.to_vec());
        let answer = liar.answer(&sees, forgery);
        if let Some(frame) = answer.and_then(|answer| over_relay(world, peer, lying, &answer)) {
            inject(world, relay_address, frame);
        }
    })
}

/// What is inside an envelope to a relay.
fn opened(world: &World, relay: usize, data: &[u8]) -> Option<Vec<u8>> {
    let forwarding = world.nodes[relay].net.forwarding();
    let index = receiver_index(data)?;
    let inbound = forwarding.inbound(index)?;
    let mut data = data.to_vec();
    let authentic = inbound.opener.open(&mut data, inbound.window.highest());
    let _ = authentic.ok()?;
    let inner = &data[HEADER_LEN..data.len() - TAG_LEN];
    let is_envelope = inner.first() == Some(&u8::from(InnerType::Relayed));
    let (_, inside) = envelope::decode(inner.get(1..)?)?;
    is_envelope.then(|| inside.to_vec())
}

// PROTOCOL SM-PA-12
// PROTOCOL SM-PA-1
#[test]
fn a_lying_relay_keeps_no_two_apart_that_have_another_way() {
    for straight in [true, false] {
        let honest = with_a_lying_relay(None, straight);
        assert!(honest < ms(400), "{honest:?}");
        for forgery in ALL {
            let took = with_a_lying_relay(Some(forgery), straight);
            let late = took.saturating_sub(honest);
            assert!(
                late <= ms(100),
                "straight {straight}, {forgery:?}: {took:?}"
            );
        }
    }
}

// PROTOCOL SM-PA-12
// PROTOCOL SM-RL-6
#[test]
fn one_forged_packet_delays_a_client_by_a_fraction_of_a_second_and_is_no_refusal() {
    let reach = |forgery: Option<Forgery>| {
        let mut world = World::new(2, 2);
        world.delay = ms(20);
        world.configure(1, |config| config.relay.enabled = true);
        world.introduce_relay(0, 1);
        let (liar, relay) = (Liar::new(), world.nodes[1].address);
        let mut forged = 0;
        let took = time_to_reach(&mut world, 1, |world, _, data| {
            let answer = forgery.and_then(|forgery| liar.answer(data, forgery));
            if let Some(answer) = answer.filter(|_| forged == 0) {
                forged += 1;
                // From the very address of the relay.
                inject(world, relay, answer);
            }
        });
        let downs = |event: &NetEvent| matches!(event, NetEvent::PeerDown { .. });
        assert_eq!(world.count(0, downs), 0);
        took
    };
    let honest = reach(None);
    for forgery in ALL {
        let took = reach(Some(forgery));
        let late = took.saturating_sub(honest);
        assert!(
            late <= ms(700),
            "{forgery:?}: {took:?} instead of {honest:?}"
        );
    }
}

// PROTOCOL SM-PA-12
#[test]
fn what_does_not_come_by_the_way_of_a_call_is_dropped_and_counted() {
    for forgery in ALL {
        let mut world = World::pair(5);
        world.delay = ms(20);
        let liar = Liar::new();
        let took = time_to_reach(&mut world, 1, |world, _, data| {
            if let Some(answer) = liar.answer(data, forgery) {
                inject(world, LIAR, answer);
            }
        });
        assert!(took < ms(100), "{forgery:?}: {took:?}");
        let dropped = world.drops(0, DropReason::HandshakeWay);
        let is_of_no_call = forgery == Forgery::VersionNegotiation;
        assert!(dropped > 0 || is_of_no_call, "{forgery:?}");
    }
}

/// A router that leads to a peer beside us lets it answer from its own address.
// PROTOCOL SM-PA-12
#[test]
fn a_peer_that_answers_from_another_address_than_was_called_is_called_there() {
    let mut world = World::pair(6);
    let (id, now) = (world.id(1), world.now);
    let outside: SocketAddr = ([203, 0, 113, 7], 4433).into();
    let config = crate::PeerConfig {
        id,
        addresses: vec![outside],
        known_key: None,
        data_plane: crate::DataPlane::default(),
        relay: false,
    };
    world.nodes[0].net.add_peer(config, now);
    let (seen, inside) = (tap(&mut world), world.nodes[1].address);
    let own = world.nodes[0].address;
    world.connect(0, 1);
    for _ in 0..300 {
        world.run(ms(1));
        for (target, data) in std::mem::take(&mut *seen.borrow_mut()) {
            if target == outside {
                world.inject(own, inside, data);
            }
        }
    }
    assert!(world.is_up(0, 1));
    assert!(world.drops(0, DropReason::HandshakeWay) > 0);
}

// PROTOCOL SM-PA-12
#[test]
fn whoever_sees_calls_has_others_called_once_a_minute() {
    let mut world = World::pair(7);
    let seen = tap(&mut world);
    let (liar, peer) = (Liar::new(), world.nodes[1].address);
    let mut third: u8 = 0;
    for _ in 0..50_000 {
        world.connect(0, 1);
        world.run(ms(1));
        for (target, data) in std::mem::take(&mut *seen.borrow_mut()) {
            let answer = liar.answer(&data, Forgery::Ack);
            if let Some(answer) = answer.filter(|_| target == peer) {
                third = third.wrapping_add(1);
                inject(&mut world, ([192, 0, 2, third], 53).into(), answer);
            }
        }
        // The peer is away.
        let now = world.now;
        world.nodes[1].net = crate::Net::new(world.nodes[1].config.clone(), now).expect("valid");
    }
    let others: Vec<_> = world
        .log
        .iter()
        .filter(|flight| flight.from == 0 && flight.target != peer)
        .collect();
    let bytes: usize = others.iter().map(|flight| flight.data.len() + 28).sum();
    let mut targets: Vec<_> = others.iter().map(|flight| flight.target).collect();
    targets.dedup();
    assert_eq!(targets.len(), 1);
    assert!(third > 5 && bytes < 100_000, "{bytes} bytes");
}
