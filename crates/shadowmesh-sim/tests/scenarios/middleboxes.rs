//! Boxes in the world: chains, networks behind one box, cables, partitions, IPv6, moving hosts.

use shadowmesh_sim::middlebox::{Dependence, Refusal};
use shadowmesh_sim::{BoxId, BoxProfile, HostConfig, HostId, LinkProfile, NatKind, World, seeds};

use crate::millis;

fn world(seed: u64) -> World {
    let mut world = World::new(seed);
    world.default_link = LinkProfile::round_trip(millis(40));
    world
}

/// A host without a node, behind the box.
fn bare(world: &mut World, behind: Option<BoxId>) -> HostId {
    let host = world.add_host(HostConfig::default());
    world.put_behind(host, behind);
    host
}

/// Whether a datagram from a host to another's own address arrives, and from where it seems to come.
fn reaches(world: &mut World, from: HostId, to: HostId) -> Option<String> {
    let destination = world.host(to).address();
    world.send_bare(from, destination, b"hello");
    world.run_for(millis(100));
    let arrived = world.host_mut(to).bare.pop()?;
    Some(arrived.remote.ip().to_string())
}

#[test]
fn a_chain_of_boxes_rewrites_the_address_at_each_and_leads_answers_back() {
    seeds::each("chain_of_boxes", 2, |seed| {
        let mut world = world(seed);
        let server = bare(&mut world, None);
        let home = world.add_nat(NatKind::Double).expect("it has boxes");
        let client = bare(&mut world, Some(home));
        assert_eq!(world.host(client).address().ip().to_string(), "192.168.1.2");
        assert_eq!(world.middlebox(home).outside().to_string(), "100.64.1.2");
        let destination = world.host(server).address();
        world.send_bare(client, destination, b"out");
        world.run_for(millis(100));
        let seen = world
            .host_mut(server)
            .bare
            .pop()
            .expect("it came out")
            .remote;
        assert_eq!(seen.ip().to_string(), "198.19.0.2");
        world.send_bare(server, seen, b"back");
        world.run_for(millis(100));
        let back = world.host_mut(client).bare.pop().expect("it came back");
        assert_eq!((back.remote, &back.data[..]), (destination, &b"back"[..]));
        // Of the boxes' own addresses, none leads inside.
        let stranger = bare(&mut world, None);
        world.send_bare(stranger, seen, b"?");
        world.run_for(millis(100));
        assert!(world.host(client).bare.is_empty());
        assert_eq!(world.middlebox(BoxId(0)).refused(Refusal::Filtered), 1);
    });
}

#[test]
fn hosts_behind_one_box_meet_inside_and_by_hairpin_only_if_the_box_turns_datagrams_round() {
    for hairpin in [false, true] {
        let mut world = world(1);
        let independent = Dependence::EndpointIndependent;
        let profile = BoxProfile::home(independent, independent).hairpinning(hairpin);
        let home = world.add_box(profile, None);
        let [a, b] = [(); 2].map(|()| bare(&mut world, Some(home)));
        assert_eq!(reaches(&mut world, a, b).as_deref(), Some("192.168.1.2"));
        let server = bare(&mut world, None);
        assert!(reaches(&mut world, b, server).is_some());
        let outside = (world.middlebox(home).outside(), 4433).into();
        world.send_bare(a, outside, b"round");
        world.run_for(millis(100));
        let came = world
            .host_mut(b)
            .bare
            .pop()
            .map(|datagram| datagram.remote.ip());
        assert_eq!(
            came,
            hairpin.then(|| world.middlebox(home).outside().into())
        );
    }
}

#[test]
fn the_same_private_address_in_two_homes_is_two_hosts() {
    let mut world = world(1);
    let homes = [(); 2].map(|()| world.add_nat(NatKind::FullCone));
    let [a, b] = homes.map(|home| bare(&mut world, home));
    assert_eq!(world.host(a).address(), world.host(b).address());
    let neighbour = bare(&mut world, homes[0]);
    assert!(reaches(&mut world, neighbour, a).is_some());
    assert!(
        reaches(&mut world, neighbour, b).is_none(),
        "it is a's address here"
    );
    assert_eq!(world.host(a).bare.len(), 1);
}

