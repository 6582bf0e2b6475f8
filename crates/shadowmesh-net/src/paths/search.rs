//! One search for a better way: when both sides probe, and the birthday game with random translations.
//!
//! Both sides begin as soon as they have exchanged where they may be reached, so that the first
//! datagrams of each open its own translation for the other's. What is random is guessed at: the side
//! whose translation draws a new port for each destination opens many local ports towards the peer, and
//! the peer, whose address is stable, writes to random ports of its address until two meet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::candidate::Path;

/// When all candidates are probed, in milliseconds after the exchange. The first few meet whatever the
/// difference is between the two sides' starts; the later ones make up for loss.
// PROTOCOL SM-PA-7
const BURSTS_MS: [u64; 12] = [0, 20, 60, 120, 250, 500, 1000, 1500, 2000, 2750, 3500, 4250];
/// After the first answer a search goes on so long: a better way may be a little slower to answer.
const AFTER_PROOF: Duration = Duration::from_millis(300);

/// When the birthday game begins: ordinary probes were in vain by then.
const BIRTHDAY_AFTER: Duration = Duration::from_millis(400);
/// Limit: extra local ports. With 1000 guesses at 64512 ports one of 256 is met in 98 of 100 games.
// PROTOCOL SM-PA-8
const SOCKETS: u16 = 256;
/// Limit: ports of the peer's address that are guessed at in one search.
// PROTOCOL SM-PA-8
const GUESSES: u16 = 1000;
/// The pace: so many at a time, so often. 500 a second are 30 kB/s.
const PACE: Duration = Duration::from_millis(20);
const GUESSES_AT_A_TIME: u16 = 10;
const SOCKETS_AT_A_TIME: u16 = 16;
/// Ports that translations give (RFC 4787 §4.2.2 leaves out the well-known ones).
const PORT_MIN: u16 = 1024;

/// A search under way.
#[derive(Debug)]
pub(super) struct Search {
    /// Since the first probe.
    pub(super) began: Instant,
    /// The session's first one.
    pub(super) first: bool,
    /// It has to find what is better than nothing direct; a search of one that is direct already only
    /// looks for a better one and is not counted.
    pub(super) counted: bool,
    ends: Instant,
    bursts_from: Instant,
    burst: usize,
    birthday: Option<Birthday>,
}

#[derive(Debug)]
struct Birthday {
    side: BirthdaySide,
    token: u64,
    next_at: Instant,
    done: u16,
    rng: StdRng,
}

/// Who does what in the birthday game.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BirthdaySide {
    /// Our translation is random: many local ports write to this stable address.
    Sockets(SocketAddr),
    /// The peer's is: many ports of this address are written to.
    Guesses(SocketAddr),
}

impl Search {
    pub(super) fn new(now: Instant, connect: Duration, first: bool, counted: bool) -> Self {
        Self {
            began: now,
            first,
            counted,
            ends: now + connect,
            bursts_from: now,
            burst: 0,
            birthday: None,
        }
    }

    /// The peer begins at this moment too.
    pub(super) fn exchanged(&mut self, now: Instant, connect: Duration) {
        self.bursts_from = now;
        self.burst = 0;
        self.ends = now + connect;
    }

    /// Both sides agreed to guess.
    pub(super) fn play(&mut self, side: BirthdaySide, seed: u64, now: Instant) {
        let mut rng = StdRng::seed_from_u64(seed);
        self.birthday = Some(Birthday {
            side,
            token: rng.random(),
            next_at: now + BIRTHDAY_AFTER,
            done: 0,
            rng,
        });
    }

    /// Something answered.
    pub(super) fn found(&mut self, now: Instant) {
        self.ends = self.ends.min(now + AFTER_PROOF);
        self.birthday = None;
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.ends
    }

    pub(super) fn uses_sockets(&self) -> bool {
        let birthday = self.birthday.as_ref();
        birthday.is_some_and(|game| matches!(game.side, BirthdaySide::Sockets(_)))
    }

    /// Whether all candidates are to be probed now.
    pub(super) fn take_burst(&mut self, now: Instant) -> bool {
        let due = self.burst_at().is_some_and(|at| now >= at);
        while self.burst_at().is_some_and(|at| now >= at) {
            self.burst += 1;
        }
        due
    }

    fn burst_at(&self) -> Option<Instant> {
        let ms = *BURSTS_MS.get(self.burst)?;
        Some(self.bursts_from + Duration::from_millis(ms))
    }

