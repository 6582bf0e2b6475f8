//! What `Net` keeps for each peer across its connections.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::way::Way;

use crate::bucket::Bucket;
use crate::calls::{Calls, Class, class_of};
use crate::config::{ADDRESSES_MAX, PeerConfig};
use crate::control::ConnKey;
use crate::forwarding::TrafficTotals;
use crate::lives::Lives;
use crate::plane::DataPlane;
use crate::relay::Credit;

/// Limit: sessions still received on beside the one in use. Both sides may make a new one at the same time, and
/// packets may go by the one before until the last of these is heard.
const LINGERING_MAX: usize = 2;
/// Limit: streams found for a peer.
const STREAMS_MAX: usize = 4;
/// Limit: addresses heard of on the local network, where anybody may say anything: one for each IP version.
const HEARD_MAX: usize = 2;
/// How often such an address is looked at: so many at once, and one more in each interval.
const HEARD_BURST: u32 = 4;
const HEARD_INTERVAL: Duration = Duration::from_secs(10);
/// How often an address is called because it answered in the place of another: some 15 KB go there each time.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(60);

/// After so many calls in a row without an answer the next is made from another port: packets are lost now and
/// then, and machines restart, but seldom for three calls.
// PROTOCOL SM-PA-14
const UNANSWERED_MIN: u32 = 3;

/// What we have to do with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Given by the parent: packets may flow.
    Member,
    /// Given by the parent as a relay, and nothing else: its session may be given up for a nearer one.
    Transit,
    /// It called us to relay for it; nobody gave it to us, and the parent never hears of it.
    Client,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) role: Role,
    /// As configured. Limit: [`ADDRESSES_MAX`].
    pub(crate) addresses: Vec<SocketAddr>,
    /// Streams found meanwhile, the newest first. Limit: [`STREAMS_MAX`].
    streams: Vec<SocketAddr>,
    /// Addresses heard of on the local network, the newest first. Limit: [`HEARD_MAX`].
    heard: Vec<SocketAddr>,
    hearing: Option<Bucket>,
    /// What answered a call of ours to another address.
    pub(crate) answers_from: Option<SocketAddr>,
    following: Option<Bucket>,
    /// Where its last session was: how a node that knows no address finds a peer again.
    pub(crate) last_seen: Option<SocketAddr>,
    /// The connection in use. Packets go by its session, once the peer is known to have it (SM-HS-13).
    pub(crate) primary: Option<ConnKey>,
    /// Sessions replaced a moment ago, still received on, the latest first. Limit: [`LINGERING_MAX`].
    pub(crate) lingering: Vec<ConnKey>,
    /// Our own calls, by each way.
    pub(crate) calls: Calls,
    /// When to try again.
    pub(crate) retry: Retry,
    /// Calls in a row that nobody answered.
    pub(crate) unanswered: u32,
    /// What we want to carry its packets.
    pub(crate) data_plane: DataPlane,
    /// Sealed frames did not get through in the last session: when to look again.
    pub(crate) sealed_blocked_until: Option<Instant>,
    /// The peer said that it holds our full key, so the short certificate will do.
    pub(crate) holds_our_key: bool,
    /// Traffic of sessions that ended.
    pub(crate) past_traffic: TrafficTotals,
    /// Whose place it takes among our clients, while it is one.
    pub(crate) client_of: Option<IpAddr>,
    /// Whether two machines are this peer, or us.
    pub(crate) lives: Lives,
    /// What it may have relayed, where we relay for it.
    pub(crate) credit: Option<Arc<Credit>>,
    /// What went wrong last.
    pub(crate) last_error: Option<String>,
    /// When it was last heard in a session that ended.
    pub(crate) heard_at: Option<Instant>,
    /// When the last handshake was complete.
    pub(crate) handshaken_at: Option<Instant>,
}

impl Peer {
    pub(crate) fn new(config: PeerConfig) -> Self {
        let mut addresses = config.addresses;
        addresses.truncate(ADDRESSES_MAX);
        Self {
            role: Role::Member,
            addresses,
            streams: Vec::new(),
            heard: Vec::new(),
            hearing: None,
            answers_from: None,
            following: None,
            last_seen: None,
            primary: None,
            lingering: Vec::new(),
            calls: Calls::default(),
            retry: Retry::default(),
            unanswered: 0,
            data_plane: config.data_plane,
            sealed_blocked_until: None,
            holds_our_key: false,
            past_traffic: TrafficTotals::default(),
            client_of: None,
            lives: Lives::default(),
            credit: None,
            last_error: None,
            heard_at: None,
            handshaken_at: None,
        }
    }

