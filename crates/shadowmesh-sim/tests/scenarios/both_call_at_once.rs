//! Two nodes that call each other at the same moment end with one session and lose no packet.

use shadowmesh_sim::{HostConfig, LinkProfile, World, seeds};

use crate::{millis, seconds, sessions};

// PROTOCOL SM-HS-13
#[test]
fn two_calls_that_cross_end_in_one_session_without_loss() {
    seeds::each("both_call_at_once", 6, |seed| {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(millis(80));
        let (a, b) = world.pair(HostConfig::default());
        let mut numbers = Vec::new();
        for _ in 0..300 {
            numbers.extend([world.send(a, b), world.send(b, a)]);
            world.run_for(millis(20));
        }
        world.run_for(seconds(2));
        assert_eq!(world.ledger.violations(), Vec::<String>::new());
        assert_eq!(world.ledger.lost(&numbers), 0);
        let settled = [sessions(&world, a), sessions(&world, b)];
        assert!(settled.iter().all(|n| (1..=2).contains(n)), "{settled:?}");
        world.run_for(seconds(60));
        assert_eq!(
            [sessions(&world, a), sessions(&world, b)],
            settled,
            "the sessions keep replacing each other"
        );
        assert!(world.settle(a, b));
    });
}
