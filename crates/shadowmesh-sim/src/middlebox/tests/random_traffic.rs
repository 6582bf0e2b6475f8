//! Random traffic through boxes of every behaviour, judged by its own history: the oracle knows
//! nothing of tables, it looks back at every packet that passed.

use proptest::prelude::*;

use super::*;

/// Short, so that mappings expire within a run.
const LIFETIME: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
enum Step {
    Out {
        inside: SocketAddr,
        remote: SocketAddr,
    },
    /// To the outside endpoint of a mapping made before, or to a port nobody has.
    In {
        remote: SocketAddr,
        target: usize,
    },
    Wait(Duration),
    Reboot,
}

/// A packet that passed, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passed {
    at: Duration,
    inside: SocketAddr,
    remote: SocketAddr,
    outside: SocketAddr,
    /// The remote for which the mapping it used was made.
    made_for: SocketAddr,
}

struct History {
    nat: Nat,
    outbound: Vec<Passed>,
    inbound: Vec<Passed>,
}

impl History {
    fn same_mapping(&self, a: &Passed, inside: SocketAddr, remote: SocketAddr) -> bool {
        a.inside == inside && self.nat.mapping.scope(a.made_for) == self.nat.mapping.scope(remote)
    }

    /// Outbound packets, and answers where they count, that keep state alive now.
    fn fresh(&self, now: Duration) -> impl Iterator<Item = &Passed> {
        let answers = match self.nat.memory.refresh {
            Refresh::BothWays => &self.inbound[..],
            Refresh::Outbound => &[],
        };
        let all = self.outbound.iter().chain(answers);
        all.filter(move |passed| now < passed.at + LIFETIME)
    }

    /// An outbound packet passed: is its outside address the one it must have?
    fn check_outbound(&self, new: &Passed) -> Result<(), TestCaseError> {
        for old in self.fresh(new.at) {
            if self.same_mapping(old, new.inside, new.remote) {
                prop_assert_eq!(old.outside, new.outside, "a live mapping changed");
            } else {
                prop_assert_ne!(old.outside, new.outside, "an outside endpoint is shared");
            }
        }
        prop_assert!(self.nat.ports.contains(&new.outside.port()));
        Ok(())
    }

    /// Must a datagram of `remote` to `outside` come in, and to whom?
    fn expected_inbound(
        &self,
        remote: SocketAddr,
        outside: SocketAddr,
        now: Duration,
    ) -> Option<SocketAddr> {
        let filter = |who: SocketAddr| self.nat.filtering.scope(who);
        self.fresh(now)
            .find(|old| old.outside == outside && filter(old.remote) == filter(remote))
            .map(|old| old.inside)
    }
}

fn run(nat: Nat, seed: u64, steps: &[Step]) -> Result<Vec<SocketAddr>, TestCaseError> {
    let profile = BoxProfile {
        nat: Some(nat.clone()),
        firewall: None,
        udp: UdpRule::Any,
    };
    let mut rng = StdRng::seed_from_u64(seed);
    let mut middlebox = Middlebox::new(profile, OUTSIDE, &mut rng);
    let (mut now, mut seen) = (Duration::ZERO, Vec::new());
    let mut history = History {
        nat,
        outbound: Vec::new(),
        inbound: Vec::new(),
    };
    for step in steps {
        match *step {
            Step::Wait(time) => now += time,
            Step::Reboot => {
                middlebox.reboot(&mut rng);
                history.outbound.clear();
                history.inbound.clear();
            }
            Step::Out { inside, remote } => {
                // A small range of ports may be used up; then nothing passes and nothing changes.
                let Ok(outside) = middlebox.outbound(inside, remote, now, &mut rng) else {
                    continue;
                };
                let passed = Passed {
                    at: now,
                    inside,
                    remote,
                    outside,
                    made_for: remote,
                };
                history.check_outbound(&passed)?;
                history.outbound.push(passed);
                seen.push(outside);
            }
            Step::In { remote, target } => {
                let unused = SocketAddr::new(OUTSIDE.into(), 999);
                let outside = seen.get(target % (seen.len() + 1)).copied();
                let outside = outside.unwrap_or(unused);
                let expected = history.expected_inbound(remote, outside, now);
                let inside = middlebox.inbound(remote, outside, now);
                prop_assert_eq!(inside.ok(), expected);
                if let Ok(inside) = inside {
                    let maker = history.outbound.iter().rfind(|old| old.outside == outside);
                    history.inbound.push(Passed {
                        at: now,
                        inside,
                        remote,
                        outside,
                        made_for: maker.expect("somebody inside wrote first").remote,
                    });
                }
            }
        }
    }
    Ok(seen)
}

fn any_nat() -> impl Strategy<Value = Nat> {
    let dependence = || prop::sample::select(&DEPENDENCES[..]);
    let allocation = prop::sample::select(vec![
        PortAllocation::Preserving,
        PortAllocation::Sequential,
        PortAllocation::Random,
    ]);
    let refresh = prop::sample::select(vec![Refresh::Outbound, Refresh::BothWays]);
    let last_port = prop::sample::select(vec![5007u16, 65_535]);
    (dependence(), dependence(), allocation, refresh, last_port).prop_map(
        |(mapping, filtering, allocation, refresh, last_port)| {
            let memory = Memory {
                lifetime: LIFETIME,
                refresh,
            };
            let profile = BoxProfile::home(mapping, filtering)
                .allocating(allocation)
                .with_ports(5000..=last_port)
                .remembering(memory);
            profile.nat.expect("a home router translates")
        },
    )
}

/// Few hosts, ports and remotes, so that they meet again.
fn any_step() -> impl Strategy<Value = Step> {
    let inside = (0..3u8, 5000..5003u16)
        .prop_map(|(host, port)| SocketAddr::from(([192, 168, 1, 10 + host], port)));
    let remote = || {
        (0..3u8, 1000..1003u16)
            .prop_map(|(host, port)| SocketAddr::from(([203, 0, 113, host], port)))
    };
    prop_oneof![
        4 => (inside, remote()).prop_map(|(inside, remote)| Step::Out { inside, remote }),
        4 => (remote(), 0..20usize).prop_map(|(remote, target)| Step::In { remote, target }),
        2 => (0..6000u64).prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
        1 => prop::bool::weighted(0.1).prop_map(|reboot| {
            if reboot { Step::Reboot } else { Step::Wait(LIFETIME) }
        }),
    ]
}

proptest! {
    #[test]
    fn mappings_are_stable_and_never_shared_and_nothing_forbidden_comes_in(
        nat in any_nat(),
        seed in any::<u64>(),
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        let first = run(nat.clone(), seed, &steps)?;
        prop_assert_eq!(first, run(nat, seed, &steps)?, "the same seed gave another run");
    }
}
