//! A seed decides everything, so that a failure can be replayed.

use shadowmesh_sim::{scenario::random, seeds};

#[test]
fn one_seed_gives_one_run_and_another_seed_another() {
    seeds::each("same_seed_same_run", 1, |seed| {
        let [first, again, other] = [seed, seed, seed + 1].map(|seed| random::run(seed).unwrap());
        assert_eq!((first.trace, first.events), (again.trace, again.events));
        assert_ne!(first.trace, other.trace);
    });
}
