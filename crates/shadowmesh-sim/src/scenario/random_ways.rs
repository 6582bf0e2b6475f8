//! A run in which the seed decides who is behind which NAT, and what befalls hosts, boxes, relays and
//! links while packets flow: nodes move to other networks, boxes forget their mappings or get other
//! addresses, relays die or lie, cables are pulled, clocks jump, the network falls apart. Who gets behind a box that
//! lets no UDP through goes by streams.
//!
//! What must hold stands in [`chaos`]. In the end every pair has a way, because all of them share relays.

use std::time::Duration;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::chaos::{self, Chaos, HEALING, RandomFigures};
use super::random::any_link;
use super::relay::add_relay;
use crate::link::LinkProfile;
use crate::middlebox::NatKind;
use crate::world::{BoxId, Envelope, HostConfig, HostId, Mischief, World};

const ROUNDS: usize = 25;
/// A stream that was cut in silence is given up after a minute, and the next may be tried half a minute later.
const STREAM_HEALING: Duration = Duration::from_secs(60);

/// Runs the scenario of a seed.
///
/// # Errors
/// When safety or recovery is violated: how.
pub fn run(seed: u64) -> Result<RandomFigures, String> {
    chaos::run(Ways::new(seed), ROUNDS)
}

struct Ways {
    world: World,
    hosts: Vec<HostId>,
    relays: Vec<HostId>,
    /// The innermost boxes.
    homes: Vec<BoxId>,
    /// Whether one of them lets no UDP through.
    streams: bool,
}

impl Ways {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        world.default_link = LinkProfile::round_trip(Duration::from_millis(30));
        let relays = (0..world.rng().random_range(1..=3))
            .map(|_| add_relay(&mut world))
            .collect();
        let hosts: Vec<_> = (0..world.rng().random_range(2..=4))
            .map(|_| {
                let config = HostConfig {
                    rekey_interval: Duration::from_secs(world.rng().random_range(10..30)),
                    greet: true,
                    ..HostConfig::default()
                };
                world.add_host(config)
            })
            .collect();
        let mut ways = Self {
            world,
            hosts,
            relays,
            homes: Vec::new(),
            streams: false,
        };
        for host in ways.hosts.clone() {
            ways.settle_somewhere(host);
        }
        ways.configure();
        ways
    }

    fn configure(&mut self) {
        for (n, &a) in self.hosts.iter().enumerate() {
            for &b in &self.hosts[n + 1..] {
                self.world.introduce(a, b);
            }
            for &relay in &self.relays {
                self.world.use_relay(a, relay);
            }
        }
        for &host in &self.hosts {
            self.world.start(host);
        }
    }

    /// Behind a new box of any kind, behind one that is there, or in the internet.
    fn settle_somewhere(&mut self, host: HostId) {
        let rng = self.world.rng();
        let home = if rng.random_bool(0.3) {
            self.homes.choose(rng).copied()
        } else {
            let kind = *NatKind::ALL.choose(rng).expect("there are kinds");
            self.streams |= kind == NatKind::UdpBlocked;
            let home = self.world.add_nat(kind);
            self.homes.extend(home);
            home
        };
        self.world.put_behind(host, home);
    }

    fn any(&mut self, of: &[HostId]) -> HostId {
        *of.choose(self.world.rng()).expect("there are some")
    }

    fn any_of_all(&mut self) -> HostId {
        let all = [&self.hosts[..], &self.relays].concat();
        self.any(&all)
    }

    fn upset_a_box(&mut self) {
        let Some(&home) = self.homes.choose(self.world.rng()) else {
            return;
        };
        if self.world.rng().random() {
            self.world.reboot_box(home);
        } else {
            self.world.renumber_box(home);
        }
    }
}

impl Chaos for Ways {
    fn world(&mut self) -> &mut World {
        &mut self.world
    }

    fn act(&mut self) {
        let (hosts, relays) = (self.hosts.clone(), self.relays.clone());
        match self.world.rng().random_range(0..16) {
            0..=2 => {
                let (from, to) = (self.any_of_all(), self.any_of_all());
                let profile = any_link(&mut self.world);
                self.world.link_one_way(from, to, profile);
            }
            3 => {
                let (a, b) = (self.any_of_all(), self.any_of_all());
                self.world.link(a, b, LinkProfile::default().losing(1.0));
            }
            4 | 5 => {
                let host = self.any_of_all();
                if self.world.host(host).is_up() {
                    self.world.kill(host);
                } else {
                    self.world.start(host);
                }
            }
            6 => {
                let host = self.any(&hosts);
                let seconds = self.world.rng().random_range(1..600);
                self.world.jump_clock(host, Duration::from_secs(seconds));
            }
            7 | 8 => {
                let host = self.any(&hosts);
                self.settle_somewhere(host);
            }
            9 => {
                let host = self.any(&hosts);
                self.world.move_host(host);
            }
            10 | 11 => self.upset_a_box(),
            12 => {
                let host = self.any_of_all();
                let plugged = self.world.rng().random();
                self.world.plug(host, plugged);
            }
            13 => {
                let part = [self.any_of_all(), self.any_of_all()];
                self.world.cut_off(&part);
            }
            14 => self.world.rejoin(),
            _ => {
                let relay = self.any(&relays);
                self.world.corrupt(relay, any_mischief());
            }
        }
    }

    fn healing(&self) -> Duration {
        if self.streams {
            HEALING + STREAM_HEALING
        } else {
            HEALING
        }
    }

    /// The relays are honest too.
    fn pacify(&mut self) {
        let all = [&self.hosts[..], &self.relays].concat();
        let sound = LinkProfile::round_trip(Duration::from_millis(40));
        self.world.rejoin();
        for &a in &all {
            self.world.reform(a);
            self.world.plug(a, true);
            for &b in &all {
                self.world.link_one_way(a, b, sound);
            }
            if !self.world.host(a).is_up() {
                self.world.start(a);
            }
        }
    }

    /// One packet of any size for each ordered pair.
    fn send_all(&mut self) -> Vec<u64> {
        let hosts = self.hosts.clone();
        let pairs = hosts
            .iter()
            .flat_map(|a| hosts.iter().map(move |b| (*a, *b)))
            .filter(|(a, b)| a != b);
        pairs
            .map(|(from, to)| {
                let (source, destination) = (self.world.ipv4(from), self.world.ipv4(to));
                let len = self.world.rng().random_range(60..=1420);
                self.world.send_packet(from, to, source, destination, len)
            })
            .collect()
    }
}

/// Drops, delays, repeats and corrupts.
fn any_mischief() -> Mischief {
    Box::new(|mut held: Envelope, rng| {
        let later = Duration::from_millis(rng.random_range(0..300));
        match rng.random_range(0..6) {
            0 => Vec::new(),
            1 => {
                let at = rng.random_range(0..held.inner.len());
                held.inner[at] ^= 1;
                vec![(Duration::ZERO, held)]
            }
            2 => vec![(Duration::ZERO, held.clone()), (later, held)],
            3 => vec![(later, held)],
            _ => vec![(Duration::ZERO, held)],
        }
    })
}
