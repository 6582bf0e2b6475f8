//! New keys while traffic runs.

use rand::{Rng, SeedableRng};

use super::harness::{Kind, World, ms};
use crate::{DownReason, DropReason, NetEvent};

/// Sends both ways for a while and returns how many frames each side sent.
fn traffic(world: &mut World, steps: usize) -> [usize; 2] {
    let mut sent = [0, 0];
    for _ in 0..steps {
        for (node, sent) in sent.iter_mut().enumerate() {
            *sent += usize::from(world.send(node, 1 - node, b"packet"));
        }
        world.run(ms(3));
    }
    world.run(ms(50));
    sent
}

fn rekeys(world: &World, node: usize) -> usize {
    world.count(node, |event| matches!(event, NetEvent::Rekeyed { .. }))
}

fn epoch(world: &World, node: usize) -> u32 {
    let status = world.nodes[node].net.status(world.now);
    status[0].session.as_ref().unwrap().epoch
}

// PROTOCOL SM-EP-2
// PROTOCOL SM-EP-3
// PROTOCOL SM-EP-4
#[test]
fn keys_change_at_the_interval_and_no_frame_is_lost() {
    let mut world = World::pair(1);
    world.join(0, 1);
    let sent = traffic(&mut world, 35_000 / 3);
    assert_eq!((rekeys(&world, 0), rekeys(&world, 1)), (3, 3));
    assert_eq!((epoch(&world, 0), epoch(&world, 1)), (3, 3));
    assert_eq!(world.nodes[1].packets.len(), sent[0]);
    assert_eq!(world.nodes[0].packets.len(), sent[1]);
    for node in 0..2 {
        assert_eq!(
            world.count(node, |e| matches!(e, NetEvent::PeerDown { .. })),
            0
        );
    }
}

// PROTOCOL SM-EP-3
#[test]
fn no_frame_is_lost_when_control_packets_are() {
    for seed in 0..5 {
        let mut world = World::pair(seed);
        world.join(0, 1);
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        world.lost = Box::new(move |flight| flight.kind == Kind::Control && rng.random_bool(0.3));
        let sent = traffic(&mut world, 35_000 / 3);
        assert!(rekeys(&world, 0) >= 2, "seed {seed}");
        assert_eq!(world.nodes[1].packets.len(), sent[0], "seed {seed}");
        assert_eq!(world.nodes[0].packets.len(), sent[1], "seed {seed}");
    }
}

// PROTOCOL SM-EP-5
#[test]
fn requests_that_cross_make_one_epoch() {
    let mut world = World::pair(2);
    world.join(0, 1);
    world.run(ms(2_000));
    for node in 0..2 {
        let now = world.now;
        world.nodes[node].net.ask_rekey_now(now);
        world.collect(node);
    }
    let sent = traffic(&mut world, 100);
    assert_eq!((rekeys(&world, 0), rekeys(&world, 1)), (1, 1));
    assert_eq!((epoch(&world, 0), epoch(&world, 1)), (1, 1));
    assert_eq!(world.nodes[1].packets.len(), sent[0]);
    assert_eq!(world.nodes[0].packets.len(), sent[1]);
}

// PROTOCOL SM-EP-4
#[test]
fn the_shorter_interval_counts_whichever_side_wants_it() {
    for eager in [0, 1] {
        let mut world = World::pair(3);
        world.nodes[1 - eager].config.rekey_interval = ms(600_000);
        world.restart(1 - eager);
        world.introduce(1 - eager, eager, true);
        world.join(0, 1);
        world.run(ms(30_000));
        assert!(rekeys(&world, eager) >= 2, "eager {eager}");
    }
}

// PROTOCOL SM-EP-3
#[test]
fn a_frame_of_a_wiped_epoch_does_not_open() {
    let mut world = World::pair(4);
    world.join(0, 1);
    let old = world.nodes[0].net.forwarding();
    let id = world.id(1);
    world.run(ms(30_000));
    assert!(epoch(&world, 1) >= 2);
    let outbound = old.outbound(&id).unwrap();
    let mut datagram = vec![1; 64];
    outbound
        .sealer
        .seal(outbound.sealer.reserve(1).unwrap(), &mut datagram);
    let before = world.drops(1, DropReason::SealForged);
    world.inject(world.nodes[0].address, world.nodes[1].address, datagram);
    world.run(ms(100));
    assert_eq!(world.drops(1, DropReason::SealForged), before + 1);
}

/// From now on the control connection is dead, and only it. `handshakes`: new ones pass.
fn kill_control(world: &mut World, handshakes: bool) {
    let mut dead = world.nodes[0].net.control_ids();
    dead.extend(world.nodes[1].net.control_ids());
    world.lost = Box::new(move |flight| {
        if flight.data[0] & 0x80 != 0 {
            return !handshakes;
        }
        let id: Option<[u8; 8]> = flight.data.get(1..9).and_then(|id| id.try_into().ok());
        id.is_some_and(|id| dead.contains(&u64::from_be_bytes(id)))
    });
}

// PROTOCOL SM-EP-6
#[test]
fn a_rekey_that_does_not_come_through_is_cured_by_a_new_connection_beside_the_session() {
    let mut world = World::pair(5);
    world.join(0, 1);
    kill_control(&mut world, true);
    let sent = traffic(&mut world, 30_000 / 3);
    assert_eq!(world.nodes[1].packets.len(), sent[0]);
    assert_eq!(world.nodes[0].packets.len(), sent[1]);
    let count = |node, wanted: fn(&NetEvent) -> bool| world.count(node, wanted);
    assert_eq!(count(0, |e| matches!(e, NetEvent::PeerUp { .. })), 2);
    assert_eq!(count(0, |e| matches!(e, NetEvent::PeerDown { .. })), 0);
}

// PROTOCOL SM-EP-6
#[test]
fn a_session_ends_when_no_new_keys_can_be_agreed_on() {
    let mut world = World::pair(6);
    world.join(0, 1);
    kill_control(&mut world, false);
    // Frames themselves pass all the time.
    let sent = traffic(&mut world, 45_000 / 3);
    let too_old = |node| {
        world.count(node, |event| {
            let reason = DownReason::KeyTooOld;
            matches!(event, NetEvent::PeerDown { reason: r, .. } if *r == reason)
        })
    };
    assert!(too_old(0) + too_old(1) >= 1);
    assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
    assert!(sent[0] > 5_000 && sent[0] < 15_000);
}
