//! Whatever happened before, two peers that can reach each other find together again.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::harness::{World, ms};

/// One minute of restarts, moves, losses, demands and removals.
fn turmoil(world: &mut World, rng: &mut StdRng) {
    for _ in 0..60 {
        let node = rng.random_range(0..2);
        let other = 1 - node;
        match rng.random_range(0..10) {
            0 => {
                world.restart(node);
                world.introduce(node, other, rng.random());
            }
            1 => {
                let network = 100 + node as u8;
                world.nodes[node].address = ([198, 51, network, rng.random()], 7).into();
            }
            2 => {
                let rate = rng.random_range(0.0..0.6);
                let mut dice = StdRng::from_seed(rng.random());
                world.lost = Box::new(move |_| dice.random_bool(rate));
            }
            3 => {
                let id = world.id(other);
                world.nodes[node].net.remove_peer(&id, world.now);
                world.introduce(node, other, true);
            }
            4 => world.nodes[node].net.shutdown(world.now),
            5 | 6 => {
                world.connect(0, 1);
                world.connect(1, 0);
            }
            _ => {
                world.send(node, other, b"packet");
                world.connect(node, other);
            }
        }
        world.run(ms(rng.random_range(0..2_000)));
    }
}

fn sessions_agree(world: &World) -> bool {
    let initiated = |node: usize| {
        let status = world.nodes[node].net.status(world.now);
        status[0].session.as_ref().map(|session| session.initiated)
    };
    matches!((initiated(0), initiated(1)), (Some(a), Some(b)) if a != b)
}

// PROTOCOL SM-HS-13
#[test]
fn after_any_turmoil_frames_flow_again() {
    for seed in 0..150 {
        let mut world = World::pair(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        turmoil(&mut world, &mut rng);
        world.lost = Box::new(|_| false);
        for node in 0..2 {
            world.introduce(node, 1 - node, true);
        }
        // A peer that moved in the middle of a handshake holds it up to its deadline, ten seconds.
        for _ in 0..150 {
            for node in 0..2 {
                world.send(node, 1 - node, b"packet");
                world.connect(node, 1 - node);
            }
            world.run(ms(100));
        }
        assert!(world.traffic_flows(0, 1), "seed {seed}");
        assert!(sessions_agree(&world), "seed {seed}");
        // What does not belong to the one session is gone soon.
        world.run(ms(70_000));
        // Lossy turmoil may have moved the session to QUIC, whose connection is renewed every 10 s and
        // for a moment has its predecessor beside it.
        let alone = |world: &World| {
            world
                .nodes
                .iter()
                .all(|node| node.net.open_connections() == 1)
        };
        assert!(world.run_until(ms(6_000), alone), "seed {seed}");
        for node in 0..2 {
            assert!(world.nodes[node].net.remembered_ids() < 40, "seed {seed}");
        }
        assert!(world.traffic_flows(0, 1), "seed {seed}");
    }
}

// PROTOCOL SM-HS-13
#[test]
fn crossing_attempts_settle_at_any_loss() {
    for seed in 0..150 {
        let mut world = World::pair(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        world.delay = ms(rng.random_range(1..150));
        let rate = rng.random_range(0.0..0.4);
        let gap = ms(rng.random_range(0..150));
        world.lost = Box::new(move |_| rng.random_bool(rate));
        world.connect(0, 1);
        world.run(gap);
        world.connect(1, 0);
        world.run(ms(20_000));
        world.lost = Box::new(|_| false);
        for _ in 0..60 {
            for node in 0..2 {
                world.connect(node, 1 - node);
            }
            world.run(ms(100));
        }
        assert!(world.traffic_flows(0, 1), "seed {seed}");
        assert!(sessions_agree(&world), "seed {seed}");
    }
}
