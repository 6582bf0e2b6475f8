//! How many handshakes those who come may begin, and when.
//!
//! A handshake costs a server a key exchange and a signature before it knows anything of the other side. So
//! each source, each neighbourhood and all together have so many at once and so many a second. Of all, one part
//! is for sources that a session once came from, and one for neighbourhoods that began none for a while: who
//! comes again and again, from however many addresses, shares the rest. Who has no turn at once waits a moment
//! for it, in order of arrival.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So many at once, and one more after each interval.
struct Rate {
    burst: u32,
    interval: Duration,
}

/// One source. Some dozens of nodes behind one NAT, all at once after a restart, and all within half a minute.
// PROTOCOL SM-WS-9
const SOURCE: Rate = Rate {
    burst: 32,
    interval: Duration::from_millis(500),
};
/// One neighbourhood: two such sources.
// PROTOCOL SM-WS-9
const NEAR: Rate = Rate {
    burst: 64,
    interval: Duration::from_millis(250),
};
/// Each of the three parts: known sources, new neighbourhoods, and everybody. Together, at half a millisecond
/// each, less than a twelfth of a core.
// PROTOCOL SM-WS-9
const KNOWN: Rate = Rate {
    burst: 64,
    interval: Duration::from_millis(25),
};
const NEW: Rate = KNOWN;
const ALL: Rate = Rate {
    burst: 64,
    interval: Duration::from_millis(15),
};
/// A turn that comes no sooner is none: the client would have given up.
// PROTOCOL SM-WS-9
const WAIT_MAX: Duration = Duration::from_secs(2);
/// A neighbourhood is new that began no handshake for so long.
const NEW_AFTER: Duration = Duration::from_secs(60);
/// Limit: sources, neighbourhoods, each. The one that came first is forgotten, and has a full burst again;
/// what all may do together holds.
const TRACKED_MAX: usize = 4096;
/// Limit: sources that are known. The one that was first known is forgotten.
const KNOWN_MAX: usize = 1024;

/// A bucket of tokens, told by the moment at which it is full again (GCRA). Empty is none.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket(Option<Instant>);

impl Bucket {
    /// When the next token is there, and what is left after it.
    fn next(self, rate: &Rate, now: Instant) -> (Instant, Self) {
        let full = self.0.map_or(now, |at| at.max(now)) + rate.interval;
        let turn = now.max(full.checked_sub(rate.interval * rate.burst).unwrap_or(now));
        (turn, Self(Some(full)))
    }

    /// What is left after a token that is there now, if one is.
    fn take(self, rate: &Rate, now: Instant) -> Option<Self> {
        let (turn, left) = self.next(rate, now);
        (turn <= now).then_some(left)
    }
}

/// Buckets of many.
#[derive(Default)]
struct Tracked {
    /// Limit: [`TRACKED_MAX`].
    buckets: BTreeMap<IpAddr, Bucket>,
    /// In the order in which they came.
    order: VecDeque<IpAddr>,
}

impl Tracked {
    fn of(&self, who: IpAddr) -> Bucket {
        self.buckets.get(&who).copied().unwrap_or_default()
    }

    fn set(&mut self, who: IpAddr, left: Bucket) {
        if self.buckets.insert(who, left).is_none() {
            self.order.push_back(who);
        }
        if self.order.len() > TRACKED_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.buckets.remove(&first);
        }
    }
}

/// Who may begin a handshake when.
#[derive(Default)]
pub(super) struct Gate {
    sources: Tracked,
    neighbourhoods: Tracked,
    known: Bucket,
    new: Bucket,
    all: Bucket,
    /// Sources that a session came from, in the order in which they became known. Limit: [`KNOWN_MAX`].
    vouched: VecDeque<IpAddr>,
}

impl Gate {
    /// When somebody of this source and this neighbourhood may begin a handshake; `None`: not at all.
    // PROTOCOL SM-WS-9
    pub(super) fn turn(&mut self, source: IpAddr, near: IpAddr, now: Instant) -> Option<Instant> {
        let of_source = self.sources.of(source).take(&SOURCE, now)?;
        let before = self.neighbourhoods.of(near);
        let of_near = before.take(&NEAR, now)?;
        let is_new = before.0.is_none_or(|at| now >= at + NEW_AFTER);
        let turn = self.share(self.vouched.contains(&source), is_new, now)?;
        self.sources.set(source, of_source);
        self.neighbourhoods.set(near, of_near);
        Some(turn)
    }

