//! How long a datagram may be on one path: packetization layer path MTU discovery (RFC 8899).
//!
//! Data is sent with DF and no ICMP of the underlay is listened to, because anybody can forge it.
//! What passes is found with sealed probes that are exactly as long as a full data frame: an answer
//! proves the length, in the direction that matters. The search begins at a length that every path
//! passes ([`BASE_V4`], [`BASE_V6`]) and asks first for the longest frame that our device can fill;
//! on most paths the one answer to that is all. Else a ladder of the MTUs that networks have in
//! practice, then the gap between what passes and what does not in seven parts, until it is a few
//! bytes. A length is given up after three probes in vain, so that loss is not taken for an MTU.
//!
//! While long frames flow, the length in use is confirmed twice a second. When three confirmations
//! in a row stay out although short probes are answered, the path has become a black hole: back to
//! the base at once (fragments carry what is longer), and search again. If short probes stay out
//! too, the path or the peer is gone, and that is for liveness to judge, not for us. That the host
//! itself refuses a length (its interface is smaller) needs no probe.
//!
//! A pure machine like all others: the caller sends what [`MtuSearch::poll_probe`] asks for.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shadowmesh_wire::envelope::ENVELOPE_OVERHEAD;
use shadowmesh_wire::way::Way;

/// IP and UDP headers of a datagram.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;
/// Passes every path: what every IPv4 host must take (RFC 791), though not every IPv4 link.
pub(crate) const BASE_V4: usize = 576 - HEADERS_V4;
/// Passes every path: the smallest MTU of an IPv6 link (RFC 8200 §5).
pub(crate) const BASE_V6: usize = 1280 - HEADERS_V6;
/// What the underlay puts around a datagram on this way, and what passes before anything is known. Over a
/// relay that is what passes both halves of the way.
// PROTOCOL SM-RL-3
fn headers_and_base(remote: SocketAddr) -> (usize, usize) {
    match Way::of(remote) {
        Way::Udp(SocketAddr::V4(_)) => (HEADERS_V4, BASE_V4),
        Way::Udp(SocketAddr::V6(_)) | Way::Stream(_) => (HEADERS_V6, BASE_V6),
        Way::Relayed { .. } => (HEADERS_V4 + ENVELOPE_OVERHEAD, BASE_V4 - ENVELOPE_OVERHEAD),
    }
}

/// MTUs that networks have: IPv6's least, tunnels of several kinds, PPPoE, Ethernet, jumbo frames.
const KNOWN: [usize; 8] = [1280, 1400, 1420, 1480, 1492, 1500, 4000, 9000];
/// Of these, the one that most networks have.
const ETHERNET: usize = 1500;
/// Lengths asked for at once when no known one is left.
const RUNGS: usize = 6;
/// The search ends when so few bytes are uncertain.
const GRAIN: usize = 4;
/// Probes of one length before it counts as too long (RFC 8899 §5.1.2, MAX_PROBES).
const TRIES_MAX: u32 = 3;
/// The shortest and the longest wait for an answer, and what a wait has beside two round trips: the
/// other side answers from its control thread, which may be busy.
const WAIT_MIN: Duration = Duration::from_millis(80);
const WAIT_MAX: Duration = Duration::from_secs(1);
const WAIT_SPARE: Duration = Duration::from_millis(60);
/// How often the length in use is confirmed while long frames flow. An inner TCP that lost a whole
/// window sends again after 0.2, 0.6 and 1.4 s, then only after 3 s: the verdict must come before 1.4.
const CONFIRM_INTERVAL: Duration = Duration::from_millis(500);
/// After this a path that took less than we could use is asked for more (RFC 8899 §5.1.1,
/// PMTU_RAISE_TIMER, is the longest); the first times sooner, because loss may have misled us.
const RAISE_MIN: Duration = Duration::from_secs(30);
const RAISE_MAX: Duration = Duration::from_secs(600);
/// Limit: probes whose answers are waited for. A round has at most 9 lengths of 3 tries.
const SENT_MAX: usize = 64;
/// Stands for a probe without padding.
pub(crate) const SHORT: usize = 0;

