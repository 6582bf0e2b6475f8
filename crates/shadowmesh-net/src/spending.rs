//! What this node sends to addresses that have never answered, and how much of it.
//!
//! Much of what a node sends first goes where somebody said: a configuration, a peer, a relay, a packet on the
//! local network. Any of them may name a third party. So every datagram that nobody asked for is charged here,
//! by what made us send it ([`Purpose`]): to its *target* (an IPv4 address, an IPv6 /64), whoever named it,
//! and, unless it is a call of our own, to the *node*. Who has answered authentically is free.
//!
//! Answers to what came from an address are not charged: QUIC and SM-SF-6 bound them by what they answer, and
//! if they were, whoever forges that source could keep a real peer there from being called. For the same
//! reason what others named has a smaller share of a target than our own calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::bucket::Bucket;
use crate::gate::source_key;

/// Limit: bytes, IP and UDP headers included, that one target gets in any minute before it answers.
// PROTOCOL SM-PA-9
pub(crate) const TARGET_BYTES: u32 = 100_000;
/// Limit: of these, what nobody has answered yet: the rest is left for a call that was, to go through.
// PROTOCOL SM-PA-9
const UNASKED_BYTES: u32 = 84_000;
/// Limit: of these, what others named: the rest is left for calls to configured addresses. One game of guesses
/// (SM-PA-8) is 67,000.
// PROTOCOL SM-PA-9
const TOLD_BYTES: u32 = 68_000;
/// Limit: calls to one target: 24 kB at once, and 800 bytes in each second more. So there is always some left for
/// a peer that comes late.
// PROTOCOL SM-PA-9
const CALL_DEPTH: Duration = Duration::from_millis(30_000);
const CALL_BYTE: Duration = Duration::from_micros(1_250);
/// Limit: what this node sends to all targets that others named: 192 kB at once, and 32 kB in each second. Some
/// thirty searches at the same moment.
// PROTOCOL SM-PA-9
const NODE_TOLD_BYTE: Duration = Duration::from_nanos(1_000_000_000 / 32_000);
const NODE_TOLD_DEPTH: Duration = Duration::from_secs(6);
/// Limit: guesses at ports by this node: 200 kB at once, and as much in each minute. Three games.
// PROTOCOL SM-PA-9
const NODE_GUESS_BYTE: Duration = Duration::from_nanos(60_000_000_000 / 200_000);
const NODE_GUESS_DEPTH: Duration = Duration::from_secs(60);
/// What one game of guesses costs: a thousand probes of 39 bytes.
const GAME_BYTES: u32 = 67_000;
/// What the first flight of a call costs, doubled (SM-HS-8).
const CALL_BYTES: u32 = 5_000;

/// A minute is looked at in slots of this length.
const SLOT: Duration = Duration::from_secs(10);
/// So many slots, the present one included, cover any minute.
const SLOTS: usize = 7;
/// Limit: targets whose bytes are counted each for itself; those beyond share one count.
const TARGETS_MAX: usize = 16_384;
/// Limit: targets remembered as having answered, in each of two generations.
const ANSWERED_MAX: usize = 4096;
/// A generation is no older than this: an address may be somebody else's later.
const ANSWERED_FOR: Duration = Duration::from_secs(600);

/// Why something is sent to an address that may never have answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A call, or a probe, where the configuration says.
    Call,
    /// A call that something came back for, from whomever: to go on with it.
    Answered,
    /// Where a peer, a relay, a sender's address or a word on the local network says.
    Told,
    /// A guess at a port.
    Guess,
}

/// Counts what is sent to addresses that have not answered.
#[derive(Debug)]
pub(crate) struct Spending {
    since: Instant,
    /// Limit: [`TARGETS_MAX`].
    targets: BTreeMap<IpAddr, Target>,
    /// All targets that have no room in the table.
    others: Target,
    /// The slot in which the table was last rid of those that were sent nothing lately.
    swept: u64,
    /// Limit: [`ANSWERED_MAX`] each.
    answered: BTreeSet<IpAddr>,
    answered_before: BTreeSet<IpAddr>,
    generation_at: Instant,
    told: Bucket,
    guesses: Bucket,
}

