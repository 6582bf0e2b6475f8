//! One way to a peer, and what is known of it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shadowmesh_wire::way::Way;

use super::MtuSearch;
use super::score::{Score, Tier};
use crate::event::CandidateState;

/// Assumed round trip where none was measured.
pub(super) const RTT_UNKNOWN: Duration = Duration::from_millis(100);
/// Limit: probes under way on one way; the oldest is then taken for lost.
const PROBES_MAX: usize = 16;
/// How long a way that broke must wait until it may be chosen for its score again, doubling with each
/// break up to [`HOLD_MAX`]. While the present way fails it may be chosen at once.
const HOLD: Duration = Duration::from_millis(500);
const HOLD_MAX: Duration = Duration::from_secs(16);
/// After so long without a break the next one counts as the first.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// First pause between probes to a way that broke; doubles up to the interval of retries.
const BROKEN_PROBE: Duration = Duration::from_millis(500);

/// One way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) remote: SocketAddr,
    /// The local address it used, where we were told.
    pub(crate) local_ip: Option<IpAddr>,
    /// The local port it uses: 0 is where we listen.
    pub(crate) socket: u16,
}

impl Path {
    /// To an address, from wherever the operating system thinks right.
    pub(crate) fn to(remote: SocketAddr) -> Self {
        Self {
            remote,
            local_ip: None,
            socket: 0,
        }
    }

    /// The same two endpoints, as far as we choose them.
    pub(crate) fn is(&self, other: Path) -> bool {
        self.remote == other.remote && self.socket == other.socket
    }
}

/// How we came to know of a way. What was proven once is kept before what somebody told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// The handshake took it, or the configuration or the host names it, or a relay offers it.
    Ours,
    /// An authentic probe came from there.
    Heard,
    /// The peer said that it can be reached there.
    Told,
    /// The peer's translation will perhaps use it next.
    Predicted,
}

/// What is known of one way.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) path: Path,
    pub(crate) origin: Origin,
    pub(crate) tier: Tier,
    pub(crate) state: CandidateState,
    /// Smoothed as in RFC 6298 §2.
    pub(crate) rtt: Option<Duration>,
    /// Share of probes that got no answer, of 256, over about the last sixteen.
    pub(crate) loss: u16,
    /// When it was last answered.
    pub(crate) heard_at: Option<Instant>,
    /// When it was last probed.
    pub(crate) probed_at: Option<Instant>,
    /// When it is probed without any other reason.
    pub(super) probe_at: Option<Instant>,
    /// What the search for its MTU had found when it was left.
    pub(super) mtu: Option<MtuSearch>,
    /// Probes under way: token and time. Limit: [`PROBES_MAX`].
    probes: VecDeque<(u64, Instant)>,
    breaks: u32,
    broke_at: Option<Instant>,
}

impl Candidate {
    pub(crate) fn new(path: Path, origin: Origin) -> Self {
        Self {
            path,
            origin,
            tier: Tier::of(path.remote),
            state: CandidateState::Untried,
            rtt: None,
            loss: 0,
            heard_at: None,
            probed_at: None,
            probe_at: None,
            mtu: None,
            probes: VecDeque::new(),
            breaks: 0,
            broke_at: None,
        }
    }

    pub(crate) fn is_proven(&self) -> bool {
        self.state == CandidateState::Proven
    }

    /// Where it stands among all ways.
    pub(crate) fn score(&self) -> Score {
        Score {
            tier: self.tier,
            loss: self.loss,
            rtt: self.rtt_or_guess(),
        }
    }

    pub(crate) fn rtt_or_guess(&self) -> Duration {
        self.rtt.unwrap_or(RTT_UNKNOWN)
    }

    /// Whether an answer came at or after `since`.
    pub(crate) fn answered_since(&self, since: Instant) -> bool {
        self.heard_at.is_some_and(|at| at >= since)
    }

    /// Whether it may be chosen for its score: it is not one that broke a moment ago.
    pub(crate) fn may_be_chosen(&self, now: Instant) -> bool {
        self.held_until().is_none_or(|until| now >= until)
    }

    fn held_until(&self) -> Option<Instant> {
        let hold = HOLD.saturating_mul(1 << (self.breaks.saturating_sub(1)).min(8));
        Some(self.broke_at? + hold.min(HOLD_MAX))
    }

    /// How long an answer may take, with a margin for the unsteadiness of round trips.
    pub(crate) fn patience(&self) -> Duration {
        let rtt = self.rtt_or_guess();
        rtt + (rtt / 2).max(Duration::from_millis(15)) + Duration::from_millis(30)
    }

    /// A probe with this token leaves for it.
    pub(crate) fn sent(&mut self, token: u64, now: Instant) {
        self.take_overdue(now);
        if self.probes.len() >= PROBES_MAX {
            self.probes.pop_front();
            self.count(true);
        }
        self.probes.push_back((token, now));
        self.probed_at = Some(now);
    }

    /// A probe with this token was answered from here. The round trip, if the probe was ours and this
    /// is the first answer.
    pub(crate) fn answered(&mut self, token: u64, now: Instant) -> Option<Duration> {
        let at = self.probes.iter().position(|(sent, _)| *sent == token)?;
        let (_, sent_at) = self.probes.remove(at)?;
        let took = now.saturating_duration_since(sent_at);
        self.rtt = Some(match self.rtt {
            Some(rtt) => (rtt * 7 + took) / 8,
            None => took,
        });
        self.count(false);
        self.proven(now);
        Some(took)
    }

    /// It is proven at this moment, by whatever.
    pub(crate) fn proven(&mut self, now: Instant) {
        self.state = CandidateState::Proven;
        self.heard_at = Some(now);
    }

    /// What became too old to be answered counts as lost.
    pub(crate) fn take_overdue(&mut self, now: Instant) {
        let patience = 2 * self.patience() + Duration::from_millis(300);
        while let Some(&(_, at)) = self.probes.front()
            && now >= at + patience
        {
            self.probes.pop_front();
            self.count(true);
        }
    }

    fn count(&mut self, lost: bool) {
        self.loss = self.loss - self.loss / 16 + if lost { 16 } else { 0 };
    }

    /// It was in use, or stood by, and answers no longer.
    pub(crate) fn broke(&mut self, now: Instant) {
        let forgiven = |at: Instant| now >= at + FORGIVEN_AFTER;
        if self.broke_at.is_none_or(forgiven) {
            self.breaks = 0;
        }
        self.breaks += 1;
        self.broke_at = Some(now);
        self.state = CandidateState::Broken;
        self.probe_at = Some(now + BROKEN_PROBE);
    }

    /// When to probe it next although nothing happens, after a probe at `now`.
    pub(super) fn next_probe(
        &self,
        now: Instant,
        warm: Duration,
        retry: Duration,
    ) -> Option<Instant> {
        match self.state {
            CandidateState::Proven => Some(now + warm),
            CandidateState::Broken => {
                let broken_for = now.saturating_duration_since(self.broke_at?);
                Some(now + broken_for.clamp(BROKEN_PROBE, retry.max(BROKEN_PROBE)))
            }
            CandidateState::Untried | CandidateState::Unanswered => None,
        }
    }

    /// How dear it is to us when the table is full: the highest goes first.
    pub(super) fn dispensable(&self) -> (bool, Origin, std::cmp::Reverse<Option<Instant>>) {
        let known = self.heard_at.is_some();
        (!known, self.origin, std::cmp::Reverse(self.heard_at))
    }

    /// Whether a socket can send there itself.
    pub(crate) fn is_direct_udp(&self) -> bool {
        Way::of(self.path.remote).is_udp()
    }
}
