//! Packets by QUIC datagrams: who gets them, when a session moves there, and when it comes back.

use std::cell::Cell;
use std::rc::Rc;

use shadowmesh_wire::control::{ControlMessage, Hello};
use shadowmesh_wire::sealed::{ReceiverIndex, receiver_index};
use shadowmesh_wire::way::Way;

use super::bare::Bare;
use super::harness::{Flight, Kind, World, ms};
use crate::{DataPlane, DropReason, NetEvent, PlaneStatus};

const WISHES: [DataPlane; 3] = [DataPlane::Sealed, DataPlane::Auto, DataPlane::Quic];

fn plane(world: &World, node: usize) -> PlaneStatus {
    let rows = world.nodes[node].net.status(world.now);
    rows[0].session.as_ref().expect("a session is up").plane
}

/// Loses every sealed frame, while the switch is on. Sealed frames and QUIC packets look alike; only
/// the nodes can tell them apart, by their ids.
fn lose_sealed(world: &mut World) -> Rc<Cell<bool>> {
    let on = Rc::new(Cell::new(true));
    let switch = on.clone();
    let indices = world.indices.clone();
    world.lost = Box::new(move |flight: &Flight| {
        let index = receiver_index(&flight.data);
        switch.get() && index.is_some_and(|index| indices.borrow().contains(&index))
    });
    on
}

/// Sends a packet each way every 100 ms for as long, and counts those that arrived.
fn chat(world: &mut World, millis: u64) -> usize {
    let before: usize = world.nodes.iter().map(|node| node.packets.len()).sum();
    for _ in 0..millis / 100 {
        world.send(0, 1, b"from a");
        world.send(1, 0, b"from b");
        world.run(ms(100));
    }
    let after: usize = world.nodes.iter().map(|node| node.packets.len()).sum();
    after - before
}

// PROTOCOL SM-QD-1
// PROTOCOL SM-QD-5
#[test]
fn packets_go_by_quic_in_both_directions_when_either_side_demands_it() {
    for ours in WISHES {
        for theirs in WISHES {
            let mut world = World::pair_with(1, [ours, theirs]);
            world.join(0, 1);
            let demanded = [ours, theirs].contains(&DataPlane::Quic);
            let wanted = if demanded {
                PlaneStatus::Quic
            } else {
                PlaneStatus::Sealed
            };
            assert_eq!([plane(&world, 0), plane(&world, 1)], [wanted; 2]);
            let sealed = |flight: &&Flight| flight.kind == Kind::Data;
            assert_eq!(chat(&mut world, 1_000), 20);
            assert_eq!(world.log.iter().find(sealed).is_none(), demanded);
        }
    }
}

// PROTOCOL SM-QD-1
#[test]
fn a_peer_from_before_the_choice_gets_sealed_frames_whatever_we_want() {
    let mut world = World::pair_with(3, [DataPlane::Quic, DataPlane::Quic]);
    let mut bare = Bare::client(&world, 0, 1);
    bare.talk(&mut world, 1);
    let hello = ControlMessage::Hello(Hello {
        version: 1,
        boot: 77,
        index: ReceiverIndex(5),
        reset_token: [0; 16],
        cipher_speeds: [1, 1],
        mtu: 1420,
        holds_your_key: false,
        data_plane: None,
        beside: None,
        call: None,
    });
    let mut bytes = Vec::new();
    hello.encode(&mut bytes).unwrap();
    bare.say(&mut world, 1, &bytes);
    assert_eq!(plane(&world, 1), PlaneStatus::Sealed);
}

// PROTOCOL SM-QD-2
// PROTOCOL SM-QD-3
// PROTOCOL SM-QD-4
#[test]
fn a_session_moves_to_quic_when_sealed_frames_vanish_and_back_when_they_pass_again() {
    let mut world = World::pair(2);
    let blocked = lose_sealed(&mut world);
    world.join(0, 1);
    chat(&mut world, 4_000);
    assert_eq!(
        [plane(&world, 0), plane(&world, 1)],
        [PlaneStatus::Fallback; 2]
    );
    assert_eq!(chat(&mut world, 1_000), 20);
    let downs = |world: &World| world.count(0, |e| matches!(e, NetEvent::PeerDown { .. }));
    assert_eq!(downs(&world), 0, "the plane changed, not the session");

    chat(&mut world, 310_000);
    assert_eq!(plane(&world, 0), PlaneStatus::Fallback, "still blocked");
    blocked.set(false);
    chat(&mut world, 320_000);
    assert_eq!(
        [plane(&world, 0), plane(&world, 1)],
        [PlaneStatus::Sealed; 2]
    );
    assert_eq!(chat(&mut world, 1_000), 20);
    assert_eq!(downs(&world), 0);
}

