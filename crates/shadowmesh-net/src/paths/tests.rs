//! The policy of ways, with a network that is only a table of round trips.

use super::*;
use crate::tests::harness::{ms, start};
use shadowmesh_wire::control::{CandidateAddress, CandidateKind};
use shadowmesh_wire::way::{Label, Way};

fn path(port: u16) -> Path {
    Path::to(([198, 51, 100, 1], port).into())
}

fn relayed(slot: u16) -> Path {
    let label = Label(7);
    Path::to(Way::Relayed { slot, label }.address())
}

/// Paths, and which of them answer after how long.
struct World {
    paths: Paths,
    now: Instant,
    alive: Vec<(Path, Duration)>,
    answers: Vec<(Instant, u64, Path)>,
    counts: Counts,
    token: u64,
    probes: Vec<(Instant, Path)>,
    moves: Vec<(Instant, Path, Why)>,
    news: Vec<News>,
}

impl World {
    fn new(first: Path, alive: &[(Path, u64)]) -> Self {
        let now = start();
        let mut paths = Paths::new(first, PathTimers::default(), now);
        paths.activate(now);
        let mut world = Self {
            paths,
            now,
            alive: alive.iter().map(|(path, rtt)| (*path, ms(*rtt))).collect(),
            answers: Vec::new(),
            counts: Counts::default(),
            token: 0,
            probes: Vec::new(),
            moves: Vec::new(),
            news: Vec::new(),
        };
        for (path, _) in alive {
            world.paths.add(*path, Origin::Ours);
            world.paths.probe(*path);
        }
        world.run(ms(1_000), 0, 0);
        world.moves.clear();
        world.probes.clear();
        world
    }

    fn drain(&mut self) {
        while let Some(want) = self.paths.poll_probe() {
            self.token += 1;
            let token = want.token.unwrap_or(self.token);
            self.paths.sent(want.path, token, self.now);
            self.probes.push((self.now, want.path));
            if let Some((path, rtt)) = self.alive.iter().find(|(path, _)| path.is(want.path)) {
                self.answers.push((self.now + *rtt, token, *path));
            }
        }
        while let Some(news) = self.paths.poll_news() {
            match news {
                News::Move(_, path, why) => self.moves.push((self.now, path, why)),
                other => self.news.push(other),
            }
        }
    }

    /// Lets time pass; so many frames go out and come in each 10 ms.
    fn run(&mut self, time: Duration, sent: u64, received: u64) {
        let end = self.now + time;
        let mut next_frames = self.now;
        self.drain();
        while self.now < end {
            self.now += ms(1);
            if self.now >= next_frames {
                self.counts.sent += sent;
                self.counts.received += received;
                next_frames += ms(10);
            }
            self.paths.watch(self.counts, self.now);
            let now = self.now;
            let (due, later) = self.answers.drain(..).partition(|(at, _, _)| *at <= now);
            self.answers = later;
            let due: Vec<(Instant, u64, Path)> = due;
            for (_, token, path) in due {
                self.paths.handle_reply(token, path, now);
            }
            if self.paths.poll_timeout().is_some_and(|at| at <= now) {
                self.paths.handle_timeout(self.counts, now);
            }
            self.drain();
        }
    }

    fn cut(&mut self, path: Path) {
        self.alive.retain(|(alive, _)| !alive.is(path));
        self.answers.retain(|(_, _, from)| !from.is(path));
    }

    fn current(&self) -> Path {
        self.paths.current()
    }
}

// PROTOCOL SM-PA-2
#[test]
fn a_way_is_proven_only_by_the_token_it_was_sent_and_from_itself() {
    let mut world = World::new(path(1), &[(path(1), 10)]);
    world.paths.heard_request(path(2), world.now);
    let want = world.paths.poll_probe().expect("it is challenged");
    assert_eq!(want.path, path(2));
    world.paths.sent(path(2), 77, world.now);
    assert!(!world.paths.handle_reply(77, path(3), world.now));
    assert!(!world.paths.handle_reply(78, path(2), world.now));
    assert!(world.paths.handle_reply(77, path(2), world.now));
    assert!(!world.paths.handle_reply(77, path(2), world.now), "once");
}