    /// Somebody for whom we relay and who is nothing else to us.
    pub(crate) fn client(id: PeerId, source: IpAddr) -> Self {
        let config = PeerConfig {
            id,
            addresses: Vec::new(),
            known_key: None,
            data_plane: DataPlane::Sealed,
            relay: false,
        };
        Self {
            role: Role::Client,
            client_of: Some(source),
            ..Self::new(config)
        }
    }

    /// The connections whose sessions are received on: that in use first, then the latest.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = ConnKey> {
        self.primary
            .into_iter()
            .chain(self.lingering.iter().copied())
    }

    /// A session is still received on for a moment; returns the one that is not any more.
    pub(crate) fn linger(&mut self, key: ConnKey) -> Option<ConnKey> {
        self.lingering.retain(|lingering| *lingering != key);
        self.lingering.insert(0, key);
        match self.lingering.len() > LINGERING_MAX {
            true => self.lingering.pop(),
            false => None,
        }
    }

    /// Whether a way is configured or was found.
    pub(crate) fn knows(&self, address: SocketAddr) -> bool {
        let mut all = self
            .addresses
            .iter()
            .chain(&self.streams)
            .chain(&self.heard);
        all.any(|known| *known == address)
    }

    /// Takes in a way that was found.
    pub(crate) fn learn(&mut self, address: SocketAddr) {
        if self.knows(address) {
            return;
        }
        let (found, limit) = match Way::of(address) {
            Way::Udp(_) => (&mut self.heard, HEARD_MAX),
            Way::Stream(_) | Way::Relayed { .. } => (&mut self.streams, STREAMS_MAX),
        };
        found.insert(0, address);
        found.truncate(limit);
    }

    /// Whether one more word heard on the local network is looked at now.
    pub(crate) fn may_hear(&mut self, now: Instant) -> bool {
        let hearing = self.hearing.get_or_insert_with(|| Bucket::full(now));
        hearing.take(HEARD_BURST, HEARD_INTERVAL, now)
    }

    /// Whether the configuration names this address, or the peer was there last.
    pub(crate) fn names(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address) || self.last_seen == Some(address)
    }

    /// Whether the next call should come from another port than those before: a NAT may lead what we send from ours
    /// to where nobody is any more, for as long as we go on sending. Every second one does, once some have failed.
    // PROTOCOL SM-PA-14
    pub(crate) fn wants_fresh_port(&self) -> bool {
        self.unanswered >= UNANSWERED_MIN && (self.unanswered - UNANSWERED_MIN).is_multiple_of(2)
    }

    /// Somebody wants to reach it: no way waits longer than befits that.
    pub(crate) fn want(&mut self, now: Instant) {
        let Self { calls, retry, .. } = self;
        retry.want(now);
        calls.cap_waits(|at| now + retry.cap(at.saturating_duration_since(now), now));
    }

    /// Waits that failures led to have no reason any more.
    pub(crate) fn begin_anew(&mut self) {
        self.retry.begin_anew();
        self.calls.begin_anew();
    }

    /// Whether an address that answers in the place of another is called now.
    pub(crate) fn may_follow(&mut self, now: Instant) -> bool {
        let following = self.following.get_or_insert_with(|| Bucket::full(now));
        following.take(1, FOLLOW_INTERVAL, now)
    }

    /// Whether nothing names this address but a word on the local network, or an answer that proved nothing.
    pub(crate) fn is_hearsay(&self, address: SocketAddr) -> bool {
        let heard = self.heard.contains(&address) || self.answers_from == Some(address);
        heard && !self.addresses.contains(&address)
    }

    /// A way that was found is none any more.
    pub(crate) fn forget_address(&mut self, address: SocketAddr) {
        self.streams.retain(|known| *known != address);
        self.heard.retain(|known| *known != address);
        self.answers_from = self.answers_from.filter(|known| *known != address);
        if self.last_seen == Some(address) {
            self.last_seen = None;
        }
    }

    /// The ways by which it is called, the likeliest first: those without a relay, and those `relayed`. What was
    /// found takes no place of what is configured.
    pub(crate) fn ways(&self, relayed: &[SocketAddr]) -> Vec<(Class, SocketAddr)> {
        let is_there = |way: &SocketAddr| match Way::of(*way) {
            Way::Relayed { .. } => relayed.contains(way),
            Way::Udp(_) | Way::Stream(_) => true,
        };
        let proven = self.last_seen.filter(is_there);
        let mut ways: Vec<(Class, SocketAddr)> = Vec::new();
        let all = proven
            .iter()
            .chain(&self.addresses)
            .chain(relayed)
            .chain(&self.streams)
            .chain(&self.heard)
            .chain(&self.answers_from);
        for &way in all {
            if ways.iter().all(|(_, known)| *known != way) {
                let class = class_of(way, proven == Some(way), self.is_hearsay(way));
                ways.push((class, way));
            }
        }
        ways
    }
}

