//! A laptop sleeps: time passes for everybody else, or for it alone, and the mesh is there when it
//! wakes.

use shadowmesh_sim::{HostConfig, HostId, World, seeds};

use crate::{millis, seconds};

/// Sends every 20 ms until a packet of each direction came through; true if within 1.5 s.
fn back_in_time(world: &mut World, a: HostId, b: HostId) -> bool {
    let since = world.now();
    for _ in 0..75 {
        world.send(a, b);
        world.send(b, a);
        world.run_for(millis(20));
        let both = [(a, b), (b, a)].map(|(from, to)| world.ledger.first_delivery(from, to, since));
        if both.iter().all(Option::is_some) {
            return true;
        }
    }
    false
}

#[test]
fn a_node_whose_clock_jumps_is_back_within_one_and_a_half_seconds() {
    seeds::each("clock_jump", 3, |seed| {
        for jump in [
            seconds(1),
            seconds(25),
            seconds(40),
            seconds(3600),
            seconds(100_000),
        ] {
            let mut world = World::new(seed);
            let (a, b) = world.pair(HostConfig::default());
            assert!(world.settle(a, b));
            world.run_for(seconds(3));
            for sleeper in [a, b] {
                world.jump_clock(sleeper, jump);
                assert!(
                    back_in_time(&mut world, a, b),
                    "{sleeper:?} jumped by {jump:?}"
                );
                world.run_for(seconds(3));
            }
            assert_eq!(world.ledger.violations(), Vec::<String>::new());
        }
    });
}
