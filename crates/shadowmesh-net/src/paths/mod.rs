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
//! - A better way is looked for in a [`search`]: both sides probe all pairs at the same time. When one
//!   begins and ends is told in [`rounds`].
//!
//! Each direction has its own choice; frames are taken in from wherever they come, so nothing is lost
//! at a switch. Relays and streams are addresses too, see [`shadowmesh_wire::way`].

mod candidate;
mod choice;
mod mapping;
mod mtu;
mod rounds;
mod score;
mod search;
mod second;
mod table;
mod watch;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shadowmesh_wire::control::{Candidates, Mapping};
use shadowmesh_wire::sealed::OVERHEAD;
use shadowmesh_wire::way::Way;

use crate::bucket::Bucket;
use crate::config::PathTimers;
pub(crate) use candidate::{Candidate, Origin, Path};
pub(crate) use mapping::{Word, acceptable, agreed, aim, our_mapping};
pub(crate) use mtu::{MtuSearch, View};
pub(crate) use score::Tier;
pub(crate) use search::BirthdaySide;
pub(crate) use watch::Counts;

use choice::Check;
use search::Search;
use second::Second;
use watch::Watch;

/// An unknown way is probed at most this often, so a sender with many addresses gets little.
// PROTOCOL SM-PA-2
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(500);
/// A known way that the peer speaks over is probed at most this often for that reason.
const PROBE_SPACING: Duration = Duration::from_millis(100);
/// A straight way whose round trip is longer is not as near as it may look: others are looked for.
// PROTOCOL SM-PA-5
const FAR: Duration = Duration::from_millis(20);

/// The ways of one connection.
#[derive(Debug)]
pub(crate) struct Paths {
    current: Path,
    /// How long datagrams may be; from the moment that there is a session to send probes in.
    pub(crate) mtu: Option<MtuSearch>,
    /// Our own address as the peer sees it.
    pub(crate) observed: Option<SocketAddr>,
    /// The same from a relay's second port.
    pub(crate) second: Second,
    /// There is a session, and it is the one in use: the rest of this is at work.
    active: bool,
    timers: PathTimers,
    /// Limit: [`table::CANDIDATES_MAX`]. The current one is always in it.
    table: Vec<Candidate>,
    /// Addresses of ours on tunnel devices. Limit: the addresses that the host tells.
    tunnels: Vec<IpAddr>,
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
    /// Starts at `first`, where the peer was called or called from.
    pub(crate) fn new(first: Path, timers: PathTimers, now: Instant) -> Self {
        Self {
            current: first,
            mtu: None,
            observed: None,
            second: Second::default(),
            active: false,
            timers,
            table: vec![Candidate::new(first, Origin::Ours)],
            tunnels: Vec::new(),
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

    /// Sends from this local port, if ports mean something on this way. Only before anything was sent.
    pub(crate) fn send_from(&mut self, socket: u16) {
        let first = self.current;
        if Way::of(first.remote).is_udp() {
            self.current.socket = socket;
        }
        let current = self.current;
        if let Some(candidate) = self.find_mut(first) {
            candidate.path = current;
        }
    }

    /// The local port that is used.
    pub(crate) fn socket(&self) -> u16 {
        self.current.socket
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
        self.second.inherit(std::mem::take(&mut earlier.second));
        self.retier();
        self.probe_now(|candidate| candidate.is_proven());
    }

    /// What kind of way is in use.
    pub(crate) fn tier(&self) -> Tier {
        self.find(self.current)
            .map_or(Tier::of(self.current.remote), |candidate| candidate.tier)
    }

    /// The way in use is straight, and yet slow: its address looked nearer than it is.
    // PROTOCOL SM-PA-5
    fn is_far(&self) -> bool {
        self.current_candidate().is_some_and(|current| {
            current.tier.is_direct() && current.rtt.is_some_and(|rtt| rtt > FAR)
        })
    }

    fn current_candidate(&self) -> Option<&Candidate> {
        self.find(self.current)
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
        // It may be known only now through which device the way leads.
        self.retier();
        if path.is(self.current) {
            self.check = None;
            self.answer_by = None;
            self.watch.answered();
            // It seemed to be near, so nobody looked for anything better.
            let seemed_near = match self.tier() {
                Tier::Local => self.is_far(),
                tier => tier == Tier::Tunnelled,
            };
            if seemed_near && !self.searched {
                self.search_at.get_or_insert(now);
            }
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
