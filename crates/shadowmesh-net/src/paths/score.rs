//! Which of two ways is better: one ordered value, and when a difference is worth a switch.

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
        self <= Self::Direct
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
/// A way of the same tier must be faster by a fifth and this.
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
    fn key(&self) -> (Tier, u16, Duration) {
        (self.tier, self.loss / LOSS_STEP, self.rtt)
    }

    /// Whether this way is so much better than the one in use that a switch pays.
    pub(crate) fn is_clear_gain_over(&self, current: &Score) -> bool {
        let (ours, theirs) = (self.loss / LOSS_STEP, current.loss / LOSS_STEP);
        self.tier < current.tier
            || self.tier == current.tier
                && (ours + 1 < theirs
                    || ours <= theirs && self.rtt * 5 / 4 + RTT_GAIN < current.rtt)
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
    use Tier::{Direct, Local, Relayed, RelayedStream, Stream};
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
    fn the_kind_of_a_way_counts_before_loss_and_loss_before_the_round_trip() {
        let order = [
            score(Local, 100, 90),
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

    proptest! {
        // No two ways can each be worth a switch from the other: sessions do not swing.
        #[test]
        fn a_gain_is_never_mutual(
            tiers: (bool, bool),
            losses in (0u16..=256, 0u16..=256),
            rtts in (0u64..500, 0u64..500),
        ) {
            let tier = |relayed| if relayed { Relayed } else { Direct };
            let a = score(tier(tiers.0), losses.0, rtts.0);
            let b = score(tier(tiers.1), losses.1, rtts.1);
            prop_assert!(!(a.is_clear_gain_over(&b) && b.is_clear_gain_over(&a)));
        }
    }
}
