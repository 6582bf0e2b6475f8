//! What others see of our address, and what follows: where the peer should look for us.
//!
//! Each peer and relay tells us under which address it sees us. If all see the same, our translation
//! (if there is one) has one mapping for all remotes; if they see ports close together, it gives them
//! in sequence, and the next ones can be told in advance; else they are random. This says what may be
//! worth trying and is shown to people. It decides nothing: every way is proven by a probe.

use std::net::{IpAddr, SocketAddr};

use shadowmesh_wire::PeerId;
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

/// Where somebody sees us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) by: PeerId,
    pub(crate) address: SocketAddr,
}

/// How our translation treats us, and the addresses it will probably use next. Who differs about the address
/// itself, and not only about its port, makes it unknown: others would be led to aim at an address that one
/// observer made up.
// PROTOCOL SM-PA-6
pub(crate) fn our_mapping(observed: &[Word]) -> (Mapping, Vec<SocketAddr>) {
    let unknown = (Mapping::Unknown, Vec::new());
    let seen = observed.iter().map(|word| word.address);
    let mut seen: Vec<SocketAddr> = seen
        .filter(|address| address.is_ipv4() && Way::of(*address).is_udp())
        .collect();
    let words = seen.len();
    seen.sort_unstable();
    seen.dedup();
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
        return unknown;
    };
    if words < 2 || first.ip() != last.ip() {
        return unknown;
    }
    if seen.len() == 1 {
        return (Mapping::Stable, Vec::new());
    }
    if last.port() - first.port() > SEQUENCE_SPAN {
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
/// look random. Two words of one observer are one voice.
// PROTOCOL SM-PA-6
pub(crate) fn agreed(observed: &[Word]) -> Vec<Word> {
    let alone = |word: &Word| {
        let same = |other: &&Word| other.address.ip() == word.address.ip();
        let others = observed.iter().filter(same);
        others.map(|other| other.by).all(|by| by == word.by)
    };
    let agree = [false, true].map(|v4| {
        let mut alike = observed.iter().filter(|word| word.address.is_ipv4() == v4);
        alike.any(|word| !alone(word))
    });
    let kept = |word: &&Word| !alone(word) || !agree[usize::from(word.address.is_ipv4())];
    observed.iter().filter(kept).copied().collect()
}

/// Where the ports of a peer may be guessed at, or written to from many of ours: the one IPv4 address at which
/// all see it. `None`: they differ, or nobody sees it.
// PROTOCOL SM-PA-8
pub(crate) fn aim(seen: &[SocketAddr]) -> Option<SocketAddr> {
    let mut seen = seen.iter().filter(|address| address.is_ipv4());
    let first = *seen.next()?;
    seen.all(|other| other.ip() == first.ip()).then_some(first)
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

    /// One observer each.
    fn words(seen: &[SocketAddr]) -> Vec<Word> {
        let observer = |n: usize| PeerId::from_bytes([n as u8; 32]);
        let all = seen.iter().enumerate();
        all.map(|(n, &address)| Word {
            by: observer(n),
            address,
        })
        .collect()
    }

    fn mapping_of(seen: &[SocketAddr]) -> Mapping {
        our_mapping(&words(seen)).0
    }

    // PROTOCOL SM-PA-7
    #[test]
    fn ports_that_count_up_are_told_in_advance() {
        let (mapping, next) = our_mapping(&words(&[at(5002), at(5001)]));
        assert_eq!(mapping, Mapping::Sequential);
        assert_eq!(next[..2], [at(5003), at(5004)]);
        assert_eq!(next.len(), usize::from(PREDICTED));
        let (_, next) = our_mapping(&words(&[at(5001), at(5003), at(5005)]));
        assert_eq!(next[..2], [at(5007), at(5009)]);
        // Others took ports in between; the step is not theirs to tell.
        let (_, next) = our_mapping(&words(&[at(5001), at(5008)]));
        assert_eq!(next[..2], [at(5009), at(5010)]);
    }

    // PROTOCOL SM-PA-6
    #[test]
    fn one_word_says_nothing_and_agreement_means_one_mapping() {
        assert_eq!(mapping_of(&[at(1)]), Mapping::Unknown);
        assert_eq!(mapping_of(&[]), Mapping::Unknown);
        assert_eq!(mapping_of(&[at(7), at(7), at(7)]), Mapping::Stable);
        assert_eq!(mapping_of(&[at(7), at(40_000)]), Mapping::Random);
        // One of the two is wrong, or a liar, and nobody is to aim by it.
        let elsewhere = ([198, 51, 100, 2], 7).into();
        assert_eq!(mapping_of(&[at(7), elsewhere]), Mapping::Unknown);
        assert_eq!(
            mapping_of(&[at(7), elsewhere, at(40_000)]),
            Mapping::Unknown
        );
    }

    // PROTOCOL SM-PA-6
    #[test]
    fn one_observer_against_others_that_agree_is_not_believed() {
        let liar: SocketAddr = ([203, 0, 113, 9], 53).into();
        let six: SocketAddr = "[2001:db8::1]:7".parse().unwrap();
        let without = |seen: &[SocketAddr]| -> Vec<SocketAddr> {
            let agreed = agreed(&words(seen)).into_iter();
            agreed.map(|word| word.address).collect()
        };
        assert_eq!(without(&[at(7), liar, at(7), six]), [at(7), at(7), six]);
        // Other ports of one address are what translations give.
        assert_eq!(without(&[at(7), liar, at(9)]), [at(7), at(9)]);
        // With two who differ nobody knows.
        assert_eq!(without(&[at(7), liar]), [at(7), liar]);
    }

    // PROTOCOL SM-PA-6
    #[test]
    fn who_says_it_twice_is_one_observer() {
        let liar = |port| ([203, 0, 113, 9], port).into();
        let mut seen = words(&[at(7), liar(53), liar(5353)]);
        seen[2].by = seen[1].by;
        assert_eq!(agreed(&seen), seen, "one voice against one");
        assert_eq!(our_mapping(&seen).0, Mapping::Unknown);
        let more = [&seen[..], &words(&[at(1), at(2), at(3), at(9)])[3..]].concat();
        let kept: Vec<SocketAddr> = agreed(&more).iter().map(|word| word.address).collect();
        assert_eq!(kept, [at(7), at(9)]);
        // Alone it is all that is known.
        assert_eq!(our_mapping(&seen[1..]).0, Mapping::Random);
    }

    // PROTOCOL SM-PA-8
    #[test]
    fn nothing_is_aimed_at_where_observers_differ() {
        let elsewhere: SocketAddr = ([203, 0, 113, 9], 53).into();
        let six: SocketAddr = "[2001:db8::1]:7".parse().unwrap();
        assert_eq!(aim(&[six, at(7), at(9)]), Some(at(7)));
        assert_eq!(aim(&[at(7), elsewhere]), None);
        assert_eq!(aim(&[six]), None);
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
