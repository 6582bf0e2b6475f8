//! A peer with a session, a member or somebody for whom we only relay, that keeps to nothing: the node goes
//! on, with everybody else, whatever the data threads saw when.

use std::sync::mpsc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shadowmesh_net::{DataPlane, DropReason, NetEvent};
use shadowmesh_sim::seeds::each;
use shadowmesh_sim::siege::{Siege, Standing};
use shadowmesh_wire::control::ControlMessage;
use shadowmesh_wire::fragment::FragmentHeader;

/// Longer than any of this takes on a busy machine; a node that does not come back never does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does this on a thread of its own, because it may never end.
fn comes_back(act: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        act();
        done.send(()).unwrap();
    });
    match ended.recv_timeout(PATIENCE) {
        Ok(()) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the node did not come back"),
    }
}

/// A call whose Hello and some 10,900 messages behind it arrive in one input of the control thread.
fn say_all_at_once(siege: &mut Siege, call: usize) {
    let mut bytes = siege.hostile.hello(call);
    while bytes.len() + 6 <= 65_536 {
        let message = ControlMessage::BenchReply { port: 0 };
        message.encode(&mut bytes).unwrap();
    }
    siege.holds = true;
    assert_eq!(siege.hostile.say(call, &bytes), bytes.len());
    siege.run(15, false);
    assert!(siege.held.len() > 50, "{} datagrams", siege.held.len());
    // The beginning of the stream comes last.
    siege.held.rotate_left(1);
    siege.release();
    siege.control();
    siege.holds = false;
    siege.run(20, false);
}

fn connected(siege: &mut Siege) -> usize {
    let call = siege.call().unwrap();
    siege.run(100, true);
    assert!(siege.hostile.is_connected(call));
    call
}

// PROTOCOL SM-OV-6
// PROTOCOL SM-SF-9
#[test]
fn a_peer_that_says_ten_thousand_things_at_once_does_not_keep_the_node_busy_for_ever() {
    for standing in [Standing::Stranger, Standing::Member] {
        comes_back(move || {
            let mut siege = Siege::new(standing, DataPlane::Sealed);
            let call = connected(&mut siege);
            say_all_at_once(&mut siege, call);
            let index = siege.hostile.index(call).expect("it has a session");
            // A frame of the session for the data threads, which do not know it yet, and none for `net`.
            let mut frame = vec![0x43];
            frame.extend(index.to_bytes());
            frame.resize(40, 0);
            siege.strike(frame.clone());
            siege.control();
            siege.publish();
            siege.strike(frame);
            siege.control();
            assert!(siege.friends_are_well(), "{standing:?}");
        });
    }
}

// PROTOCOL SM-CT-5
#[test]
fn of_what_a_peer_says_to_the_program_a_few_are_heard_and_all_others_counted() {
    for (standing, heard) in [(Standing::Stranger, 0), (Standing::Member, 16)] {
        let mut siege = Siege::new(standing, DataPlane::Sealed);
        let call = connected(&mut siege);
        let mut bytes = siege.hostile.hello(call);
        for _ in 0..1000 {
            let message = ControlMessage::BenchRequest { seconds: 9 };
            message.encode(&mut bytes).unwrap();
        }
        siege.hostile.say(call, &bytes);
        siege.run(50, true);
        let messages = siege.events.iter();
        let messages = messages.filter(|event| matches!(event, NetEvent::Control { .. }));
        assert_eq!(messages.count(), heard);
        let refused = [DropReason::RoleRefused, DropReason::MessageRate];
        let refused: u64 = refused.iter().map(|reason| siege.drops(*reason)).sum();
        assert_eq!(refused, 1000 - heard as u64, "{standing:?}");
        assert!(siege.friends_are_well(), "{standing:?}");
    }
}

/// The first piece of a packet of 60,000 bytes, as an inner frame.
fn piece(id: u32) -> Vec<u8> {
    let header = FragmentHeader {
        id,
        total: 60_000,
        offset: 0,
    };
    let head: [&[u8]; 3] = [&[7], &header.encode(), &[1; 300]];
    head.concat()
}

// PROTOCOL SM-MT-4
#[test]
fn what_a_peer_never_finishes_is_given_up_without_another_word_of_it() {
    for openly in [false, true] {
        let mut siege = Siege::new(Standing::Member, DataPlane::Auto);
        let call = connected(&mut siege);
        let hello = siege.hostile.hello(call);
        siege.hostile.say(call, &hello);
        siege.run(50, true);
        for id in 0..2 {
            if openly {
                siege.hostile.say_openly(call, &piece(id));
            } else {
                let frame = siege.hostile.seal(call, &piece(id)).expect("a session");
                siege.strike(frame);
            }
        }
        siege.run(50, true);
        assert_eq!(siege.victim().held_bytes(), 120_000, "{openly}");
        // It says nothing more but that it lives.
        for _ in 0..7 {
            siege.run(500, true);
            let frame = siege.hostile.seal(call, &[6]).expect("a session");
            siege.strike(frame);
        }
        assert_eq!(siege.victim().held_bytes(), 0, "{openly}");
        assert_eq!(siege.drops(DropReason::FragmentExpired), 2);
        assert!(
            siege
                .victim()
                .snapshot()
                .forwarding()
                .outbound(&siege.hostile.id())
                .is_some()
        );
    }
}

// PROTOCOL SM-RL-9
#[test]
fn who_only_uses_us_as_a_relay_gets_no_packet_in_whole_or_in_pieces() {
    for inner in [&[1, 2, 3][..], &[7; 300]] {
        let mut siege = Siege::new(Standing::Stranger, DataPlane::Auto);
        let call = connected(&mut siege);
        let hello = siege.hostile.hello(call);
        siege.hostile.say_openly(call, inner);
        siege.hostile.say(call, &hello);
        siege.run(50, true);
        let frame = siege.hostile.seal(call, inner).expect("it has a session");
        siege.strike(frame);
        siege.hostile.say_openly(call, inner);
        siege.run(50, true);
        assert_eq!(siege.drops(DropReason::RoleRefused), 3);
        assert!(siege.friends_are_well());
    }
}

// PROTOCOL SM-OV-6
// PROTOCOL SM-MT-4
#[test]
fn whatever_a_peer_does_in_whatever_order_every_input_ends_and_the_others_go_on() {
    const HELD_MAX: usize = 16 * 1024 * 1024;
    each("hostile_peer", 12, |seed| {
        comes_back(move || {
            let mut rng = StdRng::seed_from_u64(seed);
            let standing = [Standing::Stranger, Standing::Member][seed as usize & 1];
            let planes = [DataPlane::Sealed, DataPlane::Auto, DataPlane::Quic];
            let mut siege = Siege::new(standing, planes[seed as usize / 2 % 3]);
            let call = connected(&mut siege);
            let hello = siege.hostile.hello(call);
            siege.hostile.say(call, &hello);
            siege.run(40, true);
            for _ in 0..40 {
                let mut bytes: Vec<u8> =
                    (0..rng.random_range(0..80)).map(|_| rng.random()).collect();
                if let Some(first) = bytes.first_mut() {
                    *first %= 9;
                }
                siege.act(rng.random(), rng.random_range(0..60), &bytes);
                assert!(siege.victim().held_bytes() <= HELD_MAX, "seed {seed}");
            }
            siege.holds = false;
            siege.release();
            siege.control();
            assert!(siege.friends_are_well(), "seed {seed}");
        });
    });
}
