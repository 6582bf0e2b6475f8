//! The laboratory itself: what the other tests take for granted.

use std::net::IpAddr;
use std::time::Duration;

use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh::lab::wiring;
use shadowmesh_io::lab::{Echo, privileged};

#[test]
fn two_namespaces_reach_each_other_over_the_bridge_in_both_ip_versions() {
    privileged(
        "laboratory::two_namespaces_reach_each_other_over_the_bridge_in_both_ip_versions",
        || {
            let switch = wiring::make_switch().unwrap();
            let first = wiring::attach_namespace(&switch, 0).unwrap();
            let second = wiring::attach_namespace(&switch, 1).unwrap();
            let addresses: [IpAddr; 2] =
                [wiring::underlay_v4(1).into(), wiring::underlay_v6(1).into()];
            for target in addresses {
                let plan = Echo {
                    target,
                    count: 3,
                    interval: Duration::from_millis(5),
                    timeout: Duration::from_secs(2),
                    payload_len: 56,
                };
                assert_eq!(first.run(|| plan.run()).unwrap().received, 3, "{target}");
                let amount = Amount::Bytes(3_000_001);
                let report = bulk::transfer(&first, &second, target, amount).unwrap();
                assert!(report.intact && report.bytes == 3_000_001, "{report:?}");
            }
        },
    );
}
