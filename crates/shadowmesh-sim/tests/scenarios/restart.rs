//! A killed node is back in the mesh within 1.5 s of its restart, whoever it was and whoever sends.

use shadowmesh_sim::scenario::restart::{Traffic, Victim, recovery};
use shadowmesh_sim::{HostConfig, World, seeds};

use crate::{millis, seconds};

// PROTOCOL SM-SF-6
// PROTOCOL SM-HS-13
#[test]
fn packets_flow_again_within_one_and_a_half_seconds_of_a_restart() {
    seeds::each("restart", 2, |seed| {
        for victim in [Victim::Caller, Victim::Callee] {
            for traffic in [
                Traffic::BothWays,
                Traffic::FromSurvivor,
                Traffic::FromVictim,
            ] {
                for down_for in [millis(50), seconds(2), seconds(20), seconds(90)] {
                    let took = recovery(seed, victim, traffic, down_for);
                    println!("{victim:?} down for {down_for:?}, {traffic:?}: {took:?}");
                    let took = took.expect("packets flow again");
                    assert!(
                        took <= millis(1500),
                        "{victim:?} {traffic:?} {down_for:?}: {took:?}"
                    );
                }
            }
        }
    });
}

/// The server has no address of the client and forgot where it was: only the client can call. It
/// learns of the restart by its next keep-alive, which is due every 10 s.
// PROTOCOL SM-SF-6
#[test]
fn a_server_that_knows_no_addresses_is_found_again_by_its_idle_clients() {
    seeds::each("no_addresses", 3, |seed| {
        let mut world = World::new(seed);
        let client = world.add_host(HostConfig::default());
        let server = world.add_host(HostConfig::default());
        world.introduce(client, server);
        world.host_mut(server).peers[0].underlay.clear();
        world.start(client);
        world.start(server);
        assert!(world.settle(client, server));
        world.run_for(seconds(30));
        world.start(server);
        let restarted = world.now();
        while world.now() < restarted + seconds(15) {
            world.send(server, client);
            world.run_for(millis(100));
        }
        let first = world.ledger.first_delivery(server, client, restarted);
        let took = first.expect("packets flow again") - restarted;
        println!("seed {seed}: {took:?}");
        assert!(took <= seconds(12), "{took:?}");
    });
}
