//! Frames may arrive before the Hello that lets their receiver open them: none of them is lost.

use shadowmesh_net::DropReason;
use shadowmesh_sim::{HostConfig, LinkProfile, World, seeds};

use crate::{millis, seconds};

// PROTOCOL SM-SF-9
#[test]
fn no_packet_is_lost_where_frames_overtake_the_hello_of_their_session() {
    seeds::each("early_frames", 12, |seed| {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(millis(10)).reordering(0.3, millis(30));
        let (a, b) = world.pair(HostConfig::default());
        let mut numbers = Vec::new();
        // Both call, so that one session takes the place of another under traffic.
        for _ in 0..300 {
            numbers.extend([world.send(a, b), world.send(b, a)]);
            world.run_for(millis(5));
        }
        world.run_for(seconds(2));
        assert_eq!(world.ledger.violations(), Vec::<String>::new());
        assert_eq!(world.ledger.lost(&numbers), 0);
        for host in [a, b] {
            assert_eq!(world.host(host).drops(DropReason::StaleSnapshot), 0);
        }
    });
}
