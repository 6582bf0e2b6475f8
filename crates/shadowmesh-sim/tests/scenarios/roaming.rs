//! A node changes its address under traffic: the session moves along.

use shadowmesh_net::NetEvent;
use shadowmesh_sim::{HostConfig, LinkProfile, World, seeds};

use crate::{ends, millis, seconds, sessions};

#[test]
fn a_session_follows_a_node_that_changes_its_address() {
    seeds::each("roaming", 3, |seed| {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(millis(40));
        let (laptop, server) = world.pair(HostConfig::default());
        assert!(world.settle(laptop, server));
        let before = [laptop, server].map(|host| sessions(&world, host));
        for _ in 0..3 {
            world.move_host(laptop);
            let moved = world.now();
            let mut late = Vec::new();
            for _ in 0..500 {
                let numbers = [world.send(laptop, server), world.send(server, laptop)];
                if world.now() >= moved + seconds(3) {
                    late.extend(numbers);
                }
                world.run_for(millis(10));
            }
            world.run_for(seconds(1));
            assert_eq!(
                world.ledger.lost(&late),
                0,
                "packets lost 3 s after the move"
            );
            let followed =
                world.host(server).events.iter().any(|(at, event)| {
                    *at >= moved && matches!(event, NetEvent::PathChanged { .. })
                });
            assert!(followed);
        }
        assert_eq!([laptop, server].map(|host| sessions(&world, host)), before);
        assert_eq!(ends(&world, laptop) + ends(&world, server), 0);
        assert_eq!(world.ledger.violations(), Vec::<String>::new());
    });
}
