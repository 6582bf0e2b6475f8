//! Table-driven: what each value of each field means for a packet.

use super::*;
use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};

const SERVER: &str = "203.0.113.1:1000";
const SAME_ADDRESS: &str = "203.0.113.1:1001";
const ELSEWHERE: &str = "203.0.113.2:1000";

#[test]
fn a_mapping_is_kept_for_the_remotes_its_kind_says() {
    for (mapping, same_address, elsewhere) in [
        (EndpointIndependent, true, true),
        (AddressDependent, true, false),
        (AddressAndPortDependent, false, false),
    ] {
        for allocation in [
            PortAllocation::Preserving,
            PortAllocation::Sequential,
            PortAllocation::Random,
        ] {
            let profile = BoxProfile::home(mapping, mapping).allocating(allocation);
            let mut bench = bench(profile);
            let first = bench.mapped(ME, SERVER);
            let what = format!("{mapping:?}, {allocation:?}");
            assert_eq!(bench.mapped(ME, SERVER), first, "{what}");
            assert_eq!(
                bench.mapped(ME, SAME_ADDRESS) == first,
                same_address,
                "{what}"
            );
            assert_eq!(bench.mapped(ME, ELSEWHERE) == first, elsewhere, "{what}");
            assert_eq!(first.ip(), OUTSIDE);
        }
    }
}

#[test]
fn datagrams_come_in_from_whom_the_filtering_says() {
    for mapping in DEPENDENCES {
        for (filtering, same_address, elsewhere) in [
            (EndpointIndependent, true, true),
            (AddressDependent, true, false),
            (AddressAndPortDependent, false, false),
        ] {
            let mut bench = bench(BoxProfile::home(mapping, filtering));
            let outside = bench.mapped(ME, SERVER);
            let verdict = |passes| {
                if passes {
                    Ok(at(ME))
                } else {
                    Err(Refusal::Filtered)
                }
            };
            let what = format!("{mapping:?}, {filtering:?}");
            assert_eq!(bench.answer(SERVER, outside), Ok(at(ME)), "{what}");
            let answers = [SAME_ADDRESS, ELSEWHERE].map(|from| bench.answer(from, outside));
            assert_eq!(answers, [same_address, elsewhere].map(verdict), "{what}");
            let nobody = SocketAddr::new(outside.ip(), outside.port() ^ 1);
            assert_eq!(
                bench.answer(SERVER, nobody),
                Err(Refusal::NoMapping),
                "{what}"
            );
        }
    }
}

#[test]
fn a_preserving_box_keeps_the_port_until_another_host_has_it() {
    let mut bench = bench(BoxProfile::home(EndpointIndependent, EndpointIndependent));
    assert_eq!(bench.mapped(ME, SERVER).port(), 4433);
    assert_eq!(bench.mapped(OTHER, SERVER).port(), 4434);
    assert_eq!(
        bench.mapped("192.168.1.12:80", SERVER).port(),
        1024,
        "no well-known port"
    );
}

#[test]
fn a_symmetric_box_that_counts_gives_the_next_port_to_each_remote() {
    let [profile] = &NatKind::SymmetricSequential.boxes()[..] else {
        panic!("one box");
    };
    let mut bench = bench(profile.clone().with_ports(5000..=5003));
    let ports = [1, 2, 3, 4].map(|n| bench.mapped(ME, &format!("203.0.113.1:{n}")).port());
    for pair in ports.windows(2) {
        assert_eq!(pair[1], if pair[0] == 5003 { 5000 } else { pair[0] + 1 });
    }
}

#[test]
fn random_ports_fill_the_range_and_show_no_order() {
    let [profile] = &NatKind::SymmetricRandom.boxes()[..] else {
        panic!("one box");
    };
    let mut bench = bench(profile.clone());
    let ports: Vec<_> = (1..=1000)
        .map(|n| bench.mapped(ME, &format!("203.0.113.1:{n}")).port())
        .collect();
    let neighbours = ports.windows(2).filter(|w| w[1] == w[0].wrapping_add(1));
    assert!(neighbours.count() < 3);
    let mean = ports.iter().map(|p| u64::from(*p)).sum::<u64>() / 1000;
    // The middle of 1024..=65535, and four standard errors.
    assert!((30_900..35_700).contains(&mean), "{mean}");
    assert!(ports.iter().all(|port| *port >= 1024));
}

