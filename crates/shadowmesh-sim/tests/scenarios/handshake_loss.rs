//! Handshakes over lossy links are slow, but every one of them ends.

use shadowmesh_sim::scenario::handshake::{HANG_AFTER, under_loss};
use shadowmesh_sim::seeds;

use crate::millis;

/// Handshakes for each loss rate; `cargo xtask evidence` runs a thousand.
const COUNT: u64 = 40;

#[test]
fn no_handshake_hangs_at_5_and_at_20_percent_loss() {
    seeds::each("handshake_loss", 1, |seed| {
        for loss in [0.05, 0.2] {
            let figures = under_loss(seed * 1000, COUNT, millis(100), loss);
            println!("{}", figures.json());
            assert!(
                figures.hung.is_empty(),
                "not done after {HANG_AFTER:?}: seeds {:?}",
                figures.hung
            );
            assert_eq!(figures.times.count() as u64, COUNT);
        }
    });
}
