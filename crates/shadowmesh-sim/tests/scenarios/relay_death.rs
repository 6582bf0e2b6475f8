//! A relay dies under traffic: the other one takes over.

use std::time::Duration;

use shadowmesh_net::NetEvent;
use shadowmesh_sim::NatKind::SymmetricRandom;
use shadowmesh_sim::scenario::relay::Relayed;
use shadowmesh_sim::{HostId, seeds};

use crate::{millis, seconds};

/// Which of the relays carries the packets of the pair.
fn carrier(pair: &Relayed) -> HostId {
    let relay = pair.relay_between(pair.a, pair.b);
    relay.expect("the pair talks over a relay")
}

/// How often the pair's session ended.
fn ends(pair: &Relayed) -> usize {
    let b = pair.world.host(pair.b).id();
    let events = pair.world.host(pair.a).events.iter();
    events
        .filter(|(_, event)| matches!(event, NetEvent::PeerDown { peer, .. } if *peer == b))
        .count()
}

/// From the moment `what` happens to the relay in use until packets come out both ways again.
fn outage(seed: u64, what: impl Fn(&mut Relayed, HostId)) -> Duration {
    let mut pair = Relayed::new(seed, [SymmetricRandom; 2], 2);
    pair.talk(seconds(12));
    let relay = carrier(&pair);
    let at = pair.world.now();
    what(&mut pair, relay);
    // What was on the last leg of its way still comes out.
    pair.world.run_for(millis(25));
    let from = pair.world.now();
    pair.talk(seconds(5));
    let ledger = &pair.world.ledger;
    let first = |from_host, to| ledger.first_delivery(from_host, to, from);
    let (there, back) = (first(pair.a, pair.b), first(pair.b, pair.a));
    let healed = there.zip(back).map(|(there, back)| there.max(back));
    assert_eq!(ends(&pair), 0, "the session goes on");
    assert_ne!(carrier(&pair), relay);
    let late = pair.talk(seconds(1));
    pair.world.run_for(seconds(1));
    assert_eq!(pair.world.ledger.lost(&late), 0);
    assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
    healed.expect("packets come out again") - at
}

// PROTOCOL SM-RL-6
#[test]
fn packets_flow_over_the_second_relay_within_a_second_after_the_first_one_dies() {
    seeds::each("relay_death", 5, |seed| {
        let outage = outage(seed, |pair, relay| pair.world.kill(relay));
        println!("seed {seed}: relay killed, packets again after {outage:?}");
        assert!(outage < seconds(1), "{outage:?}");
    });
}

// PROTOCOL SM-RL-6
#[test]
fn a_relay_that_keeps_its_sessions_and_passes_nothing_on_is_left_as_soon() {
    seeds::each("relay_death", 5, |seed| {
        let outage = outage(seed, |pair, relay| {
            pair.world.corrupt(relay, Box::new(|_, _| Vec::new()));
        });
        println!("seed {seed}: relay mute, packets again after {outage:?}");
        assert!(outage < seconds(1), "{outage:?}");
    });
}
