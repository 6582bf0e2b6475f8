//! A node is killed under traffic and comes back: how long until packets flow again?

use std::time::Duration;

use crate::link::LinkProfile;
use crate::world::{HostConfig, World};

/// Which of the two hosts is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The one that opened the connection.
    Caller,
    /// The other.
    Callee,
}

/// Which way the traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Both send.
    BothWays,
    /// Only the host that stays alive sends.
    FromSurvivor,
    /// Only the host that was killed sends.
    FromVictim,
}

/// Time from the restart until a packet sent after it has come out, for the slower of the
/// directions in use; `None` if that took more than 20 s.
pub fn recovery(
    seed: u64,
    victim: Victim,
    traffic: Traffic,
    down_for: Duration,
) -> Option<Duration> {
    let mut world = World::new(seed);
    world.default_link = LinkProfile::round_trip(Duration::from_millis(20));
    let (caller, callee) = world.pair(HostConfig {
        greet: true,
        ..HostConfig::default()
    });
    assert!(world.settle(caller, callee), "no session before the kill");
    let (victim, survivor) = match victim {
        Victim::Caller => (caller, callee),
        Victim::Callee => (callee, caller),
    };
    let directions: &[_] = match traffic {
        Traffic::BothWays => &[(victim, survivor), (survivor, victim)],
        Traffic::FromSurvivor => &[(survivor, victim)],
        Traffic::FromVictim => &[(victim, survivor)],
    };
    let send_for = |world: &mut World, time: Duration| {
        let end = world.now() + time;
        while world.now() < end {
            for &(from, to) in directions {
                world.send(from, to);
            }
            world.run_for(Duration::from_millis(10));
        }
    };
    send_for(&mut world, Duration::from_secs(2));
    world.kill(victim);
    send_for(&mut world, down_for);
    let restarted = world.now();
    world.start(victim);
    send_for(&mut world, Duration::from_secs(20));
    assert_eq!(world.ledger.violations(), Vec::<String>::new());
    let firsts = directions
        .iter()
        .map(|&(from, to)| world.ledger.first_delivery(from, to, restarted));
    firsts
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .max()
        .map(|at| at - restarted)
}
