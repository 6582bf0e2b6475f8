//! What metrics are told of the ways to a peer.

use super::harness::{Flight, World, ms};
use crate::ConnectivityTotals;

const A: usize = 0;
const B: usize = 1;
const RELAY: usize = 2;

/// Under traffic both ways, as much as one notices a broken way by.
fn talk(world: &mut World, seconds: u64) {
    for _ in 0..seconds * 20 {
        world.send(A, B, b"from a");
        world.send(B, A, b"from b");
        world.run(ms(50));
    }
}

fn totals(world: &World, node: usize) -> ConnectivityTotals {
    world.nodes[node].net.connectivity().totals()
}

#[test]
fn moves_to_the_straight_way_falls_back_and_searches_are_counted_on_both_sides() {
    let mut world = World::new(3, 41);
    world.configure(RELAY, |config| config.relay.enabled = true);
    for (node, other) in [(A, B), (B, A)] {
        world.introduce_relay(node, RELAY);
        world.introduce(node, other, true);
    }
    let ends = [world.nodes[A].address, world.nodes[B].address];
    let apart = move |flight: &Flight| flight.from < RELAY && ends.contains(&flight.target);
    world.lost = Box::new(apart);
    world.run(ms(500));
    world.connect(A, B);
    talk(&mut world, 10);
    for node in [A, B] {
        let totals = totals(&world, node);
        assert_eq!(
            (totals.connections_relay, totals.connections_direct),
            (1, 0)
        );
        assert_eq!((totals.migrations, totals.migrations_failed), (0, 1));
        assert_eq!(totals.fallbacks, 0);
    }

    world.lost = Box::new(|_| false);
    talk(&mut world, 70);
    for node in [A, B] {
        let totals = totals(&world, node);
        assert_eq!(totals.migrations, 1, "{totals:?}");
        assert_eq!(totals.migration_durations.iter().sum::<u64>(), 1);
        assert!(totals.migration_us > 0);
        assert!(totals.retries_succeeded > 0, "{totals:?}");
    }

    world.lost = Box::new(apart);
    let before = [A, B].map(|node| totals(&world, node).retries_failed);
    talk(&mut world, 70);
    for (node, before) in [A, B].into_iter().zip(before) {
        let totals = totals(&world, node);
        assert_eq!((totals.migrations, totals.fallbacks), (1, 1), "{totals:?}");
        assert!(totals.retries_failed > before, "{totals:?}");
        assert_eq!(
            (totals.connections_relay, totals.connections_direct),
            (1, 0)
        );
    }
}