/// What one target was sent.
#[derive(Debug, Clone)]
struct Target {
    all: Minute,
    told: Minute,
    calls: Bucket,
}

/// Bytes of the latest slots.
#[derive(Debug, Clone, Default)]
struct Minute {
    slots: [u32; SLOTS],
    /// Number of the latest slot.
    latest: u64,
}

impl Spending {
    /// Nothing was sent yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            targets: BTreeMap::new(),
            others: Target::new(now),
            swept: 0,
            answered: BTreeSet::new(),
            answered_before: BTreeSet::new(),
            generation_at: now,
            told: Bucket::full(now),
            guesses: Bucket::full(now),
        }
    }

    /// An authentic answer came from there, or a session: what is sent there is not counted for a while.
    pub(crate) fn answered(&mut self, from: SocketAddr, now: Instant) {
        let full = self.answered.len() >= ANSWERED_MAX;
        if full || now >= self.generation_at + ANSWERED_FOR {
            self.answered_before = std::mem::take(&mut self.answered);
            self.generation_at = now;
        }
        self.answered.insert(source_key(from.ip()));
    }

    /// Whether something authentic came from there lately.
    pub(crate) fn has_answered(&self, to: SocketAddr) -> bool {
        let target = source_key(to.ip());
        self.answered.contains(&target) || self.answered_before.contains(&target)
    }

    /// Charges a datagram of `len` bytes. False: it is not to be sent.
    // PROTOCOL SM-PA-9
    pub(crate) fn take(
        &mut self,
        to: SocketAddr,
        len: usize,
        purpose: Purpose,
        now: Instant,
    ) -> bool {
        let bytes = on_the_wire(to, len);
        let free = self.has_answered(to);
        let slot = self.slot(now);
        if !free && !self.target(to, now).has_room(bytes, purpose, slot, now) {
            return false;
        }
        let node = match purpose {
            Purpose::Call | Purpose::Answered => true,
            Purpose::Told if free => true,
            Purpose::Told => self
                .told
                .spend(NODE_TOLD_BYTE * bytes, NODE_TOLD_DEPTH, now),
            Purpose::Guess => {
                let cost = NODE_GUESS_BYTE * bytes;
                self.guesses.spend(cost, NODE_GUESS_DEPTH, now)
            }
        };
        if node && !free {
            self.target(to, now).count(bytes, purpose, slot, now);
        }
        node
    }

    /// Whether a whole game of guesses at ports of this address is left. Nothing is taken.
    // PROTOCOL SM-PA-9
    pub(crate) fn has_game(&mut self, to: SocketAddr, now: Instant) -> bool {
        let (free, slot) = (self.has_answered(to), self.slot(now));
        let left = now + NODE_GUESS_DEPTH >= self.guesses.whole_at() + NODE_GUESS_BYTE * GAME_BYTES;
        let target = self.target(to, now);
        left && (free || target.has_room(GAME_BYTES, Purpose::Guess, slot, now))
    }

    /// When the first flight of a call there may leave.
    // PROTOCOL SM-PA-9
    pub(crate) fn call_at(&mut self, to: SocketAddr, now: Instant) -> Instant {
        let slot = self.slot(now);
        if self.has_answered(to) {
            return now;
        }
        let since = self.since;
        let target = self.target(to, now);
        let whole_at = target.calls.whole_at() + CALL_BYTE * CALL_BYTES;
        let bucket_at = whole_at.checked_sub(CALL_DEPTH).unwrap_or(now);
        let slot = target.all.room_at(CALL_BYTES, UNASKED_BYTES, slot);
        bucket_at.max(since + SLOT * slot as u32).max(now)
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.since).as_secs() / SLOT.as_secs()
    }

    fn target(&mut self, to: SocketAddr, now: Instant) -> &mut Target {
        let target = source_key(to.ip());
        if self.targets.len() >= TARGETS_MAX && !self.targets.contains_key(&target) {
            let slot = self.slot(now);
            if self.swept < slot {
                self.swept = slot;
                self.targets.retain(|_, target| target.all.sum(slot) > 0);
            }
            if self.targets.len() >= TARGETS_MAX {
                return &mut self.others;
            }
        }
        self.targets
            .entry(target)
            .or_insert_with(|| Target::new(now))
    }
}

