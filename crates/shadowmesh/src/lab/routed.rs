//! Two nodes with two routers between them, and a cable in the middle whose MTU can be changed.
//!
//! ```text
//!  n1 ──────── r1 ════════ r2 ──────── n2
//!       edge       middle       edge
//! ```
//!
//! Two routers and not one, so that in both directions a router meets the narrow cable: neither
//! node has a device that could tell it. Whether the routers say so ("fragmentation needed", "packet
//! too big") can be switched off, which makes the path a black hole for everything too long.
//!
//! Linux takes IPv6 off a device whose MTU falls below 1280, addresses and routes with it, and does
//! not bring them back: below that, use the IPv4 underlay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, DerefMut};
use std::path::Path;

use shadowmesh_io::netlink::{Handle, Route};
use shadowmesh_io::netns::Netns;

use super::node::LabNode;
use super::wiring::{self, CABLE};
use super::{Lab, LabError};

/// A router's end of the cable to its node.
const EDGE: &str = "edge0";
/// A router's end of the cable to the other router.
pub const MIDDLE: &str = "middle0";
/// Prefix lengths of all cables.
const LEN_V4: u8 = 24;
const LEN_V6: u8 = 64;
/// MTU of every cable before one is set.
const MTU_START: u32 = 1500;

/// A laboratory of two nodes that are no neighbours.
pub struct RoutedLab {
    lab: Lab,
    /// `r1`, the router of `n1`; `r2` is the switch of the [`Lab`] within.
    pub router: Netns,
}

/// One end of a cable: its name, its number on the cable, and the cable's number.
#[derive(Clone, Copy)]
struct End {
    device: &'static str,
    cable: u8,
    host: u8,
}

impl End {
    fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, self.cable, self.host)
    }

    fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(
            0xfd00 | u16::from(self.cable),
            0,
            0,
            0,
            0,
            0,
            0,
            self.host.into(),
        )
    }
}

const fn end(device: &'static str, cable: u8, host: u8) -> End {
    End {
        device,
        cable,
        host,
    }
}

/// The ends on the way from `n1` to `n2`.
const N1: End = end(CABLE, 81, 1);
const R1_EDGE: End = end(EDGE, 81, 2);
const R1_MIDDLE: End = end(MIDDLE, 82, 1);
const R2_MIDDLE: End = end(MIDDLE, 82, 2);
const R2_EDGE: End = end(EDGE, 83, 2);
const N2: End = end(CABLE, 83, 1);

impl RoutedLab {
    /// Builds the nodes and the routers; nothing runs yet. Every cable has an MTU of 1500.
    pub fn build(program: &Path, directory: &Path) -> Result<Self, LabError> {
        let spaces = [Netns::new()?, Netns::new()?, Netns::new()?, Netns::new()?];
        for netns in &spaces {
            netns.run(wiring::skip_address_detection)?;
        }
        let [n1, r1, r2, n2] = spaces;
        for router in [&r1, &r2] {
            router.set_sysctl("net.ipv4.ip_forward", "1")?;
            router.set_sysctl("net.ipv6.conf.all.forwarding", "1")?;
        }
        join((&n1, N1), (&r1, R1_EDGE))?;
        join((&r1, R1_MIDDLE), (&r2, R2_MIDDLE))?;
        join((&n2, N2), (&r2, R2_EDGE))?;
        lead(&n1, None, R1_EDGE)?;
        lead(&r1, Some(N2.cable), R2_MIDDLE)?;
        lead(&r2, Some(N1.cable), R1_MIDDLE)?;
        lead(&n2, None, R2_EDGE)?;
        let nodes = vec![
            LabNode::new(
                "n1".into(),
                n1,
                program,
                directory.join("n1"),
                (N1.v4(), N1.v6()),
            )?,
            LabNode::new(
                "n2".into(),
                n2,
                program,
                directory.join("n2"),
                (N2.v4(), N2.v6()),
            )?,
        ];
        Ok(Self {
            lab: Lab { switch: r2, nodes },
            router: r1,
        })
    }

    /// Sets the MTU of the cables at the nodes, which the nodes can see.
    pub fn set_edge_mtu(&self, mtu: u32) -> Result<(), LabError> {
        set_mtu(&self.router, EDGE, mtu)?;
        set_mtu(&self.lab.switch, EDGE, mtu)?;
        self.lab
            .nodes
            .iter()
            .try_for_each(|node| set_mtu(&node.netns, CABLE, mtu))
    }

    /// Sets the MTU of the cable in the middle, which only the routers see.
    pub fn set_middle_mtu(&self, mtu: u32) -> Result<(), LabError> {
        set_mtu(&self.router, MIDDLE, mtu)?;
        set_mtu(&self.lab.switch, MIDDLE, mtu)
    }

