//! The ways to a peer: which there are, which one is used, and when that changes.
//!
//! QUIC and the sealed frames of one peer take the same way, and only this module knows which. At
//! first that is where the peer was found; until the handshake is complete, all its known addresses
//! are tried at once. From then on there is a table of *candidates*: what the configuration, the host,
//! relays and the peer itself name, and where authentic probes came from. The policy is one sentence:
//! *probes promote, unanswered data demotes.*
//!
//! - A way is **proven** when a probe of ours, with a random token, is answered from it. Nothing else
//!   moves anything; so somebody who passes frames on from elsewhere gets a small probe or two, and the
//!   way he took the traffic from is probed at the same moment and gets it back.
//! - Of the proven ways the one with the best `Score` is used; a switch needs a clear gain.
//! - When frames were sent and nothing came back ([`watch`]), or the peer speaks to us over another way,
//!   the way in use and the next best ones are probed together. If another answers and the one in
//!   use does not within its time, traffic moves. Other proven ways are probed now and then, so that
//!   they are warm when they are needed.
//! - A better way is looked for in a [`search`]: both sides probe all pairs at the same time.
//!
//! Each direction has its own choice; frames are taken in from wherever they come, so nothing is lost
//! at a switch. Relays and streams are addresses too, see [`shadowmesh_wire::way`].

mod candidate;
mod choice;
mod mapping;
mod mtu;
mod score;
mod search;
mod watch;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shadowmesh_wire::control::{Candidates, Mapping};
use shadowmesh_wire::sealed::OVERHEAD;

use crate::bucket::Bucket;
use crate::config::PathTimers;
use crate::event::CandidateState;
pub(crate) use candidate::{Candidate, Origin, Path};
pub(crate) use mapping::{acceptable, agreed, our_mapping};
pub(crate) use mtu::{MtuSearch, View};
pub(crate) use score::Tier;
pub(crate) use search::BirthdaySide;
pub(crate) use watch::Counts;

use choice::Check;
use search::Search;
use watch::Watch;

/// Limit: ways to one peer that are remembered: all it may name, and our own.
const CANDIDATES_MAX: usize = 48;
/// An unknown way is probed at most this often, so a sender with many addresses gets little.
// PROTOCOL SM-PA-2
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);
/// A known way that the peer speaks over is probed at most this often for that reason.
const PROBE_SPACING: Duration = Duration::from_millis(100);
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

/// The ways of one connection.
#[derive(Debug)]
pub(crate) struct Paths {
    current: Path,
    /// Further addresses that get every datagram until one is proven. Limit: set by the caller.
    tried: Vec<Path>,
    /// How long datagrams may be; from the moment that there is a session to send probes in.
    pub(crate) mtu: Option<MtuSearch>,
    /// Our own address as the peer sees it.
    pub(crate) observed: Option<SocketAddr>,
    /// There is a session, and it is the one in use: the rest of this is at work.
    active: bool,
    timers: PathTimers,
    /// Limit: [`CANDIDATES_MAX`]. The current one is always in it.
    table: Vec<Candidate>,
    watch: Watch,
    check: Option<Check>,
    /// A calm probe of the way in use must be answered by then.
    answer_by: Option<Instant>,
    challenged_at: Option<Instant>,
    /// When the peer last probed the way in use.
    asked_at: Option<Instant>,
    /// What was left for a peer that seemed to have moved, and since when it is asked.
    left: Option<(Path, Instant)>,
    search: Option<Search>,
    search_at: Option<Instant>,
    searched: bool,
    /// How we are translated, as the peer was told last: what it plays by.
    pub(crate) said: Mapping,
    /// Until when the first search waited, or waits, for the word of another relay.
    word_until: Option<Instant>,
    /// When guessing began last, unless it led to something.
    played_at: Option<Instant>,
    /// Highest round of a search said or heard.
    pub(crate) round: u32,
    rounds: Bucket,
    words: Bucket,
    /// What the peer said last.
    pub(crate) theirs: Option<Candidates>,
    probes: VecDeque<Want>,
    news: VecDeque<News>,
}

/// A probe to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Want {
    pub(crate) path: Path,
    /// The token of a birthday game; else a fresh one.
    pub(crate) token: Option<u64>,
}