    /// The next guesses that are due, each with the token of the game.
    pub(super) fn take_guesses(&mut self, now: Instant) -> (u64, Vec<Path>) {
        let Some(game) = self.birthday.as_mut().filter(|game| now >= game.next_at) else {
            return (0, Vec::new());
        };
        game.next_at = now + PACE;
        let paths = match game.side {
            BirthdaySide::Sockets(to) => {
                let from = game.done + 1;
                game.done = (game.done + SOCKETS_AT_A_TIME).min(SOCKETS);
                (from..=game.done)
                    .map(|socket| Path {
                        socket,
                        ..Path::to(to)
                    })
                    .collect()
            }
            BirthdaySide::Guesses(at) => {
                let count = GUESSES_AT_A_TIME.min(GUESSES - game.done);
                game.done += count;
                let mut port = || game.rng.random_range(PORT_MIN..=u16::MAX);
                (0..count)
                    .map(|_| Path::to(SocketAddr::new(at.ip(), port())))
                    .collect()
            }
        };
        (game.token, paths)
    }

    /// Whether a reply from there with that token answers a guess.
    pub(super) fn is_guess(&self, token: u64, path: Path) -> bool {
        self.birthday.as_ref().is_some_and(|game| {
            game.token == token
                && match game.side {
                    BirthdaySide::Sockets(to) => path.remote == to && path.socket != 0,
                    BirthdaySide::Guesses(at) => path.remote.ip() == at.ip(),
                }
        })
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        let guesses = self.birthday.as_ref().and_then(|game| {
            let all = match game.side {
                BirthdaySide::Sockets(_) => SOCKETS,
                BirthdaySide::Guesses(_) => GUESSES,
            };
            (game.done < all).then_some(game.next_at)
        });
        let next = [self.burst_at(), guesses];
        let next = next.into_iter().flatten().min().unwrap_or(self.ends);
        next.min(self.ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::{ms, start};
    use std::collections::BTreeSet;

    fn play(side: BirthdaySide) -> (Vec<Path>, Duration, u64) {
        let now = start();
        let mut search = Search::new(now, ms(5_000), true, true);
        search.play(side, 7, now);
        let (mut paths, mut at, mut game) = (Vec::new(), now, 0);
        while at < now + ms(5_000) {
            let (token, more) = search.take_guesses(at);
            if !more.is_empty() {
                game = token;
                paths.extend(more);
            }
            at += ms(1);
            if paths.len() == usize::from(GUESSES) {
                break;
            }
        }
        (paths, at - now, game)
    }

    // PROTOCOL SM-PA-7
    #[test]
    fn bursts_are_dense_at_first_begin_anew_with_the_exchange_and_end_with_the_search() {
        let now = start();
        let mut search = Search::new(now, ms(3_000), true, true);
        let count = |search: &mut Search, from: u64, to: u64| {
            (from..to)
                .filter(|at| search.take_burst(now + ms(*at)))
                .count()
        };
        assert_eq!(count(&mut search, 0, 100), 3);
        search.exchanged(now + ms(100), ms(3_000));
        assert_eq!(count(&mut search, 100, 200), 3);
        assert!(!search.is_over(now + ms(3_099)));
        assert!(search.is_over(now + ms(3_100)));
        search.found(now + ms(1_000));
        assert!(search.is_over(now + ms(1_300)));
    }

    // PROTOCOL SM-PA-8
    #[test]
    fn guesses_are_limited_paced_and_known_again_by_token_and_address() {
        let stable = ([198, 51, 100, 9], 40_000).into();
        let (paths, took, token) = play(BirthdaySide::Guesses(stable));
        assert_eq!(paths.len(), 1000);
        assert!(took >= ms(2_300) && took <= ms(2_500), "{took:?}");
        assert!(paths.iter().all(|path| path.remote.ip() == stable.ip()));
        let now = start();
        let mut search = Search::new(now, ms(5_000), true, true);
        search.play(BirthdaySide::Guesses(stable), 7, now);
        assert!(search.is_guess(token, paths[0]));
        assert!(!search.is_guess(token + 1, paths[0]));
        let elsewhere = Path::to(([198, 51, 100, 8], 40_000).into());
        assert!(!search.is_guess(token, elsewhere));
    }

    // PROTOCOL SM-PA-8
    #[test]
    fn each_extra_socket_writes_once_to_the_stable_address() {
        let stable = ([198, 51, 100, 9], 40_000).into();
        let (paths, _, _) = play(BirthdaySide::Sockets(stable));
        let sockets: BTreeSet<u16> = paths.iter().map(|path| path.socket).collect();
        assert_eq!(sockets, (1..=256).collect());
        assert_eq!(paths.len(), 256);
        assert!(paths.iter().all(|path| path.remote == stable));
    }
}
