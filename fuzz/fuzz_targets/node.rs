//! A node among peers of which one is hostile, with data threads that see what was so a while ago.
//!
//! The input is a byte that says what the hostile one is, and a list of steps: what happens, a length, and as
//! many bytes. It may call, say anything on its control stream, in sealed and in DATAGRAM frames, have its
//! datagrams held back and turned about; the data threads get the new picture when a step says so. Whatever
//! comes, every input comes to an end, what the hostile one leaves unfinished is bounded, what it sends is
//! delivered or counted, and the others go on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shadowmesh_net::DataPlane;
use shadowmesh_sim::siege::{Siege, Standing};

const STEPS_MAX: usize = 24;
/// What a node holds of what others do not finish (SM-MT-4).
const HELD_MAX: usize = 16 * 1024 * 1024;
/// Limit: what a node says for one step: all states of all peers, again with each datagram of a few.
const EVENTS_MAX: usize = 10_000;

fuzz_target!(|input: &[u8]| {
    let Some((&who, steps)) = input.split_first() else {
        return;
    };
    let standing = match who & 1 {
        0 => Standing::Stranger,
        _ => Standing::Member,
    };
    let plane = [DataPlane::Sealed, DataPlane::Auto, DataPlane::Quic][usize::from(who >> 1) % 3];
    let mut siege = Siege::new(standing, plane);
    for (kind, len, bytes) in shadowmesh_fuzz::steps(steps).take(STEPS_MAX) {
        siege.act(kind, len, bytes);
        assert!(siege.victim().held_bytes() <= HELD_MAX);
        assert!(siege.events.len() <= EVENTS_MAX);
        siege.events.clear();
    }
    siege.holds = false;
    siege.release();
    siege.control();
    assert!(
        siege.friends_are_well(),
        "what one does is nothing to others"
    );
});