// PROTOCOL SM-PA-2
#[test]
fn a_sender_with_many_addresses_gets_a_probe_each_half_second() {
    let mut world = World::new(path(1), &[(path(1), 10)]);
    for port in 100..600 {
        world.paths.heard_request(path(port), world.now);
        world.run(ms(4), 0, 0);
    }
    let others = world.probes.iter().filter(|(_, to)| !to.is(path(1)));
    assert_eq!(others.count(), 4);
    assert_eq!(world.current(), path(1));
    assert!(world.paths.candidates().len() <= table::CANDIDATES_MAX);
}

// PROTOCOL SM-PA-2
#[test]
fn a_peer_that_moved_is_followed_within_one_round_trip() {
    let mut world = World::new(path(1), &[(path(1), 20)]);
    world.cut(path(1));
    world.alive.push((path(2), ms(20)));
    let at = world.now;
    world.paths.heard_request(path(2), at);
    world.run(ms(100), 1, 1);
    assert_eq!(world.moves, [(at + ms(20), path(2), Why::Moved)]);
}

// PROTOCOL SM-PA-2
#[test]
fn who_passes_probes_on_does_not_keep_the_traffic() {
    // The relaying attacker is even faster than the peer itself.
    let mut world = World::new(path(1), &[(path(1), 20)]);
    world.alive.push((path(9), ms(18)));
    for _ in 0..10 {
        world.paths.heard_request(path(9), world.now);
        world.run(ms(1_000), 1, 1);
        assert_eq!(world.current(), path(1));
    }
    assert!(world.moves.len() <= 2, "{:?}", world.moves);
}

// PROTOCOL SM-PA-5
#[test]
fn a_cut_way_is_left_for_the_next_best_within_half_a_second() {
    for rtt in [2, 20, 60] {
        let ways = [(path(1), rtt), (relayed(1), 2 * rtt), (relayed(2), rtt)];
        let mut world = World::new(path(1), &ways);
        world.run(ms(2_000), 1, 1);
        assert_eq!(world.moves, []);
        world.cut(path(1));
        let cut = world.now;
        world.run(ms(1_000), 1, 0);
        let (at, to, why) = world.moves[0];
        assert!(at - cut < ms(450), "{rtt} ms: {:?}", at - cut);
        assert_eq!((to, why), (relayed(2), Why::Broken));
    }
}

// PROTOCOL SM-PA-5
#[test]
fn a_stream_that_nobody_answers_costs_a_few_probes_and_no_switch() {
    let mut world = World::new(path(1), &[(path(1), 20), (relayed(1), 40)]);
    world.run(ms(10_000), 1, 0);
    assert_eq!(world.moves, []);
    assert!(world.probes.len() < 200, "{}", world.probes.len());
}

// PROTOCOL SM-PA-5
#[test]
fn the_way_back_is_taken_when_it_has_answered_for_a_moment() {
    let mut world = World::new(path(1), &[(path(1), 20), (relayed(1), 40)]);
    world.cut(path(1));
    world.run(ms(1_000), 1, 0);
    assert_eq!(world.current(), relayed(1));
    world.alive.push((path(1), ms(20)));
    world.run(ms(3_000), 1, 1);
    assert_eq!(world.current(), path(1));
    assert_eq!(world.moves.len(), 2);
}

// PROTOCOL SM-PA-5
#[test]
fn ways_that_stand_by_are_probed_within_the_lifetime_of_translations() {
    let mut world = World::new(path(1), &[(path(1), 20), (relayed(1), 40)]);
    world.run(Duration::from_secs(120), 1, 1);
    let warm: Vec<Instant> = world
        .probes
        .iter()
        .filter(|(_, to)| to.is(relayed(1)))
        .map(|(at, _)| *at)
        .collect();
    for pair in warm.windows(2) {
        let pause = pair[1] - pair[0];
        assert!(pause <= Duration::from_secs(25), "{pause:?}");
    }
    assert!((5..=9).contains(&warm.len()), "{}", warm.len());
}

