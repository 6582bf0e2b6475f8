use super::*;
use crate::tests::harness::start;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const TARGET: usize = 1450;

fn remote(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A path that swallows what is too long, and loses some of the rest.
struct World {
    search: MtuSearch,
    now: Instant,
    limit: usize,
    rtt: Duration,
    /// Share of the round trips that are lost.
    loss: f64,
    /// Nothing passes at all.
    dead: bool,
    rng: StdRng,
    long_frames: u64,
    /// Replies on their way.
    replies: Vec<(Instant, u64)>,
    probes: usize,
    token: u64,
}

impl World {
    fn new(limit: usize, target: usize) -> Self {
        let (now, rtt) = (start(), Duration::from_millis(20));
        Self {
            search: MtuSearch::new(remote("192.0.2.1:1"), target, rtt, now),
            now,
            limit,
            rtt,
            loss: 0.0,
            dead: false,
            rng: StdRng::seed_from_u64(7),
            long_frames: 0,
            replies: Vec::new(),
            probes: 0,
            token: 0,
        }
    }

    fn view(&self) -> View {
        View {
            rtt: self.rtt,
            long_frames: self.long_frames,
        }
    }

    fn drain(&mut self) {
        while let Some(len) = self.search.poll_probe() {
            self.token += 1;
            self.probes += 1;
            self.search.sent(self.token, len, self.now);
            let lost = self.loss > 0.0 && self.rng.random_bool(self.loss);
            if len <= self.limit && !self.dead && !lost {
                self.replies.push((self.now + self.rtt, self.token));
            }
        }
    }

    /// Lets time pass in steps of a millisecond; long frames flow all the time if `busy`.
    fn run(&mut self, time: Duration, busy: bool) {
        let end = self.now + time;
        let mut ticks = 0u32;
        while self.now < end {
            self.drain();
            self.now += Duration::from_millis(1);
            self.long_frames += u64::from(busy);
            let now = self.now;
            let due: Vec<u64> = self
                .replies
                .extract_if(.., |(at, _)| *at <= now)
                .map(|r| r.1)
                .collect();
            for token in due {
                self.search.handle_reply(token, now);
            }
            if self.search.poll_timeout().is_some_and(|at| at <= now) {
                self.search.handle_timeout(self.view(), now);
            }
            ticks += 1;
            if ticks.is_multiple_of(1000) {
                self.search.look(self.view(), now);
            }
        }
        self.drain();
    }

    fn len(&self) -> usize {
        self.search.datagram_len_max()
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

// PROTOCOL SM-MT-1
#[test]
fn an_ordinary_path_is_found_with_one_probe_in_one_round_trip() {
    let mut world = World::new(1472, TARGET);
    assert_eq!((world.len(), world.search.is_settled()), (BASE_V4, false));
    world.run(Duration::from_millis(25), false);
    assert_eq!((world.len(), world.search.is_settled()), (TARGET, true));
    world.run(seconds(3600), false);
    assert_eq!(world.probes, 1);
}

#[test]
fn the_base_passes_the_smallest_path_of_each_version() {
    let now = start();
    let at = |text| MtuSearch::new(remote(text), TARGET, Duration::ZERO, now).datagram_len_max();
    let (v4, v6) = (at("192.0.2.1:1"), at("[2001:db8::1]:1"));
    assert_eq!((v4 + 28, v6 + 48), (576, 1280));
}

// PROTOCOL SM-RL-3
#[test]
fn the_base_over_a_relay_passes_the_smallest_path_inside_the_relays_frame() {
    let now = start();
    let search = MtuSearch::new(remote("[100::1]:1"), TARGET, Duration::ZERO, now);
    assert_eq!(search.datagram_len_max() + ENVELOPE_OVERHEAD + 28, 576);
}

#[test]
fn a_jumbo_path_is_found_at_once_and_a_smaller_one_within_a_second() {
    let mut world = World::new(8972, 8972);
    world.run(Duration::from_millis(25), false);
    assert_eq!(world.len(), 8972);
    let mut world = World::new(1472, 8972);
    world.run(seconds(1), false);
    assert_eq!(world.len(), 1472, "1500 is one of the known MTUs");
}

// PROTOCOL SM-MT-2
#[test]
fn a_black_hole_is_noticed_within_the_time_of_an_inner_tcp_and_the_new_length_soon_after() {
    for moment_ms in [1, 100, 250, 499] {
        let mut world = World::new(1472, TARGET);
        world.run(seconds(3) + Duration::from_millis(moment_ms), true);
        world.limit = 1272;
        world.run(Duration::from_millis(1300), true);
        assert!(world.len() <= 1272, "still {} bytes", world.len());
        world.run(Duration::from_millis(1200), true);
        assert!(
            (1272 - GRAIN..=1272).contains(&world.len()),
            "{}",
            world.len()
        );
        assert!(world.search.is_settled());
    }
}

// PROTOCOL SM-MT-2
#[test]
fn a_dead_peer_is_no_black_hole() {
    let mut world = World::new(1472, TARGET);
    world.run(seconds(2), true);
    world.dead = true;
    let before = world.probes;
    world.run(seconds(5), true);
    assert_eq!((world.len(), world.search.is_settled()), (TARGET, true));
    assert!(
        world.probes - before < 40,
        "{} probes",
        world.probes - before
    );
    world.dead = false;
    world.run(seconds(2), true);
    assert_eq!(world.len(), TARGET);
}

#[test]
fn an_idle_path_is_not_probed_again() {
    let mut world = World::new(1472, TARGET);
    world.run(seconds(2), true);
    let before = world.probes;
    world.run(seconds(2), false);
    let between = world.probes;
    assert!(between - before <= 2);
    world.run(seconds(600), false);
    assert_eq!(world.probes, between);
}

#[test]
fn confirmations_are_two_a_second_while_long_frames_flow() {
    let mut world = World::new(1472, TARGET);
    world.run(seconds(1), true);
    let before = world.probes;
    world.run(seconds(60), true);
    assert!(
        (100..=121).contains(&(world.probes - before)),
        "{}",
        world.probes - before
    );
}

// PROTOCOL SM-MT-2
#[test]
fn what_the_host_refuses_is_not_waited_for() {
    let mut world = World::new(1372, TARGET);
    world.run(Duration::from_millis(1), false);
    world.search.handle_refused(TARGET, world.rtt, world.now);
    world.run(Duration::from_millis(25), false);
    assert_eq!(world.len(), 1372);
    world.search.handle_refused(1300, world.rtt, world.now);
    assert_eq!((world.len(), world.search.is_settled()), (BASE_V4, false));
    world.search.handle_refused(300, world.rtt, world.now);
    assert_eq!(world.len(), BASE_V4, "never below the base");
}

#[test]
fn a_path_that_grows_is_noticed_and_asked_ever_more_rarely() {
    let mut world = World::new(1272, TARGET);
    world.run(seconds(5), false);
    assert!(world.len() <= 1272);
    world.limit = 1472;
    world.run(RAISE_MIN, false);
    assert_eq!(world.len(), TARGET);
    let mut world = World::new(1272, TARGET);
    world.run(seconds(7200), false);
    let first = world.probes;
    world.run(seconds(3600), false);
    assert!(
        world.probes - first < 7 * 60,
        "{} in an hour",
        world.probes - first
    );
}

// PROTOCOL SM-MT-2
#[test]
fn loss_does_not_shrink_the_path_for_long() {
    for seed in 0..20 {
        let mut world = World::new(1472, TARGET);
        world.rng = StdRng::seed_from_u64(seed);
        world.loss = 0.1;
        let mut short_ms = 0;
        for _ in 0..30_000 {
            world.run(Duration::from_millis(10), true);
            short_ms += if world.len() < TARGET { 10 } else { 0 };
        }
        assert!(short_ms < 3000, "seed {seed}: {short_ms} ms of 300 s");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // PROTOCOL SM-MT-1
    #[test]
    fn whatever_the_path_takes_is_found_to_a_few_bytes_with_few_probes(
        limit in BASE_V4..9100usize,
        target in 1310usize..9031,
        rtt_ms in 0u64..400,
    ) {
        let mut world = World::new(limit, target);
        world.rtt = Duration::from_millis(rtt_ms);
        world.run(seconds(20), false);
        let best = limit.min(target);
        prop_assert!(world.len() <= best && world.len() + GRAIN > best, "{} of {best}", world.len());
        prop_assert!(world.search.is_settled());
        prop_assert!(world.probes < 120, "{} probes", world.probes);
    }

    #[test]
    fn after_any_changes_the_length_never_stays_above_what_passes(
        limits in proptest::collection::vec(BASE_V4..1500usize, 1..6),
        loss in 0.0..0.1f64,
        seed: u64,
    ) {
        let mut world = World::new(1472, TARGET);
        world.rng = StdRng::seed_from_u64(seed);
        world.loss = loss;
        for limit in limits {
            world.limit = limit;
            world.run(seconds(5), true);
            prop_assert!(world.len() <= limit);
        }
    }
}
