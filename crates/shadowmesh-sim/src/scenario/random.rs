//! A run in which the seed decides everything: how many hosts, what the links do to datagrams, who
//! is killed, whose clock jumps, who moves, who throws whom out.
//!
//! What must hold stands in [`chaos`]; here also, that nothing comes out from a peer that was thrown out.
//! In the end every pair that still knows each other has a way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::chaos::{self, Chaos, RandomFigures};
use crate::link::{LinkProfile, Loss};
use crate::world::{HostConfig, HostId, World};

const ROUNDS: usize = 30;

/// Runs the scenario of a seed.
///
/// # Errors
/// When safety or recovery is violated: how.
pub fn run(seed: u64) -> Result<RandomFigures, String> {
    chaos::run(Hosts::new(seed), ROUNDS)
}

struct Hosts {
    world: World,
    hosts: Vec<HostId>,
    /// Ordered pairs: the first lists the second.
    lists: BTreeSet<(HostId, HostId)>,
    /// For each ordered pair, when the first did not list the second: from, until.
    estranged: BTreeMap<(HostId, HostId), Vec<(Duration, Duration)>>,
}

impl Hosts {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let count = world.rng().random_range(2..=5);
        let hosts: Vec<_> = (0..count).map(|_| add_host(&mut world)).collect();
        let mut lists = BTreeSet::new();
        for (n, &a) in hosts.iter().enumerate() {
            for &b in &hosts[n + 1..] {
                world.introduce(a, b);
                lists.extend([(a, b), (b, a)]);
                let profile = any_link(&mut world);
                world.link(a, b, profile);
            }
        }
        for &host in &hosts {
            world.start(host);
        }
        Self {
            world,
            hosts,
            lists,
            estranged: BTreeMap::new(),
        }
    }

    fn any_host(&mut self) -> HostId {
        *self
            .hosts
            .choose(self.world.rng())
            .expect("there are hosts")
    }

    fn any_pair(&mut self) -> (HostId, HostId) {
        loop {
            let pair = (self.any_host(), self.any_host());
            if pair.0 != pair.1 {
                return pair;
            }
        }
    }

    fn throw_out_or_take_back(&mut self, who: HostId, whom: HostId) {
        let peer = self.world.peer_entry(whom);
        let up = self.world.host(who).is_up();
        let now = self.world.now();
        let times = self.estranged.entry((who, whom)).or_default();
        if self.lists.remove(&(who, whom)) {
            times.push((now, Duration::MAX));
            self.world.host_mut(who).peers.retain(|p| p.id != peer.id);
            if up {
                self.world
                    .with_node(who, |node, now| node.remove_peer(&peer.id, now));
            }
        } else {
            self.lists.insert((who, whom));
            times.last_mut().expect("it was thrown out before").1 = now;
            self.world.host_mut(who).peers.push(peer.clone());
            if up {
                self.world
                    .with_node(who, |node, now| node.add_peer(peer, now))
                    .expect("no conflict");
            }
        }
    }
}

impl Chaos for Hosts {
    fn world(&mut self) -> &mut World {
        &mut self.world
    }

    fn act(&mut self) {
        match self.world.rng().random_range(0..11) {
            0..=3 => {
                let (from, to) = self.any_pair();
                let profile = any_link(&mut self.world);
                self.world.link_one_way(from, to, profile);
            }
            4 => {
                let (a, b) = self.any_pair();
                self.world.link(a, b, LinkProfile::default().losing(1.0));
            }
            5 | 6 => {
                let host = self.any_host();
                if self.world.host(host).is_up() {
                    self.world.kill(host);
                } else {
                    self.world.start(host);
                }
            }
            7 => {
                let host = self.any_host();
                let seconds = self.world.rng().random_range(1..600);
                self.world.jump_clock(host, Duration::from_secs(seconds));
            }
            8 => {
                let (who, whom) = self.any_pair();
                self.throw_out_or_take_back(who, whom);
            }
            // Only one host roams: two that do can lose each other for good.
            9 => self.world.move_host(self.hosts[0]),
            _ => {}
        }
    }

    fn pacify(&mut self) {
        let hosts = self.hosts.clone();
        let sound = LinkProfile::round_trip(Duration::from_millis(40));
        for (n, &a) in hosts.iter().enumerate() {
            for &b in &hosts[n + 1..] {
                self.world.link(a, b, sound);
            }
            if !self.world.host(a).is_up() {
                self.world.start(a);
            }
        }
    }

    /// Of any size and IP version.
    fn send_all(&mut self) -> Vec<u64> {
        let hosts = self.hosts.clone();
        let pairs = hosts
            .iter()
            .flat_map(|a| hosts.iter().map(move |b| (*a, *b)))
            .filter(|(a, b)| a != b);
        let mut expected = Vec::new();
        for (from, to) in pairs {
            let (source, destination) = if self.world.rng().random() {
                (self.world.ipv4(from), self.world.ipv4(to))
            } else {
                (self.world.ipv6(from), self.world.ipv6(to))
            };
            let len = self.world.rng().random_range(60..=1420);
            let number = self.world.send_packet(from, to, source, destination, len);
            if [(from, to), (to, from)]
                .iter()
                .all(|pair| self.lists.contains(pair))
            {
                expected.push(number);
            }
        }
        expected
    }

    fn check(&self) -> Result<(), String> {
        for entry in self.world.ledger.entries() {
            let Some(times) = self.estranged.get(&(entry.to, entry.from)) else {
                continue;
            };
            // What came out at the very instant of a change came before it.
            let estranged = |at| times.iter().any(|(from, until)| *from < at && at < *until);
            if entry.delivered.iter().any(|(_, at)| estranged(*at)) {
                let (to, from) = (entry.to, entry.from);
                return Err(format!(
                    "{to:?} took a packet of {from:?}, whom it does not list"
                ));
            }
        }
        Ok(())
    }
}

fn add_host(world: &mut World) -> HostId {
    let rng = world.rng();
    let config = HostConfig {
        rekey_interval: Duration::from_secs(rng.random_range(10..30)),
        cipher_speeds: [rng.random_range(100..9000), rng.random_range(100..9000)],
        greet: rng.random(),
        ..HostConfig::default()
    };
    world.add_host(config)
}

/// From a quiet LAN to a bad radio link.
pub(super) fn any_link(world: &mut World) -> LinkProfile {
    let rng = world.rng();
    let sometimes = |rng: &mut rand::rngs::StdRng, most: f64| {
        if rng.random_bool(0.3) {
            rng.random_range(0.0..most)
        } else {
            0.0
        }
    };
    let loss = if rng.random_bool(0.3) {
        let (enter, leave) = (rng.random_range(0.001..0.05), rng.random_range(0.05..0.5));
        Loss::Bursts {
            enter,
            leave,
            good: 0.0,
            bad: 1.0,
        }
    } else {
        Loss::Uniform(sometimes(rng, 0.3))
    };
    LinkProfile {
        delay: Duration::from_millis(rng.random_range(0..150)),
        rate: rng
            .random_bool(0.3)
            .then(|| rng.random_range(1_000_000..100_000_000)),
        queue: Duration::from_millis(rng.random_range(10..300)),
        loss,
        reorder: sometimes(rng, 0.5),
        reorder_delay: Duration::from_millis(rng.random_range(1..200)),
        duplicate: sometimes(rng, 0.3),
        corrupt: sometimes(rng, 0.2),
        mtu: *[65_507, 1472, 1450].choose(rng).expect("not empty"),
    }
}