// PROTOCOL SM-QD-2
#[test]
fn a_peer_that_is_gone_altogether_is_not_taken_for_one_behind_a_filter() {
    let mut world = World::pair(3);
    world.join(0, 1);
    world.lost = Box::new(|_| true);
    chat(&mut world, 6_000);
    assert!(!world.is_up(0, 1) && !world.is_up(1, 0));
    let moved = |e: &NetEvent| matches!(e, NetEvent::PlaneChanged { .. });
    assert_eq!(world.count(0, moved) + world.count(1, moved), 0);
}

#[test]
fn who_wants_sealed_frames_only_does_not_leave_them() {
    let mut world = World::pair_with(4, [DataPlane::Sealed, DataPlane::Auto]);
    lose_sealed(&mut world);
    world.connect(0, 1);
    chat(&mut world, 10_000);
    let moved = |e: &NetEvent| matches!(e, NetEvent::PlaneChanged { .. });
    assert_eq!(world.count(0, moved) + world.count(1, moved), 0);
    let downs = world.count(0, |e| matches!(e, NetEvent::PeerDown { .. }));
    assert!(downs > 0, "as before, the session ends and is made anew");
}

// PROTOCOL SM-QD-6
#[test]
fn the_keys_of_the_quic_plane_are_renewed_by_another_connection_and_no_packet_is_lost() {
    let mut world = World::pair_with(5, [DataPlane::Quic, DataPlane::Auto]);
    world.join(0, 1);
    let exchanges = world.nodes[0].net.handshake_counters().clone();
    let kem = || exchanges.kem.load(std::sync::atomic::Ordering::Relaxed);
    let before = kem();
    // The interval of this world is 10 s.
    assert_eq!(chat(&mut world, 65_000), 2 * 650);
    let ups = world.count(0, |e| matches!(e, NetEvent::PeerUp { .. }));
    assert_eq!(ups, 1 + 6, "another session in each interval");
    assert_eq!(kem(), before + 2 * 6, "each made a key pair and used it");
    assert_eq!(
        world.count(0, |e| matches!(e, NetEvent::PeerDown { .. })),
        0
    );
    assert!(world.nodes[0].net.open_connections() <= 2);
}

/// Packets of these lengths each way, and all of them arrive.
fn long_packets_arrive(world: &mut World, lens: &[usize]) {
    let packet: Vec<u8> = (0..9000u32).map(|n| n as u8).collect();
    for node in &mut world.nodes {
        node.packets.clear();
    }
    for &len in lens {
        assert!(world.send(0, 1, &packet[..len]) && world.send(1, 0, &packet[..len]));
    }
    world.run(ms(200));
    for node in &world.nodes {
        let got: Vec<usize> = node.packets.iter().map(Vec::len).collect();
        assert_eq!(got, lens);
        assert!(node.packets.iter().all(|got| packet.starts_with(got)));
        assert_eq!(node.net.drops().get(DropReason::TooBig), 0);
    }
}

// PROTOCOL SM-QD-5
#[test]
fn packets_too_long_for_the_path_arrive_in_pieces() {
    let mut world = World::pair_with(6, [DataPlane::Quic, DataPlane::Quic]);
    world.lost = Box::new(|flight| flight.data.len() > 1200);
    world.join(0, 1);
    // 1161 bytes are the most that a QUIC packet of 1200 holds whole.
    let lens = [100, 1160, 1161, 1162, 1420, 9000];
    long_packets_arrive(&mut world, &lens);
    // The search is over, and found no longer one.
    world.run(ms(5_000));
    long_packets_arrive(&mut world, &lens);
}

// PROTOCOL SM-QD-1
// PROTOCOL SM-QD-5
#[test]
fn long_packets_arrive_from_the_first_on_whichever_side_demands_quic() {
    for ours in WISHES {
        for theirs in WISHES {
            if ![ours, theirs].contains(&DataPlane::Quic) {
                continue;
            }
            let mut world = World::pair_with(10, [ours, theirs]);
            world.connect(0, 1);
            let both = |world: &World| world.is_up(0, 1) && world.is_up(1, 0);
            assert!(world.run_until(ms(5_000), both));
            long_packets_arrive(&mut world, &[1420; 3]);
            // Over renewals of the keys, which another connection brings, too.
            for _ in 0..25 {
                world.run(ms(1_000));
                long_packets_arrive(&mut world, &[1420; 3]);
            }
        }
    }
}

// PROTOCOL SM-QD-2
// PROTOCOL SM-QD-5
#[test]
fn long_packets_arrive_after_a_fallback() {
    let mut world = World::pair(11);
    let _blocked = lose_sealed(&mut world);
    world.join(0, 1);
    chat(&mut world, 4_000);
    let planes = [plane(&world, 0), plane(&world, 1)];
    assert_eq!(planes, [PlaneStatus::Fallback; 2]);
    long_packets_arrive(&mut world, &[1420; 5]);
}