#[test]
fn an_idle_peers_broken_way_is_found_by_one_calm_probe() {
    let mut world = World::new(path(1), &[(path(1), 20), (relayed(1), 40)]);
    world.cut(path(1));
    world.paths.probe_calmly();
    world.run(ms(500), 0, 0);
    assert_eq!(world.current(), relayed(1));
}

// PROTOCOL SM-PA-5
#[test]
fn a_way_that_comes_and_goes_is_trusted_less_each_time() {
    let mut world = World::new(path(1), &[(path(1), 20), (relayed(1), 40)]);
    let mut returns = Vec::new();
    for _ in 0..4 {
        world.cut(path(1));
        world.run(ms(1_000), 1, 0);
        assert_eq!(world.current(), relayed(1));
        world.alive.push((path(1), ms(20)));
        let up = world.now;
        while world.current() != path(1) {
            world.run(ms(10), 1, 1);
            assert!(world.now - up < Duration::from_secs(30));
        }
        returns.push(world.now - up);
    }
    assert!(returns[3] > returns[0], "{returns:?}");
}

fn private(port: u16) -> Path {
    Path::to(([10, 9, 9, 2], port).into())
}

// PROTOCOL SM-PA-5
#[test]
fn a_private_address_far_away_does_not_get_the_traffic_of_a_fast_way_and_gives_it_back() {
    let ways = [(path(1), 1), (private(1), 300)];
    let mut world = World::new(path(1), &ways);
    world.run(Duration::from_secs(60), 1, 1);
    assert_eq!((world.current(), world.moves.len()), (path(1), 0));
    // It was the only one that answered for a while.
    world.cut(path(1));
    world.run(ms(5_000), 1, 0);
    assert_eq!(world.current(), private(1));
    world.alive.push((path(1), ms(1)));
    world.run(Duration::from_secs(60), 1, 1);
    assert_eq!(world.current(), path(1));
}

// PROTOCOL SM-PA-5
#[test]
fn who_was_met_at_a_private_address_far_away_is_looked_for_elsewhere() {
    let mut world = World::new(private(1), &[(private(1), 300)]);
    world.run(ms(20_000), 1, 1);
    assert!(world.news.contains(&News::SearchWanted));
    world.alive.push((path(1), ms(20)));
    world
        .paths
        .told(Candidates::default(), &[(path(1), Origin::Told)]);
    world.paths.begin_search(world.now);
    world.run(ms(3_000), 1, 1);
    assert_eq!(world.current(), path(1));
    // Nor does it matter how far, if it is known to be through a tunnel device.
    let mut world = World::new(private(1), &[(private(1), 1)]);
    world.alive[0].0.local_ip = Some([10, 9, 9, 1].into());
    world.paths.set_tunnels(&[[10, 9, 9, 1].into()]);
    world.paths.probe(private(1));
    world.run(ms(100), 1, 1);
    assert!(world.news.contains(&News::SearchWanted));
    // Who is near is not.
    let mut world = World::new(private(1), &[(private(1), 1)]);
    world.run(ms(20_000), 1, 1);
    assert!(!world.news.contains(&News::SearchWanted));
}