impl Target {
    fn new(now: Instant) -> Self {
        Self {
            all: Minute::default(),
            told: Minute::default(),
            calls: Bucket::full(now),
        }
    }

    fn has_room(&mut self, bytes: u32, purpose: Purpose, slot: u64, now: Instant) -> bool {
        let fits = |minute: &mut Minute, limit| minute.sum(slot) + bytes <= limit;
        let own = match purpose {
            Purpose::Answered => return fits(&mut self.all, TARGET_BYTES),
            Purpose::Call => now + CALL_DEPTH >= self.calls.whole_at() + CALL_BYTE * bytes,
            Purpose::Told | Purpose::Guess => fits(&mut self.told, TOLD_BYTES),
        };
        own && fits(&mut self.all, UNASKED_BYTES)
    }

    fn count(&mut self, bytes: u32, purpose: Purpose, slot: u64, now: Instant) {
        self.all.add(bytes, slot);
        match purpose {
            Purpose::Call => {
                self.calls.spend(CALL_BYTE * bytes, CALL_DEPTH, now);
            }
            Purpose::Told | Purpose::Guess => self.told.add(bytes, slot),
            Purpose::Answered => {}
        }
    }
}

impl Minute {
    fn advance(&mut self, slot: u64) {
        while self.latest < slot {
            self.latest = (self.latest + 1).max(slot.saturating_sub(SLOTS as u64));
            self.slots[self.latest as usize % SLOTS] = 0;
        }
    }

    fn sum(&mut self, slot: u64) -> u32 {
        self.advance(slot);
        self.slots.iter().sum()
    }

    fn add(&mut self, bytes: u32, slot: u64) {
        self.advance(slot);
        self.slots[slot as usize % SLOTS] += bytes;
    }

    /// The first slot in which so many bytes fit.
    fn room_at(&mut self, bytes: u32, limit: u32, slot: u64) -> u64 {
        let mut sum = self.sum(slot);
        let mut at = slot;
        while sum + bytes > limit {
            // The oldest slot is the one that the next takes the place of.
            at += 1;
            sum -= self.slots[at as usize % SLOTS].min(sum);
            if at > slot + SLOTS as u64 {
                break;
            }
        }
        at
    }
}