/// First wait between attempts; the first attempt itself waits for nothing.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Up to here each wait is twice the one before, from here on a quarter longer: so a peer that was away for a
/// while is found again after a quarter of that time.
const WAIT_DOUBLED_MAX: Duration = Duration::from_secs(5);
/// Longest wait between attempts. With the jitter, and the time in which an attempt finds nobody, less than a
/// minute: after that people take a machine for lost.
const WAIT_MAX: Duration = Duration::from_secs(45);
/// Failures that a goodbye counts for: the next attempt comes after 1.6 s. Who leaves is hardly back before.
const LEFT_FAILURES: u32 = 4;
/// While somebody wants to send, a peer that comes back must be found at once.
const WAIT_MAX_WANTED: Duration = Duration::from_millis(200);
/// How long one demand counts.
const WANTED: Duration = Duration::from_secs(3);

/// A session that lasted so long says that the peer is in order.
const LASTING: Duration = Duration::from_secs(5);
/// Sessions in a row that may break before that without a wait: a restart has no effect on when the
/// next one is up.
const BRIEF_MAX: u32 = 2;

/// Failures that they count for at most: the peer is there, so the wait grows no longer than to 5 s.
const BRIEF_FAILURES_MAX: u32 = 6;

/// Decides when the next attempt is due.
// PROTOCOL SM-PA-4
#[derive(Debug, Default)]
pub(crate) struct Retry {
    /// No way waits less than after so many failures.
    failures: u32,
    /// When the session in use came up.
    up_at: Option<Instant>,
    /// Sessions in a row that did not last.
    brief: u32,
    wanted_at: Option<Instant>,
    /// The last attempt was answered, by a no.
    refused: bool,
    /// Whether we go on trying without being asked: from the first call on, for as long as it is a peer. Not for
    /// a relay that is not needed.
    pub(crate) kept: bool,
}

impl Retry {
    /// Somebody wants to reach the peer.
    pub(crate) fn want(&mut self, now: Instant) {
        self.wanted_at = Some(now);
        self.kept = true;
    }

    /// Whether somebody wanted to reach the peer just now.
    pub(crate) fn is_wanted(&self, now: Instant) -> bool {
        self.wanted_at.is_some_and(|at| now < at + WANTED)
    }

    /// An attempt begins.
    pub(crate) fn begun(&mut self) {
        self.refused = false;
    }

    /// Whether the last attempt was answered by a no.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused
    }

    /// The attempt was answered by a no: asking again soon costs both sides a handshake and cannot
    /// be what finds a peer that was away.
    pub(crate) fn refused(&mut self) {
        self.refused = true;
    }

    /// A session is up.
    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.failures = 0;
        self.up_at = Some(now);
        self.kept = true;
    }

    /// Waits that failures led to have no reason any more.
    pub(crate) fn begin_anew(&mut self) {
        self.failures = 0;
    }

    /// The peer said goodbye. It may be back at any time, but not at once; and what wanted it so far did so
    /// before it left.
    pub(crate) fn left(&mut self) {
        self.wanted_at = None;
        self.failures = self.failures.max(LEFT_FAILURES);
    }

    /// The session is gone. True: the next attempt may be made at once; else it has to wait like one
    /// after a failure. A peer that makes sessions break would else have us do handshakes and
    /// nothing besides.
    pub(crate) fn lost(&mut self, now: Instant) -> bool {
        if self.up_at.is_none_or(|at| now >= at + LASTING) {
            self.brief = 0;
            return true;
        }
        self.brief = self.brief.saturating_add(1);
        self.failures = self.brief.saturating_sub(BRIEF_MAX).min(BRIEF_FAILURES_MAX);
        self.brief <= BRIEF_MAX
    }

    /// The peer gave our place to another with our identity, for the nth time in a row. Taking it back at once, both
    /// would do nothing else.
    // PROTOCOL SM-HS-14
    pub(crate) fn taken_over(&mut self, turn: u32) {
        self.refused = true;
        self.failures = BRIEF_FAILURES_MAX.saturating_add(turn);
    }

    /// A call failed: how long to wait for the next by the same way, by which so many have failed before.
    /// `None`: none is to follow.
    pub(crate) fn failed(
        &self,
        failures: &mut u32,
        now: Instant,
        rng: &mut StdRng,
    ) -> Option<Duration> {
        if !self.kept && !self.is_wanted(now) {
            return None;
        }
        let wait = wait_after(self.failures.max(*failures));
        *failures = failures.saturating_add(1);
        // Jitter of a quarter: two nodes that lost each other do not keep meeting in the middle.
        let wait = wait.mul_f64(rng.random_range(0.75..1.25));
        Some(self.cap(wait, now))
    }

    /// Shortens a wait while the peer is wanted, unless it said no.
    pub(crate) fn cap(&self, wait: Duration, now: Instant) -> Duration {
        if self.is_wanted(now) && !self.refused {
            wait.min(WAIT_MAX_WANTED)
        } else {
            wait
        }
    }
}