    /// From now on the routers swallow what is too long for the middle without a word: they send
    /// nothing at all of their own, and go on forwarding.
    pub fn filter_icmp(&self) -> Result<(), LabError> {
        for router in [&self.router, &self.lab.switch] {
            router.run(|| -> Result<(), LabError> {
                let netlink = Handle::new()?;
                netlink.mute(false, true)?;
                Ok(netlink.mute(true, true)?)
            })?;
        }
        Ok(())
    }
}

impl Deref for RoutedLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

impl DerefMut for RoutedLab {
    fn deref_mut(&mut self) -> &mut Lab {
        &mut self.lab
    }
}

/// A cable between two namespaces, both ends with their addresses and up.
fn join(a: (&Netns, End), b: (&Netns, End)) -> Result<(), LabError> {
    let ((a, a_end), (b, b_end)) = (a, b);
    a.run(|| -> Result<(), LabError> {
        let netlink = Handle::new()?;
        // The far end moves under a name that is free here, and gets its own there.
        netlink.create_veth(a_end.device, "far")?;
        let far = netlink.link_by_name("far")?.index;
        Ok(netlink.move_to_netns(far, b)?)
    })?;
    b.run(|| -> Result<(), LabError> {
        let netlink = Handle::new()?;
        let index = netlink.link_by_name("far")?.index;
        Ok(netlink.rename(index, b_end.device)?)
    })?;
    a.run(|| address(a_end))?;
    b.run(|| address(b_end))?;
    a.run(|| wiring::await_carrier(a_end.device))?;
    b.run(|| wiring::await_carrier(b_end.device))
}

fn address(end: End) -> Result<(), LabError> {
    let netlink = Handle::new()?;
    let index = netlink.link_by_name(end.device)?.index;
    netlink.set_mtu(index, MTU_START)?;
    netlink.add_address(index, IpAddr::V4(end.v4()), LEN_V4)?;
    netlink.add_address(index, IpAddr::V6(end.v6()), LEN_V6)?;
    Ok(netlink.set_up(index)?)
}

/// Routes a cable's network, or everything, to a neighbour.
fn lead(netns: &Netns, cable: Option<u8>, via: End) -> Result<(), LabError> {
    let (v4, v6) = match cable {
        Some(cable) => {
            let network = end("", cable, 0);
            (
                Route::via(network.v4().into(), LEN_V4, via.v4().into()),
                Route::via(network.v6().into(), LEN_V6, via.v6().into()),
            )
        }
        None => (
            Route::via(Ipv4Addr::UNSPECIFIED.into(), 0, via.v4().into()),
            Route::via(Ipv6Addr::UNSPECIFIED.into(), 0, via.v6().into()),
        ),
    };
    netns.run(|| -> Result<(), LabError> {
        let netlink = Handle::new()?;
        netlink.add_route(&v4)?;
        Ok(netlink.add_route(&v6)?)
    })
}

fn set_mtu(netns: &Netns, device: &str, mtu: u32) -> Result<(), LabError> {
    netns.run(|| {
        let netlink = Handle::new()?;
        Ok(netlink.set_mtu(netlink.link_by_name(device)?.index, mtu)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::wait_until;
    use shadowmesh_io::lab::{PathMtuProbe, privileged};
    use std::time::Duration;

    /// What the kernel of `n1` believes after it sent something of full size to `n2`.
    fn learnt(lab: &RoutedLab, target: IpAddr) -> u32 {
        lab.nodes[0].netns.run(|| {
            let probe = PathMtuProbe::towards(target).unwrap();
            let shrinks = || {
                probe.send(1500).unwrap();
                probe.mtu().unwrap() < 1500
            };
            wait_until(Duration::from_millis(300), shrinks);
            probe.mtu().unwrap()
        })
    }

    #[test]
    fn the_middle_is_narrow_and_the_routers_say_so_or_not_in_namespaces() {
        let name =
            "lab::routed::tests::the_middle_is_narrow_and_the_routers_say_so_or_not_in_namespaces";
        privileged(name, || {
            let directory = tempfile::tempdir().unwrap();
            let program = fake_program(directory.path());
            for (answers, expected) in [(false, 1500), (true, 1300)] {
                let lab = RoutedLab::build(&program, directory.path()).unwrap();
                lab.set_middle_mtu(1300).unwrap();
                if !answers {
                    lab.filter_icmp().unwrap();
                }
                assert_eq!(learnt(&lab, IpAddr::V4(N2.v4())), expected);
                assert_eq!(learnt(&lab, IpAddr::V6(N2.v6())), expected);
                let report = lab.nodes[1].ping(IpAddr::V4(N1.v4()), 3, Duration::ZERO);
                assert_eq!(report.unwrap().received, 3);
            }
        });
    }

    /// A script that prints what `shadowmesh id` prints.
    fn fake_program(directory: &Path) -> std::path::PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join("program");
        let id = shadowmesh_wire::PeerId::from_bytes([7; 32]);
        std::fs::write(&path, format!("#!/bin/sh\necho {id}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}
