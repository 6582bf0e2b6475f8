//! Bridge, veth pairs and underlay addresses: everything a laboratory has instead of cables.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use shadowmesh_io::netlink::Handle;
use shadowmesh_io::netns::Netns;

use super::LabError;

/// Name of the bridge in its namespace.
pub const BRIDGE: &str = "bridge0";
/// Name of a node's end of its cable.
pub const CABLE: &str = "eth0";
/// Name of the second end of a cable between two nodes, until it has arrived.
const FAR_END: &str = "far0";
/// Prefix lengths of the underlay addresses.
const UNDERLAY_LEN_V4: u8 = 24;
const UNDERLAY_LEN_V6: u8 = 64;
/// The kernel looks for carriers once a second at least.
const CARRIER_WAIT: Duration = Duration::from_secs(5);

/// Underlay address of node `index` (from 0).
pub fn underlay_v4(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, host_number(index))
}

/// Underlay IPv6 address of node `index` (from 0).
pub fn underlay_v6(index: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, host_number(index).into())
}

fn host_number(index: usize) -> u8 {
    u8::try_from(index + 1).expect("the laboratory limits the number of its nodes")
}

/// A namespace with a bridge that is up.
pub fn make_switch() -> Result<Netns, LabError> {
    let switch = Netns::new()?;
    switch.run(|| -> Result<(), LabError> {
        let netlink = Handle::new()?;
        skip_address_detection()?;
        netlink.create_bridge(BRIDGE)?;
        Ok(netlink.set_up(netlink.link_by_name(BRIDGE)?.index)?)
    })?;
    Ok(switch)
}

/// A new namespace with a cable to the bridge and the underlay addresses of node `index`.
pub fn attach_namespace(switch: &Netns, index: usize) -> Result<Netns, LabError> {
    let netns = Netns::new()?;
    let port = format!("port{index}");
    switch.run(|| plug_in(&netns, &port, CABLE))?;
    netns.run(|| set_addresses(index))?;
    // Both ends: each drops packets silently until the kernel has noticed its own carrier.
    switch.run(|| await_carrier(&port))?;
    netns.run(|| await_carrier(CABLE))?;
    Ok(netns)
}

/// Two new namespaces with one cable between them and nothing else, with the underlay addresses of
/// nodes 0 and 1: what a measurement wants, where a bridge would only cost.
pub fn make_pair() -> Result<[Netns; 2], LabError> {
    let pair = [Netns::new()?, Netns::new()?];
    pair[0].run(|| -> Result<(), LabError> {
        let netlink = Handle::new()?;
        // The far end is made under another name, because here the name is taken.
        netlink.create_veth(CABLE, FAR_END)?;
        Ok(netlink.move_to_netns(netlink.link_by_name(FAR_END)?.index, &pair[1])?)
    })?;
    pair[1].run(|| -> Result<(), LabError> {
        let netlink = Handle::new()?;
        Ok(netlink.rename(netlink.link_by_name(FAR_END)?.index, CABLE)?)
    })?;
    for (index, netns) in pair.iter().enumerate() {
        netns.run(|| set_addresses(index))?;
    }
    for netns in &pair {
        netns.run(|| await_carrier(CABLE))?;
    }
    Ok(pair)
}

/// Another cable from the bridge into a namespace, ready for use: the network that a machine roams to.
pub fn second_cable(
    switch: &Netns,
    netns: &Netns,
    device: &str,
    address: Ipv4Addr,
) -> Result<(), LabError> {
    let port = format!("also-{device}");
    switch.run(|| plug_in(netns, &port, device))?;
    netns.run(|| -> Result<(), LabError> {
        let netlink = Handle::new()?;
        let index = netlink.link_by_name(device)?.index;
        netlink.add_address(index, address.into(), UNDERLAY_LEN_V4)?;
        Ok(netlink.set_up(index)?)
    })?;
    switch.run(|| await_carrier(&port))?;
    netns.run(|| await_carrier(device))
}

/// In the switch: a cable from a new port of the bridge into `netns`, as `device` there.
fn plug_in(netns: &Netns, port: &str, device: &str) -> Result<(), LabError> {
    let netlink = Handle::new()?;
    netlink.create_veth(port, device)?;
    let near = netlink.link_by_name(port)?.index;
    netlink.set_master(near, Some(netlink.link_by_name(BRIDGE)?.index))?;
    netlink.set_up(near)?;
    Ok(netlink.move_to_netns(netlink.link_by_name(device)?.index, netns)?)
}

/// In the node's namespace: loopback and cable up, both addresses set.
fn set_addresses(index: usize) -> Result<(), LabError> {
    let netlink = Handle::new()?;
    skip_address_detection()?;
    netlink.set_up(netlink.link_by_name("lo")?.index)?;
    let cable = netlink.link_by_name(CABLE)?.index;
    netlink.add_address(cable, IpAddr::V4(underlay_v4(index)), UNDERLAY_LEN_V4)?;
    netlink.add_address(cable, IpAddr::V6(underlay_v6(index)), UNDERLAY_LEN_V6)?;
    Ok(netlink.set_up(cable)?)
}

pub(super) fn await_carrier(device: &str) -> Result<(), LabError> {
    let netlink = Handle::new()?;
    Ok(netlink.wait_for_carrier(netlink.link_by_name(device)?.index, CARRIER_WAIT)?)
}

/// Duplicate address detection would keep a fresh IPv6 address unusable for more than a second.
pub(super) fn skip_address_detection() -> io::Result<()> {
    for scope in ["all", "default"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad"), "0")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_io::lab::{Echo, privileged};

    #[test]
    fn two_ends_of_one_cable_reach_each_other_with_their_first_packet_in_namespaces() {
        let name = "lab::wiring::tests::two_ends_of_one_cable_reach_each_other_with_their_first_packet_in_namespaces";
        privileged(name, || {
            let pair = make_pair().unwrap();
            for (from, to) in [(0, 1), (1, 0)] {
                for target in [IpAddr::V4(underlay_v4(to)), IpAddr::V6(underlay_v6(to))] {
                    let echo = Echo {
                        target,
                        count: 1,
                        interval: Duration::ZERO,
                        timeout: Duration::from_millis(500),
                        payload_len: 56,
                    };
                    let report = pair[from].run(|| echo.run()).unwrap();
                    assert_eq!(report.received, 1, "{from} to {target}");
                }
            }
        });
    }

    #[test]
    fn attached_nodes_reach_each_other_with_their_first_packet_in_namespaces() {
        let name = "lab::wiring::tests::attached_nodes_reach_each_other_with_their_first_packet_in_namespaces";
        privileged(name, || {
            let switch = make_switch().unwrap();
            let nodes = [0, 1, 2].map(|index| attach_namespace(&switch, index).unwrap());
            for (from, netns) in nodes.iter().enumerate() {
                let target = (from + 1) % nodes.len();
                for target in [
                    IpAddr::V4(underlay_v4(target)),
                    IpAddr::V6(underlay_v6(target)),
                ] {
                    let echo = Echo {
                        target,
                        count: 1,
                        interval: Duration::ZERO,
                        timeout: Duration::from_millis(500),
                        payload_len: 56,
                    };
                    let report = netns.run(|| echo.run()).unwrap();
                    assert_eq!(report.received, 1, "{from} to {target}");
                }
            }
        });
    }
}
