//! Somebody sits on the wire: replays, flips bits, forges resets. Nothing gets through, sessions
//! stay, and what was refused is counted.

use std::cell::RefCell;
use std::rc::Rc;

use rand::{Rng, RngCore};
use shadowmesh_net::DropReason;
use shadowmesh_sim::{HostConfig, HostId, Passing, World, seeds};
use shadowmesh_wire::sealed;

use crate::{drops, ends, millis, seconds, sessions};

/// Remembers every datagram from now on.
fn record(world: &mut World) -> Rc<RefCell<Vec<Passing>>> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let recorder = seen.clone();
    world.tap(Some(Box::new(move |passing| {
        recorder.borrow_mut().push(passing.clone());
        true
    })));
    seen
}

fn settled_pair(seed: u64) -> (World, HostId, HostId) {
    let mut world = World::new(seed);
    let (a, b) = world.pair(HostConfig::default());
    assert!(world.settle(a, b));
    (world, a, b)
}

/// Packets both ways for a while; returns their numbers.
fn chat(world: &mut World, a: HostId, b: HostId, rounds: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..rounds {
        numbers.extend([world.send(a, b), world.send(b, a)]);
        world.run_for(millis(5));
    }
    numbers
}

fn assert_all_arrived_once(world: &World, numbers: &[u64]) {
    assert_eq!(world.ledger.violations(), Vec::<String>::new());
    assert!(numbers.iter().all(|n| world.ledger.arrived(*n)));
}

// PROTOCOL SM-SF-4
#[test]
fn replayed_datagrams_are_never_delivered_again() {
    seeds::each("replayed_datagrams", 3, |seed| {
        let (mut world, a, b) = settled_pair(seed);
        let seen = record(&mut world);
        let numbers = chat(&mut world, a, b, 200);
        world.tap(None);
        let recorded = seen.take();
        let sessions_before = [sessions(&world, a), sessions(&world, b)];
        for passing in &recorded {
            world.inject(passing.to, passing.remote, passing.data.clone());
        }
        world.run_for(seconds(3));
        let replayed = [a, b]
            .map(|h| world.host(h).drops(DropReason::SealReplayed))
            .iter()
            .sum::<u64>();
        assert!(
            replayed >= numbers.len() as u64,
            "{replayed} of {}",
            numbers.len()
        );
        assert_all_arrived_once(&world, &numbers);
        let more = chat(&mut world, a, b, 20);
        assert_all_arrived_once(&world, &more);
        assert_eq!([sessions(&world, a), sessions(&world, b)], sessions_before);
        assert_eq!(ends(&world, a) + ends(&world, b), 0);
    });
}

// PROTOCOL SM-SF-4
#[test]
fn a_datagram_held_back_until_the_window_has_passed_is_too_old() {
    seeds::each("held_back", 1, |seed| {
        let (mut world, a, b) = settled_pair(seed);
        let held = Rc::new(RefCell::new(Vec::new()));
        let hold = held.clone();
        world.tap(Some(Box::new(move |passing| {
            hold.borrow_mut().push(passing.clone());
            false
        })));
        let number = world.send(a, b);
        world.tap(None);
        for _ in 0..32_900 {
            world.send(a, b);
        }
        world.run_for(seconds(1));
        for passing in held.take() {
            world.inject(passing.to, passing.remote, passing.data);
        }
        world.run_for(seconds(1));
        assert!(world.ledger.entry(number).delivered.is_empty());
        assert_eq!(world.host(b).drops(DropReason::SealTooOld), 1);
    });
}

