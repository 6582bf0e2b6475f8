//! Two machines with one key, and those that only look like it.

use std::time::Duration;

use crate::lives::Copied;
use crate::{DropReason, NetEvent};

use super::harness::{World, ms};

const HUB: usize = 0;
const A: usize = 1;
const OTHER: usize = 2;

/// A hub with two peers, which call it.
fn world(seed: u64) -> World {
    let mut world = World::new(3, seed);
    for node in [A, OTHER] {
        world.introduce(HUB, node, false);
        begin(&mut world, node);
    }
    assert!(world.run_until(ms(1_000), |world| world.is_up(HUB, A)
        && world.is_up(HUB, OTHER)));
    world
}

fn begin(world: &mut World, node: usize) {
    world.introduce(node, HUB, true);
    let id = world.id(HUB);
    world.nodes[node].net.keep(&id, world.now);
    world.collect(node);
}

fn copied(world: &World, node: usize, peer: usize) -> Option<Copied> {
    let id = world.id(peer);
    let status = world.nodes[node].net.status(world.now);
    status.into_iter().find(|row| row.peer == id)?.copied
}

fn said(world: &World, node: usize) -> usize {
    world.count(node, |event| {
        matches!(event, NetEvent::IdentityCopied { .. })
    })
}

fn ups(world: &World, node: usize) -> usize {
    world.count(node, |event| matches!(event, NetEvent::PeerUp { .. }))
}

// PROTOCOL SM-HS-14
#[test]
fn one_key_on_two_machines_is_noticed_by_the_hub_and_by_both_and_costs_little() {
    for busy in [false, true] {
        let mut world = world(1);
        let copy = world.add_copy(A);
        begin(&mut world, copy);
        world.run(ms(30_000));
        assert_eq!(copied(&world, HUB, A), Some(Copied::Theirs), "busy: {busy}");
        for machine in [A, copy] {
            assert_eq!(copied(&world, machine, HUB), Some(Copied::Ours));
        }
        let others = ups(&world, OTHER);
        for node in [HUB, A, copy] {
            world.nodes[node].events.clear();
        }
        let end = world.now + Duration::from_secs(600);
        while world.now < end {
            if busy {
                world.connect(A, HUB);
                world.connect(copy, HUB);
            }
            world.run(ms(100));
        }
        let sessions = ups(&world, HUB);
        assert!(sessions < 60, "{sessions} in 10 min");
        assert_eq!(said(&world, HUB) + said(&world, A) + said(&world, copy), 0);
        assert_eq!(ups(&world, OTHER), others);
        assert_eq!(copied(&world, HUB, OTHER), None);
        assert!(world.traffic_flows(HUB, OTHER));
        assert_eq!(world.drops(HUB, DropReason::HandshakeFailed), 0);

        // One of them gets another identity: an hour later nothing tells of it any more.
        world.nodes[copy].net.shutdown(world.now);
        world.collect(copy);
        world.run(Duration::from_secs(3_700));
        assert!(world.is_up(HUB, A));
        assert_eq!(copied(&world, HUB, A), None);
        assert_eq!(copied(&world, A, HUB), None);
    }
}

// PROTOCOL SM-HS-14
#[test]
fn a_machine_that_restarts_again_and_again_or_roams_is_no_second_one() {
    let mut world = world(2);
    let places = [A, OTHER].map(|node| world.nodes[node].address);
    for turn in 0..40u8 {
        if turn % 2 == 0 {
            world.restart(A);
            begin(&mut world, A);
        }
        world.nodes[A].address.set_port(5_000 + u16::from(turn % 2));
        if turn % 3 == 0 {
            world.nodes[A].net.network_changed(world.now);
            world.collect(A);
        }
        world.run(ms(3_000));
    }
    world.nodes[A].address = places[0];
    world.run(ms(60_000));
    assert!(world.is_up(HUB, A));
    for (node, peer) in [(HUB, A), (A, HUB), (HUB, OTHER)] {
        assert_eq!(copied(&world, node, peer), None);
        assert_eq!(said(&world, node), 0);
    }
}