/// What a UDP payload of this length takes of the network.
fn on_the_wire(to: SocketAddr, len: usize) -> u32 {
    let headers = if to.is_ipv4() { 28 } else { 48 };
    u32::try_from(len).unwrap_or(u32::MAX / 2) + headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::{ms, start};
    use proptest::prelude::*;

    fn victim(port: u16) -> SocketAddr {
        ([203, 0, 113, 9], port).into()
    }

    fn elsewhere(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from_bits(0x0b00_0000 + n), 7).into()
    }

    proptest! {
        // PROTOCOL SM-PA-9
        #[test]
        fn no_minute_brings_more_than_100_kb_to_an_address_that_never_answered(
            datagrams in proptest::collection::vec((0u64..3_000, 1usize..1_300, 0u8..4, 1u16..9), 1..600),
        ) {
            let (mut now, mut spending) = (start(), Spending::new(start()));
            let mut sent: Vec<(Instant, u32)> = Vec::new();
            for (pause, len, purpose, port) in datagrams {
                now += ms(pause / 10);
                let purpose = [Purpose::Call, Purpose::Told, Purpose::Guess, Purpose::Answered][usize::from(purpose)];
                if spending.take(victim(port), len, purpose, now) {
                    sent.push((now, len as u32 + 28));
                }
            }
            for (from, _) in &sent {
                let within = sent.iter().filter(|(at, _)| at >= from && *at <= *from + ms(60_000));
                prop_assert!(within.map(|(_, bytes)| bytes).sum::<u32>() <= TARGET_BYTES);
            }
        }
    }

    // PROTOCOL SM-PA-9
    #[test]
    fn what_others_name_leaves_a_share_for_calls_of_our_own() {
        let (now, mut spending) = (start(), Spending::new(start()));
        while spending.take(victim(7), 39, Purpose::Told, now) {}
        assert!(!spending.take(victim(8), 39, Purpose::Guess, now));
        assert!(spending.call_at(victim(9), now) <= now);
        let calls = (0..100).filter(|_| spending.take(victim(9), 1200, Purpose::Call, now));
        assert!(calls.count() >= 12);
        // Whoever is there at last is not kept waiting by what was spent in vain.
        let answers = (0..100).filter(|_| spending.take(victim(9), 1200, Purpose::Answered, now));
        assert!(answers.count() >= 12);
    }

    // PROTOCOL SM-PA-9
    #[test]
    fn who_has_answered_is_free_and_its_whole_ipv6_site_is_one_target() {
        let (now, mut spending) = (start(), Spending::new(start()));
        let house = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 7));
        let sent = (0..5000).filter(|n| spending.take(house(*n), 39, Purpose::Told, now));
        assert_eq!(sent.count(), 68_000 / 87);
        spending.answered(house(9), now);
        assert!(spending.take(house(1), 39, Purpose::Told, now));
        let later = now + 3 * ANSWERED_FOR;
        spending.answered(victim(7), later);
        assert!(spending.has_answered(house(1)), "for one generation more");
        spending.answered(victim(7), later + ANSWERED_FOR);
        assert!(!spending.has_answered(house(1)));
    }

    // PROTOCOL SM-PA-9
    #[test]
    fn all_that_is_told_and_all_guesses_have_a_limit_for_the_node() {
        let (now, mut spending) = (start(), Spending::new(start()));
        let told = (0..9000).filter(|n| spending.take(elsewhere(*n), 39, Purpose::Told, now));
        assert!((2_800..2_900).contains(&told.count()));
        let guesses =
            (0..9000).filter(|n| spending.take(elsewhere(n / 900), 39, Purpose::Guess, now));
        assert!((2_900..3_000).contains(&guesses.count()));
        assert!(!spending.has_game(elsewhere(9_999), now));
        assert!(spending.has_game(elsewhere(9_999), now + ms(30_000)));
        // Calls of our own are paced by another.
        assert!(spending.take(elsewhere(9_999), 1200, Purpose::Call, now));
    }

    // PROTOCOL SM-PA-9
    #[test]
    fn targets_beyond_the_table_share_one_allowance_and_the_table_is_bounded() {
        let (now, mut spending) = (start(), Spending::new(start()));
        for n in 0..2 * TARGETS_MAX as u32 {
            spending.take(elsewhere(n), 1200, Purpose::Call, now);
        }
        assert_eq!(spending.targets.len(), TARGETS_MAX);
        let beyond = elsewhere(3 * TARGETS_MAX as u32);
        assert!(!spending.take(beyond, 1200, Purpose::Call, now));
        assert!(spending.take(beyond, 1200, Purpose::Call, now + ms(80_000)));
        for n in 0..3 * ANSWERED_MAX as u32 {
            spending.answered(elsewhere(n), now);
        }
        assert!(spending.answered.len() + spending.answered_before.len() <= 2 * ANSWERED_MAX);
    }

    #[test]
    fn a_call_is_put_off_until_its_first_flight_may_leave_whole() {
        let (mut now, mut spending) = (start(), Spending::new(start()));
        let began = now;
        let mut calls = 0;
        while now < began + ms(300_000) {
            let at = spending.call_at(victim(7), now);
            assert!(at >= now && at <= now + ms(70_000), "{:?}", at - now);
            now = at;
            for _ in 0..4 {
                assert!(spending.take(victim(7), 1222, Purpose::Call, now));
            }
            calls += 1;
        }
        assert!((48..=58).contains(&calls), "{calls}");
    }
}
