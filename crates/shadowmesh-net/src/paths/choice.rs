//! Which way is used: the look at the one in use when it is doubtful, and what an answer changes.

use std::time::{Duration, Instant};

use super::candidate::{self, Candidate, Path};
use super::{News, Origin, Paths, Why};

/// Between the first three probes of a look at the way in use: one lost probe is no broken way.
const CHECK_SPACING: Duration = Duration::from_millis(20);
/// Ways probed beside the one in use while that is looked at.
const ALTERNATES: usize = 2;
/// When none of these answers: so many of all.
const ALTERNATES_LATER: usize = 8;
/// The way in use has this much longer, and twice its time, while frames come.
const PATIENCE_IN_DOUBT: Duration = Duration::from_millis(100);
/// Requests over two ways within this time are a look at both.
const MISSED_WITHIN: Duration = Duration::from_millis(150);
/// Pauses when nothing answers, doubling.
const CHECK_PAUSE: Duration = Duration::from_millis(100);
const CHECK_PAUSE_MAX: Duration = Duration::from_millis(800);
/// After a direct way broke, another is looked for this soon.
const SEARCH_AFTER_BREAK: Duration = Duration::from_secs(1);
/// A way that was left because the peer seemed to have moved gets its place back when it answers
/// within this time.
const RETURN_WITHIN: Duration = Duration::from_secs(2);

/// A look at the way in use: is it alive, and if not, which other is?
#[derive(Debug)]
pub(super) struct Check {
    pub(super) began: Instant,
    rounds: u32,
    pub(super) next_at: Instant,
    /// From here on the way in use has had its time.
    pub(super) deadline: Instant,
}

impl Paths {
    /// `path` has just answered: is it to be used?
    pub(super) fn consider(&mut self, path: Path, first: bool, now: Instant) {
        let (Some(answered), Some(current)) = (self.find(path), self.current_candidate()) else {
            return;
        };
        if path.is(self.current) {
            return;
        }
        let (score, current_score) = (answered.score(), current.score());
        let origin = answered.origin;
        let may_be_chosen = answered.may_be_chosen(now);
        let current_answered = self
            .check
            .as_ref()
            .is_none_or(|check| current.answered_since(check.began));
        if score.tier.is_direct()
            && let Some(search) = &mut self.search
        {
            search.found(now);
            self.played_at = None;
        }
        if let Some((left, since)) = self.left
            && left.is(path)
            && now < since + RETURN_WITHIN
            && !current_score.is_clear_gain_over(&score)
        {
            // It was passed by, not left: the peer never moved.
            self.left = None;
            return self.go(path, Why::Better(None));
        }
        if score.is_clear_gain_over(&current_score) && may_be_chosen {
            let took = self.search.as_ref().map(|search| now - search.began);
            let relayed = !current_score.tier.is_direct() && score.tier.is_direct();
            return self.go(path, Why::Better(took.filter(|_| relayed)));
        }
        if first && origin == Origin::Heard && score.tier <= current_score.tier && !current_answered
        {
            let began = self.check.as_ref().map_or(now, |check| check.began);
            let old = self.current;
            self.go(path, Why::Moved);
            self.left = Some((old, began));
            self.want(old);
            return;
        }
        if score.is_clear_gain_over(&current_score) {
            // It broke a moment ago, so it is asked once more before it is trusted.
            let again = now + Duration::from_millis(500);
            if let Some(candidate) = self.find_mut(path) {
                candidate.probe_at = Some(again);
            }
        }
        self.judge(now);
    }

    fn go(&mut self, path: Path, why: Why) {
        let path = self.find(path).map_or(path, |candidate| candidate.path);
        let from = self.current;
        self.move_to(path);
        self.news.push_back(News::Move(from, path, why));
    }

    /// The way in use has had its time: the best that answered meanwhile takes over.
    // PROTOCOL SM-PA-5
    pub(super) fn judge(&mut self, now: Instant) {
        let Some(check) = &self.check else { return };
        if now < check.deadline {
            return;
        }
        let current = self.current;
        let Some(best) = self.successor(check.began) else {
            return;
        };
        let was_direct = self.tier().is_direct();
        if let Some(candidate) = self.find_mut(current) {
            candidate.broke(now);
        }
        self.go(best, Why::Broken);
        if was_direct && !self.tier().is_direct() {
            let soon = now + SEARCH_AFTER_BREAK;
            self.search_at = Some(self.search_at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// The best other way that answered at or after `since`.
    pub(super) fn successor(&self, since: Instant) -> Option<Path> {
        self.table
            .iter()
            .filter(|candidate| candidate.is_proven() && candidate.answered_since(since))
            .filter(|candidate| !candidate.path.is(self.current))
            .min_by_key(|candidate| candidate.score())
            .map(|candidate| candidate.path)
    }

    /// Begins to look whether the way in use is alive.
    pub(super) fn begin_check(&mut self, now: Instant) {
        self.answer_by = None;
        if self.check.is_some() || !self.active {
            return;
        }
        let mut patience = self
            .current_candidate()
            .map_or(candidate::RTT_UNKNOWN, Candidate::patience);
        // The peer asks over this way and over others at once: it misses us.
        let missed = self.asked_at.is_some_and(|at| now < at + MISSED_WITHIN);
        if !self.watch.is_silent() && !missed {
            // Frames still come: a queue may have grown since the round trip was measured.
            patience = 2 * patience + PATIENCE_IN_DOUBT;
        }
        self.check = Some(Check {
            began: now,
            rounds: 0,
            next_at: now,
            deadline: now + patience,
        });
        self.check_round(now);
    }

    /// Probes the way in use and the next best ones together.
    pub(super) fn check_round(&mut self, now: Instant) {
        let Some(check) = &mut self.check else { return };
        let (round, began) = (check.rounds, check.began);
        check.rounds += 1;
        check.next_at = match round {
            0 | 1 => now + CHECK_SPACING,
            2 => check.deadline.max(now + CHECK_SPACING),
            later => {
                let pause = CHECK_PAUSE.saturating_mul(1 << (later - 3).min(8));
                now + pause.min(CHECK_PAUSE_MAX)
            }
        };
        let silent_for = now.saturating_duration_since(began);
        if round > 4 && silent_for >= Duration::from_millis(900) {
            self.news.push_back(News::Silent);
        }
        let current = self.current;
        self.want(current);
        let proven_only = round < 3;
        let mut others: Vec<&Candidate> = self
            .table
            .iter()
            .filter(|candidate| !candidate.path.is(current) && !candidate.answered_since(began))
            .filter(|candidate| candidate.is_proven() || !proven_only)
            .collect();
        others.sort_by_key(|candidate| (!candidate.is_proven(), candidate.score()));
        let count = if proven_only {
            ALTERNATES
        } else {
            ALTERNATES_LATER
        };
        let others: Vec<Path> = others.iter().take(count).map(|other| other.path).collect();
        for path in others {
            self.want(path);
        }
    }
}
