//! From nothing to a session.

use std::time::Duration;

use shadowmesh_wire::sealed::is_initial;

use super::harness::{Flight, Kind, World, ms};
use crate::{NetEvent, PathInfo, PeerState};

fn handshaken_after(world: &World, node: usize) -> Vec<Duration> {
    let events = &world.nodes[node].events;
    events
        .iter()
        .filter_map(|(_, event)| match event {
            NetEvent::Handshaken { took, .. } => Some(*took),
            _ => None,
        })
        .collect()
}

#[test]
fn either_side_can_connect_and_both_can_send() {
    for (from, to) in [(0, 1), (1, 0)] {
        let mut world = World::pair(1);
        world.join(from, to);
        assert!(world.traffic_flows(from, to));
        let status = world.nodes[to].net.status(world.now);
        assert_eq!(status[0].state, PeerState::Up);
        let session = status[0].session.as_ref().unwrap();
        assert_eq!(session.path, PathInfo::Direct(world.nodes[from].address));
        assert!(!session.initiated);
        assert_eq!(session.observed, Some(world.nodes[to].address));
        assert_eq!(
            (
                status[0].traffic.sent_frames,
                status[0].traffic.received_frames
            ),
            // And a probe of the path's MTU each, with its answer.
            (3, 3)
        );
    }
}

#[test]
fn the_side_that_was_connected_to_needs_no_address() {
    let mut world = World::new(2, 2);
    world.introduce(0, 1, true);
    world.introduce(1, 0, false);
    world.join(0, 1);
    assert!(world.traffic_flows(0, 1));
}

// PROTOCOL SM-HS-8
// PROTOCOL SM-HS-12
#[test]
fn the_client_is_done_within_one_round_trip_on_first_contact_and_on_return() {
    let mut world = World::pair(3);
    world.delay = ms(50);
    world.join(0, 1);
    world.nodes[1].net.shutdown(world.now);
    world.run(ms(1_000));
    assert!(!world.is_up(0, 1));
    world.join(0, 1);
    let took = handshaken_after(&world, 0);
    assert_eq!(took.len(), 2);
    assert!(took.iter().all(|took| *took <= ms(115)), "{took:?}");
}

#[test]
fn the_session_is_up_after_two_round_trips() {
    let mut world = World::pair(4);
    world.delay = ms(50);
    world.connect(0, 1);
    assert!(world.run_until(ms(205), |world| world.is_up(0, 1) && world.is_up(1, 0)));
    assert!(world.traffic_flows(0, 1));
}

fn initials(world: &World, node: usize) -> Vec<&Flight> {
    let log = world.log.iter();
    log.filter(|flight| flight.from == node && is_initial(&flight.data))
        .collect()
}

// PROTOCOL SM-HS-8
#[test]
fn on_first_contact_every_initial_of_the_client_is_sent_twice() {
    let mut world = World::pair(5);
    world.join(0, 1);
    let first = initials(&world, 0);
    assert!(first.len() >= 4);
    for pair in first.chunks(2) {
        assert_eq!(pair[0].data, pair[1].data);
    }
    let server = initials(&world, 1);
    assert!(server.windows(2).all(|pair| pair[0].data != pair[1].data));
}

// PROTOCOL SM-HS-12
#[test]
fn with_an_address_token_no_initial_is_sent_twice() {
    let mut world = World::pair(6);
    world.join(0, 1);
    world.nodes[1].net.shutdown(world.now);
    world.run(ms(1_000));
    world.log.clear();
    world.join(0, 1);
    let again = initials(&world, 0);
    assert!(!again.is_empty());
    assert!(again.windows(2).all(|pair| pair[0].data != pair[1].data));
}