#[test]
fn a_box_without_a_free_port_refuses_until_a_mapping_expires() {
    let profile = BoxProfile::home(EndpointIndependent, EndpointIndependent);
    let mut bench = bench(profile.with_ports(5000..=5001));
    assert_eq!(bench.mapped(ME, SERVER).port(), 5000);
    bench.wait(60);
    assert_eq!(bench.mapped(OTHER, SERVER).port(), 5001);
    assert_eq!(
        bench.send("192.168.1.12:1", SERVER),
        Err(Refusal::TableFull)
    );
    assert_eq!(bench.middlebox.refused(Refusal::TableFull), 1);
    bench.wait(60);
    assert_eq!(bench.mapped("192.168.1.12:1", SERVER).port(), 5000);
    assert_eq!(bench.middlebox.mappings(bench.now), 2);
    assert_eq!(bench.send(ME, SERVER), Err(Refusal::TableFull));
}

#[test]
fn a_hairpin_shows_the_outside_address_and_is_filtered_like_the_rest() {
    for (filtering, passes) in [(EndpointIndependent, true), (AddressDependent, false)] {
        let profile = BoxProfile::home(EndpointIndependent, filtering).hairpinning(true);
        let mut bench = bench(profile);
        let other = bench.mapped(OTHER, SERVER);
        let me = bench.mapped(ME, &other.to_string());
        assert_eq!(me.ip(), OUTSIDE);
        let first = bench.answer(&me.to_string(), other);
        assert_eq!(first.is_ok(), passes, "{filtering:?}");
        // Once the other has written too, both know each other.
        assert_eq!(bench.mapped(OTHER, &me.to_string()), other);
        assert_eq!(bench.answer(&me.to_string(), other), Ok(at(OTHER)));
        assert_eq!(bench.answer(&other.to_string(), me), Ok(at(ME)));
    }
    let mut bench = bench(BoxProfile::home(EndpointIndependent, EndpointIndependent));
    let other = bench.mapped(OTHER, SERVER);
    assert_eq!(bench.send(ME, &other.to_string()), Err(Refusal::NoHairpin));
}

#[test]
fn a_mapping_ends_when_nothing_that_counts_refreshed_it() {
    for (refresh, answers_keep_it) in [(Refresh::Outbound, false), (Refresh::BothWays, true)] {
        for kind in [
            NatKind::FullCone,
            NatKind::PortRestricted,
            NatKind::SymmetricRandom,
        ] {
            let memory = Memory {
                lifetime: Duration::from_secs(30),
                refresh,
            };
            let [profile] = &kind.boxes()[..] else {
                panic!("one box");
            };
            let mut bench = bench(profile.clone().remembering(memory));
            let outside = bench.mapped(ME, SERVER);
            for _ in 0..3 {
                bench.wait(29);
                assert_eq!(bench.mapped(ME, SERVER), outside, "{kind:?}");
            }
            bench.wait(29);
            assert_eq!(bench.answer(SERVER, outside), Ok(at(ME)), "{kind:?}");
            bench.wait(29);
            let kept = bench.answer(SERVER, outside);
            assert_eq!(kept.is_ok(), answers_keep_it, "{kind:?}, {refresh:?}");
            bench.wait(30);
            let late = bench.answer(SERVER, outside);
            assert_eq!(late, Err(Refusal::NoMapping), "{kind:?}, {refresh:?}");
            assert_eq!(bench.middlebox.mappings(bench.now), 0);
        }
    }
}

#[test]
fn a_permission_ends_although_its_mapping_lives_on() {
    let mut bench = bench(BoxProfile::home(EndpointIndependent, AddressDependent));
    let outside = bench.mapped(ME, SERVER);
    bench.wait(100);
    bench.mapped(ME, ELSEWHERE);
    assert_eq!(bench.answer(SERVER, outside), Ok(at(ME)));
    bench.wait(110);
    assert_eq!(bench.answer(ELSEWHERE, outside), Ok(at(ME)));
    bench.wait(20);
    assert_eq!(bench.answer(SERVER, outside), Err(Refusal::Filtered));
    assert_eq!(bench.answer(ELSEWHERE, outside), Ok(at(ME)));
}

