//! Pairs behind NATs of the kernel's own making: connected over a relay, and straight where that is possible.
//!
//! Some of the grid; all of it, with its times, is `cargo xtask evidence connect --only kernel-grid`.

use std::time::Duration;

use shadowmesh::admin::report::PathKind;
use shadowmesh::lab::PORT;
use shadowmesh::lab::internet::INSIDE;
use shadowmesh_io::lab::{NatBoxConfig, NatBoxKind};

use crate::support::{REACHABLE_MAX, in_internet};

/// A pair that has no straight way is looked at for so long.
const STAYS: Duration = Duration::from_secs(1);

#[test]
fn pairs_behind_nats_of_the_kernel_go_straight_where_they_can_and_stay_on_the_relay_elsewhere() {
    let name = "nat::pairs_behind_nats_of_the_kernel_go_straight_where_they_can_and_stay_on_the_relay_elsewhere";
    in_internet(name, |internet| {
        internet.start_relays().unwrap();
        let of = |kind| vec![NatBoxConfig::new(kind)];
        let port_restricted = of(NatBoxKind::PortRestricted);
        let full_cone = of(NatBoxKind::FullCone(INSIDE));
        let random = of(NatBoxKind::FullyRandom);
        let counted = of(NatBoxKind::SymmetricSequential(20_000..=29_999));
        let double = [port_restricted.clone(), port_restricted.clone()].concat();
        let blocked = vec![NatBoxConfig {
            udp_blocked: true,
            ..NatBoxConfig::new(NatBoxKind::PortRestricted)
        }];
        for (what, sites, straight) in [
            ("open, double", [&vec![], &double], true),
            ("double, port-restricted", [&double, &port_restricted], true),
            ("full cone, random", [&full_cone, &random], true),
            ("counted, counted", [&counted, &counted], true),
            ("random, random", [&random, &random], false),
            (
                "blocked, port-restricted",
                [&blocked, &port_restricted],
                false,
            ),
        ] {
            let mut pair = internet.test_pair(sites.map(Vec::as_slice));
            pair.start().unwrap();
            let watch = if straight { REACHABLE_MAX } else { STAYS };
            let meeting = pair.meet(REACHABLE_MAX, watch);
            assert!(meeting.connected.is_some(), "{what}: {meeting:?}");
            assert_eq!(meeting.direct.is_some(), straight, "{what}: {meeting:?}");
            assert_eq!(meeting.lost, 0, "{what}: {meeting:?}");
            for way in &meeting.ways {
                let kind = way.as_ref().expect("a session").kind;
                assert_eq!(kind == PathKind::Direct, straight, "{what}: {meeting:?}");
                assert!(kind != PathKind::Web, "{what}: {meeting:?}");
            }
        }
    });
}

// PROTOCOL SM-PA-15
#[test]
fn a_node_behind_a_forwarded_port_that_nobody_sees_is_reached_straight_when_it_announces_it() {
    let name = "nat::a_node_behind_a_forwarded_port_that_nobody_sees_is_reached_straight_when_it_announces_it";
    in_internet(name, |internet| {
        internet.start_relays().unwrap();
        let forwarded = [NatBoxConfig::new(NatBoxKind::Forwarded(INSIDE, PORT))];
        let random = [NatBoxConfig::new(NatBoxKind::FullyRandom)];
        for announces in [false, true] {
            let mut pair = internet.test_pair([&forwarded, &random]);
            if announces {
                let outside = pair.boxes[0][0].outside();
                pair.nodes[0].settings.announce = vec![(outside, PORT).into()];
                pair.configure().unwrap();
            }
            pair.start().unwrap();
            let watch = if announces { REACHABLE_MAX } else { STAYS };
            let meeting = pair.meet(REACHABLE_MAX, watch);
            assert!(meeting.connected.is_some(), "{meeting:?}");
            assert_eq!(meeting.direct.is_some(), announces, "{meeting:?}");
        }
    });
}
