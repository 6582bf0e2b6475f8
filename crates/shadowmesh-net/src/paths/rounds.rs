//! Searches for a better way: when they begin, what they probe, and how they end.

use std::time::{Duration, Instant};

use shadowmesh_wire::control::Candidates;

use super::search::{BirthdaySide, Search};
use super::{Candidate, News, Origin, Path, Paths, Tier, Want};
use crate::event::CandidateState;

/// Limit: searches that a peer may begin: so many at once, and one more in each interval.
// PROTOCOL SM-PA-6
const ROUNDS_BURST: u32 = 4;
const ROUNDS_INTERVAL: Duration = Duration::from_secs(5);
/// Limit: words of a relay, where it sees us, that others are looked at for: the first of a session and one
/// that corrects it, and one more in each interval. No translation changes more often for good.
// PROTOCOL SM-PA-6
const WORDS_BURST: u32 = 2;
const WORDS_INTERVAL: Duration = Duration::from_secs(1);
/// Relays are called together, so the second answers soon after the first: a handshake at 150 ms of round trip.
// PROTOCOL SM-PA-6
const WORD_WAIT: Duration = Duration::from_millis(300);
/// A game of guesses that nothing answered is followed by none for so long, whatever the peer says.
// PROTOCOL SM-PA-8
const GAME_INTERVAL: Duration = Duration::from_secs(60);

impl Paths {
    /// We told the peer of a search, or it told us: all that is known is probed, at the pace of the
    /// search.
    // PROTOCOL SM-PA-7
    pub(crate) fn begin_search(&mut self, now: Instant) {
        if !self.active {
            return;
        }
        let (first, counted) = (!self.searched, !self.tier().is_direct());
        let connect = self.timers.connect;
        match &mut self.search {
            Some(search) => search.exchanged(now, connect),
            None => self.search = Some(Search::new(now, connect, first, counted)),
        }
        self.search_at = None;
        self.searched = true;
        self.search_burst(now);
    }

    /// Puts a search off until another relay has said where it sees us, but not for long and only once;
    /// whether it is put off.
    // PROTOCOL SM-PA-6
    pub(crate) fn wait_for_word(&mut self, now: Instant) -> bool {
        let until = *self.word_until.get_or_insert(now + WORD_WAIT);
        if now < until {
            self.search_at = Some(until);
        }
        now < until
    }

    /// Whether the peer may begin one more search now.
    pub(crate) fn admit_round(&mut self, now: Instant) -> bool {
        self.rounds.take(ROUNDS_BURST, ROUNDS_INTERVAL, now)
    }

    /// Whether another word of where the peer sees us may begin searches now.
    pub(crate) fn admit_word(&mut self, now: Instant) -> bool {
        self.words.take(WORDS_BURST, WORDS_INTERVAL, now)
    }

    /// What the peer named in the present search, and whether to guess at ports.
    pub(crate) fn told(&mut self, theirs: Candidates, ways: &[(Path, Origin)]) {
        self.forget_told();
        for &(path, origin) in ways {
            self.add(path, origin);
        }
        self.theirs = Some(theirs);
        self.retier();
    }

    /// Both sides agreed to guess at ports.
    // PROTOCOL SM-PA-8
    pub(crate) fn play(&mut self, side: BirthdaySide, seed: u64, now: Instant) {
        let lately = |at: Instant| now < at + GAME_INTERVAL;
        if let Some(search) = &mut self.search
            && !self.played_at.is_some_and(lately)
            && !self
                .table
                .iter()
                .any(|c| c.is_proven() && c.tier.is_direct())
        {
            search.play(side, seed, now);
            self.played_at = Some(now);
        }
    }

    pub(super) fn search_burst(&mut self, now: Instant) {
        let Some(search) = &mut self.search else {
            return;
        };
        if search.take_burst(now) {
            // Where the way in use is slow for a straight one, any other may be faster.
            let worst = if self.is_far() {
                Tier::Tunnelled
            } else {
                self.tier()
            };
            // What the peer's translation may use next comes first, in order, so that ours uses as
            // predicted too; see `mapping`.
            let better = |candidate: &Candidate| {
                let proven = candidate.is_proven();
                !proven && candidate.tier <= worst && candidate.tier.is_direct()
            };
            let mut paths: Vec<(bool, usize, Path)> = self
                .table
                .iter()
                .enumerate()
                .filter(|(_, candidate)| better(candidate))
                .map(|(at, c)| (c.origin != Origin::Predicted, at, c.path))
                .collect();
            paths.sort_by_key(|&(unpredicted, at, _)| (unpredicted, at));
            for (_, _, path) in paths {
                self.want(path);
            }
        }
        let Some(search) = &mut self.search else {
            return;
        };
        let (token, guesses) = search.take_guesses(now);
        let token = Some(token);
        self.probes
            .extend(guesses.into_iter().map(|path| Want { path, token }));
        if search.is_over(now) {
            self.end_search(now);
        }
    }

    pub(super) fn end_search(&mut self, now: Instant) {
        let Some(search) = self.search.take() else {
            return;
        };
        let found = self.tier().is_direct();
        for candidate in &mut self.table {
            if candidate.state == CandidateState::Untried && candidate.probed_at.is_some() {
                candidate.state = CandidateState::Unanswered;
            }
        }
        if search.counted {
            self.news.push_back(News::SearchOver {
                first: search.first,
                found,
                sockets: search.uses_sockets(),
            });
        }
        if !found {
            self.search_at = Some(now + self.timers.retry);
        }
    }
}
