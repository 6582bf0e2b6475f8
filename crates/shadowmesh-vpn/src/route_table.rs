//! Which peer an overlay address belongs to: longest prefix match over both IP versions.
//!
//! Prefixes are nested or disjoint, never half overlapping. So the whole table can be flattened when
//! it is built: the address space is cut at every prefix's first address and just after its last, and
//! each cut remembers the longest prefix that covers it. A lookup is then one binary search in one
//! sorted array, whatever the prefix lengths are, with no pointer to chase. Changing the table means
//! building a new one, which is what an immutable snapshot wants anyway.

use std::fmt;
use std::net::IpAddr;

use shadowmesh_wire::prefix::IpPrefix;

/// An immutable longest-prefix-match table from [`IpPrefix`] to `T`.
#[derive(Clone, Debug)]
pub struct RouteTable<T> {
    v4: Cuts<u32, T>,
    v6: Cuts<u128, T>,
}

impl<T: Copy + Eq> RouteTable<T> {
    /// Builds the table. The same prefix twice for the same `T` counts once; for two different ones
    /// it is an error, because no rule could say who owns it.
    pub fn new(routes: impl IntoIterator<Item = (IpPrefix, T)>) -> Result<Self, SamePrefix<T>> {
        let mut v4 = Vec::new();
        let mut v6 = Vec::new();
        for (prefix, value) in routes {
            match prefix.addr() {
                IpAddr::V4(a) => {
                    let first = u32::from(a);
                    let span = u32::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
                    v4.push(Span {
                        first,
                        last: first | span,
                        prefix,
                        value,
                    });
                }
                IpAddr::V6(a) => {
                    let first = u128::from(a);
                    let span = u128::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
                    v6.push(Span {
                        first,
                        last: first | span,
                        prefix,
                        value,
                    });
                }
            }
        }
        Ok(Self {
            v4: Cuts::flatten(v4)?,
            v6: Cuts::flatten(v6)?,
        })
    }

    /// The value of the longest prefix that contains `address`. HOT PATH.
    #[inline]
    pub fn get(&self, address: IpAddr) -> Option<T> {
        match address {
            IpAddr::V4(a) => self.v4.get(u32::from(a)),
            IpAddr::V6(a) => self.v6.get(u128::from(a)),
        }
    }
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self {
            v4: Cuts::default(),
            v6: Cuts::default(),
        }
    }
}

/// Two different owners claim the same prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamePrefix<T> {
    /// The prefix claimed twice.
    pub prefix: IpPrefix,
    /// The two who claim it, in the order they were given.
    pub owners: [T; 2],
}

impl<T: fmt::Debug> fmt::Display for SamePrefix<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = &self.owners;
        write!(f, "{} is claimed by both {a:?} and {b:?}", self.prefix)
    }
}

impl<T: fmt::Debug> std::error::Error for SamePrefix<T> {}

/// A prefix as the inclusive range of addresses it covers.
struct Span<A, T> {
    first: A,
    last: A,
    prefix: IpPrefix,
    value: T,
}

/// The flattened table of one IP version: from `firsts[i]` up to the next cut, `values[i]` holds.
/// Two arrays, so that the search touches addresses only.
#[derive(Clone, Debug)]
struct Cuts<A, T> {
    firsts: Vec<A>,
    values: Vec<Option<T>>,
}

impl<A: Address, T: Copy + Eq> Cuts<A, T> {
    fn flatten(mut spans: Vec<Span<A, T>>) -> Result<Self, SamePrefix<T>> {
        // Wider first at the same start, so that an outer prefix is open before its inner ones. The
        // sort is stable: owners of an equal prefix stay in the order they were given.
        spans.sort_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
        let mut cuts = Self::default();
        let mut open: Vec<Span<A, T>> = Vec::new();
        for span in spans {
            cuts.close_before(&mut open, Some(span.first));
            if let Some(same) = open
                .last()
                .filter(|o| o.first == span.first && o.last == span.last)
            {
                if same.value != span.value {
                    return Err(SamePrefix {
                        prefix: span.prefix,
                        owners: [same.value, span.value],
                    });
                }
                continue;
            }
            cuts.cut(span.first, Some(span.value));
            open.push(span);
        }
        cuts.close_before(&mut open, None);
        Ok(cuts)
    }

    /// Ends the open spans that do not reach `next` (all of them, when there is no next one).
    fn close_before(&mut self, open: &mut Vec<Span<A, T>>, next: Option<A>) {
        while let Some(ended) = open.pop_if(|o| next.is_none_or(|n| o.last < n)) {
            // A span that reaches the last address has nothing after it.
            if let Some(after) = ended.last.next() {
                self.cut(after, open.last().map(|o| o.value));
            }
        }
    }

    /// From `first` on, `value` holds. A later cut at the same address is the more exact one.
    fn cut(&mut self, first: A, value: Option<T>) {
        if self.firsts.last() == Some(&first) {
            self.firsts.pop();
            self.values.pop();
        }
        self.firsts.push(first);
        self.values.push(value);
    }

    #[inline]
    fn get(&self, address: A) -> Option<T> {
        let after = self.firsts.partition_point(|first| *first <= address);
        // Before the first cut there is no prefix at all.
        self.values[after.checked_sub(1)?]
    }
}

