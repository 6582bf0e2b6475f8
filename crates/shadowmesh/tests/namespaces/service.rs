//! What a node promises to whoever runs it as a service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};
use std::time::Duration;

use shadowmesh::lab::{DEVICE, Family, Lab, LabNode, wait_until};
use shadowmesh_io::lab::privileged;
use shadowmesh_io::netlink::Handle;
use shadowmesh_io::process;

use crate::support::{PING_INTERVAL, REACHABLE_MAX, drops, in_lab};

/// A service manager, as far as it is told of a node.
struct Manager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(REACHABLE_MAX)).unwrap();
        Self { socket, directory }
    }

    /// Starts a node and waits until it says that it is up.
    fn start(&self, node: &LabNode) -> Child {
        let mut command = node.command("up");
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        let process = node.netns.spawn(&mut command).unwrap();
        assert_eq!(self.told(), "READY=1");
        process
    }

    /// Waits until a node that was asked to end has ended in order.
    fn ends(&self, mut process: Child) {
        assert_eq!(self.told(), "STOPPING=1");
        assert!(process.wait().unwrap().success());
    }

    fn told(&self) -> String {
        let mut buffer = [0; 64];
        let len = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }
}

#[test]
fn a_service_manager_is_told_when_the_node_is_up_and_when_it_ends() {
    let name = "service::a_service_manager_is_told_when_the_node_is_up_and_when_it_ends";
    in_lab(name, 1, |lab| {
        let node = &lab.nodes[0];
        node.configure(&[]).unwrap();
        let manager = Manager::new();
        let process = manager.start(node);
        assert!(node.query("status", &[]).is_ok());
        assert!(node.command("down").status().unwrap().success());
        manager.ends(process);
    });
}

#[test]
fn a_node_that_is_ended_the_moment_it_is_up_ends_in_order() {
    let name = "service::a_node_that_is_ended_the_moment_it_is_up_ends_in_order";
    in_lab(name, 1, |lab| {
        let node = &lab.nodes[0];
        node.configure(&[]).unwrap();
        let manager = Manager::new();
        // The moment is short.
        for _ in 0..5 {
            let process = manager.start(node);
            process::terminate(&process).unwrap();
            manager.ends(process);
        }
    });
}

/// A program that may not change any setting of the kernel, as in many containers.
const WITHOUT_SETTINGS: &str = "#!/bin/sh
exec unshare --mount sh -c 'mount --rbind /proc/sys /proc/sys && \
  mount -o remount,bind,ro /proc/sys && exec \"$0\" \"$@\"' PROGRAM \"$@\"
";

#[test]
fn where_ipv6_is_off_and_stays_off_the_node_has_ipv4_and_says_so() {
    let name = "service::where_ipv6_is_off_and_stays_off_the_node_has_ipv4_and_says_so";
    privileged(name, || {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("shadowmesh");
        let script = WITHOUT_SETTINGS.replace("PROGRAM", env!("CARGO_BIN_EXE_shadowmesh"));
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let mut lab = Lab::build(&program, directory.path(), 2).unwrap();
        lab.configure_full_mesh(Family::V4).unwrap();
        for node in &lab.nodes {
            for scope in ["all", "default"] {
                let setting = format!("net.ipv6.conf.{scope}.disable_ipv6");
                node.netns.set_sysctl(&setting, "1").unwrap();
            }
        }
        lab.start_all().unwrap();
        let [first, second] = &lab.nodes[..] else {
            panic!("two nodes were asked for");
        };
        let target = second.overlay_v4().into();
        let reached = first.ping_until_answered(target, REACHABLE_MAX);
        assert!(reached.is_some(), "{}{}", first.log(), second.log());
        let report = first.ping(target, 10, PING_INTERVAL).unwrap();
        assert_eq!(report.received, 10);
        assert!(
            first.log().contains("the overlay has IPv4 only here"),
            "{}",
            first.log()
        );
        let addresses = first.netns.run(|| {
            let netlink = Handle::new().unwrap();
            let index = netlink.link_by_name(DEVICE).unwrap().index;
            let all = netlink.addresses().unwrap().into_iter();
            all.filter(|a| a.index == index)
                .map(|a| a.address)
                .collect::<Vec<_>>()
        });
        assert_eq!(addresses, [std::net::IpAddr::from(first.overlay_v4())]);
        lab.stop_all().unwrap();
    });
}

fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn what_the_kernel_drops_while_a_node_is_stopped_is_among_its_drops() {
    let name = "service::what_the_kernel_drops_while_a_node_is_stopped_is_among_its_drops";
    in_lab(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        let (sender, receiver) = (&lab.nodes[0], &lab.nodes[1]);
        assert_eq!(drops(receiver, "socket_overflow"), 0);
        let pid = receiver.pid().unwrap();
        signal(pid, "-STOP");
        sender.netns.run(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            for _ in 0..40_000 {
                // A full queue on our side is no failure here.
                let _ = socket.send_to(&[0; 1200], receiver.underlay(Family::V4));
            }
        });
        signal(pid, "-CONT");
        let counted = || drops(receiver, "socket_overflow") > 0;
        assert!(wait_until(Duration::from_secs(5), counted));
    });
}

#[test]
fn both_ends_of_a_path_are_told() {
    in_lab("service::both_ends_of_a_path_are_told", 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        for node in [0, 1] {
            let peers = lab.nodes[node].query("peers", &[]).unwrap();
            let path = &peers.as_array().map_or(&peers["peers"][0], |list| &list[0])["path"];
            let local = lab.nodes[node].underlay(Family::V4).ip().to_string();
            let remote = lab.nodes[1 - node].underlay(Family::V4).to_string();
            assert_eq!(path["local"], local, "{peers}");
            assert_eq!(path["remote"], remote, "{peers}");
        }
    });
}
