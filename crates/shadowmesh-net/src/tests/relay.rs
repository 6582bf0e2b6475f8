//! Two nodes that cannot reach each other, and relays between them.

use std::collections::BTreeSet;
use std::time::Duration;

use shadowmesh_wire::control::ControlMessage;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::way::{Label, Way};

use crate::{DataPlane, DropReason, NetEvent, PathInfo, Plane, RelayAllow};

use super::harness::{World, ms, sealed};

const A: usize = 0;
const B: usize = 1;
const R: usize = 2;
const S: usize = 3;

/// A and B behind firewalls that let them reach only the relays, and as many relays.
fn world(relays: usize, seed: u64) -> World {
    let mut world = World::new(2 + relays, seed);
    for relay in 2..2 + relays {
        world.configure(relay, |config| config.relay.enabled = true);
        world.introduce_relay(A, relay);
        world.introduce_relay(B, relay);
    }
    world.introduce(A, B, true);
    world.introduce(B, A, false);
    let ends = [world.nodes[A].address, world.nodes[B].address];
    world.lost = Box::new(move |flight| flight.from < 2 && ends.contains(&flight.target));
    world
}

/// Whether a packet each way arrives.
fn flows(world: &mut World) -> bool {
    let before = [A, B].map(|node| world.nodes[node].packets.len());
    let sent = world.send(A, B, b"from a") && world.send(B, A, b"from b");
    world.run(2 * world.delay + ms(1));
    let after = [A, B].map(|node| world.nodes[node].packets.len());
    sent && after == before.map(|n| n + 1)
}

fn path(world: &World, node: usize, other: usize) -> Option<PathInfo> {
    let id = world.id(other);
    let mut all = world.nodes[node].net.status(world.now).into_iter();
    let status = all.find(|status| status.peer == id)?;
    Some(status.session?.path)
}

// PROTOCOL SM-RL-1
// PROTOCOL SM-RL-4
// PROTOCOL SM-RL-6
#[test]
fn two_nodes_without_a_direct_way_talk_over_a_relay_from_the_first_moment() {
    let mut world = world(1, 1);
    world.connect(A, B);
    assert!(world.run_until(ms(200), |world| world.is_up(A, B) && world.is_up(B, A)));
    assert!(flows(&mut world));
    let relay = world.id(R);
    assert_eq!(path(&world, A, B), Some(PathInfo::Relayed { relay }));
    assert_eq!(path(&world, B, A), Some(PathInfo::Relayed { relay }));
    // Keys are renewed and the peer is pinged over it like anywhere else.
    world.run(ms(60_000));
    assert!(flows(&mut world));
    assert!(world.count(A, |event| matches!(event, NetEvent::Rekeyed { .. })) > 2);
    assert!(world.count(A, |event| matches!(event, NetEvent::PeerDown { .. })) == 0);
}

// PROTOCOL SM-RL-3
#[test]
fn what_the_relay_passes_is_as_long_as_its_own_frames_leave_room_for() {
    let mut world = world(1, 2);
    world.connect(A, B);
    world.run(ms(3_000));
    let forwarding = world.nodes[A].net.forwarding();
    let (to_b, to_relay) = (world.id(B), world.id(R));
    let outbound = forwarding.outbound(&to_b).unwrap();
    let relay = forwarding.outbound(&to_relay).unwrap();
    // What an MTU of 1500 takes over IPv4, though our devices hold less.
    let datagram = 1500 - 28;
    assert_eq!(relay.inner_len_max, datagram - 30);
    assert_eq!(outbound.inner_len_max, datagram - 30 - 38);
    assert_eq!(outbound.inner_mtu, Some(1404));
}

// PROTOCOL SM-RL-6
#[test]
fn two_relays_are_kept_and_the_others_given_up() {
    let mut world = world(4, 3);
    world.run(ms(20_000));
    let up = (2..6).filter(|&relay| world.is_up(A, relay)).count();
    assert_eq!(up, 2);
    let (dead, spare): (Vec<_>, Vec<_>) = (2..6).partition(|&relay| world.is_up(A, relay));
    let gone: BTreeSet<_> = dead.iter().map(|&n| world.nodes[n].address).collect();
    world.lost = Box::new(move |flight| gone.contains(&flight.target));
    world.run(Duration::from_secs(45));
    assert!(spare.iter().all(|&relay| world.is_up(A, relay)));
}

