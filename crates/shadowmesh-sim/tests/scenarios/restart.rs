//! A killed node is back in the mesh within 1.5 s of its restart, whoever it was and whoever sends.

use shadowmesh_sim::scenario::restart::{Traffic, Victim, recovery};
use shadowmesh_sim::seeds;

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
