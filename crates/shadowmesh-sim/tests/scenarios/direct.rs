//! Nodes that meet over a relay find the way straight, and lose it without losing each other.

use shadowmesh_sim::NatKind::{
    Double, FullCone, Open, PortRestricted, SymmetricRandom, SymmetricSequential,
};
use shadowmesh_sim::scenario::breaks::{Breaks, broken, broken_in_silence};
use shadowmesh_sim::scenario::direct::{Cell, cell, cold_cell, has_direct_way, one_relay_cell};
use shadowmesh_sim::scenario::switches::{Cut, Plan, switches};
use shadowmesh_sim::seeds;

use crate::{millis, seconds};

// PROTOCOL SM-PA-6
// PROTOCOL SM-PA-7
#[test]
fn pairs_behind_nats_go_straight_within_five_seconds_and_lose_nothing() {
    seeds::each("direct", 2, |seed| {
        for kinds in [
            [Open, PortRestricted],
            [FullCone, SymmetricRandom],
            [PortRestricted, PortRestricted],
            [Double, PortRestricted],
            [SymmetricSequential, PortRestricted],
        ] {
            assert!(has_direct_way(kinds));
            let cell = cell(seed, kinds);
            assert!(cell.connected.is_some_and(|t| t < seconds(2)), "{cell:?}");
            assert!(cell.direct.is_some_and(|t| t < seconds(5)), "{cell:?}");
            assert_eq!(cell.lost, 0, "{cell:?}");
        }
    });
}

/// Whoever searches before two relays have told where it is seen can only miss, and uses up ports by it.
// PROTOCOL SM-PA-6
#[test]
fn nodes_that_were_just_started_wait_for_what_both_relays_see_before_they_search() {
    seeds::each("cold", 3, |seed| {
        for kinds in [
            [SymmetricSequential, SymmetricSequential],
            [SymmetricSequential, PortRestricted],
            [PortRestricted, PortRestricted],
        ] {
            let cell = cold_cell(seed, kinds);
            assert!(cell.connected.is_some_and(|t| t < seconds(2)), "{cell:?}");
            assert!(cell.direct.is_some_and(|t| t < seconds(5)), "{cell:?}");
            assert_eq!(cell.lost, 0, "{cell:?}");
        }
    });
    let games = (1..=6).filter(|seed| {
        let cell = cold_cell(*seed, [SymmetricRandom, PortRestricted]);
        cell.direct.is_some_and(|time| time < seconds(5))
    });
    let met = games.count();
    assert!(met >= 4, "{met} of 6");
}

#[test]
fn where_there_is_nothing_to_aim_at_the_relay_stays() {
    seeds::each("direct", 2, |seed| {
        let cell = cell(seed, [SymmetricRandom, SymmetricRandom]);
        assert!(cell.connected.is_some_and(|t| t < seconds(2)), "{cell:?}");
        assert_eq!((cell.direct, cell.lost), (None, 0));
    });
}

// PROTOCOL SM-PA-8
#[test]
fn random_ports_are_met_by_guessing_in_most_runs() {
    let direct = (1..=6)
        .filter(|seed| {
            let cell = cell(*seed, [SymmetricRandom, PortRestricted]);
            cell.direct.is_some_and(|time| time < seconds(5))
        })
        .count();
    assert!(direct >= 4, "{direct} of 6");
}

// PROTOCOL SM-RL-10
#[test]
fn one_relay_is_enough_to_guess_at_random_ports_if_it_is_asked_twice() {
    let met = |second_port| {
        let cells = (1..=6)
            .map(|seed| one_relay_cell(seed, [SymmetricRandom, PortRestricted], second_port));
        let cells = cells.inspect(|cell| {
            assert!(cell.connected.is_some_and(|t| t < seconds(2)), "{cell:?}");
            assert_eq!(cell.lost, 0, "{cell:?}");
        });
        let met = |cell: &_| matches!(cell, Cell { direct: Some(took), .. } if *took < seconds(5));
        cells.filter(met).count()
    };
    assert_eq!(met(false), 0, "from one port it tells nothing");
    let met = met(true);
    assert!(met >= 4, "{met} of 6");
}

