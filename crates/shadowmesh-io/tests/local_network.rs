//! What a host can tell of its networks, against the real kernel: changes, its own addresses, and
//! multicast. Runs as root or, elsewhere, in a user namespace.

#![cfg(target_os = "linux")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shadowmesh_io::lab::privileged;
use shadowmesh_io::multicast::Group;
use shadowmesh_io::netlink::{self, Change, Handle, Monitor, Route};
use shadowmesh_io::netns::Netns;
use shadowmesh_io::poll::{self, Watch};

const PATIENCE: Duration = Duration::from_secs(5);

/// Two namespaces with a cable between them, both ends up and without addresses.
fn cable() -> [Netns; 2] {
    let ends = [Netns::new().unwrap(), Netns::new().unwrap()];
    for netns in &ends {
        // Or a link-local address is not to be used for more than a second.
        netns.run(|| {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
                std::fs::write(path, "0").unwrap();
            }
        });
    }
    ends[0].run(|| {
        let handle = Handle::new().unwrap();
        handle.create_veth("end0", "end1").unwrap();
        let other = handle.link_by_name("end1").unwrap().index;
        handle.move_to_netns(other, &ends[1]).unwrap();
    });
    for netns in &ends {
        netns.run(|| {
            let handle = Handle::new().unwrap();
            handle.set_up(end(&handle)).unwrap();
        });
    }
    for netns in &ends {
        netns.run(|| {
            let handle = Handle::new().unwrap();
            handle.wait_for_carrier(end(&handle), PATIENCE).unwrap();
        });
    }
    ends
}

/// The number of a namespace's end of the cable.
fn end(handle: &Handle) -> u32 {
    let links = handle.links().unwrap();
    let end = links.iter().find(|link| link.name.starts_with("end"));
    end.expect("the cable").index
}

/// Runs a test at one end of a cable, where that has no addresses yet; `name` as for [`privileged`].
fn at_a_cable(name: &str, body: impl FnOnce(&Handle, u32) + Send) {
    privileged(name, || {
        let [here, _there] = cable();
        here.run(|| {
            let handle = Handle::new().unwrap();
            let index = end(&handle);
            body(&handle, index);
        });
    });
}

fn is_readable(fd: &impl std::os::fd::AsFd, wait: Duration) -> bool {
    poll::wait(&mut [Watch::readable(fd)], Some(wait)).unwrap() == 1
}

#[test]
fn changes_of_addresses_routes_and_links_are_heard_and_silence_is_none() {
    let name = "changes_of_addresses_routes_and_links_are_heard_and_silence_is_none";
    at_a_cable(name, |handle, index| {
        let mut monitor = Monitor::new().unwrap();
        assert!(!is_readable(&monitor, Duration::from_millis(50)));
        assert_eq!(monitor.take().unwrap(), []);

        let own: IpAddr = "192.0.2.1".parse().unwrap();
        handle.add_address(index, own, 24).unwrap();
        assert!(is_readable(&monitor, PATIENCE));
        assert!(monitor.take().unwrap().contains(&Change::Address));
        assert!(!is_readable(&monitor, Duration::ZERO));

        let route = Route::via([198, 51, 100, 0].into(), 24, [192, 0, 2, 9].into());
        let heard = |change: &Change| match change {
            Change::RouteAdded(route) | Change::RouteRemoved(route) => {
                (route.destination, route.via)
                    == ([198, 51, 100, 0].into(), Some([192, 0, 2, 9].into()))
            }
            _ => false,
        };
        handle.add_route(&route).unwrap();
        let changes = monitor.take().unwrap();
        let added = changes.iter().copied().find(heard);
        assert!(matches!(added, Some(Change::RouteAdded(_))), "{changes:?}");
        handle.del_route(&route).unwrap();
        let removed = monitor.take().unwrap().into_iter().find(heard);
        assert!(matches!(removed, Some(Change::RouteRemoved(_))));

        handle.set_mtu(index, 1400).unwrap();
        assert!(monitor.take().unwrap().contains(&Change::Link));
    });
}

#[test]
fn more_changes_than_the_kernel_keeps_are_said_to_be_lost() {
    let name = "more_changes_than_the_kernel_keeps_are_said_to_be_lost";
    at_a_cable(name, |handle, index| {
        let mut monitor = Monitor::new().unwrap();
        for number in 0..3000u32 {
            let [_, _, high, low] = number.to_be_bytes();
            let address = IpAddr::from([10, 7, high, low]);
            handle.add_address(index, address, 32).unwrap();
        }
        let changes = monitor.take().unwrap();
        assert!(changes.contains(&Change::Lost), "{} heard", changes.len());
        assert_eq!(monitor.take().unwrap(), []);
    });
}

#[test]
fn the_addresses_others_can_use_are_listed_as_soon_as_they_are_ready() {
    let name = "the_addresses_others_can_use_are_listed_as_soon_as_they_are_ready";
    at_a_cable(name, |handle, index| {
        let own = |without| {
            let (links, addresses) = (handle.links().unwrap(), handle.addresses().unwrap());
            let own = netlink::own_addresses(&links, &addresses, without);
            own.into_iter().map(|own| own.ip).collect::<Vec<_>>()
        };
        assert!(
            own(0).is_empty(),
            "loopback and link-local are nobody's way"
        );
        let (four, six) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        handle.add_address(index, four, 24).unwrap();
        handle.add_address(index, six, 64).unwrap();
        let mut found = own(0);
        found.sort();
        assert_eq!(found, [four, six]);
        assert!(own(index).is_empty(), "the tunnel's own device is left out");
    });
}

#[test]
fn multicast_is_heard_on_the_device_it_was_sent_on_without_any_address_for_ipv6() {
    privileged(
        "multicast_is_heard_on_the_device_it_was_sent_on_without_any_address_for_ipv6",
        || {
            let ends = cable();
            for (number, netns) in (1u8..).zip(&ends) {
                netns.run(|| {
                    let handle = Handle::new().unwrap();
                    let address = IpAddr::from([192, 0, 2, number]);
                    handle.add_address(end(&handle), address, 24).unwrap();
                });
            }
            for group in ["239.255.83.77:21077", "[ff12::5368:4d65]:21077"] {
                let group: SocketAddr = group.parse().unwrap();
                let open = |netns: &Netns| {
                    netns.run(|| {
                        let index = end(&Handle::new().unwrap());
                        let group = Group::open(group).unwrap();
                        group.join(index).unwrap();
                        group.join(index).unwrap();
                        (group, index)
                    })
                };
                let (from, index) = open(&ends[0]);
                let (to, _) = open(&ends[1]);
                let deadline = Instant::now() + PATIENCE;
                // IPv6 joins are told to the link first, which may take a moment.
                while {
                    from.send(index, b"here").unwrap();
                    !is_readable(&to, Duration::from_millis(100))
                } {
                    assert!(Instant::now() < deadline, "{group}: nothing heard");
                }
                let mut buffer = [0; 64];
                let (len, sender) = to.receive(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], b"here");
                match sender {
                    SocketAddr::V4(sender) => assert_eq!(sender.ip().octets(), [192, 0, 2, 1]),
                    SocketAddr::V6(sender) => {
                        assert!(sender.ip().is_unicast_link_local() && sender.scope_id() != 0);
                    }
                }
            }
        },
    );
}