#[test]
fn what_is_longer_than_every_path_takes_goes_with_df_and_the_rest_without() {
    let mut world = World::pair_with(12, [DataPlane::Quic, DataPlane::Quic]);
    world.join(0, 1);
    world.run(ms(2_000));
    for len in [100, 1420, 9000] {
        long_packets_arrive(&mut world, &[len; 20]);
    }
    let longer = |flight: &&Flight| flight.data.len() > 1200;
    assert!(world.log.iter().filter(longer).count() > 100);
    assert!(
        world
            .log
            .iter()
            .filter(longer)
            .all(|flight| !flight.may_fragment)
    );
    // Whatever came before the first of them, the handshake above all, must pass anywhere.
    let first = world
        .log
        .iter()
        .take_while(|flight| flight.data.len() <= 1200);
    let handshake: Vec<bool> = first.map(|flight| flight.may_fragment).collect();
    assert!(handshake.len() > 8, "{}", handshake.len());
    assert!(handshake.iter().all(|may| *may));
}

#[test]
fn large_packets_pass_once_the_paths_mtu_is_found() {
    let mut world = World::pair_with(6, [DataPlane::Quic, DataPlane::Quic]);
    world.join(0, 1);
    world.run(ms(2_000));
    let packet = vec![0x45; 1420];
    assert!(world.send(0, 1, &packet) && world.send(1, 0, &packet));
    world.run(ms(100));
    for node in &world.nodes {
        assert_eq!(node.packets, std::slice::from_ref(&packet));
    }
}

// PROTOCOL SM-QD-6
#[test]
fn a_connection_that_renews_the_keys_takes_over_the_mtu_with_them() {
    let mut world = World::pair_with(9, [DataPlane::Quic, DataPlane::Quic]);
    world.join(0, 1);
    world.run(ms(2_000));
    let packet = vec![0x45; 1420];
    for _ in 0..400 {
        assert!(world.send(0, 1, &packet) && world.send(1, 0, &packet));
        world.run(ms(100));
    }
    for node in &world.nodes {
        assert_eq!(node.packets.len(), 400);
    }
    let ups = world.count(0, |e| matches!(e, NetEvent::PeerUp { .. }));
    assert!(ups >= 4, "{ups} sessions in 42 s");
}

#[test]
fn what_the_path_does_not_take_is_dropped_oldest_first_and_counted() {
    let mut world = World::pair_with(7, [DataPlane::Quic, DataPlane::Quic]);
    world.join(0, 1);
    world.run(ms(1_000));
    world.lost = Box::new(|_| true);
    for _ in 0..4_000 {
        world.send(0, 1, &[0x45; 1000]);
    }
    let dropped = world.drops(0, DropReason::QuicQueueFull);
    assert!((1_000..4_000).contains(&dropped), "{dropped}");
}

// PROTOCOL SM-WS-6
#[test]
fn a_stream_is_told_of_by_the_probes_of_a_session_that_come_by_it_in_quic_packets() {
    let mut world = World::pair_with(10, [DataPlane::Quic, DataPlane::Quic]);
    world.join(0, 1);
    let [ours, theirs, other] = [3, 8, 9].map(|id| Way::Stream(id).address());
    let (peer, now) = (world.id(1), world.now);
    world.nodes[0].net.learn_address(&peer, ours, now);
    world.collect(0);
    let leaves = |flight: &&Flight| flight.target == ours;
    let probe = world
        .log
        .iter()
        .rfind(leaves)
        .expect("a probe")
        .data
        .clone();
    let mut forged = probe.clone();
    *forged.last_mut().unwrap() ^= 1;
    let target = world.nodes[1].address;
    world.inject(other, target, forged);
    world.inject(theirs, target, probe);
    world.run(ms(20));
    let told = |of: fn(&NetEvent) -> bool| world.count(1, of);
    assert_eq!(told(|e| matches!(e, NetEvent::StreamCarries { .. })), 1);
    let by_theirs = |event: &NetEvent| matches!(event, NetEvent::StreamCarries { address } if *address == theirs);
    assert_eq!(world.count(1, by_theirs), 1);
}

// PROTOCOL SM-PA-2
#[test]
fn a_peer_that_moves_keeps_its_session_on_the_quic_plane() {
    let mut world = World::pair_with(8, [DataPlane::Quic, DataPlane::Quic]);
    world.join(0, 1);
    world.nodes[0].address.set_port(9999);
    chat(&mut world, 3_000);
    let count = |wanted: fn(&NetEvent) -> bool| world.count(1, wanted);
    assert_eq!(count(|e| matches!(e, NetEvent::PathChanged { .. })), 1);
    assert_eq!(count(|e| matches!(e, NetEvent::PeerUp { .. })), 1);
    assert_eq!(chat(&mut world, 1_000), 20);
}