/// What the caller knows of the path when a timer is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// Last measured round trip.
    pub(crate) rtt: Duration,
    /// Frames longer than the base that the data plane has sent.
    pub(crate) long_frames: u64,
}

/// The search on one path.
#[derive(Debug, Clone)]
pub(crate) struct MtuSearch {
    headers: usize,
    base: usize,
    /// The longest datagram that is of use.
    target: usize,
    /// The longest that is known to pass.
    current: usize,
    /// A search has ended since the last doubt: `current` is worth telling others.
    settled: bool,
    search: Option<Search>,
    watch: Watch,
    raise_at: Option<Instant>,
    raise_wait: Duration,
    /// Long frames at the last look.
    long_frames: u64,
    /// Lengths to be probed now. Limit: one round.
    queue: VecDeque<usize>,
    /// Limit: [`SENT_MAX`].
    sent: VecDeque<Sent>,
    /// What [`take_news`](Self::take_news) has told.
    told: Option<(usize, bool)>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    token: u64,
    len: usize,
    at: Instant,
}

/// A search under way.
#[derive(Debug, Clone)]
struct Search {
    /// The shortest length that is taken for too long.
    high: usize,
    /// What is being asked for, ascending.
    rungs: Vec<Rung>,
    /// Only the longest was asked for; if it is not answered, the known ones follow.
    alone: bool,
    retry_at: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Rung {
    len: usize,
    tries: u32,
}

/// Whether what passed still passes.
#[derive(Debug, Clone, Copy)]
enum Watch {
    /// No long frames are sent.
    Idle,
    /// Confirmed not long ago.
    Sure { until: Instant },
    /// Asked, not answered yet.
    Asking {
        since: Instant,
        tries: u32,
        retry_at: Instant,
        /// A shorter probe was answered since.
        alive: bool,
    },
}

impl MtuSearch {
    /// Starts on a fresh path. `target` is the longest datagram that is of use.
    pub(crate) fn new(remote: SocketAddr, target: usize, rtt: Duration, now: Instant) -> Self {
        Self::from_base(headers_and_base(remote), target, rtt, now)
    }

    fn from_base(
        (headers, base): (usize, usize),
        target: usize,
        rtt: Duration,
        now: Instant,
    ) -> Self {
        let mut this = Self {
            headers,
            base,
            target: target.max(base),
            current: base,
            settled: false,
            search: None,
            watch: Watch::Idle,
            raise_at: None,
            raise_wait: RAISE_MIN,
            long_frames: 0,
            queue: VecDeque::new(),
            sent: VecDeque::new(),
            told: None,
        };
        this.begin(this.target + 1, true, rtt, now);
        this
    }

    /// Goes on where the search of an earlier session on the same path stood; its probes are void.
    pub(crate) fn carried_over(mut self, target: usize, rtt: Duration, now: Instant) -> Self {
        self.sent.clear();
        self.queue.clear();
        self.long_frames = 0;
        self.told = None;
        let high = self.search.take().map(|search| search.high);
        if target != self.target || !self.settled {
            return Self::from_base((self.headers, self.base), target, rtt, now);
        }
        self.ask(rtt, now);
        if high.is_some() {
            self.begin(self.target + 1, true, rtt, now);
        }
        self
    }

    /// The longest datagram to send.
    pub(crate) fn datagram_len_max(&self) -> usize {
        self.current
    }

    /// The same as an IP packet of the underlay.
    pub(crate) fn ip_len_max(&self) -> usize {
        self.current + self.headers
    }

    /// What passes before anything is known.
    pub(crate) fn base(remote: SocketAddr) -> usize {
        headers_and_base(remote).1
    }

    /// What passes where Ethernet is all there is on this way.
    pub(crate) fn of_ethernet(remote: SocketAddr) -> usize {
        ETHERNET - headers_and_base(remote).0
    }

    /// The longest datagram that is of use.
    pub(crate) fn target(&self) -> usize {
        self.target
    }

    /// Whether that is a result, and not only what is safe while a search goes on.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether the length, or whether it is settled, has changed since the last call.
    pub(crate) fn take_news(&mut self) -> bool {
        let now = Some((self.current, self.settled));
        std::mem::replace(&mut self.told, now) != now
    }