/// The wait after so many failures in a row and one more, without jitter.
fn wait_after(failures: u32) -> Duration {
    let mut wait = WAIT_MIN;
    for _ in 0..failures {
        if wait >= WAIT_MAX {
            break;
        }
        wait = match wait < WAIT_DOUBLED_MAX {
            true => (2 * wait).min(WAIT_DOUBLED_MAX),
            false => wait + wait / 4,
        };
    }
    wait.min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;
    use rand::SeedableRng;

    // PROTOCOL SM-PA-4
    #[test]
    fn waits_grow_to_less_than_a_minute_and_stay_short_while_wanted() {
        let now = start();
        let mut rng = StdRng::from_seed([7; 32]);
        let mut retry = Retry::default();
        let mut count = 0;
        assert_eq!(retry.failed(&mut count, now, &mut rng), None);
        retry.succeeded(now);
        let waits: Vec<_> = (0..100)
            .map(|_| retry.failed(&mut count, now, &mut rng).unwrap())
            .collect();
        assert!(waits[0] >= WAIT_MIN.mul_f64(0.75) && waits[0] <= WAIT_MIN.mul_f64(1.25));
        assert!(waits[2] > waits[0] && waits[99] >= WAIT_MAX.mul_f64(0.75));
        let minute = Duration::from_secs(58);
        assert!(waits.iter().all(|wait| *wait < minute));
        let away = |n: usize| waits[..n].iter().sum::<Duration>();
        assert!((8..16).all(|n| waits[n] < away(n)), "{waits:?}");
        retry.want(now);
        assert!(retry.failed(&mut count, now, &mut rng).unwrap() <= WAIT_MAX_WANTED);
        assert!(retry.failed(&mut count, now + WANTED, &mut rng).unwrap() > WAIT_MAX_WANTED);
    }

    // PROTOCOL SM-PA-4
    #[test]
    fn a_no_is_not_asked_again_soon_however_much_the_peer_is_wanted() {
        let now = start();
        let mut rng = StdRng::from_seed([7; 32]);
        let mut retry = Retry::default();
        let mut count = 0;
        retry.want(now);
        retry.refused();
        let waits: Vec<_> = (0..10)
            .map(|_| retry.failed(&mut count, now, &mut rng).unwrap())
            .collect();
        assert!(waits[9] >= WAIT_DOUBLED_MAX);
        retry.begun();
        assert!(retry.failed(&mut count, now, &mut rng).unwrap() <= WAIT_MAX_WANTED);
    }

    // PROTOCOL SM-PA-4
    #[test]
    fn after_a_goodbye_the_next_call_comes_in_seconds_and_the_first_again_if_the_network_changed() {
        let now = start();
        let mut rng = StdRng::from_seed([7; 32]);
        let mut retry = Retry::default();
        retry.succeeded(now);
        retry.left();
        let wait = retry.failed(&mut 0, now, &mut rng).unwrap();
        assert!(wait > Duration::from_secs(1) && wait <= Duration::from_secs(2));
        retry.begin_anew();
        assert!(retry.failed(&mut 0, now, &mut rng).unwrap() <= WAIT_MIN.mul_f64(1.25));
    }

    // PROTOCOL SM-PA-4
    #[test]
    fn sessions_that_do_not_last_are_followed_by_longer_and_longer_waits() {
        let now = start();
        let mut rng = StdRng::from_seed([7; 32]);
        let mut retry = Retry::default();
        for _ in 0..BRIEF_MAX {
            retry.succeeded(now);
            assert!(retry.lost(now));
        }
        let waits: Vec<_> = (0..10)
            .map(|_| {
                retry.succeeded(now);
                assert!(!retry.lost(now));
                retry.failed(&mut 0, now, &mut rng).unwrap()
            })
            .collect();
        assert!(waits[3] > waits[0] && waits[9] >= WAIT_DOUBLED_MAX);
        retry.succeeded(now);
        assert!(retry.lost(now + LASTING));
        retry.succeeded(now);
        assert!(retry.lost(now));
    }
}
