//! Address tokens (RFC 9000 §8.1.3): what spares a returning node the proof of its address.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use quinn_proto::{TimeSource, TokenLog, TokenReuseError, TokenStore};

/// Limit: tokens kept for one peer.
const TOKENS_PER_PEER: usize = 2;
/// Limit: bytes of a token. Ours have under 100.
const TOKEN_LEN_MAX: usize = 256;
/// Limit: peers for which tokens are kept.
const PEERS_MAX: usize = 16 * 1024;
/// Limit: used tokens remembered, in each of two generations.
const USED_MAX: usize = 8 * 1024;

/// Tokens that peers gave us, for our next connection to them.
#[derive(Debug, Default)]
pub(super) struct AddressTokens(Mutex<BTreeMap<String, VecDeque<Bytes>>>);

impl AddressTokens {
    pub(super) fn has(&self, server_name: &str) -> bool {
        self.lock().contains_key(server_name)
    }

    pub(super) fn forget(&self, server_name: &str) {
        self.lock().remove(server_name);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, VecDeque<Bytes>>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl TokenStore for AddressTokens {
    fn insert(&self, server_name: &str, token: Bytes) {
        let mut peers = self.lock();
        let known = peers.contains_key(server_name);
        if token.len() > TOKEN_LEN_MAX || (!known && peers.len() >= PEERS_MAX) {
            return;
        }
        let tokens = peers.entry(server_name.to_owned()).or_default();
        tokens.push_back(token);
        if tokens.len() > TOKENS_PER_PEER {
            tokens.pop_front();
        }
    }

    fn take(&self, server_name: &str) -> Option<Bytes> {
        let mut peers = self.lock();
        let tokens = peers.get_mut(server_name)?;
        let token = tokens.pop_back();
        if tokens.is_empty() {
            peers.remove(server_name);
        }
        token
    }
}

/// Tokens that were used with us. In two generations, so that memory is bounded and a token is
/// remembered at least until as many others have been used; one used again after that proves an
/// address that was proven before, which an attacker at that address could do anyway.
#[derive(Debug, Default)]
pub(super) struct UsedTokens(Mutex<[BTreeSet<u128>; 2]>);

impl TokenLog for UsedTokens {
    fn check_and_insert(
        &self,
        nonce: u128,
        _issued: SystemTime,
        _lifetime: Duration,
    ) -> Result<(), TokenReuseError> {
        let mut generations = self.0.lock().expect("no holder of this lock panics");
        let [current, previous] = &mut *generations;
        if previous.contains(&nonce) || !current.insert(nonce) {
            return Err(TokenReuseError);
        }
        if current.len() >= USED_MAX {
            *previous = std::mem::take(current);
        }
        Ok(())
    }
}

/// Wall-clock time as told by `now`: the age of tokens must survive a restart, which `Instant`
/// does not.
#[derive(Debug)]
pub(crate) struct TokenTime {
    unix_start: Duration,
    start: Instant,
    elapsed_ms: AtomicU64,
}

impl TokenTime {
    pub(super) fn new(unix_start: Duration, start: Instant) -> Self {
        Self {
            unix_start,
            start,
            elapsed_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn advance(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.start).as_millis();
        self.elapsed_ms
            .store(elapsed.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl TimeSource for TokenTime {
    fn now(&self) -> SystemTime {
        let elapsed = Duration::from_millis(self.elapsed_ms.load(Ordering::Relaxed));
        UNIX_EPOCH + self.unix_start + elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-HS-12
    #[test]
    fn a_token_is_taken_once_and_the_newest_first() {
        let store = AddressTokens::default();
        for byte in 1..=3u8 {
            store.insert("peer", Bytes::from(vec![byte; 8]));
        }
        store.insert("peer", Bytes::from(vec![9; TOKEN_LEN_MAX + 1]));
        assert_eq!(store.take("peer"), Some(Bytes::from(vec![3; 8])));
        assert!(store.has("peer"));
        assert_eq!(store.take("peer"), Some(Bytes::from(vec![2; 8])));
        assert!(!store.has("peer"));
        assert_eq!(store.take("peer"), None);
    }

    // PROTOCOL SM-HS-12
    #[test]
    fn a_used_token_proves_nothing_a_second_time() {
        let log = UsedTokens::default();
        let use_token = |nonce| {
            log.check_and_insert(nonce, UNIX_EPOCH, Duration::ZERO)
                .is_ok()
        };
        assert!(use_token(7));
        assert!(!use_token(7));
        for nonce in 100..100 + USED_MAX as u128 {
            assert!(use_token(nonce));
        }
        assert!(!use_token(7));
    }
}