// PROTOCOL SM-RL-8
// PROTOCOL SM-RL-6
#[test]
fn a_peer_that_is_with_another_relay_is_found_there() {
    let mut world = World::new(4, 4);
    for relay in [R, S] {
        world.configure(relay, |config| config.relay.enabled = true);
    }
    for relay in [R, S] {
        world.introduce_relay(A, relay);
    }
    world.introduce_relay(B, S);
    world.introduce(A, B, false);
    world.introduce(B, A, false);
    world.run(ms(500));
    world.connect(A, B);
    assert!(world.run_until(ms(200), |world| world.is_up(A, B)));
    assert_eq!(
        path(&world, A, B),
        Some(PathInfo::Relayed { relay: world.id(S) })
    );
}

// PROTOCOL SM-RL-8
#[test]
fn whoever_calls_a_peer_that_is_with_no_relay_is_told() {
    let mut world = world(1, 5);
    let relay = world.id(R);
    world.nodes[B].net.remove_peer(&relay, world.now);
    world.connect(A, B);
    world.run(ms(3_000));
    assert!(!world.is_up(A, B));
    assert!(world.drops(R, DropReason::RelayUnknown) > 0);
    let id = world.id(B);
    let mut status = world.nodes[A].net.status(world.now).into_iter();
    let status = status.find(|status| status.peer == id).unwrap();
    assert!(status.last_error.is_some());
}

// PROTOCOL SM-RL-8
#[test]
fn a_session_leaves_a_relay_that_its_peer_has_left_as_soon_as_it_is_told() {
    let mut world = world(2, 13);
    world.run(ms(500));
    world.connect(A, B);
    world.run(ms(3_000));
    let Some(PathInfo::Relayed { relay: used }) = path(&world, A, B) else {
        panic!("they talk over a relay");
    };
    let now = world.now;
    world.nodes[B].net.remove_peer(&used, now);
    world.collect(B);
    world.run(ms(20));
    // One packet to find out, lost; B itself has moved on.
    assert!(world.send(A, B, b"where are you?"));
    world.run(ms(150));
    let before = world.nodes[B].packets.len();
    assert!(world.send(A, B, b"found"));
    world.run(ms(50));
    assert_eq!(world.nodes[B].packets.len(), before + 1);
    assert_ne!(path(&world, A, B), Some(PathInfo::Relayed { relay: used }));
    assert_eq!(
        world.count(A, |event| matches!(event, NetEvent::PeerDown { .. })),
        0
    );
}

// PROTOCOL SM-RL-8
// PROTOCOL SM-RL-6
#[test]
fn a_session_whose_peer_left_all_relays_of_ours_finds_it_at_another() {
    let mut world = world(2, 14);
    let third = world.add();
    world.configure(third, |config| config.relay.enabled = true);
    world.run(ms(500));
    world.connect(A, B);
    world.run(ms(3_000));
    assert!(flows(&mut world));
    // A knows a third relay, too, and has no need of it; B is with no other any more.
    world.introduce_relay(A, third);
    world.introduce_relay(B, third);
    for relay in [R, S] {
        let (id, now) = (world.id(relay), world.now);
        world.nodes[B].net.remove_peer(&id, now);
        world.collect(B);
    }
    world.run(ms(500));
    assert!(world.is_up(B, third) && !world.is_up(A, third));
    let used = path(&world, A, B);
    assert!(world.send(A, B, b"where are you?"));
    world.run(ms(500));
    let relay = world.id(third);
    assert_ne!(used, path(&world, A, B));
    assert_eq!(path(&world, A, B), Some(PathInfo::Relayed { relay }));
    assert!(flows(&mut world));
    for node in [A, B] {
        let other = world.id(A + B - node);
        let ended =
            |event: &NetEvent| matches!(event, NetEvent::PeerDown { peer, .. } if *peer == other);
        assert_eq!(world.count(node, ended), 0);
    }
}

