//! A relay that drops, delays, reorders, repeats, corrupts and misdirects what it is to pass on learns
//! nothing and breaks nothing but its own path.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;
use shadowmesh_net::DropReason;
use shadowmesh_sim::NatKind::SymmetricRandom;
use shadowmesh_sim::scenario::relay::Relayed;
use shadowmesh_sim::{Envelope, seeds};
use shadowmesh_wire::envelope;
use shadowmesh_wire::way::Label;

use crate::{ends, millis, seconds};

const BOTH: [shadowmesh_sim::NatKind; 2] = [SymmetricRandom, SymmetricRandom];

// PROTOCOL SM-RL-2
// PROTOCOL SM-RL-4
#[test]
fn whatever_a_relay_does_packets_come_out_once_and_only_where_they_belong() {
    seeds::each("relay_liar", 6, |seed| {
        let mut pair = Relayed::new(seed, BOTH, 1);
        let relay = pair.relays[0];
        let ids = [pair.world.host(pair.a).id(), pair.world.host(pair.b).id()];
        let mut seen: Vec<Envelope> = Vec::new();
        pair.world.corrupt(
            relay,
            Box::new(move |mut held, rng| {
                if seen.len() < 2000 {
                    seen.push(held.clone());
                }
                match rng.random_range(0..12) {
                    0 => return Vec::new(),
                    1 => {
                        let bit = rng.random_range(72..held.inner.len() * 8);
                        held.inner[bit / 8] ^= 1 << (bit % 8);
                    }
                    2 => held.from = ids[rng.random_range(0..2)],
                    3 => {
                        let label = Label::of(&ids[rng.random_range(0..2)]);
                        held.inner[..9].copy_from_slice(&envelope::encode(label));
                    }
                    4 => held.inner.truncate(rng.random_range(1..held.inner.len())),
                    5 => {
                        let old = seen.choose(rng).expect("one was just put in").clone();
                        return vec![(Duration::ZERO, held), (millis(1), old)];
                    }
                    6 => {
                        let later = Duration::from_millis(rng.random_range(0..300));
                        return vec![(later, held.clone()), (later / 2, held)];
                    }
                    _ => {}
                }
                vec![(Duration::ZERO, held)]
            }),
        );
        let sent = pair.talk(seconds(20));
        pair.world.run_for(seconds(1));
        let lost = pair.world.ledger.lost(&sent);
        assert!(lost < sent.len() / 2, "{lost} of {} lost", sent.len());
        assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
        let forged =
            [pair.a, pair.b].map(|host| pair.world.host(host).drops(DropReason::SealForged));
        assert!(forged.iter().sum::<u64>() > 0, "the relay did nothing");
    });
}

// PROTOCOL SM-RL-4
#[test]
fn a_relay_sees_labels_and_lengths_and_no_byte_of_what_is_inside() {
    seeds::each("relay_liar", 2, |seed| {
        let mut pair = Relayed::new(seed, BOTH, 1);
        let relay = pair.relays[0];
        let seen: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
        let notes = seen.clone();
        pair.world.corrupt(
            relay,
            Box::new(move |held, _| {
                notes.borrow_mut().push(held.inner.clone());
                vec![(Duration::ZERO, held)]
            }),
        );
        let sent = pair.talk(seconds(2));
        pair.world.run_for(seconds(1));
        assert_eq!(pair.world.ledger.lost(&sent), 0);
        let [from, to] = [pair.a, pair.b].map(|host| match pair.world.ipv4(host) {
            std::net::IpAddr::V4(ip) => ip.octets(),
            std::net::IpAddr::V6(_) => unreachable!("it is IPv4"),
        });
        let header = [from, to].concat();
        let seen = seen.borrow();
        assert!(seen.len() > sent.len());
        let plain = seen
            .iter()
            .any(|inner| inner.windows(8).any(|window| window == header));
        assert!(!plain, "an inner header passed the relay in clear");
    });
}

// PROTOCOL SM-RL-6
#[test]
fn a_relay_that_swallows_everything_breaks_nothing_but_its_own_path() {
    seeds::each("relay_liar", 3, |seed| {
        let mut pair = Relayed::new(seed, BOTH, 2);
        pair.talk(seconds(3));
        for &relay in &pair.relays[..1] {
            pair.world.corrupt(relay, Box::new(|_, _| Vec::new()));
        }
        pair.talk(seconds(10));
        let late = pair.talk(seconds(2));
        pair.world.run_for(seconds(1));
        assert_eq!(pair.world.ledger.lost(&late), 0);
        let now = pair.world.clock_of(pair.a);
        let status = pair.world.host(pair.a).node().status(now);
        assert!(
            status.relays.iter().all(|relay| relay.session.is_some()),
            "the session with the relay is in order, and none of its business"
        );
        assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
        assert!(ends(&pair.world, pair.a) <= 2);
    });
}
