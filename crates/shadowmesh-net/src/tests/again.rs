//! Machines that lost each other, or never met, find each other while nobody sends anything.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::PeerState;

use super::harness::{World, ms};

const LAPTOP: usize = 0;
const HUB: usize = 1;
const RELAY: usize = 2;

/// How long people wait before they take a machine for lost.
const MINUTE: Duration = Duration::from_secs(60);

/// A laptop that knows the address of a hub, which knows none of the laptop's; the laptop has nothing to send.
/// True in the cell: no datagram arrives.
fn laptop_and_hub(seed: u64) -> (World, Rc<Cell<bool>>) {
    let mut world = World::new(2, seed);
    world.introduce(LAPTOP, HUB, true);
    world.introduce(HUB, LAPTOP, false);
    keep(&mut world, HUB, LAPTOP);
    let cut = cuttable(&mut world);
    (world, cut)
}

/// Two that share a relay and know no address of each other.
fn behind_a_relay(seed: u64) -> (World, Rc<Cell<bool>>) {
    let mut world = World::new(3, seed);
    world.configure(RELAY, |config| config.relay.enabled = true);
    for (node, other) in [(LAPTOP, HUB), (HUB, LAPTOP)] {
        world.introduce_relay(node, RELAY);
        world.introduce(node, other, false);
        keep(&mut world, node, other);
    }
    let cut = cuttable(&mut world);
    (world, cut)
}

fn cuttable(world: &mut World) -> Rc<Cell<bool>> {
    let cut = Rc::new(Cell::new(false));
    let lost = cut.clone();
    world.lost = Box::new(move |_| lost.get());
    cut
}

fn keep(world: &mut World, node: usize, other: usize) {
    let id = world.id(other);
    world.nodes[node].net.keep(&id, world.now);
    world.collect(node);
}

fn meet(world: &mut World, within: Duration) -> bool {
    world.run_until(within, |world| {
        world.is_up(LAPTOP, HUB) && world.is_up(HUB, LAPTOP)
    })
}

/// The hub starts again with what stands in its configuration.
fn hub_is_back(world: &mut World, with_relay: bool) {
    world.restart(HUB);
    if with_relay {
        world.introduce_relay(HUB, RELAY);
    }
    world.introduce(HUB, LAPTOP, false);
    keep(world, HUB, LAPTOP);
}

/// In turn: the network comes late; the hub is restarted in order, and is killed; and each time it stays away
/// for so long.
fn loses_and_finds(mut world: World, cut: &Cell<bool>, away: Duration, relay: bool) {
    cut.set(true);
    keep(&mut world, LAPTOP, HUB);
    world.run(away);
    cut.set(false);
    assert!(meet(&mut world, MINUTE), "network after {away:?}");

    world.run(ms(20_000));
    world.nodes[HUB].net.shutdown(world.now);
    world.collect(HUB);
    world.run(ms(100));
    cut.set(true);
    world.run(away);
    cut.set(false);
    hub_is_back(&mut world, relay);
    assert!(meet(&mut world, MINUTE), "left for {away:?}");

    world.run(ms(20_000));
    cut.set(true);
    world.run(away);
    cut.set(false);
    hub_is_back(&mut world, relay);
    assert!(meet(&mut world, MINUTE), "killed for {away:?}");
}

// PROTOCOL SM-PA-4
#[test]
fn an_idle_laptop_calls_its_hub_until_it_is_through_however_long_that_was_away() {
    for (seed, away) in [(1, 3), (2, 15), (3, 90), (4, 7_200)] {
        let (world, cut) = laptop_and_hub(seed);
        loses_and_finds(world, &cut, Duration::from_secs(away), false);
    }
}

// PROTOCOL SM-PA-4
// PROTOCOL SM-RL-6
#[test]
fn two_that_share_a_relay_and_have_nothing_to_say_meet_there_however_long_one_was_away() {
    for (seed, away) in [(1, 3), (2, 15), (3, 90), (4, 7_200)] {
        let (world, cut) = behind_a_relay(seed);
        loses_and_finds(world, &cut, Duration::from_secs(away), true);
    }
}

// PROTOCOL SM-PA-4
#[test]
fn two_whose_relay_restarts_in_order_or_is_killed_meet_there_again() {
    for in_order in [true, false] {
        let (mut world, cut) = behind_a_relay(5);
        assert!(meet(&mut world, ms(2_000)));
        if in_order {
            world.nodes[RELAY].net.shutdown(world.now);
            world.collect(RELAY);
            world.run(ms(100));
        }
        cut.set(true);
        world.run(Duration::from_secs(600));
        assert!(!world.is_up(LAPTOP, HUB));
        cut.set(false);
        world.restart(RELAY);
        assert!(meet(&mut world, MINUTE), "in order: {in_order}");
    }
}

// PROTOCOL SM-PA-4
#[test]
fn a_change_of_the_hosts_network_ends_every_wait() {
    let (mut world, cut) = laptop_and_hub(6);
    cut.set(true);
    keep(&mut world, LAPTOP, HUB);
    for wait in [15_000, 15_500, 3_600_000] {
        world.run(ms(wait));
    }
    cut.set(false);
    world.nodes[LAPTOP].net.network_changed(world.now);
    world.collect(LAPTOP);
    assert!(meet(&mut world, ms(500)));
}