    fn share(&mut self, is_known: bool, is_new: bool, now: Instant) -> Option<Instant> {
        if is_known && let Some(left) = self.known.take(&KNOWN, now) {
            self.known = left;
            return Some(now);
        }
        if is_new && let Some(left) = self.new.take(&NEW, now) {
            self.new = left;
            return Some(now);
        }
        let (turn, left) = self.all.next(&ALL, now);
        if turn > now + WAIT_MAX {
            return None;
        }
        self.all = left;
        Some(turn)
    }

    /// A session came from this source.
    pub(super) fn vouch(&mut self, source: IpAddr) {
        if self.vouched.contains(&source) {
            return;
        }
        if self.vouched.len() == KNOWN_MAX {
            self.vouched.pop_front();
        }
        self.vouched.push_back(source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn turn(gate: &mut Gate, net: u8, host: u8, now: Instant) -> Option<Instant> {
        let ip = |net, host| IpAddr::from([10, 0, net, host]);
        gate.turn(ip(net, host), ip(net, 0), now)
    }

    // PROTOCOL SM-WS-9
    #[test]
    fn a_source_and_a_neighbourhood_have_so_many_at_once_and_so_many_a_second() {
        let (mut gate, start) = (Gate::default(), Instant::now());
        let many = |gate: &mut Gate, host, now| {
            (0..500)
                .filter(|_| turn(gate, 1, host, now).is_some())
                .count()
        };
        assert_eq!(many(&mut gate, 1, start), 32);
        assert_eq!(many(&mut gate, 1, start), 0);
        assert_eq!(many(&mut gate, 1, start + SECOND), 2);
        assert_eq!(many(&mut gate, 1, start + 60 * SECOND), 32);
        let later = start + 200 * SECOND;
        let all: usize = (0..20).map(|host| many(&mut gate, host, later)).sum();
        assert_eq!(all, 64);
    }

    // PROTOCOL SM-WS-9
    #[test]
    fn who_comes_again_and_again_from_anywhere_leaves_turns_to_peers_and_to_newcomers() {
        let (mut gate, start) = (Gate::default(), Instant::now());
        let peer = IpAddr::from([192, 0, 2, 1]);
        gate.vouch(peer);
        let (mut begun, mut now) = (0, start);
        for second in 0..60 {
            now = start + second * SECOND;
            // Each of 200 neighbourhoods twice a second.
            for net in (0..200).chain(0..200) {
                begun += u32::from(turn(&mut gate, net, second as u8, now).is_some());
            }
        }
        // What is left of the parts for newcomers and everybody, and a wait full of turns.
        assert!(begun <= 2 * 64 + 60 * (40 + 67) + 140, "{begun}");
        assert!(
            turn(&mut gate, 5, 250, now).is_none(),
            "their part is used up"
        );
        assert_eq!(gate.turn(peer, [192, 0, 2, 0].into(), now), Some(now));
        let newcomer = gate.turn([198, 51, 100, 7].into(), [198, 51, 100, 0].into(), now);
        assert_eq!(newcomer, Some(now));
    }

    // PROTOCOL SM-WS-9
    #[test]
    fn turns_come_in_order_and_within_two_seconds_or_not_at_all() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        // New ones first, then those that share.
        let turns: Vec<Option<Instant>> = (0..=255)
            .flat_map(|net| [(net, 1), (net, 2)])
            .map(|(net, host)| turn(&mut gate, net, host, now))
            .collect();
        let given: Vec<Instant> = turns.iter().copied().flatten().collect();
        assert!(given.is_sorted() && given[0] == now);
        let waiting = given.iter().filter(|at| **at > now).count();
        assert!((130..=134).contains(&waiting), "{waiting}");
        assert!(given.iter().all(|at| *at <= now + WAIT_MAX));
        assert!(turns.last().unwrap().is_none());
    }

    #[test]
    fn what_is_remembered_of_strangers_is_bounded() {
        let (mut gate, start) = (Gate::default(), Instant::now());
        for number in 0..3 * TRACKED_MAX as u32 {
            let now = start + number * SECOND;
            let ip = IpAddr::from(number.to_be_bytes());
            assert!(gate.turn(ip, ip, now).is_some());
            gate.vouch(ip);
        }
        assert_eq!(gate.sources.buckets.len(), TRACKED_MAX);
        assert_eq!(gate.sources.order.len(), TRACKED_MAX);
        assert_eq!(gate.neighbourhoods.buckets.len(), TRACKED_MAX);
        assert_eq!(gate.vouched.len(), KNOWN_MAX);
    }
}