/// What the parent must do or know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// Traffic left the first of these ways and takes the second.
    Move(Path, Path, Why),
    /// It is time to look for a better way.
    SearchWanted,
    /// A search that counts is over.
    SearchOver {
        first: bool,
        found: bool,
        sockets: bool,
    },
    /// The way in use has been silent for about a second, and so are all others.
    Silent,
}

/// Why a way is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The other is better; the time is what a search for it took, if it led from a relay to it.
    Better(Option<Duration>),
    /// It answers no longer.
    Broken,
    /// The peer speaks from elsewhere.
    Moved,
}

impl Paths {
    /// Starts at `first` and tries `others` beside it.
    pub(crate) fn new(
        first: Path,
        others: &[SocketAddr],
        timers: PathTimers,
        now: Instant,
    ) -> Self {
        Self {
            current: first,
            tried: others.iter().map(|&remote| Path::to(remote)).collect(),
            mtu: None,
            observed: None,
            active: false,
            timers,
            table: vec![Candidate::new(first, Origin::Ours)],
            watch: Watch::default(),
            check: None,
            answer_by: None,
            challenged_at: None,
            asked_at: None,
            left: None,
            search: None,
            search_at: None,
            searched: false,
            said: Mapping::Unknown,
            word_until: None,
            played_at: None,
            round: 0,
            rounds: Bucket::full(now),
            words: Bucket::full(now),
            theirs: None,
            probes: VecDeque::new(),
            news: VecDeque::new(),
        }
    }

    pub(crate) fn current(&self) -> Path {
        self.current
    }

