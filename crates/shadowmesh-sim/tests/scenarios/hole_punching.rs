//! What can be reached through the world's NATs at all: bare sockets that do everything right meet
//! exactly where the literature says (RFC 5128, section 3; the table of every STUN and ICE text).

use std::net::SocketAddr;

use rand::Rng;
use shadowmesh_sim::NatKind::{
    self, AddressRestricted, Double, FullCone, Open, PortRestricted, SymmetricRandom,
    SymmetricSequential, UdpBlocked,
};
use shadowmesh_sim::{HostConfig, HostId, LinkProfile, World, seeds};

use crate::millis;

struct Meeting {
    world: World,
    rendezvous: HostId,
    a: HostId,
    b: HostId,
}

impl Meeting {
    fn new(seed: u64, kinds: [NatKind; 2]) -> Self {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(millis(40));
        let rendezvous = world.add_host(HostConfig::default());
        let [a, b] = kinds.map(|kind| {
            let host = world.add_host(HostConfig::default());
            let behind = world.add_nat(kind);
            if behind.is_some() {
                world.put_behind(host, behind);
            }
            host
        });
        Self {
            world,
            rendezvous,
            a,
            b,
        }
    }

    /// The address of a host as the rendezvous sees it.
    fn observe(&mut self, host: HostId) -> Option<SocketAddr> {
        let server = self.world.host(self.rendezvous).address();
        self.world.send_bare(host, server, b"who am I?");
        self.world.run_for(millis(100));
        let seen = self.world.host_mut(self.rendezvous).bare.pop()?;
        Some(seen.remote)
    }

    /// Both write at once to what the rendezvous told them (and to more, if they guess), then to
    /// wherever the other's datagrams come from. True if both hear each other.
    fn punch(&mut self, guess: impl Fn(SocketAddr) -> Vec<SocketAddr>) -> bool {
        let (Some(at_a), Some(at_b)) = (self.observe(self.a), self.observe(self.b)) else {
            return false;
        };
        let mut targets = [(self.a, guess(at_b)), (self.b, guess(at_a))];
        for round in 0..4 {
            for (host, to) in &mut targets {
                let heard = std::mem::take(&mut self.world.host_mut(*host).bare);
                to.extend(heard.iter().map(|datagram| datagram.remote));
                for address in to {
                    self.world.send_bare(*host, *address, &[round]);
                }
            }
            self.world.run_for(millis(100));
        }
        [self.a, self.b]
            .iter()
            .all(|host| !self.world.host(*host).bare.is_empty())
    }
}

/// Kinds whose mapping for one remote says nothing about another.
fn is_symmetric(kind: NatKind) -> bool {
    matches!(kind, SymmetricSequential | SymmetricRandom)
}

fn meet_without_guessing(a: NatKind, b: NatKind) -> bool {
    let strict = |kind| is_symmetric(kind) || matches!(kind, PortRestricted | Double);
    let blocked = [a, b].contains(&UdpBlocked);
    let in_vain = (is_symmetric(a) && strict(b)) || (is_symmetric(b) && strict(a));
    !blocked && !in_vain
}

#[test]
fn sockets_meet_by_hole_punching_exactly_where_mapping_and_filtering_allow() {
    seeds::each("hole_punching_table", 2, |seed| {
        for a in NatKind::ALL {
            for b in NatKind::ALL {
                let met = Meeting::new(seed, [a, b]).punch(|address| vec![address]);
                let expected = meet_without_guessing(a, b);
                assert_eq!(met, expected, "{} and {}", a.name(), b.name());
            }
        }
    });
}

#[test]
fn consecutive_ports_can_be_foretold() {
    let next_ports = |address: SocketAddr| {
        let ports = (0..5).map(|n| address.port().wrapping_add(n));
        ports
            .map(|port| SocketAddr::new(address.ip(), port))
            .collect()
    };
    seeds::each("foretold_ports", 5, |seed| {
        for cone in [PortRestricted, Double] {
            assert!(Meeting::new(seed, [SymmetricSequential, cone]).punch(next_ports));
            assert!(!Meeting::new(seed, [SymmetricRandom, cone]).punch(next_ports));
        }
    });
}

/// 256 mappings among 64,512 ports, and 1,024 guesses: 1 - (1 - 256/64512)^1024 is 98 %.
#[test]
fn random_ports_are_found_by_birthday_probing_in_most_runs() {
    const RUNS: u64 = 20;
    seeds::each("birthday", 1, |first| {
        let met = (first..first + RUNS).filter(|&seed| birthday(seed)).count();
        println!("met in {met} of {RUNS} runs");
        assert!(met >= 17, "{met} of {RUNS}");
    });
}

fn birthday(seed: u64) -> bool {
    let mut meeting = Meeting::new(seed, [SymmetricRandom, PortRestricted]);
    let (a, b) = (meeting.a, meeting.b);
    let (at_a, at_b) = (meeting.observe(a), meeting.observe(b));
    let (at_a, at_b) = (at_a.expect("UDP passes"), at_b.expect("UDP passes"));
    let world = &mut meeting.world;
    for port in 10_000..10_256 {
        world.open_port(a, port);
        world.send_bare_from(a, port, at_b, b"open");
    }
    for _ in 0..1024 {
        let port = world.rng().random_range(1024..=65_535);
        world.send_bare(b, SocketAddr::new(at_a.ip(), port), b"guess");
    }
    world.run_for(millis(100));
    let guessed = world.host_mut(a).bare.pop();
    guessed.is_some_and(|guess| {
        world.send_bare_from(a, guess.local.port(), at_b, b"found");
        world.run_for(millis(100));
        !world.host(b).bare.is_empty()
    })
}

#[test]
fn a_full_cone_is_open_to_all_once_its_host_has_spoken() {
    seeds::each("full_cone", 1, |seed| {
        for (kind, heard) in [(FullCone, 1), (AddressRestricted, 0), (Open, 1)] {
            let mut meeting = Meeting::new(seed, [kind, Open]);
            let outside = meeting.observe(meeting.a).expect("UDP passes");
            meeting.world.send_bare(meeting.b, outside, b"hello");
            meeting.world.run_for(millis(100));
            assert_eq!(meeting.world.host(meeting.a).bare.len(), heard, "{kind:?}");
        }
    });
}
