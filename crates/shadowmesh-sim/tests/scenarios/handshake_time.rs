//! A handshake takes one round trip, with strangers and with acquaintances.

use shadowmesh_sim::{scenario::handshake, seeds};

use crate::millis;

// PROTOCOL SM-HS-7
// PROTOCOL SM-HS-8
// PROTOCOL SM-HS-11
// PROTOCOL SM-HS-12
#[test]
fn the_client_is_done_after_one_round_trip_on_first_contact_and_on_return() {
    seeds::each("handshake_time", 5, |seed| {
        let [first, again] = handshake::first_contact_and_return(seed, millis(100));
        println!("seed {seed}: first {first:?}\n        again {again:?}");
        assert!(first.handshaken_rtts <= 1.15, "first contact: {first:?}");
        assert!(again.handshaken_rtts <= 1.15, "on return: {again:?}");
        assert!(
            !first.resumed && again.resumed && again.early_data,
            "{first:?} {again:?}"
        );
        assert!(
            again.client_bytes < first.client_bytes,
            "a return needs no doubled Initials"
        );
    });
}