impl<A, T> Default for Cuts<A, T> {
    fn default() -> Self {
        Self {
            firsts: Vec::new(),
            values: Vec::new(),
        }
    }
}

/// An IP address as a number.
trait Address: Copy + Ord {
    /// The address after this one, if there is one.
    fn next(self) -> Option<Self>;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn prefix(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn table(routes: &[(&str, u8)]) -> Result<RouteTable<u8>, SamePrefix<u8>> {
        RouteTable::new(routes.iter().map(|(p, v)| (prefix(p), *v)))
    }

    #[test]
    fn longest_prefix_wins_and_the_shorter_one_holds_around_it() {
        let t = table(&[
            ("10.0.0.0/8", 1),
            ("10.1.0.0/16", 2),
            ("10.1.0.0/32", 3),
            ("fd00::/8", 4),
        ])
        .unwrap();
        for (a, owner) in [
            ("9.255.255.255", None),
            ("10.0.0.0", Some(1)),
            ("10.1.0.0", Some(3)),
            ("10.1.0.1", Some(2)),
            ("10.1.255.255", Some(2)),
            ("10.2.0.0", Some(1)),
            ("10.255.255.255", Some(1)),
            ("11.0.0.0", None),
            ("fd12::1", Some(4)),
            ("fe00::", None),
        ] {
            assert_eq!(t.get(address(a)), owner, "{a}");
        }
    }

    #[test]
    fn default_routes_cover_the_first_and_the_last_address_of_their_version_only() {
        let t = table(&[("0.0.0.0/0", 1), ("255.255.255.255/32", 2)]).unwrap();
        assert_eq!(t.get(address("0.0.0.0")), Some(1));
        assert_eq!(t.get(address("255.255.255.254")), Some(1));
        assert_eq!(t.get(address("255.255.255.255")), Some(2));
        assert_eq!(t.get(address("::")), None);
    }

    #[test]
    fn one_prefix_of_two_owners_is_refused_and_of_one_owner_counts_once() {
        let refused =
            table(&[("10.0.0.0/8", 1), ("10.0.0.0/9", 1), ("10.0.0.0/8", 2)]).unwrap_err();
        assert_eq!(
            refused,
            SamePrefix {
                prefix: prefix("10.0.0.0/8"),
                owners: [1, 2]
            }
        );
        assert!(table(&[("10.0.0.0/8", 1), ("10.0.0.0/8", 1)]).is_ok());
    }

    /// The rule itself, without any cleverness.
    fn linear_scan(routes: &[(IpPrefix, u8)], address: IpAddr) -> Option<u8> {
        let covering = routes.iter().filter(|(p, _)| p.contains(address));
        covering.max_by_key(|(p, _)| p.len()).map(|(_, v)| *v)
    }

    /// Few distinct high bits and any length, so that prefixes nest, touch and repeat often.
    fn any_prefix() -> impl Strategy<Value = IpPrefix> {
        let v4 = (0u32..8, any::<u8>())
            .prop_map(|(high, low)| IpAddr::from(((high << 29) | u32::from(low)).to_be_bytes()));
        let v6 = (0u128..8, any::<u8>())
            .prop_map(|(high, low)| IpAddr::from(((high << 125) | u128::from(low)).to_be_bytes()));
        (prop_oneof![v4, v6], 0u8..=128).prop_map(|(address, len)| {
            IpPrefix::containing(address, if address.is_ipv4() { len / 4 } else { len })
        })
    }

    /// The edges of a prefix and their neighbours: where an error would show.
    fn edges(p: &IpPrefix) -> Vec<IpAddr> {
        match p.addr() {
            IpAddr::V4(a) => {
                let first = u32::from(a);
                let last = first | u32::MAX.checked_shr(p.len().into()).unwrap_or(0);
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                    .map(|n| IpAddr::from(n.to_be_bytes()))
                    .into()
            }
            IpAddr::V6(a) => {
                let first = u128::from(a);
                let last = first | u128::MAX.checked_shr(p.len().into()).unwrap_or(0);
                [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
                    .map(|n| IpAddr::from(n.to_be_bytes()))
                    .into()
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_scan(
            routes in prop::collection::btree_map(any_prefix(), any::<u8>(), 0..60),
            more in prop::collection::vec(any::<[u8; 16]>(), 0..20),
        ) {
            let routes: Vec<_> = routes.into_iter().collect();
            let table = RouteTable::new(routes.iter().copied()).unwrap();
            let mut probes: Vec<IpAddr> = routes.iter().flat_map(|(p, _)| edges(p)).collect();
            probes.extend(more.iter().map(|b| IpAddr::from(*b)));
            probes.extend(more.iter().map(|b| IpAddr::from([b[0], b[1], b[2], b[3]])));
            for probe in probes {
                prop_assert_eq!(table.get(probe), linear_scan(&routes, probe), "{}", probe);
            }
        }

        #[test]
        fn is_refused_exactly_when_two_owners_have_one_prefix(
            routes in prop::collection::vec((any_prefix(), 0u8..3), 0..12),
        ) {
            let conflict = routes.iter().any(|(p, v)| routes.iter().any(|(q, w)| p == q && v != w));
            prop_assert_eq!(RouteTable::new(routes).is_err(), conflict);
        }
    }
}
