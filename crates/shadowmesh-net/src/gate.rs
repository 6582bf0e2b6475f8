//! The flood gate: which first packets of strangers are worth work.
//!
//! A first packet costs its sender nothing and us an ML-KEM encapsulation and an ML-DSA signature,
//! and its source address may be anybody's. So:
//!
//! - while it is quiet, a small burst of senders is served without proof (no round trip lost). Each
//!   waits a moment first (`net/incoming.rs`), so that the first packets of a flood, too, are answered
//!   as what they are;
//! - as soon as first packets come faster than that, everybody has to prove the address first: the
//!   answer is a Retry, which costs symmetric cryptography only and keeps no state. This lasts until
//!   it has been quiet for a while, so an attacker cannot save up bursts;
//! - even a Retry costs some microseconds, so only so many of them are sent in a second; whoever is
//!   not among them tries again;
//! - a token is only a claim until it was opened, so first packets with one have such a limit of
//!   their own, which a flood without tokens cannot use up;
//! - who proved the address is limited by the address, and all together by a table of unfinished
//!   handshakes.
//!
//! Of unproven addresses only the few of a burst make an entry here, so a spoofed flood cannot fill the
//! table of sources.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use shadowmesh_wire::way::is_way;

use crate::bucket::Bucket;

/// Unproven first packets served when it was quiet. A small mesh that starts together fits;
/// an attacker gains this many handshakes once.
const BURST: u32 = 4;
/// How fast the burst is regained.
const BURST_INTERVAL: Duration = Duration::from_millis(500);
/// The gate opens again after first packets stayed within the burst for so long.
const QUIET: Duration = Duration::from_secs(10);
/// Retries in one go, and how fast they are regained: a fifth of a core at 10 us each. An honest
/// first flight has four datagrams and is repeated after 300 ms, so among 50,000 spoofed first
/// packets a second it gets its Retry nine times out of ten at once.
const RETRY_BURST: u32 = 1000;
const RETRY_INTERVAL: Duration = Duration::from_micros(50);
/// First packets with a token that are opened in one go, and how fast that is regained. As cheap as a
/// Retry, and for the same fifth of a core.
const TOKEN_BURST: u32 = RETRY_BURST;
const TOKEN_INTERVAL: Duration = RETRY_INTERVAL;
/// Handshakes one source may start at once, and regain interval: ten nodes behind one NAT restart
/// together; one in a crash loop, or an attacker with one address, is held to two a second.
const SOURCE_BURST: u32 = 16;
const SOURCE_INTERVAL: Duration = Duration::from_millis(500);
/// Limit: sources remembered. The one unused longest is forgotten first.
const SOURCES_MAX: usize = 4096;

/// What to do with a first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Begin the handshake.
    Accept,
    /// Ask for proof of the address.
    Retry,
    /// Ignore: this source started too many.
    SourceLimit,
    /// Ignore: the table of unfinished handshakes is full.
    TableFull,
}

/// The gate. One for each node.
#[derive(Debug)]
pub struct Gate {
    /// Burst for unproven addresses.
    unproven: Bucket,
    /// Retries that may be sent.
    retries: Bucket,
    /// Tokens that may be opened.
    tokens: Bucket,
    /// When first packets last came faster than the burst.
    flooded_at: Option<Instant>,
    /// Limit: [`SOURCES_MAX`].
    sources: BTreeMap<IpAddr, Bucket>,
    unfinished_max: usize,
}

impl Gate {
    /// An open gate that lets at most `unfinished_max` handshakes be under way.
    pub fn new(unfinished_max: usize, now: Instant) -> Self {
        Self {
            unproven: Bucket::full(now),
            retries: Bucket::full(now),
            tokens: Bucket::full(now),
            flooded_at: None,
            sources: BTreeMap::new(),
            unfinished_max,
        }
    }

    /// Whether a first packet without proof of its address is worth being looked at: always while
    /// the gate is open, else as long as there are Retries left.
    // PROTOCOL SM-HS-9
    pub fn looks_at(&mut self, now: Instant) -> bool {
        !self.is_closed(now) || self.retries.take(RETRY_BURST, RETRY_INTERVAL, now)
    }

    /// Whether a first packet that claims to prove its address is worth being looked at.
    // PROTOCOL SM-HS-9
    pub fn looks_at_token(&mut self, now: Instant) -> bool {
        self.tokens.take(TOKEN_BURST, TOKEN_INTERVAL, now)
    }

    /// Judges a first packet. `proven`: it carried a token that proves its address. `unfinished`:
    /// incoming handshakes now under way.
    // PROTOCOL SM-HS-9
    // PROTOCOL SM-HS-10
    pub fn judge(
        &mut self,
        source: IpAddr,
        proven: bool,
        unfinished: usize,
        now: Instant,
    ) -> Verdict {
        if !proven && self.is_flooded(now) {
            return Verdict::Retry;
        }
        if unfinished >= self.unfinished_max {
            return Verdict::TableFull;
        }
        if self.take_from_source(source, now) {
            Verdict::Accept
        } else {
            Verdict::SourceLimit
        }
    }

    /// Whether unproven addresses are answered by Retry.
    pub fn is_closed(&self, now: Instant) -> bool {
        self.flooded_at.is_some_and(|at| now < at + QUIET)
    }

