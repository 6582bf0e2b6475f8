//! What others see of our address, and what follows: where the peer should look for us.
//!
//! Each peer and relay tells us under which address it sees us. If all see the same, our translation
//! (if there is one) has one mapping for all remotes; if they see ports close together, it gives them
//! in sequence, and the next ones can be told in advance; else they are random. This says what may be
//! worth trying and is shown to people. It decides nothing: every way is proven by a probe.

use std::net::{IpAddr, SocketAddr};

use shadowmesh_wire::control::Mapping;
use shadowmesh_wire::way::Way;

/// Ports of one allocation sequence are no further apart than this: a handful of destinations were
/// written to between two observers.
const SEQUENCE_SPAN: u16 = 32;
/// Steps of an allocator: by one, or by two where parity is kept (RFC 4787 §4.2.3 speaks of it).
const STEP_MAX: u16 = 2;
/// Limit: ports that are predicted. Some of the next ones go to others.
// PROTOCOL SM-PA-7
const PREDICTED: u16 = 12;

/// How our translation treats us, and the addresses it will probably use next.
pub(crate) fn our_mapping(observed: &[SocketAddr]) -> (Mapping, Vec<SocketAddr>) {
    let mut seen: Vec<SocketAddr> = observed.to_vec();
    seen.retain(|address| address.is_ipv4() && Way::of(*address).is_udp());
    let observers = seen.len();
    seen.sort_unstable();
    seen.dedup();
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
        return (Mapping::Unknown, Vec::new());
    };
    if observers < 2 {
        return (Mapping::Unknown, Vec::new());
    }
    if seen.len() == 1 {
        return (Mapping::Stable, Vec::new());
    }
    if first.ip() != last.ip() || last.port() - first.port() > SEQUENCE_SPAN {
        return (Mapping::Random, Vec::new());
    }
    let gaps = seen.windows(2).map(|pair| pair[1].port() - pair[0].port());
    let step = gaps.min().filter(|gap| *gap <= STEP_MAX).unwrap_or(1);
    let next = (1..=PREDICTED).map(|n| last.port().wrapping_add(n * step));
    let predicted = next.map(|port| SocketAddr::new(last.ip(), port)).collect();
    (Mapping::Sequential, predicted)
}

/// What observers say, without an address that only one of them names while others agree on another
/// (of the same IP version): it may be made up, to have peers write there or to make our translation
/// look random.
// PROTOCOL SM-PA-6
pub(crate) fn agreed(observed: &[SocketAddr]) -> Vec<SocketAddr> {
    let alone = |address: &SocketAddr| {
        let mut all = observed.iter().filter(|other| other.ip() == address.ip());
        all.nth(1).is_none()
    };
    let agree = [false, true].map(|v4| {
        let mut alike = observed.iter().filter(|address| address.is_ipv4() == v4);
        alike.any(|address| !alone(address))
    });
    let kept = |address: &&SocketAddr| !alone(address) || !agree[usize::from(address.is_ipv4())];
    observed.iter().filter(kept).copied().collect()
}

/// Whether an address that a peer names may be probed. Others are no use, or not its to name: it could
/// have us write to whole groups or to ourselves; the overlay is for the
/// caller to refuse. `loopback`: we are there ourselves.
// PROTOCOL SM-PA-6
pub(crate) fn acceptable(address: SocketAddr, loopback: bool) -> bool {
    let ip = address.ip();
    let usable = match ip {
        IpAddr::V4(ip) => !ip.is_broadcast() && ip.octets()[0] != 0 && ip.octets()[0] < 240,
        // Scoped addresses need an interface, which no peer can name.
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    usable
        && address.port() != 0
        && !ip.is_unspecified()
        && !ip.is_multicast()
        && (loopback || !ip.is_loopback())
        && Way::of(address).is_udp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        ([198, 51, 100, 1], port).into()
    }

    // PROTOCOL SM-PA-7
    #[test]
    fn ports_that_count_up_are_told_in_advance() {
        let (mapping, next) = our_mapping(&[at(5002), at(5001)]);
        assert_eq!(mapping, Mapping::Sequential);
        assert_eq!(next[..2], [at(5003), at(5004)]);
        assert_eq!(next.len(), usize::from(PREDICTED));
        let (_, next) = our_mapping(&[at(5001), at(5003), at(5005)]);
        assert_eq!(next[..2], [at(5007), at(5009)]);
        // Others took ports in between; the step is not theirs to tell.
        let (_, next) = our_mapping(&[at(5001), at(5008)]);
        assert_eq!(next[..2], [at(5009), at(5010)]);
    }

    #[test]
    fn one_observer_says_nothing_and_agreement_means_one_mapping() {
        assert_eq!(our_mapping(&[at(1)]).0, Mapping::Unknown);
        assert_eq!(our_mapping(&[]).0, Mapping::Unknown);
        assert_eq!(our_mapping(&[at(7), at(7), at(7)]).0, Mapping::Stable);
        assert_eq!(our_mapping(&[at(7), at(40_000)]).0, Mapping::Random);
        let elsewhere = ([198, 51, 100, 2], 7).into();
        assert_eq!(our_mapping(&[at(7), elsewhere]).0, Mapping::Random);
    }

    // PROTOCOL SM-PA-6
    #[test]
    fn one_observer_against_others_that_agree_is_not_believed() {
        let liar: SocketAddr = ([203, 0, 113, 9], 53).into();
        let six: SocketAddr = "[2001:db8::1]:7".parse().unwrap();
        let observed = [at(7), liar, at(7), six];
        assert_eq!(agreed(&observed), [at(7), at(7), six]);
        assert_eq!(our_mapping(&agreed(&observed)).0, Mapping::Stable);
        // Other ports of one address are what translations give.
        assert_eq!(agreed(&[at(7), liar, at(9)]), [at(7), at(9)]);
        // With two who differ nobody knows.
        assert_eq!(agreed(&[at(7), liar]), [at(7), liar]);
    }

    // PROTOCOL SM-PA-6
    #[test]
    fn addresses_that_are_not_the_peers_to_name_are_refused() {
        let accepts = |text: &str| acceptable(text.parse().unwrap(), false);
        for good in [
            "192.0.2.1:7",
            "10.0.0.1:7",
            "[2001:db8::1]:7",
            "[fd00::1]:7",
        ] {
            assert!(accepts(good), "{good}");
        }
        for bad in [
            "192.0.2.1:0",
            "0.0.0.0:7",
            "0.1.2.3:7",
            "127.0.0.1:7",
            "224.0.0.1:7",
            "255.255.255.255:7",
            "240.0.0.1:7",
            "[::]:7",
            "[::1]:7",
            "[ff02::1]:7",
            "[fe80::1]:7",
            "[100::1]:7",
            "[100::1]:0",
        ] {
            assert!(!accepts(bad), "{bad}");
        }
        assert!(acceptable("127.0.0.1:7".parse().unwrap(), true));
    }
}
