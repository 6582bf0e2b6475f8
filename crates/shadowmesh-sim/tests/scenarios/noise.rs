//! Garbage from the network and from the device is dropped, counted, and disturbs nobody.

use std::cell::RefCell;
use std::rc::Rc;

use rand::seq::IndexedRandom;
use rand::{Rng, RngCore};
use shadowmesh_sim::{HostConfig, Passing, World, seeds};

use crate::{ends, millis, seconds};

/// A datagram of random bytes, or a true one with a few bytes changed or its end cut off.
fn garbage(world: &mut World, recorded: &[Passing]) -> Vec<u8> {
    let rng = world.rng();
    let mut data = vec![0; rng.random_range(0..1500)];
    rng.fill_bytes(&mut data);
    if rng.random_bool(0.6) {
        data = recorded
            .choose(rng)
            .expect("something was recorded")
            .data
            .clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..data.len());
            data[at] ^= rng.random_range(1..=255u8);
        }
        let len = data.len();
        data.truncate(rng.random_range(len / 2..=len));
    }
    data
}

// PROTOCOL SM-OV-5
#[test]
fn garbage_from_both_sides_is_counted_and_traffic_goes_on() {
    seeds::each("noise", 2, |seed| {
        let mut world = World::new(seed);
        let recorded: Rc<RefCell<Vec<Passing>>> = Rc::default();
        let recorder = recorded.clone();
        world.tap(Some(Box::new(move |passing| {
            recorder.borrow_mut().push(passing.clone());
            true
        })));
        let (a, b) = world.pair(HostConfig::default());
        assert!(world.settle(a, b));
        world.tap(None);
        let recorded = recorded.take();
        let mut numbers = Vec::new();
        for round in 0..3000 {
            let data = garbage(&mut world, &recorded);
            let (victim, other) = if round % 2 == 0 { (a, b) } else { (b, a) };
            let remote = world.host(other).address();
            world.inject(victim, remote, data.clone());
            world.with_node(victim, |node, now| node.handle_device(&data, now));
            if round % 10 == 0 {
                numbers.extend([world.send(a, b), world.send(b, a)]);
            }
            world.run_for(millis(2));
        }
        world.run_for(seconds(1));
        assert_eq!(world.ledger.violations(), Vec::<String>::new());
        assert_eq!(world.ledger.lost(&numbers), 0);
        assert_eq!(ends(&world, a) + ends(&world, b), 0);
        for host in [a, b] {
            // Each round drops at least what came from the device.
            let dropped = world.host(host).node().drops().total();
            assert!(dropped >= 1500, "{dropped}");
        }
    });
}
