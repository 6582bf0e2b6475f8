//! A rekey that cannot finish must not cost the session: the old keys serve on, a new connection is
//! made, and no packet is lost meanwhile.

use shadowmesh_net::NetEvent;
use shadowmesh_sim::{HostConfig, LinkProfile, World, seeds};
use shadowmesh_wire::sealed::OVERHEAD;

use crate::{millis, seconds};

const PACKET_LEN: usize = 577;

// PROTOCOL SM-EP-6
#[test]
fn traffic_survives_a_control_connection_that_no_packet_gets_through() {
    seeds::each("failed_rekey", 3, |seed| {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(millis(40));
        let (a, b) = world.pair(HostConfig {
            rekey_interval: seconds(10),
            ..HostConfig::default()
        });
        assert!(world.settle(a, b));
        // From now on only traffic passes, no QUIC packet does.
        world.tap(Some(Box::new(|passing| {
            passing.data.len() == PACKET_LEN + OVERHEAD
        })));
        let mut numbers = Vec::new();
        let mut traffic = |world: &mut World, rounds: usize| {
            for _ in 0..rounds {
                for (from, to) in [(a, b), (b, a)] {
                    let (source, destination) = (world.ipv4(from), world.ipv4(to));
                    numbers.push(world.send_packet(from, to, source, destination, PACKET_LEN));
                }
                world.run_for(millis(20));
            }
        };
        traffic(&mut world, 600);
        world.tap(None);
        let healed = world.now();
        traffic(&mut world, 2500);
        world.run_for(seconds(1));
        assert_eq!(world.ledger.violations(), Vec::<String>::new());
        assert_eq!(world.ledger.lost(&numbers), 0);
        let renewed = world.host(a).events.iter().any(|(at, event)| {
            *at > healed && matches!(event, NetEvent::Rekeyed { .. } | NetEvent::PeerUp { .. })
        });
        assert!(
            renewed,
            "the keys were never renewed after the control connection was free again"
        );
    });
}