// PROTOCOL SM-PA-4
#[test]
fn an_attempt_from_before_the_network_was_there_does_not_hold_up_the_next() {
    let (mut world, cut) = laptop_and_hub(7);
    cut.set(true);
    keep(&mut world, LAPTOP, HUB);
    world.run(ms(500));
    cut.set(false);
    world.nodes[LAPTOP].net.network_changed(world.now);
    world.collect(LAPTOP);
    assert!(meet(&mut world, ms(100)));
}

// PROTOCOL SM-PA-4
#[test]
fn a_relay_that_was_away_for_long_is_called_at_once_when_a_packet_wants_it() {
    let (mut world, cut) = behind_a_relay(8);
    cut.set(true);
    world.run(Duration::from_secs(3_600));
    cut.set(false);
    world.connect(LAPTOP, HUB);
    let relay_is_up = |world: &World| world.is_up(LAPTOP, RELAY);
    assert!(world.run_until(ms(2_300), relay_is_up));
}

// PROTOCOL SM-PA-4
// PROTOCOL SM-CT-4
#[test]
fn who_was_refused_is_connected_within_a_minute_of_the_refusal_being_taken_back() {
    let mut world = World::new(2, 9);
    world.introduce(LAPTOP, HUB, true);
    keep(&mut world, LAPTOP, HUB);
    world.run(Duration::from_secs(1_800));
    assert!(!world.is_up(LAPTOP, HUB));
    world.introduce(HUB, LAPTOP, false);
    assert!(meet(&mut world, MINUTE));
    // And the same after a session.
    let id = world.id(LAPTOP);
    world.nodes[HUB].net.remove_peer(&id, world.now);
    world.collect(HUB);
    world.run(Duration::from_secs(1_800));
    world.introduce(HUB, LAPTOP, false);
    assert!(meet(&mut world, MINUTE));
}

// PROTOCOL SM-PA-4
// PROTOCOL SM-SF-8
#[test]
fn two_without_a_common_cipher_meet_within_a_minute_of_having_one() {
    let (mut world, _) = laptop_and_hub(10);
    for (node, speeds) in [(LAPTOP, [7000, 0]), (HUB, [0, 2000])] {
        world.nodes[node].config.cipher_speeds = speeds;
        world.restart(node);
        world.introduce(node, 1 - node, node == LAPTOP);
        keep(&mut world, node, 1 - node);
    }
    world.run(Duration::from_secs(1_800));
    assert!(!world.is_up(LAPTOP, HUB));
    world.nodes[HUB].config.cipher_speeds = [7000, 2000];
    hub_is_back(&mut world, false);
    assert!(meet(&mut world, MINUTE));
}

// PROTOCOL SM-PA-4
#[test]
fn a_peer_of_whom_only_the_last_address_is_known_is_called_there() {
    let (mut world, cut) = laptop_and_hub(11);
    keep(&mut world, LAPTOP, HUB);
    assert!(meet(&mut world, ms(1_000)));
    cut.set(true);
    world.run(Duration::from_secs(600));
    // The laptop has a new life in which it knows of no address.
    world.restart(LAPTOP);
    world.introduce(LAPTOP, HUB, false);
    cut.set(false);
    assert!(meet(&mut world, MINUTE));
}

// PROTOCOL SM-PA-4
#[test]
fn a_peer_that_was_found_on_the_local_network_is_called_at_once_when_it_is_heard_again() {
    let (mut world, cut) = laptop_and_hub(12);
    let (id, address) = (world.id(LAPTOP), world.nodes[LAPTOP].address);
    world.nodes[HUB].net.learn_address(&id, address, world.now);
    world.collect(HUB);
    assert!(meet(&mut world, ms(1_000)));
    cut.set(true);
    world.run(Duration::from_secs(3_600));
    cut.set(false);
    world.nodes[HUB].net.learn_address(&id, address, world.now);
    world.collect(HUB);
    assert!(meet(&mut world, ms(2_300)));
}

// PROTOCOL SM-PA-4
#[test]
fn new_addresses_of_a_peer_are_tried_at_once() {
    let (mut world, _) = laptop_and_hub(13);
    world.introduce(LAPTOP, HUB, false);
    keep(&mut world, LAPTOP, HUB);
    world.run(Duration::from_secs(600));
    world.introduce(LAPTOP, HUB, true);
    assert!(meet(&mut world, ms(500)));
}

// PROTOCOL SM-PA-4
#[test]
fn only_its_removal_or_our_own_end_ends_the_calls_to_a_peer() {
    for shutdown in [true, false] {
        let (mut world, cut) = laptop_and_hub(14);
        keep(&mut world, LAPTOP, HUB);
        assert!(meet(&mut world, ms(1_000)));
        cut.set(true);
        world.run(Duration::from_secs(600));
        let id = world.id(HUB);
        let net = &mut world.nodes[LAPTOP].net;
        assert_ne!(net.status(world.now)[0].state, PeerState::Idle);
        match shutdown {
            true => net.shutdown(world.now),
            false => net.remove_peer(&id, world.now),
        }
        world.run(ms(5_000));
        let by_laptop = |world: &World| world.log.iter().filter(|f| f.from == LAPTOP).count();
        let before = by_laptop(&world);
        world.run(Duration::from_secs(600));
        assert_eq!(by_laptop(&world), before, "shutdown: {shutdown}");
    }
}
