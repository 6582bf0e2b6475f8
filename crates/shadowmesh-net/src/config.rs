//! What `Net` is told at its start, and what it is told of each peer.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shadowmesh_crypto::{Identity, PublicIdentity};
use shadowmesh_wire::PeerId;

use crate::plane::DataPlane;

/// Shortest interval between rekeys: below it, two exchanges could overlap on a slow path.
// PROTOCOL SM-EP-4
pub const REKEY_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// Longest interval between rekeys: what a stolen key may open.
// PROTOCOL SM-EP-4
pub const REKEY_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);

/// Settings of a node, fixed for its life.
#[derive(Clone)]
pub struct NetConfig {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// Seed of everything random that is not a key: connection ids, receiver indices, jitter. A
    /// program takes it from the operating system, a test from its own seed. Never printed: who can
    /// foretell a receiver index can ask for its reset token before it is in use.
    pub seed: [u8; 32],
    /// Different at every start, so that peers know that older sessions are dead.
    pub boot: u64,
    /// Wall-clock time since the Unix epoch at the `now` given to [`Net::new`](crate::Net::new).
    /// Only the age of address tokens is measured by it.
    pub unix_time: Duration,
    /// How often a session gets new keys, if the peer does not want it more often.
    pub rekey_interval: Duration,
    /// Measured speeds of AES-256-GCM and ChaCha20-Poly1305 in MB/s; 0 refuses a cipher.
    pub cipher_speeds: [u32; 2],
    /// Largest inner packet of our device, told to peers.
    pub mtu: u16,
    /// Limit: unfinished incoming handshakes. Each holds about 60 KB.
    pub handshakes_max: usize,
    /// Whether we relay for others, and for whom.
    pub relay: RelayConfig,
    /// When ways to peers are looked at.
    pub paths: PathTimers,
}

/// What we do as a relay.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// We relay at all.
    pub enabled: bool,
    /// For whom, beside the peers we were given.
    pub allow: RelayAllow,
    /// Limit: clients at once that are none of these peers.
    pub clients_max: usize,
    /// Limit: of these, clients of one source (IPv4 /32, IPv6 /64); of an IPv6 /48 half of all, or this if it
    /// is more. By one stream, or behind one way over another relay, comes one client.
    pub clients_per_source: usize,
    /// Bytes a second that one client may have relayed, each way.
    pub client_rate: u64,
}

/// Whom a relay serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayAllow {
    /// Everybody.
    Any,
    /// These.
    Listed(BTreeSet<PeerId>),
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            allow: RelayAllow::Any,
            clients_max: 1000,
            clients_per_source: RelayConfig::share_of_source(1000),
            client_rate: 125_000_000,
        }
    }
}

impl RelayConfig {
    /// How many of so many clients may come from one source, unless somebody decided otherwise: a quarter.
    /// An office behind one address finds room for hundreds, and who makes up identities at one address
    /// leaves three quarters to everybody else; to fill those too takes addresses in other places, or a
    /// stream for each identity, of which the host limits those of one address.
    // PROTOCOL SM-RL-5
    pub fn share_of_source(clients_max: usize) -> usize {
        (clients_max / 4).max(1)
    }

    /// Whether somebody may use this relay as far as the list goes.
    pub fn allows(&self, id: &PeerId) -> bool {
        self.enabled
            && match &self.allow {
                RelayAllow::Any => true,
                RelayAllow::Listed(ids) => ids.contains(id),
            }
    }
}

/// When ways to peers are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathTimers {
    /// How often a better way than the present one is looked for.
    pub retry: Duration,
    /// How often the ways to a peer without traffic are looked at.
    pub health: Duration,
    /// How long one search for a direct way goes on.
    pub connect: Duration,
}

impl Default for PathTimers {
    fn default() -> Self {
        Self {
            retry: Duration::from_secs(60),
            health: Duration::from_secs(30),
            connect: Duration::from_secs(5),
        }
    }
}

impl NetConfig {
    /// Defaults for an identity: rekey every two minutes, both ciphers, MTU 1420.
    pub fn new(identity: Arc<Identity>, seed: [u8; 32], boot: u64) -> Self {
        Self {
            identity,
            seed,
            boot,
            unix_time: Duration::ZERO,
            rekey_interval: Duration::from_secs(120),
            cipher_speeds: [2, 1],
            mtu: 1420,
            handshakes_max: 512,
            relay: RelayConfig::default(),
            paths: PathTimers::default(),
        }
    }

    /// Whether all values are within their limits.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(REKEY_INTERVAL_MIN..=REKEY_INTERVAL_MAX).contains(&self.rekey_interval) {
            return Err(ConfigError::RekeyInterval(self.rekey_interval));
        }
        if self.cipher_speeds == [0, 0] {
            return Err(ConfigError::NoCipher);
        }
        Ok(())
    }
}

impl std::fmt::Debug for NetConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetConfig")
            .field("identity", &self.identity)
            .field("rekey_interval", &self.rekey_interval)
            .field("cipher_speeds", &self.cipher_speeds)
            .field("mtu", &self.mtu)
            .field("handshakes_max", &self.handshakes_max)
            .finish_non_exhaustive()
    }
}

/// What we know of a peer beforehand.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// Who.
    pub id: PeerId,
    /// Where it may be reached. Empty: it must come to us. Only the first four are used.
    pub addresses: Vec<SocketAddr>,
    /// Its full public key, when known from an earlier run.
    pub known_key: Option<Arc<PublicIdentity>>,
    /// What is to carry its packets.
    pub data_plane: DataPlane,
    /// We use it as a relay.
    pub relay: bool,
}

/// Limit: addresses of one peer that are tried. All of them get every Initial until one answers,
/// so this bounds what one attempt sends.
pub(crate) const ADDRESSES_MAX: usize = 4;

/// A value outside its limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The rekey interval is too short or too long.
    #[error("rekey interval {0:?} is not between 10 s and 60 min")]
    RekeyInterval(Duration),
    /// Both ciphers are refused.
    #[error("no cipher is allowed: at least one of the two speeds must be above 0")]
    NoCipher,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_of_ids_is_never_printed() {
        let identity = Identity::from_seeds(&[1; 32], &[2; 32]);
        let config = NetConfig::new(Arc::new(identity), [231; 32], 231);
        assert!(!format!("{config:?}").contains("231"));
    }
}