// PROTOCOL SM-HS-6
#[test]
fn on_second_contact_both_sides_send_the_short_certificate() {
    let mut world = World::pair(7);
    world.join(0, 1);
    let bytes = |world: &World, node| -> usize {
        let control = world
            .log
            .iter()
            .filter(|f| f.from == node && f.kind == Kind::Control);
        control.map(|f| f.data.len()).sum()
    };
    let first = (bytes(&world, 0), bytes(&world, 1));
    let verified = |world: &World, node: usize| {
        let counters = world.nodes[node].net.handshake_counters();
        counters.verify.load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(verified(&world, 0), 1);

    // The other side restarts, so there is no ticket, but it was told our key.
    let key = world.nodes[1].net.public_identity(&world.id(0)).unwrap();
    world.restart(1);
    let config = crate::PeerConfig {
        id: world.id(0),
        addresses: Vec::new(),
        known_key: Some(key),
        data_plane: crate::DataPlane::default(),
        relay: false,
    };
    world.nodes[1].net.add_peer(config, world.now);
    world.log.clear();
    assert!(world.send(0, 1, b"finds that the peer restarted"));
    assert!(world.run_until(ms(2_000), |world| world.is_up(1, 0)));
    world.run(ms(500));
    // A full handshake: both signatures were made and verified anew.
    assert_eq!(verified(&world, 0), 2);
    assert_eq!(verified(&world, 1), 1);
    let second = (bytes(&world, 0), bytes(&world, 1));
    // The full key is 2.6 KB; doubling on first contact makes the client's difference larger.
    assert!(second.0 + 2_400 < first.0, "client {first:?} {second:?}");
    assert!(second.1 + 2_400 < first.1, "server {first:?} {second:?}");
}

// PROTOCOL SM-HS-6
#[test]
fn a_peer_that_forgot_our_key_gets_the_full_certificate_at_the_second_try() {
    let mut world = World::pair(8);
    world.join(0, 1);
    world.restart(1);
    world.introduce(1, 0, false);
    assert!(world.send(0, 1, b"finds that the peer restarted"));
    assert!(world.run_until(ms(1_500), |world| world.is_up(0, 1) && world.is_up(1, 0)));
}

#[test]
fn all_known_addresses_are_tried_and_the_one_that_answers_is_used() {
    let mut world = World::new(2, 9);
    world.introduce(1, 0, false);
    let config = crate::PeerConfig {
        id: world.id(1),
        addresses: vec![
            ([198, 51, 100, 1], 1).into(),
            world.nodes[1].address,
            ([198, 51, 100, 2], 2).into(),
        ],
        known_key: None,
        data_plane: crate::DataPlane::default(),
        relay: false,
    };
    world.nodes[0].net.add_peer(config, world.now);
    world.connect(0, 1);
    assert!(world.run_until(ms(100), |world| world.is_up(0, 1)));
    world.log.clear();
    assert!(world.traffic_flows(0, 1));
    assert!(
        world
            .log
            .iter()
            .all(|flight| flight.target == world.nodes[1 - flight.from].address)
    );
}

#[test]
fn a_lost_initial_never_hangs_the_handshake() {
    // Each of the server's first datagrams alone, then pairs of them.
    for mask in 1..256u32 {
        if mask.count_ones() > 2 {
            continue;
        }
        let mut world = World::pair(10);
        let mut seen = 0;
        world.lost = Box::new(move |flight| {
            if flight.from == 1 {
                seen += 1;
                return seen <= 8 && mask & (1 << (seen - 1)) != 0;
            }
            false
        });
        world.connect(0, 1);
        let up = world.run_until(ms(5_000), |world| world.is_up(0, 1));
        assert!(up, "lost datagrams {mask:b}");
    }
}

#[test]
fn handshakes_come_through_at_twenty_percent_loss() {
    use rand::{Rng, SeedableRng};
    for seed in 0..40 {
        let mut world = World::pair(seed);
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        world.lost = Box::new(move |_| rng.random_bool(0.2));
        world.connect(0, 1);
        let up = world.run_until(ms(30_000), |world| world.is_up(0, 1) && world.is_up(1, 0));
        assert!(up, "seed {seed}");
    }
}

// PROTOCOL SM-PA-4
#[test]
fn an_unreachable_peer_is_tried_again_for_ever_but_seldom_unless_it_is_wanted() {
    let mut world = World::pair(11);
    world.lost = Box::new(|_| true);
    world.connect(0, 1);
    let attempts = |world: &mut World, time| {
        let before = world.log.len();
        world.run(time);
        world.log.len() - before
    };
    let wanted = attempts(&mut world, ms(3_000));
    world.run(ms(3_600_000));
    let status = world.nodes[0].net.status(world.now);
    assert_eq!(status[0].state, PeerState::Waiting);
    assert_eq!(status[0].last_error.as_deref(), Some("no answer"));
    let idle = attempts(&mut world, ms(600_000));
    assert!(
        idle > 0 && idle < 12 * wanted,
        "{wanted} in 3 s, {idle} in 10 min"
    );
}

#[test]
fn a_ping_tells_the_round_trip_and_the_path() {
    let mut world = World::pair(12);
    world.delay = ms(20);
    world.join(0, 1);
    let id = world.id(1);
    let token = world.nodes[0].net.ping(&id, world.now).unwrap();
    world.run(ms(50));
    let replies = world.count(0, |event| {
        matches!(event, NetEvent::PingReply { token: t, rtt, path, .. }
            if *t == token && *rtt == ms(40) && *path == PathInfo::Direct(([192, 0, 2, 2], 4433).into()))
    });
    assert_eq!(replies, 1);
}

#[test]
fn a_first_packet_that_already_says_goodbye_leaves_nothing_behind() {
    let mut world = World::pair(13);
    // The attempt is given up before anything of it arrives; only its last word does.
    world.lost = Box::new(|_| true);
    world.connect(0, 1);
    world.nodes[0].net.shutdown(world.now);
    world.lost = Box::new(|_| false);
    world.run(ms(10_000));
    assert!(world.log.iter().any(|flight| flight.from == 0));
    assert_eq!(world.nodes[1].net.open_connections(), 0);
    assert_eq!(world.nodes[1].net.remembered_ids(), 0);
}
