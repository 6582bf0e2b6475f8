//! The first packets to a peer wait for the session instead of being the price of it.

use shadowmesh_net::DropReason;
use shadowmesh_sim::{HostConfig, LinkProfile, World, seeds};

use crate::{millis, seconds};

#[test]
fn packets_sent_before_the_session_arrive_in_order_once_it_is_up() {
    seeds::each("waiting_packets", 3, |seed| {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(millis(100));
        let (a, b) = world.pair(HostConfig::default());
        let numbers: Vec<u64> = (0..20).map(|_| world.send(a, b)).collect();
        world.run_for(seconds(2));
        assert!(numbers.iter().all(|n| world.ledger.arrived(*n)));
        let times: Vec<_> = numbers
            .iter()
            .map(|n| world.ledger.entry(*n).delivered[0].1)
            .collect();
        assert!(times.is_sorted());
        assert_eq!(world.host(a).drops(DropReason::NoSession), 0);
    });
}

#[test]
fn packets_for_a_peer_that_never_answers_expire_and_are_counted() {
    seeds::each("waiting_packets", 1, |seed| {
        let mut world = World::new(seed);
        let (a, b) = world.pair(HostConfig::default());
        world.kill(b);
        for _ in 0..5 {
            world.send(a, b);
        }
        world.run_for(seconds(4));
        assert_eq!(world.host(a).drops(DropReason::WaitingExpired), 5);
    });
}
