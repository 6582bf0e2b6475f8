//! A node starts and runs although its disk takes nothing, or an address comes late.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use shadowmesh::lab::{Family, Lab, LabNode, wait_until};
use shadowmesh_io::lab::privileged;
use shadowmesh_io::netlink::Handle;

use crate::support::{PING_INTERVAL, REACHABLE_MAX, in_lab};

/// The program, for which everything in DIRECTORY is read-only once there is a file of that name. Its
/// runtime directory is OTHER.
const READ_ONLY: &str = "#!/bin/sh
export XDG_RUNTIME_DIR=OTHER
[ -e DIRECTORY/read-only ] || exec PROGRAM \"$@\"
exec unshare --mount sh -c 'mount --bind DIRECTORY DIRECTORY && \
  mount -o remount,bind,ro DIRECTORY && exec \"$0\" \"$@\"' PROGRAM \"$@\"
";

fn notices(node: &LabNode) -> String {
    let status = node.query("status", &[]);
    status.map_or_else(
        |error| error.to_string(),
        |status| status["notices"].to_string(),
    )
}

fn script(directory: &Path, runtime: &Path) -> std::path::PathBuf {
    let program = runtime.join("shadowmesh");
    let script = READ_ONLY
        .replace("PROGRAM", env!("CARGO_BIN_EXE_shadowmesh"))
        .replace("DIRECTORY", directory.to_str().unwrap())
        .replace("OTHER", runtime.to_str().unwrap());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    program
}

// PROTOCOL SM-ST-1
#[test]
fn on_a_read_only_disk_nodes_with_an_identity_run_and_say_what_will_not_last() {
    let name = "start::on_a_read_only_disk_nodes_with_an_identity_run_and_say_what_will_not_last";
    privileged(name, || {
        let [directory, runtime] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let program = script(directory.path(), runtime.path());
        let mut lab = Lab::build(&program, directory.path(), 2).unwrap();
        lab.configure_full_mesh(Family::V4).unwrap();
        fs::write(directory.path().join("read-only"), "").unwrap();
        for node in &mut lab.nodes {
            node.start().unwrap();
        }
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        let target = second.overlay_v4().into();
        let reached = first.ping_until_answered(target, REACHABLE_MAX);
        assert!(reached.is_some(), "{}{}", first.log(), second.log());
        assert_eq!(first.ping(target, 10, PING_INTERVAL).unwrap().received, 10);
        let said = |node: &LabNode| notices(node).contains("the state directory cannot be written");
        let told = wait_until(REACHABLE_MAX, || lab.nodes.iter().all(said));
        assert!(told, "{}\n{}", notices(first), first.log());
        assert!(!first.state_dir().join("host.json").exists());
        for node in &mut lab.nodes {
            node.stop().unwrap();
        }
    });
}

// PROTOCOL SM-ST-2
#[test]
fn a_node_whose_only_address_comes_later_waits_for_it_and_is_reached_then() {
    let name = "start::a_node_whose_only_address_comes_later_waits_for_it_and_is_reached_then";
    in_lab(name, 2, |lab| {
        let own = lab.nodes[0].underlay(Family::V4);
        lab.nodes[0].settings.listen = vec![own];
        // Nobody has it, and nobody needs it.
        lab.nodes[0].settings.more = "[metrics]\nlisten = \"192.0.2.77:9464\"\n".into();
        lab.configure_full_mesh(Family::V4).unwrap();
        let held = lab.nodes[0].netns.run(|| {
            let netlink = Handle::new().unwrap();
            let all = netlink.addresses().unwrap().into_iter();
            let held = all
                .into_iter()
                .find(|held| held.address == own.ip())
                .unwrap();
            netlink
                .del_address(held.index, held.address, held.prefix_len)
                .unwrap();
            held
        });
        lab.start_all().unwrap();
        let waits = |address: IpAddr| {
            let text = format!("waiting for {address}:");
            notices(&lab.nodes[0]).contains(&text)
        };
        let metrics: IpAddr = "192.0.2.77".parse().unwrap();
        let told = wait_until(REACHABLE_MAX, || waits(own.ip()) && waits(metrics));
        assert!(told, "{}\n{}", notices(&lab.nodes[0]), lab.nodes[0].log());
        lab.nodes[0].netns.run(|| {
            let netlink = Handle::new().unwrap();
            netlink
                .add_address(held.index, held.address, held.prefix_len)
                .unwrap();
        });
        let target = lab.nodes[0].overlay_v4().into();
        let reached = lab.nodes[1].ping_until_answered(target, REACHABLE_MAX);
        assert!(reached.is_some(), "{}", lab.nodes[0].log());
        assert!(wait_until(REACHABLE_MAX, || !waits(own.ip())));
        assert!(waits(metrics));
    });
}