// PROTOCOL SM-RL-10
#[test]
fn with_one_relay_counted_ports_are_predicted() {
    seeds::each("one relay", 3, |seed| {
        for kinds in [
            [SymmetricSequential, PortRestricted],
            [PortRestricted, PortRestricted],
            [FullCone, SymmetricRandom],
        ] {
            let cell = one_relay_cell(seed, kinds, true);
            assert!(cell.direct.is_some_and(|t| t < seconds(5)), "{cell:?}");
            assert_eq!(cell.lost, 0, "{cell:?}");
        }
    });
}

// PROTOCOL SM-PA-5
#[test]
fn a_cut_way_is_replaced_by_the_relay_within_half_a_second() {
    seeds::each("direct", 3, |seed| {
        for breaks in [Breaks::Direct, Breaks::DirectOneWay] {
            let figures = broken(seed, breaks);
            let healed = figures.healed_in.expect("traffic flows again");
            assert!(healed < millis(500), "{breaks:?}: {healed:?}");
            assert!(figures.kept_session);
        }
    });
}

// PROTOCOL SM-PA-5
#[test]
fn a_relay_that_dies_is_replaced_by_the_second_within_a_second() {
    seeds::each("direct", 3, |seed| {
        let figures = broken(seed, Breaks::Relay);
        let healed = figures.healed_in.expect("traffic flows again");
        assert!(healed < seconds(1), "{healed:?}");
        assert!(figures.kept_session);
    });
}

// PROTOCOL SM-PA-5
#[test]
fn a_way_that_breaks_in_silence_is_left_within_the_health_interval() {
    let health = shadowmesh_net::PathTimers::default().health;
    seeds::each("direct", 3, |seed| {
        for breaks in [Breaks::Direct, Breaks::DirectOneWay, Breaks::Relay] {
            let took = broken_in_silence(seed, breaks);
            assert!(
                took.is_some_and(|took| took < health),
                "{breaks:?}: {took:?}"
            );
        }
    });
}

// PROTOCOL SM-PA-5
#[test]
fn a_stream_that_is_moved_over_sound_links_loses_doubles_and_delays_nothing() {
    seeds::each("direct", 1, |seed| {
        let figures = switches(Plan {
            seed,
            cycles: 3,
            cut: Cut::WayBack,
            loss: 0.0,
            packets_per_ms: 4,
        });
        assert_eq!((figures.to_relay, figures.to_direct), (3, 3));
        assert_eq!(
            (figures.stream_lost, figures.lost_by_nodes),
            (0, 0),
            "{figures:?}"
        );
        assert!(figures.lost > 0, "the cut way took some with it");
        let longest = figures
            .pauses_to_relay
            .max()
            .max(figures.pauses_to_direct.max());
        assert!(longest < millis(50), "{figures:?}");
        assert!(figures.migration < millis(201), "{figures:?}");
        assert!(figures.breaks.max() < millis(500), "{figures:?}");
    });
}

// PROTOCOL SM-PA-5
#[test]
fn of_a_stream_whose_way_is_cut_nothing_is_lost_but_what_links_dropped() {
    for loss in [0.0, 0.02] {
        seeds::each("direct", 1, |seed| {
            let figures = switches(Plan {
                seed,
                cycles: 2,
                cut: Cut::BothWays,
                loss,
                packets_per_ms: 4,
            });
            assert!(figures.lost > 0, "the cut way took some with it");
            assert_eq!(figures.lost_by_nodes, 0, "{figures:?}");
            assert!(figures.pauses_to_direct.max() < millis(50), "{figures:?}");
            assert!(figures.breaks.max() < millis(500), "{figures:?}");
        });
    }
}