// PROTOCOL SM-PA-3
// PROTOCOL SM-RL-6
#[test]
fn a_relay_that_stood_by_idle_and_died_is_replaced_within_the_health_interval() {
    for health in [10_000, 30_000] {
        let mut world = world(3, 15);
        for node in [A, B] {
            world.configure(node, |config| config.paths.health = ms(health));
            for relay in [R, S, S + 1] {
                world.introduce_relay(node, relay);
            }
        }
        world.run(ms(60_000));
        let warm = |world: &World| -> Vec<usize> {
            (R..=S + 1).filter(|&relay| world.is_up(A, relay)).collect()
        };
        let [dead, other] = warm(&world)[..] else {
            panic!("two are kept")
        };
        let spare = R + S + S + 1 - dead - other;
        let address = world.nodes[dead].address;
        world.lost = Box::new(move |flight| flight.target == address || flight.source == address);
        let replaced = world.run_until(ms(health), |world| world.is_up(A, spare));
        assert!(replaced, "health interval {health} ms");
        assert!(world.is_up(A, other) && !world.is_up(A, dead));
    }
}

fn refused(world: &World, node: usize, relay: usize) -> bool {
    let id = world.id(relay);
    let mut all = world.nodes[node].net.status(world.now).into_iter();
    let status = all.find(|status| status.peer == id);
    let error = status.and_then(|status| status.last_error);
    error.is_some_and(|error| error.contains("this relay is full, or does not serve us"))
}

// PROTOCOL SM-RL-5
// PROTOCOL SM-CT-4
#[test]
fn who_is_not_on_the_relays_list_is_told_so_and_asks_seldom() {
    let mut world = world(1, 6);
    let only_b = BTreeSet::from([world.id(B)]);
    world.configure(R, |config| config.relay.allow = RelayAllow::Listed(only_b));
    world.run(ms(5_000));
    assert!(world.is_up(B, R) && !world.is_up(A, R));
    assert!(refused(&world, A, R) && !refused(&world, B, R));
    assert_eq!(world.drops(R, DropReason::NotMember), 1);
}

// PROTOCOL SM-RL-5
#[test]
fn a_relay_takes_no_more_clients_than_it_may_and_room_that_is_left_is_given_away() {
    let mut world = world(1, 7);
    world.configure(R, |config| config.relay.clients_max = 1);
    world.run(ms(3_000));
    let (inside, outside) = if world.is_up(A, R) { (A, B) } else { (B, A) };
    assert!(world.is_up(inside, R) && !world.is_up(outside, R));
    assert!(refused(&world, outside, R));
    assert_eq!(world.nodes[R].net.relay_totals().0, 1);
    let now = world.now;
    world.nodes[inside].net.shutdown(now);
    assert!(world.run_until(ms(90_000), |world| world.is_up(outside, R)));
}

// PROTOCOL SM-RL-5
#[test]
fn one_stream_brings_one_client_and_that_may_come_back_by_another() {
    let mut world = World::new(3, 16);
    world.configure(R, |config| config.relay.enabled = true);
    let stream = |id| Way::Stream(id).address();
    world.nodes[A].address = stream(1);
    world.introduce_relay(A, R);
    assert!(world.run_until(ms(5_000), |world| world.is_up(A, R)));
    // Somebody else comes by the same stream, and is one too many there.
    world.nodes[A].address = ([192, 0, 2, 99], 9).into();
    world.nodes[B].address = stream(1);
    world.introduce_relay(B, R);
    assert!(world.run_until(ms(5_000), |world| refused(world, B, R)));
    assert_eq!(world.nodes[R].net.relay_totals().0, 1);
    // The first one is known by whichever stream it comes.
    world.nodes[A].address = stream(2);
    world.restart(A);
    world.introduce_relay(A, R);
    assert!(world.run_until(ms(5_000), |world| world.is_up(A, R)));
    assert_eq!(world.nodes[R].net.relay_totals().0, 1);
}

