//! A node behind any kind of NAT that passes UDP reaches a public node, stays reachable through the
//! session while idle, and keeps that session when its box forgets everything.

use shadowmesh_sim::middlebox::{Memory, Refresh, Refusal};
use shadowmesh_sim::scenario::nat::{Mishap, Pair, Talk, rebinding};
use shadowmesh_sim::{BoxId, HostConfig, NatKind, World, seeds};

use crate::{ends, millis, seconds};

/// The kinds with a box that passes UDP, and whether their ports differ after a reboot: a box that
/// preserves them gives the same again.
const BOXED: [(NatKind, bool); 6] = [
    (NatKind::FullCone, false),
    (NatKind::AddressRestricted, false),
    (NatKind::PortRestricted, false),
    (NatKind::SymmetricSequential, true),
    (NatKind::SymmetricRandom, true),
    (NatKind::Double, false),
];

#[test]
fn a_node_behind_any_nat_that_passes_udp_has_a_session_with_a_public_one_both_ways() {
    seeds::each("through_nat", 2, |seed| {
        for kind in NatKind::ALL {
            let mut pair = Pair::new(seed, kind);
            let (inside, public) = (pair.inside, pair.public);
            let settled = pair.world.settle(inside, public);
            assert_eq!(settled, kind != NatKind::UdpBlocked, "{}", kind.name());
            if let (false, Some(home)) = (settled, pair.home) {
                assert!(pair.world.middlebox(home).refused(Refusal::Blocked) > 0);
                continue;
            }
            pair.talk(Talk::BothWays, seconds(2));
            assert_eq!(ends(&pair.world, inside) + ends(&pair.world, public), 0);
            assert_eq!(pair.world.ledger.violations(), Vec::<String>::new());
        }
    });
}

#[test]
fn an_idle_session_keeps_its_mapping_alive_in_a_box_with_a_short_memory() {
    let memory = Memory {
        lifetime: seconds(30),
        refresh: Refresh::Outbound,
    };
    seeds::each("idle_behind_nat", 2, |seed| {
        for (kind, _) in BOXED {
            let mut world = World::new(seed);
            let boxes = kind.boxes().into_iter();
            let home: Option<BoxId> = boxes.fold(None, |behind, profile| {
                Some(world.add_box(profile.remembering(memory), behind))
            });
            let [public, inside] = [(); 2].map(|()| world.add_host(HostConfig::default()));
            world.put_behind(inside, home);
            world.introduce(inside, public);
            world.start(inside);
            world.start(public);
            assert!(world.settle(inside, public), "{}", kind.name());
            for _ in 0..5 {
                world.run_for(seconds(121));
                let number = world.send(public, inside);
                world.run_for(seconds(1));
                assert!(world.ledger.arrived(number), "{}", kind.name());
            }
            assert_eq!(ends(&world, inside) + ends(&world, public), 0);
        }
    });
}

#[test]
fn a_session_survives_a_box_that_loses_its_mappings_or_its_address() {
    seeds::each("nat_rebinding", 2, |seed| {
        for (kind, other_port) in BOXED {
            for mishap in [Mishap::Reboot, Mishap::Renumber] {
                for talk in [Talk::BothWays, Talk::FromInside] {
                    let rebinding = rebinding(seed, kind, mishap, talk);
                    let what = format!("{}, {mishap:?}, {talk:?}: {rebinding:?}", kind.name());
                    println!("seed {seed}, {what}");
                    assert!(rebinding.kept_session, "{what}");
                    // A look each second, and a probe with its answer.
                    let healed_in = rebinding.healed_in.expect(&what);
                    assert!(healed_in <= millis(2200), "{what}");
                    let moved = other_port || mishap == Mishap::Renumber;
                    assert_eq!(rebinding.moved, moved, "{what}");
                }
            }
        }
    });
}

/// The public node cannot find the other; it must wait until the other speaks, which an idle node does
/// every ten seconds.
#[test]
fn a_node_that_only_listens_is_reached_again_after_its_box_was_rebooted() {
    seeds::each("silent_behind_nat", 2, |seed| {
        for (kind, _) in BOXED {
            for mishap in [Mishap::Reboot, Mishap::Renumber] {
                let rebinding = rebinding(seed, kind, mishap, Talk::FromOutside);
                println!("seed {seed}, {}, {mishap:?}: {rebinding:?}", kind.name());
                let healed_in = rebinding.healed_in.expect("healed within the time watched");
                assert!(healed_in <= seconds(12), "{}: {healed_in:?}", kind.name());
            }
        }
    });
}

#[test]
fn worlds_with_boxes_are_the_same_for_the_same_seed() {
    seeds::each("same_boxes_same_run", 1, |seed| {
        let run = |seed| {
            let mut pair = Pair::new(seed, NatKind::SymmetricRandom);
            pair.talk(Talk::BothWays, seconds(3));
            pair.world.trace()
        };
        assert_eq!(run(seed), run(seed));
        assert_ne!(run(seed), run(seed + 1));
    });
}
