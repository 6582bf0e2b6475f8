//! A stream of packets from one node to another that is moved between the straight way and the relay, again and
//! again.
//!
//! What the switch itself costs is told from what the network costs: the world knows which datagrams its links
//! dropped, so a packet that is missing although none of its datagrams was dropped was lost by the nodes. And
//! where only the way *back* is cut, the stream is moved to the relay while its own link is sound, so that all
//! of it has to arrive, and without a pause.

use std::time::Duration;

use super::Sorted;
use super::direct::pair_on;
use super::relay::{Relayed, way};
use crate::link::LinkProfile;
use crate::middlebox::NatKind;
use crate::world::HostId;
use shadowmesh_net::PathInfo;

/// Round trip between any two places.
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// How often the stream sends.
const BEAT: Duration = Duration::from_millis(1);
/// Length of its packets, bytes.
const PACKET_LEN: usize = 1400;
/// How long a cut lasts.
const CUT: Duration = Duration::from_secs(2);
/// How long the stream goes on before a cut and after a switch back.
const AROUND: Duration = Duration::from_millis(300);
/// Between two cuts there is only a packet now and then, for longer than a break is held against a way: each cut
/// is like the first.
const REST: Duration = Duration::from_secs(61);
const REST_BEAT: Duration = Duration::from_millis(100);
/// Within this a way that is sound again is used: it may have broken so often that it is trusted late.
const PATIENCE: Duration = Duration::from_secs(40);

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The straight way against the stream's direction: its own link stays sound.
    WayBack,
    /// The straight way in both directions: what is under way is lost with it.
    BothWays,
}

/// A stream.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of the world.
    pub seed: u64,
    /// How often it is moved to the relay, and back.
    pub cycles: usize,
    /// What moves it.
    pub cut: Cut,
    /// Share of datagrams that each link loses, 0 to 1.
    pub loss: f64,
    /// Packets of 1,400 bytes that it sends each millisecond; 45 are 504 Mbit/s. The other node sends one back.
    pub packets_per_ms: usize,
}

/// How that went.
#[derive(Clone, Debug, Default)]
pub struct Switches {
    /// Moves of the stream to the relay.
    pub to_relay: usize,
    /// Moves of the stream to the straight way.
    pub to_direct: usize,
    /// Packets sent, both ways.
    pub sent: usize,
    /// Of these, how many did not come out.
    pub lost: usize,
    /// Of these, those of the stream.
    pub stream_lost: usize,
    /// Of all that did not come out, those of which the network dropped nothing.
    pub lost_by_nodes: usize,
    /// For each move to the relay, the longest time between two packets of the stream that came out. After
    /// [`Cut::BothWays`] this is how long the break was not noticed.
    pub pauses_to_relay: Sorted,
    /// The same for the moves to the straight way.
    pub pauses_to_direct: Sorted,
    /// For each cut, from there until packets came out over the relay, in the slower direction.
    pub breaks: Sorted,
    /// The first migration of all: from its first probe to the switch, on the side that was slower.
    pub migration: Duration,
}

/// Runs it.
///
/// # Panics
/// When the pair does not go straight within 40 s, does not leave what is cut within two, or when the ledger is
/// violated: a packet came out twice.
pub fn switches(plan: Plan) -> Switches {
    let sound = LinkProfile::round_trip(ROUND_TRIP).losing(plan.loss);
    let mut run = Run {
        pair: pair_on(plan.seed, [NatKind::PortRestricted; 2], sound),
        plan,
        figures: Switches::default(),
    };
    run.go_straight();
    run.figures.migration = run.migration();
    let [mut to_relay, mut to_direct, mut breaks] = [const { Vec::new() }; 3];
    for _ in 0..plan.cycles {
        run.rest();
        let first = run.pair.world.ledger.next_number();
        run.stream(AROUND);
        let cut = run.pair.world.now();
        run.set_links(sound.losing(1.0));
        run.stream(CUT);
        assert!(run.is_relayed(), "seed {}: not over the relay", plan.seed);
        let restored = run.pair.world.now();
        breaks.extend(run.pair.healed(cut));
        run.set_links(sound);
        run.go_straight();
        run.stream(AROUND);
        let end = run.pair.world.now();
        run.pair.world.run_for(10 * ROUND_TRIP);
        let (a, b) = (run.pair.a, run.pair.b);
        to_relay.push(run.longest_pause(first, (a, b), (cut, restored)));
        let back = run.longest_pause(first, (b, a), (restored, end));
        to_direct.push(run.longest_pause(first, (a, b), (restored, end)).max(back));
        run.account(first);
    }
    let figures = Switches {
        to_relay: to_relay.len(),
        to_direct: to_direct.len(),
        pauses_to_relay: to_relay.into_iter().collect(),
        pauses_to_direct: to_direct.into_iter().collect(),
        breaks: breaks.into_iter().collect(),
        ..run.figures
    };
    assert_eq!(run.pair.world.ledger.violations(), Vec::<String>::new());
    figures
}

