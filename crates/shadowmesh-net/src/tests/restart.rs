//! One side loses everything but its identity.

use super::harness::{World, ms};
use crate::{DownReason, NetEvent, PeerState};

fn restart_and_measure(restarted: usize, knows_address: bool, down_ms: u64) {
    let mut world = World::pair(1);
    world.join(0, 1);
    let survivor = 1 - restarted;
    // Gone for a while, with traffic from the survivor that nobody answers.
    let address = world.nodes[restarted].address;
    world.lost = Box::new(move |flight| flight.target == address || flight.source == address);
    for _ in 0..down_ms / 100 {
        world.send(survivor, restarted, b"anybody there?");
        world.connect(survivor, restarted);
        world.run(ms(100));
    }
    world.restart(restarted);
    world.introduce(restarted, survivor, knows_address);
    world.lost = Box::new(|_| false);
    for _ in 0..15 {
        world.send(survivor, restarted, b"anybody there?");
        world.connect(survivor, restarted);
        if world.run_until(ms(100), |w| w.is_up(0, 1) && w.is_up(1, 0)) {
            break;
        }
    }
    let what = format!("restarted {restarted}, knows address {knows_address}, down {down_ms} ms");
    assert!(world.is_up(0, 1) && world.is_up(1, 0), "{what}");
    assert!(world.traffic_flows(0, 1), "{what}");
}

// PROTOCOL SM-SF-6
// PROTOCOL SM-HS-13
#[test]
fn either_side_may_restart_and_frames_flow_again_within_a_second_and_a_half() {
    for restarted in [0, 1] {
        for knows_address in [true, false] {
            for down_ms in [0, 300, 1_000, 2_000, 4_000, 7_300, 20_000] {
                restart_and_measure(restarted, knows_address, down_ms);
            }
        }
    }
}

/// How often a node was told that its peer lost the keys of their session.
fn resets(world: &World, node: usize) -> usize {
    world.count(node, |event| {
        let reason = DownReason::Reset;
        matches!(event, NetEvent::PeerDown { reason: why, .. } if *why == reason)
    })
}

// PROTOCOL SM-SF-6
#[test]
fn a_frame_to_a_restarted_peer_is_answered_by_a_reset_that_ends_the_session_at_once() {
    let mut world = World::pair(2);
    world.join(0, 1);
    world.restart(1);
    world.introduce(1, 0, false);
    world.send(
        0,
        1,
        b"a packet of ordinary size, so that a reset is smaller than it",
    );
    world.run(ms(11));
    assert_eq!(resets(&world, 0), 1);
    let status = world.nodes[0].net.status(world.now);
    assert_eq!(status[0].state, PeerState::Connecting);
}

// PROTOCOL SM-SF-6
// PROTOCOL SM-HS-6
#[test]
fn a_control_packet_answered_by_a_reset_is_followed_by_a_new_connection() {
    for (seed, survivor) in (1..=30).flat_map(|seed| [(seed, 0), (seed, 1)]) {
        let mut world = World::pair(seed);
        world.join(survivor, 1 - survivor);
        world.restart(1 - survivor);
        world.introduce(1 - survivor, survivor, false);
        // QUIC itself learns of the loss, before any sealed frame does.
        let now = world.now;
        world.nodes[survivor].net.ask_rekey_now(now);
        world.collect(survivor);
        let again = world.run_until(ms(1_500), |w| w.is_up(0, 1) && w.is_up(1, 0));
        let what = format!("seed {seed}, survivor {survivor}");
        assert!(again, "{what}");
        assert!(world.traffic_flows(0, 1), "{what}");
        // The first call came through: no other was needed, whose remains would be there.
        assert_eq!(world.nodes[survivor].net.open_connections(), 1, "{what}");
        assert_eq!(resets(&world, survivor), 1, "{what}");
    }
}

// PROTOCOL SM-HS-13
#[test]
fn a_restarted_peer_that_connects_first_replaces_the_dead_session() {
    for restarted in [0, 1] {
        let mut world = World::pair(3);
        world.join(0, 1);
        world.restart(restarted);
        world.introduce(restarted, 1 - restarted, true);
        world.connect(restarted, 1 - restarted);
        world.run(ms(100));
        assert!(world.traffic_flows(0, 1));
        world.run(ms(1_000));
        assert_eq!(world.nodes[1 - restarted].net.open_connections(), 1);
    }
}

#[test]
fn a_silent_peer_is_found_dead_within_six_seconds_under_traffic() {
    let mut world = World::pair(4);
    world.join(0, 1);
    world.lost = Box::new(|_| true);
    for _ in 0..60 {
        world.send(0, 1, b"hello?");
        world.run(ms(100));
    }
    let dead = world.count(0, |event| {
        matches!(
            event,
            NetEvent::PeerDown {
                reason: DownReason::Silent,
                ..
            }
        )
    });
    assert_eq!(dead, 1);
}

#[test]
fn an_idle_session_stays_up() {
    let mut world = World::pair(5);
    world.join(0, 1);
    world.run(ms(300_000));
    for node in 0..2 {
        assert_eq!(
            world.count(node, |e| matches!(e, NetEvent::PeerDown { .. })),
            0
        );
        assert_eq!(
            world.count(node, |e| matches!(e, NetEvent::PeerUp { .. })),
            1
        );
    }
    let totals = |node: usize| world.nodes[node].net.status(world.now)[0].traffic;
    assert!(totals(0).sent_frames >= 20, "keep-alives are frames too");
    assert_eq!(totals(0).sent_frames, totals(1).received_frames);
    assert_eq!(totals(1).sent_frames, totals(0).received_frames);
    assert_eq!(totals(0).sent_bytes, totals(1).received_bytes);
    assert!(world.traffic_flows(0, 1));
}

// PROTOCOL SM-CT-4
// PROTOCOL SM-PA-4
#[test]
fn a_peer_that_leaves_is_waited_for_and_called_at_once_when_somebody_wants_it() {
    let mut world = World::pair(6);
    world.join(0, 1);
    world.nodes[1].net.shutdown(world.now);
    world.run(ms(1_000));
    let left = world.count(0, |event| {
        matches!(
            event,
            NetEvent::PeerDown {
                reason: DownReason::PeerLeft,
                ..
            }
        )
    });
    assert_eq!(left, 1);
    assert_eq!(
        world.nodes[0].net.status(world.now)[0].state,
        PeerState::Waiting
    );
    world.join(0, 1);
}
