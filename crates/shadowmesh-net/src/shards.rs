//! A map of which snapshots hold a version each, and that is cheap to change: what data threads look up
//! by a number.
//!
//! A version differs from the one before by an entry or two out of thousands. So the entries lie in
//! small tables that versions share; who changes one copies the table that it lies in, unless nobody else
//! holds that, and no other. With n entries a change costs n / [`SHARDS`] and [`SHARDS`] reference
//! counts, a lookup one step more than in a single table.
//!
//! Keys must be spread evenly, and nobody else may choose them: drawn by us, or hashed with a key of ours.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// About the root of the entries that ten thousand peers make, where both parts of the cost of a change
/// are the same.
const SHARDS: usize = 128;

type Shard<V> = HashMap<u64, V, BuildHasherDefault<KeyHasher>>;

/// The map.
#[derive(Debug, Clone)]
pub(crate) struct Shards<V>([Arc<Shard<V>>; SHARDS]);

impl<V> Default for Shards<V> {
    fn default() -> Self {
        let empty = Arc::new(Shard::default());
        Self(std::array::from_fn(|_| empty.clone()))
    }
}

impl<V: Clone> Shards<V> {
    /// What stands under `key`. HOT PATH.
    pub(crate) fn get(&self, key: u64) -> Option<&V> {
        self.0[shard(key)].get(&key)
    }

    /// Puts `value` in the place of whatever stands under `key`.
    pub(crate) fn insert(&mut self, key: u64, value: V) {
        Arc::make_mut(&mut self.0[shard(key)]).insert(key, value);
    }

    /// Takes out what stands under `key`.
    pub(crate) fn remove(&mut self, key: u64) {
        let shard = &mut self.0[shard(key)];
        if shard.contains_key(&key) {
            Arc::make_mut(shard).remove(&key);
        }
    }

    #[cfg(test)]
    #[expect(clippy::disallowed_methods, reason = "the caller makes a set of them")]
    pub(crate) fn keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|shard| shard.keys().copied())
    }
}

/// By bits that a table itself does not go by: it takes the lowest and the highest.
fn shard(key: u64) -> usize {
    (key >> 40) as usize % SHARDS
}

/// Takes a key as its own hash: it is spread evenly as it is.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeMap;

    /// Whether two versions share the table of this key.
    fn share(one: &Shards<u32>, other: &Shards<u32>, key: u64) -> bool {
        Arc::ptr_eq(&one.0[shard(key)], &other.0[shard(key)])
    }

    #[test]
    fn every_version_keeps_what_it_had_and_shares_what_did_not_change() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut shards = Shards::default();
        let mut model = BTreeMap::new();
        let mut versions = Vec::new();
        for turn in 0..2_000_u32 {
            let key = match model.keys().nth(turn as usize % 7) {
                Some(known) if turn % 3 == 0 => *known,
                _ => rng.random(),
            };
            let earlier = shards.clone();
            if turn % 5 == 0 {
                shards.remove(key);
                model.remove(&key);
            } else {
                shards.insert(key, turn);
                model.insert(key, turn);
            }
            let shared = (0..SHARDS as u64).filter(|at| share(&earlier, &shards, at << 40));
            assert!(shared.count() >= SHARDS - 1, "one table at most is copied");
            if turn % 100 == 0 {
                versions.push((shards.clone(), model.clone()));
            }
        }
        for (shards, model) in versions {
            let mut keys: Vec<u64> = shards.keys().collect();
            keys.sort_unstable();
            assert_eq!(keys, model.keys().copied().collect::<Vec<_>>());
            assert!(
                model
                    .iter()
                    .all(|(key, value)| shards.get(*key) == Some(value))
            );
        }
    }

    #[test]
    fn drawn_keys_are_shared_out_evenly() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut shards = Shards::default();
        for _ in 0..SHARDS * 100 {
            shards.insert(rng.random(), 0);
        }
        let longest = shards.0.iter().map(|shard| shard.len()).max();
        assert!(longest < Some(150), "{longest:?}");
    }

    #[test]
    fn what_is_not_there_is_taken_out_without_a_copy() {
        let mut shards = Shards::default();
        shards.insert(7, 1);
        let earlier = shards.clone();
        shards.remove(8);
        assert!(share(&earlier, &shards, 7));
        shards.remove(7);
        assert_eq!((earlier.get(7), shards.get(7)), (Some(&1), None));
    }
}