// PROTOCOL SM-PA-5
#[test]
fn a_way_that_ends_on_a_tunnel_device_is_used_only_where_nothing_else_is_straight() {
    let ours = Path {
        local_ip: Some([10, 9, 9, 1].into()),
        ..private(1)
    };
    // As fast as the straight one: another VPN that goes the same way.
    for seen in [true, false] {
        let mut world = World::new(path(1), &[(path(1), 20), (relayed(1), 30)]);
        if seen {
            world.paths.set_tunnels(&[[10, 9, 9, 1].into()]);
        }
        let told = Candidates {
            addresses: vec![CandidateAddress {
                address: private(1).remote,
                kind: if seen {
                    CandidateKind::Host
                } else {
                    CandidateKind::Tunnel
                },
            }],
            ..Candidates::default()
        };
        world.paths.told(told, &[(private(1), Origin::Told)]);
        world
            .alive
            .push((if seen { ours } else { private(1) }, ms(20)));
        world.paths.probe(private(1));
        world.run(ms(2_000), 1, 1);
        assert_eq!((world.current(), world.moves.len()), (path(1), 0));
        let tier = world.paths.find(private(1)).map(|known| known.tier);
        assert_eq!(tier, Some(Tier::Tunnelled));
        // Better than a relay all the same.
        world.cut(path(1));
        world.run(ms(3_000), 1, 0);
        assert!(world.current().is(private(1)), "{:?}", world.current());
    }
}

// PROTOCOL SM-PA-7
#[test]
fn a_search_that_finds_a_straight_way_takes_it_at_its_first_answer() {
    let mut world = World::new(relayed(1), &[(relayed(1), 40)]);
    world.alive.push((path(1), ms(20)));
    let told = [(path(1), Origin::Told), (path(2), Origin::Told)];
    world.paths.told(Candidates::default(), &told);
    let at = world.now;
    world.paths.begin_search(at);
    world.run(ms(2_000), 1, 1);
    let why = Why::Better(Some(ms(20)));
    assert_eq!(world.moves, [(at + ms(20), path(1), why)]);
    let over = News::SearchOver {
        first: true,
        found: true,
        sockets: false,
    };
    assert_eq!(world.news, [over]);
    // The way that nobody answers on gets the search's probes and no more.
    let vain = world.probes.iter().filter(|(_, to)| to.is(path(2)));
    assert!(vain.count() <= 6);
}

// PROTOCOL SM-PA-7
#[test]
fn a_search_in_vain_is_repeated_at_the_interval_of_retries() {
    let mut world = World::new(relayed(1), &[(relayed(1), 40)]);
    world.paths.begin_search(world.now);
    world.run(Duration::from_secs(66), 0, 0);
    assert!(world.news.contains(&News::SearchWanted));
    assert_eq!(world.current(), relayed(1));
}

#[test]
fn nothing_is_sent_from_an_address_that_the_host_has_lost() {
    let from = |way: Path, last| Path {
        local_ip: Some([198, 51, 100, last].into()),
        ..way
    };
    let mut paths = Paths::new(from(path(1), 1), PathTimers::default(), start());
    paths.activate(start());
    let gone = |ip: IpAddr| ip == IpAddr::from([198, 51, 100, 1]);
    paths.network_changed(|_| false, start());
    assert_eq!(paths.current().local_ip, from(path(1), 1).local_ip);
    while paths.poll_probe().is_some() {}
    paths.network_changed(gone, start());
    assert_eq!(paths.current().local_ip, None);
    let probed: Vec<Want> = std::iter::from_fn(|| paths.poll_probe()).collect();
    assert!(!probed.is_empty());
    assert!(probed.iter().all(|want| want.path.local_ip.is_none()));
}

// PROTOCOL SM-PA-8
#[test]
fn a_game_of_guesses_that_nothing_answered_is_not_played_again_for_a_minute() {
    let mut world = World::new(relayed(1), &[(relayed(1), 20)]);
    let play = |world: &mut World| {
        let side = BirthdaySide::Guesses(path(7).remote);
        let now = world.now;
        world.paths.begin_search(now);
        world.paths.play(side, 1, now);
        world.run(ms(6_000), 0, 0);
        let there = |(_, probed): &&(Instant, Path)| probed.remote.ip() == path(7).remote.ip();
        world.probes.iter().filter(there).count()
    };
    for _ in 0..9 {
        assert_eq!(play(&mut world), 1000);
    }
    world.run(ms(6_000), 0, 0);
    assert_eq!(play(&mut world), 2000);
    // Elsewhere others may be met.
    let now = world.now;
    world.paths.network_changed(|_| false, now);
    assert_eq!(play(&mut world), 3000);
}
