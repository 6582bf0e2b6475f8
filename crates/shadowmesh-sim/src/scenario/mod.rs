//! Scenarios with figures, shared by the tests and by `cargo xtask evidence`.

pub mod breaks;
pub mod chaos;
pub mod direct;
pub mod handshake;
pub mod nat;
pub mod random;
pub mod random_ways;
pub mod rekey;
pub mod relay;
pub mod restart;
pub mod switches;

use std::time::Duration;

/// Durations in order, to read percentiles from.
#[derive(Clone, Debug, Default)]
pub struct Sorted(Vec<Duration>);

impl FromIterator<Duration> for Sorted {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        let mut all: Vec<_> = durations.into_iter().collect();
        all.sort_unstable();
        Self(all)
    }
}

impl Sorted {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The duration that `percent` of all do not exceed (nearest rank); zero if there is none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.percentile(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let sorted: Sorted = (1..=20).rev().map(Duration::from_secs).collect();
        assert_eq!(
            [50, 95, 100].map(|p| sorted.percentile(p).as_secs()),
            [10, 19, 20]
        );
        assert_eq!(Sorted::default().max(), Duration::ZERO);
    }
}
