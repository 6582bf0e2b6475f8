//! Which of two ways is better: one ordered value, and when a difference is worth a switch.
//!
//! The value is a cost: the round trip, times a weight for the kind of way, times a factor for loss. So each
//! counts, and none without bound: a kind that is preferred outweighs a round trip some times as long, and not
//! one a thousand times as long. An address that looks near is no proof of being near: it may lead through
//! somebody's tunnel around the world. A sum of such factors is one number, and so the order is one for any
//! number of ways; rules for pairs of them would go in circles.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use shadowmesh_wire::way::Way;

/// What kind of way it is, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// Straight, within one network.
    Local,
    /// Straight.
    Direct,
    /// Straight, through a tunnel device of ours or of the peer's: another VPN, which has a longer way than
    /// it looks, takes bytes from each packet, and may itself be carried by this one.
    Tunnelled,
    /// Over a relay.
    Relayed,
    /// Over a stream of ours to the peer: head-of-line blocking.
    Stream,
    /// Over a relay that we reach by a stream.
    RelayedStream,
}

impl Tier {
    /// As far as the address tells; how we reach a relay only its session knows.
    pub(crate) fn of(remote: SocketAddr) -> Self {
        match Way::of(remote) {
            Way::Udp(address) if is_local(address.ip()) => Self::Local,
            Way::Udp(_) => Self::Direct,
            Way::Relayed { .. } => Self::Relayed,
            Way::Stream(_) => Self::Stream,
        }
    }

    /// Nobody carries what goes there but the network.
    pub(crate) fn is_direct(self) -> bool {
        self <= Self::Tunnelled
    }

    /// How many times the round trip counts: what a preference is worth. From the first to the last less than
    /// 1000 by a clear gain, so that no way is used beside a proven one that is a thousand times faster.
    fn weight(self) -> u128 {
        match self {
            Self::Local => 1,
            Self::Direct => 4,
            Self::Tunnelled => 16,
            Self::Relayed => 64,
            Self::Stream => 150,
            Self::RelayedStream => 700,
        }
    }
}

/// Addresses that mean something only nearby (RFC 1918, RFC 4193, link-local and loopback).
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local(),
    }
}

/// Parts of 256 in one step of loss: about 12 %. Less is noise over the few probes that are counted.
const LOSS_STEP: u16 = 32;
/// What loss does to the cost, by steps: a packet that is lost costs at least a round trip more, and makes
/// whoever sent it slow down. The first quarter does most of the harm. More grows slowly: a way that was dead
/// for a second looks as if it lost half for a minute after, and is to be used again all the same.
fn loss_factor(steps: u16) -> u128 {
    match steps {
        0 => 1,
        steps => 3 * (u128::from(steps) + u128::from(steps > 1)),
    }
}
/// Counts with every round trip: what is below it is noise of the machines, and no way is infinitely better
/// than another.
const RTT_FLOOR: Duration = Duration::from_millis(1);
/// A way of the same kind must be faster by a fifth and this.
const RTT_GAIN: Duration = Duration::from_millis(5);

/// Where a way stands. The lower, the better.
// PROTOCOL SM-PA-5
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) tier: Tier,
    /// Share of lost probes, of 256.
    pub(crate) loss: u16,
    pub(crate) rtt: Duration,
}

impl Score {
    /// Equal costs are ordered by the rest, so that only equal scores are equal.
    fn key(&self) -> (u128, Tier, u16, Duration) {
        let cost = self.cost(self.rtt + RTT_FLOOR, self.loss_steps());
        (cost, self.tier, self.loss, self.rtt)
    }

    /// What a round trip would cost on this kind of way with so much loss, in nanoseconds on a local one
    /// without loss.
    fn cost(&self, rtt: Duration, loss_steps: u16) -> u128 {
        rtt.as_nanos() * self.tier.weight() * loss_factor(loss_steps)
    }

    fn loss_steps(&self) -> u16 {
        self.loss / LOSS_STEP
    }

