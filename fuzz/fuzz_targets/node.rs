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
/// What one stream takes at once.
const WINDOW: usize = 64 * 1024;
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
        act(&mut siege, kind, len, bytes);
        assert!(siege.victim().held_bytes() <= HELD_MAX);
        assert!(siege.events.len() <= EVENTS_MAX);
        siege.events.clear();
    }
    siege.holds = false;
    siege.release();
    siege.control();
    assert!(siege.friends_are_well(), "what one does is nothing to others");
});

/// One step: the lower half of its kind says what is done, the upper to which call and how.
fn act(siege: &mut Siege, kind: u8, len: u8, bytes: &[u8]) {
    let calls: Vec<usize> = siege.hostile.calls().collect();
    let which = calls.get(usize::from(kind >> 5) % calls.len().max(1));
    let how = kind >> 4 & 1 == 1;
    match (kind & 15, which) {
        (0, _) => {
            siege.call();
        }
        (1, Some(&call)) => {
            let hello = siege.hostile.hello(call);
            siege.hostile.say(call, &hello);
        }
        (2, Some(&call)) => {
            siege.hostile.say(call, bytes);
        }
        // The same again and again, until the stream takes no more.
        (3, Some(&call)) if !bytes.is_empty() => {
            let hello = if how { siege.hostile.hello(call) } else { Vec::new() };
            let again = bytes.repeat((WINDOW - hello.len()) / bytes.len());
            siege.hostile.say(call, &[hello, again].concat());
        }
        (4, Some(&call)) => say_inside(siege, call, bytes, how),
        (5, Some(&call)) => siege.hostile.say_openly(call, bytes),
        // What has the form of a frame, and names a session.
        (6, Some(&call)) => {
            if let Some(index) = siege.hostile.index(call) {
                let mut frame = vec![0x43];
                frame.extend(index.to_bytes());
                frame.extend(bytes);
                frame.resize(frame.len().max(usize::from(len)), 0);
                siege.strike(frame);
            }
        }
        (7, _) => siege.holds = how,
        (8, _) => {
            match how {
                true => siege.held.reverse(),
                false => {
                    let by = usize::from(len) % siege.held.len().max(1);
                    siege.held.rotate_left(by);
                }
            }
            siege.release();
        }
        (9, _) => siege.run(u32::from(len), how),
        (10, _) => siege.publish(),
        (11, _) => siege.send_packets(),
        (12, _) => siege.control(),
        (13, Some(&call)) => {
            let frames = (0..len).filter_map(|_| siege.hostile.seal(call, bytes));
            let frames: Vec<_> = frames.collect();
            siege.strike_together(&frames);
        }
        (14, _) => {
            siege.control();
            siege.publish();
        }
        (15, _) => siege.strike(bytes.to_vec()),
        _ => {}
    }
}

/// A sealed frame. `watched`: everybody knows the session, so that it is seen what becomes of the frame.
fn say_inside(siege: &mut Siege, call: usize, inner: &[u8], watched: bool) {
    if watched {
        siege.control();
        siege.publish();
    }
    let Some(frame) = siege.hostile.seal(call, inner).filter(|_| !inner.is_empty()) else {
        return;
    };
    let before = outcome(siege);
    siege.strike(frame);
    if watched {
        siege.control();
        // A probe is answered, padding means nothing, a piece may wait, an envelope may be passed on.
        let is_quiet = matches!(inner[0], 3 | 4 | 6 | 7 | 8);
        assert!(is_quiet || outcome(siege) > before, "neither delivered nor counted");
    }
}

/// What came out at the node, and what it counted.
fn outcome(siege: &Siege) -> u64 {
    siege.delivered[0] + siege.victim().drops().total()
}