// PROTOCOL SM-MT-1
#[test]
fn a_client_that_claims_a_device_of_any_length_gets_no_longer_probes_than_devices_take() {
    let mut world = world(1, 17);
    world.configure(A, |config| config.mtu = u16::MAX);
    world.introduce_relay(A, R);
    world.run(ms(5_000));
    assert!(world.is_up(A, R));
    let to_client = world.nodes[A].address;
    let sent = world.log.iter().filter(|flight| flight.from == R);
    let longest = sent
        .filter(|flight| flight.target == to_client)
        .map(|flight| flight.data.len())
        .max()
        .unwrap();
    assert!((1_400..=9_000 + 100).contains(&longest), "{longest}");
}

// PROTOCOL SM-RL-5
#[test]
fn a_clients_word_is_no_business_of_the_relays_parent() {
    let mut world = world(1, 8);
    world.connect(A, B);
    world.run(ms(2_000));
    assert!(world.is_up(A, R));
    assert_eq!(
        world.nodes[R]
            .events
            .iter()
            .filter(|(_, e)| e.peer().is_some())
            .count(),
        0
    );
    assert!(world.nodes[R].net.status(world.now).is_empty());
}

#[test]
fn a_node_that_is_no_relay_takes_in_no_stranger() {
    let mut world = world(1, 9);
    world.configure(R, |config| config.relay.enabled = false);
    world.run(ms(3_000));
    assert!(!world.is_up(A, R));
    assert_eq!(world.nodes[R].net.open_connections(), 0);
}

// PROTOCOL SM-RL-1
// PROTOCOL SM-QD-1
#[test]
fn packets_that_go_by_quic_take_the_same_way_whatever_the_relays_session_does() {
    for relays_plane in [DataPlane::Sealed, DataPlane::Quic] {
        let mut world = World::new(3, 10);
        world.data_planes = vec![DataPlane::Quic, DataPlane::Quic, relays_plane];
        world.configure(R, |config| config.relay.enabled = true);
        world.introduce(A, B, false);
        world.introduce(B, A, false);
        world.data_planes = vec![relays_plane; 3];
        for node in [A, B] {
            world.introduce(R, node, false);
            world.introduce_relay(node, R);
        }
        world.run(ms(500));
        world.connect(A, B);
        world.run(ms(2_000));
        let forwarding = world.nodes[A].net.forwarding();
        let outbound = forwarding.outbound(&world.id(B)).unwrap();
        assert_eq!(outbound.plane, Plane::Quic);
        let long = vec![7; 1400];
        for _ in 0..10 {
            assert!(world.send(A, B, &long));
            world.run(ms(50));
        }
        assert_eq!(world.nodes[B].packets.len(), 10);
        assert!(world.nodes[B].packets.iter().all(|packet| *packet == long));
    }
}

// PROTOCOL SM-RL-2
#[test]
fn only_a_relay_of_ours_may_say_from_whom_a_datagram_is() {
    let mut world = world(1, 11);
    world.connect(A, B);
    world.run(ms(1_000));
    // B's own session with A, which is no relay's, brings what claims to be passed on.
    let forwarding = world.nodes[B].net.forwarding();
    let outbound = forwarding.outbound(&world.id(A)).unwrap();
    let forged = sealed(outbound, InnerType::Relayed, &[7; 8 + 40]);
    let (source, target) = (world.nodes[B].address, forged.remote);
    world.inject(source, target, forged.contents);
    world.run(ms(100));
    assert_eq!(world.drops(A, DropReason::RelayNotOurs), 1);
    assert!(flows(&mut world));
}

// PROTOCOL SM-RL-8
#[test]
fn a_relay_that_says_of_everybody_that_it_is_not_here_stops_only_itself() {
    let mut world = world(2, 12);
    world.run(ms(1_000));
    world.connect(A, B);
    let (b, liar) = (world.id(B), world.id(R));
    for _ in 0..20 {
        let message = ControlMessage::RelayRefused {
            label: Label::of(&b),
            reason: 0,
        };
        let (a, now) = (world.id(A), world.now);
        world.nodes[R].net.send_control(&a, &message, now).unwrap();
        world.collect(R);
        world.run(ms(2));
    }
    assert!(world.run_until(ms(300), |world| world.is_up(A, B)));
    assert!(flows(&mut world));
    assert!(world.is_up(A, R), "{liar} is still a relay of ours");
}