// PROTOCOL SM-SF-1
// PROTOCOL SM-SF-2
// PROTOCOL SM-OV-5
#[test]
fn one_flipped_bit_anywhere_in_a_sealed_frame_and_it_is_dropped_and_counted() {
    seeds::each("flipped_bit", 1, |seed| {
        let (mut world, a, b) = settled_pair(seed);
        let held = Rc::new(RefCell::new(Vec::new()));
        let hold = held.clone();
        world.tap(Some(Box::new(move |passing| {
            hold.borrow_mut().push(passing.clone());
            false
        })));
        let number = world.send(a, b);
        world.tap(None);
        let frame = held.take().pop().expect("the packet was sealed and sent");
        assert_eq!(frame.data.len(), 36 + sealed::OVERHEAD);
        for bit in 0..frame.data.len() * 8 {
            let dropped = world.host(b).node().drops().total();
            let mut data = frame.data.clone();
            data[bit / 8] ^= 1 << (bit % 8);
            world.inject(b, frame.remote, data);
            world.run_for(millis(20));
            assert!(world.ledger.entry(number).delivered.is_empty(), "bit {bit}");
            // Some flips make it a QUIC packet for nobody, which is answered and counted too.
            assert!(
                world.host(b).node().drops().total() > dropped,
                "bit {bit}: {:?}",
                drops(&world, b)
            );
        }
        // The frame itself was never seen, so it is still good, once.
        world.inject(b, frame.remote, frame.data);
        world.run_for(seconds(1));
        assert!(world.ledger.arrived(number));
        assert_eq!(ends(&world, a) + ends(&world, b), 0);
    });
}

// PROTOCOL SM-SF-6
#[test]
fn forged_resets_do_nothing() {
    seeds::each("forged_resets", 3, |seed| {
        let (mut world, a, b) = settled_pair(seed);
        let seen = record(&mut world);
        let mut numbers = chat(&mut world, a, b, 50);
        let sessions_before = [sessions(&world, a), sessions(&world, b)];
        let recorded = seen.take();
        world.tap(None);
        for (victim, other) in [(a, b), (b, a)] {
            let remote = world.host(other).address();
            let frames: Vec<_> = recorded
                .iter()
                .filter(|p| p.to == victim)
                .cloned()
                .collect();
            for n in 0..500 {
                let reset = forge_reset(&mut world, &frames[n % frames.len()].data, n);
                world.inject(victim, remote, reset);
            }
        }
        world.run_for(seconds(2));
        numbers.extend(chat(&mut world, a, b, 50));
        assert_all_arrived_once(&world, &numbers);
        assert_eq!(
            ends(&world, a) + ends(&world, b),
            0,
            "a forged reset ended a session"
        );
        assert_eq!([sessions(&world, a), sessions(&world, b)], sessions_before);
        assert!(
            drops(&world, a)
                .iter()
                .chain(&drops(&world, b))
                .map(|(_, n)| n)
                .sum::<u64>()
                > 0
        );
    });
}

/// What an attacker can make of a datagram it saw: random bytes behind a short header, the true
/// index with random bytes, the datagram with its last 16 bytes replaced, or only its end.
fn forge_reset(world: &mut World, frame: &[u8], kind: usize) -> Vec<u8> {
    let len = world.rng().random_range(30..100);
    let mut forged = vec![0; len];
    world.rng().fill_bytes(&mut forged);
    forged[0] = 0x40 | (forged[0] & 0x3f);
    match kind % 4 {
        0 => {}
        1 => forged[1..9].copy_from_slice(&frame[1..9]),
        2 => {
            let token: Vec<u8> = forged[len - 16..].to_vec();
            forged = frame.to_vec();
            let end = forged.len() - 16;
            forged[end..].copy_from_slice(&token);
        }
        _ => forged[len - 16..].copy_from_slice(&frame[frame.len() - 16..]),
    }
    forged
}

// PROTOCOL SM-SF-6
#[test]
fn a_true_reset_of_one_session_does_not_end_the_next() {
    seeds::each("true_reset", 2, |seed| {
        let (mut world, a, b) = settled_pair(seed);
        let seen = record(&mut world);
        world.start(b);
        assert!(world.settle(a, b), "no session after the restart");
        world.run_for(seconds(5));
        world.tap(None);
        let sessions_before = [sessions(&world, a), sessions(&world, b)];
        let ends_before = [ends(&world, a), ends(&world, b)];
        for passing in seen.take() {
            world.inject(passing.to, passing.remote, passing.data);
        }
        world.run_for(seconds(3));
        let numbers = chat(&mut world, a, b, 20);
        assert_all_arrived_once(&world, &numbers);
        assert_eq!([sessions(&world, a), sessions(&world, b)], sessions_before);
        assert_eq!([ends(&world, a), ends(&world, b)], ends_before);
    });
}
