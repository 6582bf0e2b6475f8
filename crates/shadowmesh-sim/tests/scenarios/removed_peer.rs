//! Somebody who was thrown out is out at once, and cannot come back by an old session or ticket.

use shadowmesh_net::DropReason;
use shadowmesh_sim::{HostConfig, HostId, World, seeds};

use crate::{drops, millis, seconds, sessions};

/// Handshakes refused: by the verifier, or (resumed ones show no certificate) when confirmed.
fn refused_handshakes(world: &World, host: HostId) -> u64 {
    let refused = [DropReason::HandshakeFailed, DropReason::NotMember];
    refused
        .iter()
        .map(|reason| world.host(host).drops(*reason))
        .sum()
}

// PROTOCOL SM-OV-4
// PROTOCOL SM-HS-5
#[test]
fn nothing_from_a_removed_peer_comes_through_and_the_reason_is_counted() {
    seeds::each("removed_peer", 3, |seed| {
        let mut world = World::new(seed);
        let (removed, host) = world.pair(HostConfig::default());
        assert!(world.settle(removed, host));
        // It holds a session, tickets and an address token.
        world.run_for(seconds(5));
        let id = world.host(removed).id();
        assert!(world.with_node(host, |node, now| node.remove_peer(&id, now)));
        let sessions_before = sessions(&world, host);
        let numbers: Vec<u64> = (0..400)
            .map(|_| {
                let number = world.send(removed, host);
                world.run_for(millis(50));
                number
            })
            .collect();
        assert_eq!(world.ledger.lost(&numbers), numbers.len());
        assert_eq!(
            sessions(&world, host),
            sessions_before,
            "a resumed connection of a removed peer"
        );
        assert!(
            world.host(host).drops(DropReason::RemovedPeer) > 0,
            "{:?}",
            drops(&world, host)
        );
        // Its ticket resumes a connection that shows no certificate; it is refused all the same.
        println!("seed {seed}: {:?}", drops(&world, host));
        assert!(world.host(host).drops(DropReason::NotMember) > 0);
        assert!(refused_handshakes(&world, host) > 0);
    });
}

// PROTOCOL SM-OV-4
#[test]
fn a_stranger_gets_no_session_and_a_peer_taken_back_does() {
    seeds::each("removed_peer", 2, |seed| {
        let mut world = World::new(seed);
        let (stranger, host) = (
            world.add_host(HostConfig::default()),
            world.add_host(HostConfig::default()),
        );
        // Only one of them knows the other.
        let peer = world.peer_entry(host);
        world.host_mut(stranger).peers.push(peer);
        world.start(stranger);
        world.start(host);
        let number = world.send(stranger, host);
        world.run_for(seconds(10));
        assert!(world.ledger.entry(number).delivered.is_empty());
        assert_eq!((sessions(&world, stranger), sessions(&world, host)), (0, 0));
        assert!(
            refused_handshakes(&world, host) > 0,
            "{:?}",
            drops(&world, host)
        );

        let peer = world.peer_entry(stranger);
        world
            .with_node(host, |node, now| node.add_peer(peer, now))
            .unwrap();
        assert!(world.settle(stranger, host));
    });
}