    /// The next probe to send: its length as a datagram, [`SHORT`] for one without padding.
    pub(crate) fn poll_probe(&mut self) -> Option<usize> {
        self.queue.pop_front()
    }

    /// That probe was sent.
    pub(crate) fn sent(&mut self, token: u64, len: usize, now: Instant) {
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            token,
            len,
            at: now,
        });
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let search = self.search.as_ref().map(|search| search.retry_at);
        let watch = match self.watch {
            Watch::Idle => None,
            Watch::Sure { until } => Some(until),
            Watch::Asking { retry_at, .. } => Some(retry_at),
        };
        [search, watch, self.raise_at].into_iter().flatten().min()
    }

    /// A probe reply came. Returns its round trip if the probe was one of ours.
    // PROTOCOL SM-MT-1
    pub(crate) fn handle_reply(&mut self, token: u64, now: Instant) -> Option<Duration> {
        let at = self.sent.iter().position(|sent| sent.token == token)?;
        let sent = self.sent.remove(at)?;
        let rtt = now.saturating_duration_since(sent.at);
        if let Watch::Asking { since, alive, .. } = &mut self.watch {
            if sent.len >= self.current {
                self.watch = Watch::Sure {
                    until: now + CONFIRM_INTERVAL,
                };
            } else if sent.at >= *since {
                *alive = true;
            }
        }
        if sent.len > self.current {
            self.passed(sent.len, rtt, now);
        }
        Some(rtt)
    }

    /// Time passed.
    pub(crate) fn handle_timeout(&mut self, view: View, now: Instant) {
        if self.raise_at.is_some_and(|at| at <= now) {
            self.raise_at = None;
            self.begin(self.target + 1, true, view.rtt, now);
        }
        if self.search.as_ref().is_some_and(|s| s.retry_at <= now) {
            self.search_again(view.rtt, now);
        }
        self.look(view, now);
    }

    /// To be called once in a while: starts the confirmations when long frames flow.
    pub(crate) fn look(&mut self, view: View, now: Instant) {
        match self.watch {
            Watch::Sure { until } if until > now => return,
            Watch::Asking { retry_at, .. } if retry_at > now => return,
            Watch::Asking { .. } => return self.ask_again(view.rtt, now),
            Watch::Idle | Watch::Sure { .. } => {}
        }
        let flowing = view.long_frames != self.long_frames && self.current > self.base;
        self.long_frames = view.long_frames;
        if flowing {
            self.ask(view.rtt, now);
        } else {
            self.watch = Watch::Idle;
        }
    }

    /// The host refused to send a datagram of this length.
    // PROTOCOL SM-MT-2
    pub(crate) fn handle_refused(&mut self, len: usize, rtt: Duration, now: Instant) {
        if len <= self.base {
            return;
        }
        if self.current >= len {
            return self.fall(len, rtt, now);
        }
        let Some(search) = &mut self.search else {
            return;
        };
        if len < search.high {
            search.high = len;
            search.rungs.retain(|rung| rung.len < len);
            self.queue.retain(|queued| *queued < len);
            if std::mem::take(&mut search.alone) {
                self.climb(self.known(len));
            }
            if self.search.as_ref().is_some_and(|s| s.rungs.is_empty()) {
                self.next_round(rtt, now);
            }
        }
    }

    /// A length is proven.
    fn passed(&mut self, len: usize, rtt: Duration, now: Instant) {
        self.current = len;
        let Some(search) = &mut self.search else {
            // A very late answer to a search that had given this length up.
            return self.begin(self.target + 1, true, rtt, now);
        };
        if len >= search.high {
            search.high = self.target + 1;
        }
        search.rungs.retain(|rung| rung.len > len);
        self.queue
            .retain(|queued| *queued > len || *queued == SHORT);
        if search.rungs.is_empty() || len == self.target {
            self.next_round(rtt, now);
        }
    }

    /// Starts a search between what passes and `high`.
    fn begin(&mut self, high: usize, alone: bool, rtt: Duration, now: Instant) {
        if high - self.current <= 1 {
            return self.finish(now);
        }
        self.search = Some(Search {
            high,
            rungs: Vec::new(),
            alone,
            retry_at: now + wait(rtt),
        });
        self.climb(vec![high - 1]);
        if !alone {
            self.climb(self.known(high));
        }
    }

    /// The known lengths that a search up to `high` has not decided.
    fn known(&self, high: usize) -> Vec<usize> {
        let lengths = KNOWN.iter().map(|mtu| mtu - self.headers);
        lengths
            .filter(|len| (self.current + 1..high).contains(len))
            .collect()
    }

    /// Asks for these lengths.
    fn climb(&mut self, lengths: Vec<usize>) {
        let Some(search) = &mut self.search else {
            return;
        };
        for len in lengths {
            if search.rungs.iter().any(|rung| rung.len == len) {
                continue;
            }
            search.rungs.push(Rung { len, tries: 1 });
            self.queue.push_back(len);
        }
        search.rungs.sort_unstable_by_key(|rung| rung.len);
    }

    /// Answers are missing: ask again, or give the lengths up.
    fn search_again(&mut self, rtt: Duration, now: Instant) {
        let Some(search) = &mut self.search else {
            return;
        };
        search.retry_at = now + wait(rtt);
        let mut asked = false;
        for rung in search.rungs.iter_mut().filter(|r| r.tries < TRIES_MAX) {
            rung.tries += 1;
            self.queue.push_back(rung.len);
            asked = true;
        }
        if std::mem::take(&mut search.alone) {
            let high = search.high;
            return self.climb(self.known(high));
        }
        // The last try of each had its time when nothing was left to ask.
        if !asked {
            let shortest = search.rungs.first().map_or(search.high, |rung| rung.len);
            search.high = search.high.min(shortest);
            self.next_round(rtt, now);
        }
    }

    fn next_round(&mut self, rtt: Duration, now: Instant) {
        let Some(search) = &mut self.search else {
            return;
        };
        let gap = search.high.saturating_sub(self.current);
        if gap <= GRAIN || self.current >= self.target {
            return self.finish(now);
        }
        let step = (gap / (RUNGS + 1)).max(1);
        let lengths = (1..=RUNGS).map(|n| self.current + n * step);
        let lengths = lengths.filter(|len| *len < search.high).collect();
        search.rungs.clear();
        search.alone = false;
        search.retry_at = now + wait(rtt);
        self.climb(lengths);
    }

    fn finish(&mut self, now: Instant) {
        self.search = None;
        self.queue.retain(|queued| *queued == SHORT);
        self.settled = true;
        self.raise_at = None;
        if self.current < self.target {
            self.raise_at = Some(now + self.raise_wait);
            self.raise_wait = (2 * self.raise_wait).min(RAISE_MAX);
        }
    }

    fn ask(&mut self, rtt: Duration, now: Instant) {
        self.watch = Watch::Asking {
            since: now,
            tries: 1,
            retry_at: now + wait(rtt),
            alive: false,
        };
        self.queue.push_back(self.current);
    }

    /// A confirmation stays out.
    // PROTOCOL SM-MT-2
    fn ask_again(&mut self, rtt: Duration, now: Instant) {
        let Watch::Asking {
            tries,
            retry_at,
            alive,
            ..
        } = &mut self.watch
        else {
            return;
        };
        if *tries >= TRIES_MAX && *alive {
            return self.fall(self.current + 1, rtt, now);
        }
        *tries += 1;
        // Beyond that the peer may be gone: ask ever more slowly until liveness has decided.
        let beyond = tries.saturating_sub(TRIES_MAX).min(4);
        *retry_at = now + wait(rtt).saturating_mul(1 << beyond).min(WAIT_MAX);
        self.queue.push_back(self.current);
        self.queue.push_back(SHORT);
    }

    /// What was in use vanishes: back to what is safe, and search below `high`. After a black hole
    /// the length that was in use is asked for again, because the verdict may have been loss.
    fn fall(&mut self, high: usize, rtt: Duration, now: Instant) {
        self.current = self.base;
        self.settled = false;
        self.watch = Watch::Idle;
        self.raise_at = None;
        self.queue.clear();
        self.begin(high.min(self.target + 1), false, rtt, now);
    }
}

/// How long to wait for the answer to a probe.
fn wait(rtt: Duration) -> Duration {
    (2 * rtt + WAIT_SPARE).clamp(WAIT_MIN, WAIT_MAX)
}
