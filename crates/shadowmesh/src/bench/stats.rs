//! Percentiles of measured times.

use serde::Serialize;

/// Summary of a series, in microseconds.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// How many were measured.
    pub count: usize,
    /// Smallest.
    pub min_us: u64,
    /// Half are below.
    pub p50_us: u64,
    /// 99 of 100 are below.
    pub p99_us: u64,
    /// Largest.
    pub max_us: u64,
}

impl Summary {
    /// Of any series, in any order; `None` of an empty one.
    pub fn of(times_us: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut sorted: Vec<u64> = times_us.into_iter().collect();
        sorted.sort_unstable();
        Some(Self {
            count: sorted.len(),
            min_us: *sorted.first()?,
            p50_us: nearest_rank(&sorted, 0.50),
            p99_us: nearest_rank(&sorted, 0.99),
            max_us: *sorted.last()?,
        })
    }
}

/// The nearest-rank percentile: always a value that was measured.
fn nearest_rank(sorted: &[u64], fraction: f64) -> u64 {
    let rank = (fraction * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let summary = Summary::of((1..=100).rev()).unwrap();
        assert_eq!((summary.min_us, summary.max_us), (1, 100));
        assert_eq!((summary.p50_us, summary.p99_us), (50, 99));
        let one = Summary::of([7]).unwrap();
        assert_eq!((one.p50_us, one.p99_us), (7, 7));
        assert_eq!(Summary::of([]), None);
    }
}