#[test]
fn a_reboot_loses_every_mapping_and_a_renumbering_the_address_too() {
    let [profile] = &NatKind::SymmetricRandom.boxes()[..] else {
        panic!("one box");
    };
    let mut bench = bench(profile.clone());
    let before = bench.mapped(ME, SERVER);
    bench.middlebox.reboot(&mut bench.rng);
    assert_eq!(bench.answer(SERVER, before), Err(Refusal::NoMapping));
    let after = bench.mapped(ME, SERVER);
    assert_ne!(after, before);
    assert_eq!(bench.answer(SERVER, after), Ok(at(ME)));
    let elsewhere = Ipv4Addr::new(198, 19, 0, 2);
    bench.middlebox.renumber(elsewhere, &mut bench.rng);
    assert_eq!(bench.mapped(ME, SERVER).ip(), elsewhere);
}

#[test]
fn a_firewall_blocks_all_udp_or_all_but_what_it_lists() {
    let home = || BoxProfile::home(EndpointIndependent, EndpointIndependent);
    let listed = |ip: Option<&str>, port| {
        let ip = ip.map(|ip| ip.parse().expect("an address"));
        UdpRule::Listed(vec![Listed { ip, port }])
    };
    for (udp, passes) in [
        (UdpRule::Any, [true, true, true]),
        (UdpRule::Blocked, [false, false, false]),
        (listed(None, Some(1000)), [true, false, true]),
        (listed(Some("203.0.113.1"), None), [true, true, false]),
        (
            listed(Some("203.0.113.1"), Some(1000)),
            [true, false, false],
        ),
    ] {
        let mut out = bench(home().with_udp(udp.clone()));
        let sent = [SERVER, SAME_ADDRESS, ELSEWHERE].map(|to| out.send(ME, to).is_ok());
        assert_eq!(sent, passes, "{udp:?}");
        // From outside too, although the mapping is everybody's.
        let mapped = SocketAddr::new(OUTSIDE.into(), 4433);
        let came = [SERVER, SAME_ADDRESS, ELSEWHERE].map(|from| out.answer(from, mapped).is_ok());
        assert_eq!(came, passes, "{udp:?}");
    }
}

#[test]
fn a_box_whose_cable_is_out_passes_nothing_and_forgets_nothing() {
    let mut bench = bench(BoxProfile::home(EndpointIndependent, EndpointIndependent));
    let outside = bench.mapped(ME, SERVER);
    bench.middlebox.set_up(false);
    assert_eq!(bench.send(ME, SERVER), Err(Refusal::Down));
    assert_eq!(bench.answer(SERVER, outside), Err(Refusal::Down));
    bench.middlebox.set_up(true);
    assert_eq!(bench.answer(SERVER, outside), Ok(at(ME)));
}

#[test]
fn ipv6_keeps_its_addresses_and_only_answers_come_in() {
    const ME: &str = "[2001:db8::1]:4433";
    const SERVER: &str = "[2001:db8:1::1]:1000";
    const SAME_ADDRESS: &str = "[2001:db8:1::1]:1001";
    let home = BoxProfile::home(EndpointIndependent, EndpointIndependent);
    for profile in [home, BoxProfile::stateful_firewall()] {
        let mut bench = bench(profile.clone());
        assert_eq!(bench.answer(SERVER, at(ME)), Err(Refusal::Filtered));
        assert_eq!(bench.send(ME, SERVER), Ok(at(ME)));
        assert_eq!(bench.answer(SERVER, at(ME)), Ok(at(ME)));
        assert_eq!(bench.answer(SAME_ADDRESS, at(ME)), Err(Refusal::Filtered));
        bench.wait(120);
        assert_eq!(bench.answer(SERVER, at(ME)), Err(Refusal::Filtered));
        bench = super::bench(BoxProfile {
            firewall: None,
            ..profile
        });
        assert_eq!(
            bench.answer(SERVER, at(ME)),
            Ok(at(ME)),
            "a router lets all in"
        );
    }
}

#[test]
fn a_firewall_without_translation_treats_ipv4_the_same() {
    let mut bench = bench(BoxProfile::stateful_firewall());
    assert_eq!(bench.answer(SERVER, at(ME)), Err(Refusal::Filtered));
    assert_eq!(bench.send(ME, SERVER), Ok(at(ME)));
    assert_eq!(bench.answer(SERVER, at(ME)), Ok(at(ME)));
    assert_eq!(bench.answer(ELSEWHERE, at(ME)), Err(Refusal::Filtered));
}
