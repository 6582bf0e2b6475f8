//! Counters of how peers were reached, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of [`ConnectivityTotals::migration_durations`], in milliseconds; one more bucket
/// takes what is longer.
pub const MIGRATION_BUCKETS_MS: [u64; 10] = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

/// How peers were reached since the start. Only ever grow.
#[derive(Debug, Default)]
pub struct Connectivity {
    connections_direct: AtomicU64,
    connections_relay: AtomicU64,
    migrations: AtomicU64,
    migrations_failed: AtomicU64,
    fallbacks: AtomicU64,
    retries_succeeded: AtomicU64,
    retries_failed: AtomicU64,
    migration_buckets: [AtomicU64; MIGRATION_BUCKETS_MS.len() + 1],
    migration_us: AtomicU64,
}

/// A reading of [`Connectivity`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ConnectivityTotals {
    /// Sessions whose first path was direct (UDP or a stream to the peer itself).
    pub connections_direct: u64,
    /// Sessions whose first path led over a relay.
    pub connections_relay: u64,
    /// Moves from a relay to a direct path.
    pub migrations: u64,
    /// Searches for a direct path that ended without one.
    pub migrations_failed: u64,
    /// Moves from a direct path that broke to another way.
    pub fallbacks: u64,
    /// Later searches for a better way that found one.
    pub retries_succeeded: u64,
    /// Later searches that found none.
    pub retries_failed: u64,
    /// Migrations by how long they took from the first probe, by [`MIGRATION_BUCKETS_MS`]; not cumulated.
    pub migration_durations: [u64; MIGRATION_BUCKETS_MS.len() + 1],
    /// Sum of these times in microseconds.
    pub migration_us: u64,
}

impl Connectivity {
    /// A session came up.
    pub(crate) fn connected(&self, relayed: bool) {
        let counter = if relayed {
            &self.connections_relay
        } else {
            &self.connections_direct
        };
        add(counter, 1);
    }

    /// A session moved from a relay to a direct path, `took` after the first probe of the search.
    pub(crate) fn migrated(&self, took: Duration) {
        let ms = took.as_millis() as u64;
        let bucket = MIGRATION_BUCKETS_MS.partition_point(|bound| *bound < ms);
        add(&self.migrations, 1);
        add(&self.migration_buckets[bucket], 1);
        add(&self.migration_us, took.as_micros() as u64);
    }

    /// The first search of a session for a direct path found none.
    pub(crate) fn not_migrated(&self) {
        add(&self.migrations_failed, 1);
    }

    /// A direct path broke and another way took its place.
    pub(crate) fn fell_back(&self) {
        add(&self.fallbacks, 1);
    }

    /// A later search for a better way is over.
    pub(crate) fn retried(&self, found: bool) {
        let counter = if found {
            &self.retries_succeeded
        } else {
            &self.retries_failed
        };
        add(counter, 1);
    }

    /// The figures now.
    pub fn totals(&self) -> ConnectivityTotals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConnectivityTotals {
            connections_direct: get(&self.connections_direct),
            connections_relay: get(&self.connections_relay),
            migrations: get(&self.migrations),
            migrations_failed: get(&self.migrations_failed),
            fallbacks: get(&self.fallbacks),
            retries_succeeded: get(&self.retries_succeeded),
            retries_failed: get(&self.retries_failed),
            migration_durations: self.migration_buckets.each_ref().map(get),
            migration_us: get(&self.migration_us),
        }
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_is_counted_in_the_first_bucket_that_holds_it() {
        let counters = Connectivity::default();
        for ms in [10, 11, 60_000] {
            counters.migrated(Duration::from_millis(ms));
        }
        let totals = counters.totals();
        assert_eq!(totals.migrations, 3);
        assert_eq!(totals.migration_durations[..2], [1, 1]);
        assert_eq!(totals.migration_durations[MIGRATION_BUCKETS_MS.len()], 1);
        assert_eq!(totals.migration_us, 60_021_000);
    }
}