struct Run {
    pair: Relayed,
    plan: Plan,
    figures: Switches,
}

impl Run {
    fn set_links(&mut self, profile: LinkProfile) {
        let (a, b) = (self.pair.a, self.pair.b);
        match self.plan.cut {
            Cut::WayBack => self.pair.world.link_one_way(b, a, profile),
            Cut::BothWays => self.pair.world.link(a, b, profile),
        }
    }

    /// The stream for so long, and a short packet back each time.
    fn stream(&mut self, time: Duration) {
        let Relayed { world, a, b, .. } = &mut self.pair;
        let (from, to) = (world.ipv4(*a), world.ipv4(*b));
        let end = world.now() + time;
        while world.now() < end {
            for _ in 0..self.plan.packets_per_ms {
                world.send_packet(*a, *b, from, to, PACKET_LEN);
            }
            world.send(*b, *a);
            world.run_for(BEAT);
        }
    }

    fn rest(&mut self) {
        let end = self.pair.world.now() + REST;
        while self.pair.world.now() < end {
            let Relayed { world, a, b, .. } = &mut self.pair;
            world.send(*a, *b);
            world.send(*b, *a);
            world.run_for(REST_BEAT);
        }
    }

    fn go_straight(&mut self) {
        let end = self.pair.world.now() + PATIENCE;
        while !self.pair.is_direct() {
            let seed = self.plan.seed;
            assert!(self.pair.world.now() < end, "seed {seed}: no straight way");
            self.stream(20 * BEAT);
        }
    }

    fn is_relayed(&self) -> bool {
        let (a, b) = (self.pair.a, self.pair.b);
        let relayed = |from, to| {
            let way = way(&self.pair.world, from, to);
            matches!(way, Some(PathInfo::Relayed { .. }))
        };
        relayed(a, b) && relayed(b, a)
    }

    fn migration(&self) -> Duration {
        let both = [self.pair.a, self.pair.b].map(|host| {
            let totals = self.pair.world.host(host).node().connectivity().totals();
            Duration::from_micros(totals.migration_us / totals.migrations.max(1))
        });
        both[0].max(both[1])
    }

    /// The longest time between two packets that came out within some time, of those sent from `first` on.
    fn longest_pause(
        &self,
        first: u64,
        (from, to): (HostId, HostId),
        (since, until): (Duration, Duration),
    ) -> Duration {
        let entries = self.pair.world.ledger.entries_from(first);
        let mut out: Vec<Duration> = entries
            .filter(|entry| (entry.from, entry.to) == (from, to))
            .filter_map(|entry| entry.delivered.first().map(|(_, at)| *at))
            .filter(|at| (since..=until).contains(at))
            .collect();
        out.sort_unstable();
        let pauses = out.windows(2).map(|two| two[1] - two[0]);
        pauses.max().unwrap_or(until - since)
    }

    /// Counts what was sent from `first` on, and forgets it: all of it has arrived or never will.
    fn account(&mut self, first: u64) {
        let ledger = &mut self.pair.world.ledger;
        let next = ledger.next_number();
        let numbers: Vec<u64> = (first..next).collect();
        let (figures, to) = (&mut self.figures, self.pair.b);
        let stream = numbers.iter().filter(|n| ledger.is_for(**n, to));
        figures.stream_lost += ledger.lost(stream);
        figures.sent += numbers.len();
        figures.lost += ledger.lost(&numbers);
        figures.lost_by_nodes += ledger.lost_by_nodes(&numbers);
        ledger.forget_before(next);
    }
}
