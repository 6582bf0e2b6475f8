//! New keys under traffic cost no packet.

use shadowmesh_sim::{scenario::rekey, seeds};

use crate::seconds;

// PROTOCOL SM-EP-2
// PROTOCOL SM-EP-3
// PROTOCOL SM-EP-4
#[test]
fn rekeys_under_traffic_lose_no_packet_that_the_network_did_not_lose() {
    seeds::each("rekey", 3, |seed| {
        for loss in [0.0, 0.1] {
            let figures = rekey::under_traffic(seed, seconds(65), loss);
            println!("seed {seed}, loss {loss}: {}", figures.json());
            // Five or six intervals of 10 s, seen from both sides.
            assert!(figures.rekeys >= 10, "{figures:?}");
            assert!(loss == 0.0 || figures.lost_by_network > 0, "{figures:?}");
            assert_eq!(figures.lost_by_rekey(), 0, "{figures:?}");
        }
    });
}