    /// Whether this way is so much better than the one in use that a switch pays: it is of a better kind and
    /// costs less, or it costs less by a clear gain. One step of loss alone is no gain, since one lost probe
    /// can make it.
    pub(crate) fn is_clear_gain_over(&self, current: &Score) -> bool {
        let (ours, theirs) = (self.loss_steps(), current.loss_steps());
        let theirs = if theirs > ours { theirs - 1 } else { theirs };
        let in_use = current.cost(current.rtt + RTT_FLOOR, theirs);
        if self.tier < current.tier {
            return self.cost(self.rtt + RTT_FLOOR, ours) < in_use;
        }
        let margin = current.cost(RTT_GAIN, theirs);
        self.cost(self.rtt * 5 / 4 + RTT_FLOOR, ours) + margin < in_use
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Tier::{Direct, Local, Relayed, RelayedStream, Stream, Tunnelled};
    use proptest::prelude::*;
    use shadowmesh_wire::way::Label;

    fn score(tier: Tier, loss: u16, rtt_ms: u64) -> Score {
        Score {
            tier,
            loss,
            rtt: Duration::from_millis(rtt_ms),
        }
    }

    // PROTOCOL SM-PA-5
    #[test]
    fn among_ways_of_like_speed_the_kind_counts_before_loss_and_loss_before_the_round_trip() {
        let order = [
            score(Local, 31, 90),
            score(Direct, 0, 80),
            score(Direct, 31, 81),
            score(Direct, 64, 10),
            score(Relayed, 0, 9),
            score(Stream, 0, 8),
            score(RelayedStream, 0, 1),
        ];
        assert!(order.is_sorted());
    }

    // PROTOCOL SM-PA-5
    #[test]
    fn a_way_that_looks_near_does_not_beat_one_that_is_a_thousand_times_faster() {
        // Another VPN with private addresses: 300 ms, beside 0.05 ms straight.
        let straight = Score {
            rtt: Duration::from_micros(50),
            ..score(Direct, 0, 0)
        };
        let around_the_world = score(Local, 0, 300);
        assert!(straight < around_the_world);
        assert!(!around_the_world.is_clear_gain_over(&straight));
        assert!(
            straight.is_clear_gain_over(&around_the_world),
            "it comes back"
        );
        // Nor does one that loses nearly all.
        let lossy = score(Local, 230, 5);
        assert!(score(Direct, 0, 20) < lossy);
        assert!(!lossy.is_clear_gain_over(&score(Direct, 0, 20)));
        // Through somebody else's tunnel only where nothing else is as fast.
        assert!(!score(Tunnelled, 0, 20).is_clear_gain_over(&score(Direct, 0, 30)));
        assert!(score(Direct, 0, 30).is_clear_gain_over(&score(Tunnelled, 0, 20)));
        assert!(score(Tunnelled, 0, 60).is_clear_gain_over(&score(Relayed, 0, 30)));
        assert!(!score(Relayed, 0, 30).is_clear_gain_over(&score(Tunnelled, 0, 60)));
        // Relays and streams are what they were: for where nothing is straight.
        assert!(score(Direct, 0, 200).is_clear_gain_over(&score(Relayed, 0, 30)));
        assert!(!score(Relayed, 0, 30).is_clear_gain_over(&score(Direct, 0, 200)));
        assert!(score(Relayed, 0, 60).is_clear_gain_over(&score(Stream, 0, 30)));
    }

    // PROTOCOL SM-PA-5
    #[test]
    fn a_switch_within_a_kind_needs_a_clear_gain() {
        let current = score(Direct, 0, 40);
        assert!(!score(Direct, 0, 30).is_clear_gain_over(&current));
        assert!(score(Direct, 0, 20).is_clear_gain_over(&current));
        assert!(!score(Relayed, 0, 1).is_clear_gain_over(&current));
        assert!(score(Local, 0, 50).is_clear_gain_over(&current));
        let lossy = score(Direct, 80, 40);
        assert!(current.is_clear_gain_over(&lossy));
        assert!(!lossy.is_clear_gain_over(&current));
    }

    #[test]
    fn what_leads_where_is_read_from_the_address() {
        let tier = |text: &str| Tier::of(text.parse().unwrap());
        assert_eq!(tier("192.168.1.2:1"), Local);
        assert_eq!(tier("[fe80::1]:1"), Local);
        assert_eq!(tier("198.51.100.1:1"), Direct);
        assert_eq!(tier("[2001:db8::1]:1"), Direct);
        let relayed = Way::Relayed {
            slot: 1,
            label: Label(2),
        };
        assert_eq!(Tier::of(relayed.address()), Relayed);
        assert_eq!(Tier::of(Way::Stream(7).address()), Stream);
    }

    fn any_score() -> impl Strategy<Value = Score> {
        let tiers = [Local, Direct, Tunnelled, Relayed, Stream, RelayedStream];
        let tier = proptest::sample::select(tiers.to_vec());
        // By orders of magnitude, from microseconds to a minute.
        let rtt = (0u32..26, 0u64..1000).prop_map(|(power, part)| (1 << power) + part);
        (tier, 0u16..=256, rtt).prop_map(|(tier, loss, micros)| Score {
            tier,
            loss,
            rtt: Duration::from_micros(micros),
        })
    }

    proptest! {
        // No two ways can each be worth a switch from the other: sessions do not swing.
        #[test]
        fn a_gain_is_never_mutual(a in any_score(), b in any_score()) {
            prop_assert!(!(a.is_clear_gain_over(&b) && b.is_clear_gain_over(&a)));
        }

        // Nor do three lead in a circle.
        #[test]
        fn a_way_that_is_clearly_better_is_better_in_the_order(a in any_score(), b in any_score()) {
            let (a, b) = (Score { loss: 0, ..a }, Score { loss: 0, ..b });
            prop_assert!(!a.is_clear_gain_over(&b) || a < b);
        }

        // PROTOCOL SM-PA-5
        #[test]
        fn no_way_is_kept_or_taken_beside_one_a_thousand_times_faster(
            fast in any_score(),
            slow in any_score(),
        ) {
            let loss = fast.loss.min(slow.loss);
            let slow = Score { loss: slow.loss.max(loss), ..slow };
            let fast = Score { loss, rtt: (slow.rtt / 1000).min(fast.rtt), ..fast };
            // A difference that nobody notices moves nothing.
            let straight = fast.tier.is_direct() && slow.tier.is_direct();
            let noticed = Duration::from_millis(if straight { 25 } else { 10_000 });
            if slow.rtt > noticed {
                prop_assert!(fast < slow);
                prop_assert!(fast.is_clear_gain_over(&slow));
                prop_assert!(!slow.is_clear_gain_over(&fast));
            }
        }
    }
}