    /// Where a datagram goes now: one way, or all that are tried.
    pub(crate) fn targets(&self) -> impl Iterator<Item = Path> + '_ {
        std::iter::once(self.current).chain(self.tried.iter().copied())
    }

    /// The peer is authenticated at `path`: the others are not needed. Returns it if it is another
    /// than the current one.
    // PROTOCOL SM-PA-1
    pub(crate) fn proven(&mut self, path: Path) -> Option<Path> {
        if self.tried.is_empty() {
            return None;
        }
        self.tried.clear();
        (path.remote != self.current.remote).then_some(path)
    }

    /// Tries another address too. Only while they are tried.
    pub(crate) fn also_try(&mut self, path: Path) {
        if self.targets().all(|known| known.remote != path.remote) {
            self.tried.push(path);
        }
    }

    /// An address that was tried leads nowhere. What to use in the place of the current one if that was
    /// it; `Err`: there is nothing else.
    pub(crate) fn give_up(&mut self, remote: SocketAddr) -> Result<Option<Path>, ()> {
        self.tried.retain(|path| path.remote != remote);
        if self.current.remote != remote {
            return Ok(None);
        }
        if self.tried.is_empty() {
            return Err(());
        }
        Ok(Some(self.tried.remove(0)))
    }

    /// The largest inner packet that fits one frame now, and, once that is settled and less than the
    /// device takes, what inner senders are to be told.
    pub(crate) fn inner_len(&self, device_mtu: u16) -> (usize, Option<usize>) {
        let base = MtuSearch::base(self.current.remote);
        let datagram = self.mtu.as_ref().map_or(base, MtuSearch::datagram_len_max);
        let inner = datagram - OVERHEAD;
        let settled = self.mtu.as_ref().is_some_and(MtuSearch::is_settled);
        (
            inner,
            (settled && inner < usize::from(device_mtu)).then_some(inner),
        )
    }

    /// The largest IP packet known to pass, once that is settled.
    pub(crate) fn path_mtu(&self) -> Option<usize> {
        let search = self.mtu.as_ref().filter(|search| search.is_settled())?;
        Some(search.ip_len_max())
    }

    /// Traffic takes this way from now on. What is known of the length of datagrams there is kept with
    /// each way.
    pub(crate) fn move_to(&mut self, path: Path) {
        let mtu = self.mtu.take();
        if let Some(left) = self.find_mut(self.current) {
            left.mtu = mtu;
        }
        self.current = path;
        match self.find_mut(path) {
            Some(candidate) => self.mtu = candidate.mtu.take(),
            None => self.insert(Candidate::new(path, Origin::Ours)),
        }
        self.check = None;
        self.answer_by = None;
        self.watch.answered();
    }

    /// The session came into use: the handshake has proven its way.
    pub(crate) fn activate(&mut self, now: Instant) {
        self.active = true;
        self.watch.begin(now);
        let current = self.current;
        if let Some(candidate) = self.find_mut(current) {
            candidate.proven(now);
        }
        if !self.tier().is_direct() {
            self.search_at = Some(now + self.timers.retry);
        }
    }

    /// Another session took the place of this one.
    pub(crate) fn rest(&mut self) {
        self.active = false;
        self.probes.clear();
        self.news.clear();
    }

    /// Takes over what an earlier connection with the peer knows.
    pub(crate) fn inherit(&mut self, earlier: &mut Self) {
        for candidate in earlier.table.drain(..) {
            if self.find(candidate.path).is_none() {
                self.insert(candidate);
            }
        }
        earlier
            .table
            .push(Candidate::new(earlier.current, Origin::Ours));
        self.search = self.search.take().or(earlier.search.take());
        self.searched |= earlier.searched;
        self.played_at = self.played_at.or(earlier.played_at);
        self.said = earlier.said;
        self.word_until = self.word_until.or(earlier.word_until);
        self.round = self.round.max(earlier.round);
        self.rounds = earlier.rounds;
        self.words = earlier.words;
        self.theirs = self.theirs.take().or(earlier.theirs.take());
        self.observed = self.observed.or(earlier.observed);
        self.probe_now(|candidate| candidate.is_proven());
    }

    /// Every way known.
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.table
    }

    /// Whether a way leads there.
    pub(crate) fn knows(&self, remote: SocketAddr) -> bool {
        self.table.iter().any(|known| known.path.remote == remote)
    }

    /// Whether a way leads there that was proven and answers.
    pub(crate) fn has_proven(&self, remote: SocketAddr) -> bool {
        let mut all = self.table.iter();
        all.any(|known| known.path.remote == remote && known.is_proven())
    }

    /// Whether any way answers, as far as is known.
    pub(crate) fn has_any_proven(&self) -> bool {
        self.table.iter().any(Candidate::is_proven)
    }

    /// What kind of way is in use.
    pub(crate) fn tier(&self) -> Tier {
        self.find(self.current)
            .map_or(Tier::of(self.current.remote), |candidate| candidate.tier)
    }

    fn current_candidate(&self) -> Option<&Candidate> {
        self.find(self.current)
    }

    fn find(&self, path: Path) -> Option<&Candidate> {
        self.table.iter().find(|candidate| candidate.path.is(path))
    }

    fn find_mut(&mut self, path: Path) -> Option<&mut Candidate> {
        self.table
            .iter_mut()
            .find(|candidate| candidate.path.is(path))
    }

    /// What only others know of a way: whether it leads over a relay that we reach by a stream.
    pub(crate) fn set_tiers(&mut self, tier: impl Fn(SocketAddr) -> Tier) {
        for candidate in &mut self.table {
            if !candidate.is_direct_udp() {
                candidate.tier = tier(candidate.path.remote);
            }
        }
    }

    /// Takes in a way. True: it is new.
    pub(crate) fn add(&mut self, path: Path, origin: Origin) -> bool {
        if let Some(known) = self.find_mut(path) {
            known.origin = known.origin.min(origin);
            return false;
        }
        self.insert(Candidate::new(path, origin));
        true
    }

    /// What is least worth makes room, never the way in use.
    fn insert(&mut self, candidate: Candidate) {
        if self.table.len() >= CANDIDATES_MAX {
            let current = self.current;
            let others = self.table.iter().enumerate();
            let least = others
                .filter(|(_, known)| !known.path.is(current))
                .max_by_key(|(_, known)| known.dispensable())
                .map(|(at, _)| at);
            if let Some(at) = least {
                self.table.remove(at);
            }
        }
        self.table.push(candidate);
    }

    /// A way leads nowhere any more: a stream that ended, a relay that was lost.
    pub(crate) fn lost(&mut self, remote: SocketAddr, now: Instant) {
        for candidate in &mut self.table {
            if candidate.path.remote == remote {
                candidate.broke(now);
            }
        }
        if self.current.remote == remote {
            self.begin_check(now);
            if let Some(check) = &mut self.check {
                check.deadline = now;
            }
        }
    }

    /// Forgets ways that only the peer named and that it names no longer.
    fn forget_told(&mut self) {
        let current = self.current;
        self.table.retain(|candidate| {
            candidate.path.is(current)
                || candidate.heard_at.is_some()
                || candidate.origin <= Origin::Heard
        });
    }

    fn want(&mut self, path: Path) {
        let want = Want { path, token: None };
        if self.active && !self.probes.contains(&want) {
            self.probes.push_back(want);
        }
    }

    fn probe_now(&mut self, which: impl Fn(&Candidate) -> bool) {
        let chosen: Vec<Path> = self
            .table
            .iter()
            .filter(|candidate| which(candidate))
            .map(|candidate| candidate.path)
            .collect();
        for path in chosen {
            self.want(path);
        }
    }

    /// Probes a way at the next opportunity.
    pub(crate) fn probe(&mut self, path: Path) {
        self.want(path);
    }

    /// The next probe to send; [`Self::sent`] follows for those with a token of their own.
    pub(crate) fn poll_probe(&mut self) -> Option<Want> {
        self.probes.pop_front()
    }

    /// A probe with this token leaves for `path`.
    pub(crate) fn sent(&mut self, path: Path, token: u64, now: Instant) {
        let (warm, retry) = (self.warm(token), self.timers.retry);
        let is_current = path.is(self.current);
        let Some(candidate) = self.find_mut(path) else {
            return;
        };
        candidate.sent(token, now);
        if !is_current {
            candidate.probe_at = candidate.next_probe(now, warm, retry);
        }
        if is_current && self.check.is_none() && self.answer_by.is_none() {
            let patience = self.current_candidate().map(Candidate::patience);
            self.answer_by = patience.map(|patience| now + patience);
        }
    }

    /// How often a way that stands by is probed: within the lifetime of translations (RFC 4787 REQ-5
    /// has two minutes, routers as little as 30 s), and not all at the same time.
    fn warm(&self, token: u64) -> Duration {
        let longest = (self.timers.health * 2 / 3).min(Duration::from_secs(25));
        longest - longest / 1024 * (token % 256) as u32
    }

    /// How often a calm way in use is probed.
    pub(crate) fn keep_alive(&self) -> Duration {
        (self.timers.health / 3).min(Duration::from_secs(10))
    }

    /// An authentic probe request came over `path`.
    // PROTOCOL SM-PA-2
    pub(crate) fn heard_request(&mut self, path: Path, now: Instant) {
        if path.is(self.current) {
            self.asked_at = Some(now);
            return;
        }
        if !self.active {
            return;
        }
        match self.find(path) {
            None => {
                let allowed = self
                    .challenged_at
                    .is_none_or(|at| now >= at + CHALLENGE_INTERVAL);
                if !allowed {
                    return;
                }
                self.challenged_at = Some(now);
                self.insert(Candidate::new(path, Origin::Heard));
                self.want(path);
            }
            Some(known) => {
                let just_now = |at: Option<Instant>| at.is_some_and(|at| now < at + PROBE_SPACING);
                if !just_now(known.probed_at) && !just_now(known.heard_at) {
                    self.want(path);
                }
            }
        }
        // The peer speaks over another way than ours: perhaps because ours is broken.
        let current = self.current_candidate();
        let fresh = current.is_some_and(|candidate| {
            let patience = candidate.patience();
            candidate.heard_at.is_some_and(|at| now < at + patience)
        });
        if !fresh {
            self.begin_check(now);
        }
    }

    /// A probe was answered from `path`. True: it was one of ours to there, so `path` is proven.
    // PROTOCOL SM-PA-2
    pub(crate) fn handle_reply(&mut self, token: u64, path: Path, now: Instant) -> bool {
        if let Some(search) = &mut self.search
            && search.is_guess(token, path)
            && self.find(path).is_none()
        {
            // The round trip is not known; the probe that follows measures it.
            self.insert(Candidate::new(path, Origin::Heard));
            self.want(path);
            return false;
        }
        let (warm, is_current) = (self.warm(token), path.is(self.current));
        let Some(candidate) = self.find_mut(path) else {
            return false;
        };
        let first = candidate.heard_at.is_none();
        if candidate.answered(token, now).is_none() {
            return false;
        }
        candidate.probe_at = (!is_current).then_some(now + warm);
        candidate.path.local_ip = path.local_ip.or(candidate.path.local_ip);
        if path.is(self.current) {
            self.check = None;
            self.answer_by = None;
            self.watch.answered();
        }
        self.consider(path, first, now);
        true
    }

    /// Nothing was heard for a while, for a reason that need not be one: one probe of the way in use,
    /// and the whole look only if that is not answered.
    pub(crate) fn probe_calmly(&mut self) {
        if self.check.is_none() {
            let current = self.current;
            self.want(current);
        }
    }

    /// The host's network changed: everything that was proven may be wrong, and what was in vain may
    /// work now. `is_gone`: an address of ours is ours no longer, so nothing more is sent from it.
    pub(crate) fn network_changed(&mut self, is_gone: impl Fn(IpAddr) -> bool, now: Instant) {
        let ways = self.table.iter_mut().map(|candidate| &mut candidate.path);
        for way in ways.chain([&mut self.current]) {
            way.local_ip = way.local_ip.filter(|ip| !is_gone(*ip));
        }
        self.check = None;
        self.played_at = None;
        self.begin_check(now);
        self.probe_now(|candidate| candidate.heard_at.is_some());
        self.search_at = Some(now);
    }

    /// To be called now and then: traffic may have begun.
    pub(crate) fn watch(&mut self, counts: Counts, now: Instant) {
        if self.watch.poll_timeout().is_none() {
            self.look(counts, now);
        }
    }

    /// Whether extra local ports are in use for a search.
    pub(crate) fn uses_sockets(&self) -> bool {
        self.search.as_ref().is_some_and(Search::uses_sockets)
    }

    /// Looks at the counters of the data plane.
    fn look(&mut self, counts: Counts, now: Instant) {
        let rtt = self
            .current_candidate()
            .map_or(candidate::RTT_UNKNOWN, Candidate::rtt_or_guess);
        if self.watch.look(counts, rtt, now) {
            self.begin_check(now);
        }
    }

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

    fn search_burst(&mut self, now: Instant) {
        let Some(search) = &mut self.search else {
            return;
        };
        if search.take_burst(now) {
            let current = self.tier();
            // What the peer's translation may use next comes first, in order, so that ours uses as
            // predicted too; see `mapping`.
            let better = |candidate: &Candidate| {
                let proven = candidate.is_proven();
                !proven && candidate.tier <= current && candidate.tier.is_direct()
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

    fn end_search(&mut self, now: Instant) {
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

    /// Time passed; `counts` are those of the data plane.
    pub(crate) fn handle_timeout(&mut self, counts: Counts, now: Instant) {
        if !self.active {
            return;
        }
        if self.watch.poll_timeout().is_some_and(|at| now >= at) {
            self.look(counts, now);
        }
        if self.answer_by.is_some_and(|at| now >= at) {
            self.begin_check(now);
        }
        if self
            .check
            .as_ref()
            .is_some_and(|check| now >= check.next_at)
        {
            self.check_round(now);
        }
        self.judge(now);
        let due = |candidate: &Candidate| candidate.probe_at.is_some_and(|at| now >= at);
        self.probe_now(due);
        for candidate in &mut self.table {
            candidate.take_overdue(now);
            if candidate.probe_at.is_some_and(|at| now >= at) {
                candidate.probe_at = None;
            }
        }
        self.search_burst(now);
        if self.search_at.is_some_and(|at| now >= at) {
            self.search_at = None;
            self.news.push_back(News::SearchWanted);
        }
    }

    pub(crate) fn poll_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// When to call [`Self::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if !self.active {
            return None;
        }
        let deadline = self.check.as_ref().map(|check| {
            if self.successor(check.began).is_some() {
                check.next_at.min(check.deadline)
            } else {
                check.next_at
            }
        });
        [
            self.watch.poll_timeout(),
            self.answer_by,
            deadline,
            self.search.as_ref().map(Search::poll_timeout),
            self.search_at,
        ]
        .into_iter()
        .chain(self.table.iter().map(|candidate| candidate.probe_at))
        .flatten()
        .min()
    }
}

#[cfg(test)]
mod tests;