    /// Counts an unproven first packet, and says whether it must prove its address.
    fn is_flooded(&mut self, now: Instant) -> bool {
        if !self.unproven.take(BURST, BURST_INTERVAL, now) {
            self.flooded_at = Some(now);
        }
        self.is_closed(now)
    }

    fn take_from_source(&mut self, source: IpAddr, now: Instant) -> bool {
        let key = source_key(source);
        if !self.sources.contains_key(&key) && self.sources.len() >= SOURCES_MAX {
            self.forget_one();
        }
        self.sources
            .entry(key)
            .or_insert_with(|| Bucket::full(now))
            .take(SOURCE_BURST, SOURCE_INTERVAL, now)
    }

    /// A scan of the whole table, but only for a sender who proved one address more than the table
    /// holds.
    fn forget_one(&mut self) {
        let oldest = self
            .sources
            .iter()
            .min_by_key(|(_, bucket)| bucket.whole_at())
            .map(|(&key, _)| key);
        if let Some(key) = oldest {
            self.sources.remove(&key);
        }
    }
}

/// One household usually holds a /64, so for IPv6 that is one source. Ways over relays and streams name
/// one peer each.
pub(crate) fn source_key(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        way if is_way(way) => way,
        IpAddr::V6(v6) => {
            let prefix = u128::from(v6) >> 64 << 64;
            IpAddr::V6(prefix.into())
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::harness::start;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn spoofed(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n))
    }

    // PROTOCOL SM-HS-9
    #[test]
    fn a_burst_is_served_then_everybody_unproven_gets_retry_until_it_is_quiet() {
        let start = start();
        let mut gate = Gate::new(100, start);
        for n in 0..BURST {
            assert_eq!(gate.judge(spoofed(n), false, 0, start), Verdict::Accept);
        }
        let mut now = start;
        for n in 0..50_000 {
            now = start + Duration::from_micros(20 * u64::from(n));
            assert_eq!(gate.judge(spoofed(n), false, 0, now), Verdict::Retry);
        }
        assert_eq!(gate.judge(A, true, 0, now), Verdict::Accept);
        let later = now + QUIET - Duration::from_millis(1);
        assert_eq!(gate.judge(A, false, 0, later), Verdict::Retry);
        let quiet = now + QUIET + Duration::from_secs(1);
        assert_eq!(gate.judge(A, false, 0, quiet), Verdict::Accept);
        assert!(gate.sources.len() <= BURST as usize + 1);
    }

    // PROTOCOL SM-HS-9
    #[test]
    fn retries_are_limited_while_the_gate_is_closed() {
        let start = start();
        let mut gate = Gate::new(100, start);
        for n in 0..100_000 {
            assert!(gate.looks_at(start), "an open gate looks at everything");
            if n > BURST {
                break;
            }
            gate.judge(spoofed(n), false, 0, start);
        }
        let looked_at = (0..50_000u64)
            .filter(|n| gate.looks_at(start + Duration::from_micros(20 * n)))
            .count();
        assert!((10_000..25_000).contains(&looked_at), "{looked_at}");
    }

    // PROTOCOL SM-HS-9
    #[test]
    fn made_up_tokens_are_limited_and_use_up_nobody_elses_turn() {
        let start = start();
        let mut gate = Gate::new(100, start);
        let looked_at = (0..50_000u64)
            .filter(|n| gate.looks_at_token(start + Duration::from_micros(20 * n)))
            .count();
        assert!((10_000..25_000).contains(&looked_at), "{looked_at}");
        let now = start + Duration::from_secs(1);
        for n in 0..=BURST {
            gate.judge(spoofed(n), false, 0, now);
        }
        assert!(gate.is_closed(now) && gate.looks_at(now));
    }

    // PROTOCOL SM-HS-10
    #[test]
    fn one_source_is_limited_and_a_whole_ipv6_64_is_one_source() {
        let now = start();
        let mut gate = Gate::new(100, now);
        let host = |n| IpAddr::V6(Ipv6Addr::from((0x2001_0db8_u128 << 96) + n));
        for n in 0..u128::from(SOURCE_BURST) {
            assert_eq!(gate.judge(host(n), true, 0, now), Verdict::Accept);
        }
        assert_eq!(gate.judge(host(999), true, 0, now), Verdict::SourceLimit);
        assert_eq!(gate.judge(A, true, 0, now), Verdict::Accept);
        let later = now + SOURCE_INTERVAL;
        assert_eq!(gate.judge(host(1), true, 0, later), Verdict::Accept);
        assert_eq!(gate.judge(host(2), true, 0, later), Verdict::SourceLimit);
    }

    // PROTOCOL SM-HS-10
    #[test]
    fn a_full_table_of_handshakes_takes_nobody() {
        let now = start();
        let mut gate = Gate::new(3, now);
        assert_eq!(gate.judge(A, true, 2, now), Verdict::Accept);
        assert_eq!(gate.judge(A, true, 3, now), Verdict::TableFull);
    }

    #[test]
    fn the_table_of_sources_is_bounded() {
        let now = start();
        let mut gate = Gate::new(100, now);
        for n in 0..SOURCES_MAX as u32 + 100 {
            gate.judge(spoofed(n), true, 0, now + Duration::from_micros(n.into()));
        }
        assert_eq!(gate.sources.len(), SOURCES_MAX);
        assert!(!gate.sources.contains_key(&spoofed(0)));
    }
}