#[test]
fn cables_that_are_out_lose_datagrams_and_back_in_pass_them() {
    let mut world = world(1);
    let home = world
        .add_nat(NatKind::PortRestricted)
        .expect("it has a box");
    let (server, client) = (bare(&mut world, None), bare(&mut world, Some(home)));
    assert!(reaches(&mut world, client, server).is_some());
    world.plug(client, false);
    assert!(reaches(&mut world, client, server).is_none());
    world.plug(client, true);
    world.plug_box(home, false);
    assert!(reaches(&mut world, client, server).is_none());
    assert_eq!(world.middlebox(home).refused(Refusal::Down), 1);
    world.plug_box(home, true);
    assert!(reaches(&mut world, client, server).is_some());
    // What is under way when the receiver's cable goes out is lost.
    let destination = world.host(server).address();
    world.send_bare(client, destination, b"late");
    world.plug(server, false);
    world.run_for(millis(100));
    world.plug(server, true);
    world.run_for(millis(100));
    assert!(world.host(server).bare.is_empty());
}

#[test]
fn a_partition_parts_the_internet_and_leaves_networks_inside_whole() {
    let mut world = world(1);
    let home = world.add_nat(NatKind::FullCone);
    let [a, b] = [(); 2].map(|()| bare(&mut world, home));
    let [near, far] = [(); 2].map(|()| bare(&mut world, None));
    world.cut_off(&[a, near]);
    assert!(reaches(&mut world, a, b).is_some());
    assert!(reaches(&mut world, b, near).is_some(), "it shares a's box");
    for (from, to) in [(a, far), (near, far), (far, near)] {
        assert!(
            reaches(&mut world, from, to).is_none(),
            "{from:?} to {to:?}"
        );
    }
    world.rejoin();
    for (from, to) in [(a, far), (near, far), (far, near)] {
        assert!(
            reaches(&mut world, from, to).is_some(),
            "{from:?} to {to:?}"
        );
    }
}

#[test]
fn a_host_that_moves_has_new_addresses_and_is_not_found_at_the_old() {
    let mut world = world(1);
    let [home, hotel] =
        [NatKind::PortRestricted, NatKind::SymmetricRandom].map(|kind| world.add_nat(kind));
    let (server, laptop) = (bare(&mut world, None), bare(&mut world, home));
    let seen_at_home = reaches(&mut world, laptop, server).expect("UDP passes");
    world.put_behind(laptop, hotel);
    let seen_in_hotel = reaches(&mut world, laptop, server).expect("UDP passes");
    assert_ne!(seen_at_home, seen_in_hotel);
    let public = bare(&mut world, None);
    let old = world.host(public).address();
    world.readdress(public);
    assert_ne!(world.host(public).address(), old);
    world.send_bare(server, old, b"?");
    world.run_for(millis(100));
    assert!(world.host(public).bare.is_empty());
    assert!(reaches(&mut world, server, public).is_some());
}

#[test]
fn ipv6_passes_a_home_router_untranslated_and_only_answers_come_in() {
    let mut world = world(1);
    let home = world
        .add_nat(NatKind::SymmetricRandom)
        .expect("it has a box");
    let (server, client) = (bare(&mut world, None), bare(&mut world, Some(home)));
    world.give_ipv6(server);
    world.give_ipv6(client);
    let [of_server, of_client] = [server, client].map(|host| {
        let address = world.host(host).address_v6();
        address.expect("given above")
    });
    let mut arrives = |from, destination, to| {
        world.send_bare(from, destination, b"six");
        world.run_for(millis(100));
        world
            .host_mut(to)
            .bare
            .pop()
            .map(|datagram| datagram.remote)
    };
    assert_eq!(arrives(server, of_client, client), None);
    assert_eq!(arrives(client, of_server, server), Some(of_client));
    assert_eq!(arrives(server, of_client, client), Some(of_server));
    assert_eq!(world.middlebox(home).refused(Refusal::Filtered), 1);
}
