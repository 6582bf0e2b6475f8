//! Who a node is: two key pairs that always act together, and the PeerId that binds both.
//!
//! [`Identity`] is the secret side and lives in one file (see [`mod@file`]); [`PublicIdentity`] is what
//! others learn. The PeerId must bind both keys: otherwise whoever breaks one algorithm could
//! substitute the other key, and the pair would be worth nothing.
//!
//! Only the two 32-byte seeds are secret state; everything else, including the keys with which a
//! node signs stateless resets and address tokens, is derived from them and so survives a restart.

mod file;
mod public;

pub use file::IdentityFileError;
pub use public::{PublicIdentity, PublicIdentityError};

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, ML_DSA_87_SIGNING, PqdsaKeyPair};
use aws_lc_rs::{hkdf, hmac, rand};
use quinn_proto::crypto::{HandshakeTokenKey, HmacKey};
use shadowmesh_wire::PeerId;
use zeroize::Zeroizing;

use crate::{composite, kdf};

/// Length of each of the two seeds, bytes (FIPS 204 and RFC 8032 agree on it).
const SEED_LEN: usize = 32;

/// A secret seed. Boxed and filled where it lies, so that moving it moves a pointer and leaves no copy on
/// the stack that nobody wipes.
// PROTOCOL SM-ID-3
type Seed = Box<Zeroizing<[u8; SEED_LEN]>>;

/// A seed to be filled in.
fn blank_seed() -> Seed {
    Box::new(Zeroizing::new([0; SEED_LEN]))
}

/// Salt of what is derived from the seeds beside the signature keys.
const DERIVED_SALT: &[u8] = b"shadowmesh identity v1";

/// The secret identity of this node. Wiped when dropped, never printed.
pub struct Identity {
    ml_dsa_seed: Seed,
    ed25519_seed: Seed,
    ml_dsa: PqdsaKeyPair,
    ed25519: Ed25519KeyPair,
    public: Arc<PublicIdentity>,
}

impl Identity {
    /// A new identity from the operating system's randomness.
    pub fn generate() -> Self {
        let mut seeds = [blank_seed(), blank_seed()];
        for seed in &mut seeds {
            rand::fill(seed.as_mut_slice())
                .expect("the operating system's random source never fails");
        }
        let [ml_dsa_seed, ed25519_seed] = seeds;
        Self::of(ml_dsa_seed, ed25519_seed)
    }

    /// The identity these two secrets make: every 32 bytes are a seed. For whoever must have the
    /// same identity twice without a file, as a simulated world that replays a run.
    pub fn from_seeds(ml_dsa_seed: &[u8; SEED_LEN], ed25519_seed: &[u8; SEED_LEN]) -> Self {
        let boxed = |from: &[u8; SEED_LEN]| {
            let mut seed = blank_seed();
            seed.copy_from_slice(from);
            seed
        };
        Self::of(boxed(ml_dsa_seed), boxed(ed25519_seed))
    }

    fn of(ml_dsa_seed: Seed, ed25519_seed: Seed) -> Self {
        let ml_dsa = PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, ml_dsa_seed.as_slice())
            .expect("every 32-byte string is an ML-DSA seed (FIPS 204, algorithm 6)");
        let ed25519 = Ed25519KeyPair::from_seed_unchecked(ed25519_seed.as_slice())
            .expect("every 32-byte string is an Ed25519 seed (RFC 8032 §5.1.5)");
        let public =
            PublicIdentity::from_keys(ml_dsa.public_key().as_ref(), ed25519.public_key().as_ref());
        Self {
            ml_dsa_seed,
            ed25519_seed,
            ml_dsa,
            ed25519,
            public: Arc::new(public),
        }
    }

    /// Reads what [`Identity::to_file_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are not an identity file, or the keys do not give the PeerId it names.
    // PROTOCOL SM-ID-3
    pub fn from_file_bytes(bytes: &[u8]) -> Result<Self, IdentityFileError> {
        let contents = file::parse(bytes)?;
        let identity = Self::of(contents.ml_dsa_seed, contents.ed25519_seed);
        if identity.peer_id() != contents.peer_id {
            return Err(IdentityFileError::WrongPeerId);
        }
        Ok(identity)
    }

    /// The identity as a short text file. The caller sees to mode 0600 and an atomic write.
    // PROTOCOL SM-ID-3
    pub fn to_file_bytes(&self) -> Zeroizing<Vec<u8>> {
        file::write(&self.peer_id(), &self.ml_dsa_seed, &self.ed25519_seed)
    }

    /// The name of this node.
    pub fn peer_id(&self) -> PeerId {
        self.public.peer_id()
    }

    /// What others may know of this node.
    pub fn public(&self) -> &Arc<PublicIdentity> {
        &self.public
    }

    /// The key of this node's stateless resets: HMAC-SHA-256. Derived from the identity, so a
    /// restarted node can tell the peers of its former life that their sessions are gone.
    // PROTOCOL SM-SF-6
    pub fn reset_key(&self) -> Arc<dyn HmacKey> {
        let mut key = Zeroizing::new([0; 32]);
        kdf::expand(&self.derive(), &[b"stateless reset"], key.as_mut());
        Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    /// The key of this node's address tokens and Retry tokens. Derived like the reset key, so a
    /// token given before a restart is still good after it.
    // PROTOCOL SM-HS-12
    pub fn token_key(&self) -> Arc<dyn HandshakeTokenKey> {
        let mut key = kdf::blank();
        kdf::expand(&self.derive(), &[b"address token"], key.as_mut_slice());
        Arc::new(kdf::prk(&key))
    }

    /// Signs `message` with both keys.
    // PROTOCOL SM-HS-4
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let message = composite::representative(message);
        let mut signature = vec![0; composite::SIGNATURE_LEN];
        let (ml_dsa, ed25519) = signature.split_at_mut(composite::ML_DSA_SIGNATURE_LEN);
        let written = self
            .ml_dsa
            .sign(&message, ml_dsa)
            .expect("ML-DSA signing fails only for want of memory or randomness");
        debug_assert_eq!(written, composite::ML_DSA_SIGNATURE_LEN);
        ed25519.copy_from_slice(self.ed25519.sign(&message).as_ref());
        signature
    }

    fn derive(&self) -> hkdf::Prk {
        let mut seeds = Zeroizing::new([0; 2 * SEED_LEN]);
        seeds[..SEED_LEN].copy_from_slice(self.ml_dsa_seed.as_slice());
        seeds[SEED_LEN..].copy_from_slice(self.ed25519_seed.as_slice());
        kdf::extract(DERIVED_SALT, seeds.as_ref())
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("peer_id", &self.peer_id())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-ID-3
    #[test]
    fn an_identity_survives_its_file() {
        let identity = Identity::generate();
        let again = Identity::from_file_bytes(&identity.to_file_bytes()).unwrap();
        assert_eq!(identity.peer_id(), again.peer_id());
        assert_eq!(identity.public().to_bytes(), again.public().to_bytes());
        let signature = again.sign(b"hello");
        assert!(identity.public().verify(b"hello", &signature));
    }

    #[test]
    fn derived_keys_are_the_same_after_a_restart_and_differ_between_nodes() {
        let identity = Identity::generate();
        let again = Identity::from_file_bytes(&identity.to_file_bytes()).unwrap();
        let mac = |identity: &Identity| {
            let mut out = [0; 32];
            identity.reset_key().sign(b"receiver", &mut out);
            out
        };
        assert_eq!(mac(&identity), mac(&again));
        assert_ne!(mac(&identity), mac(&Identity::generate()));

        let mut token = b"token".to_vec();
        identity
            .token_key()
            .aead_from_hkdf(&[1; 32])
            .seal(&mut token, &[])
            .unwrap();
        assert!(
            again
                .token_key()
                .aead_from_hkdf(&[1; 32])
                .open(&mut token, &[])
                .is_ok()
        );
    }

    #[test]
    fn an_identity_never_prints_its_seeds() {
        let identity = Identity::generate();
        let printed = format!("{identity:?}");
        let file = String::from_utf8(identity.to_file_bytes().to_vec()).unwrap();
        for line in file.lines().filter(|line| line.contains("seed")) {
            let seed = line.split(' ').next_back().unwrap();
            assert!(!printed.contains(&seed[..16]));
        }
        assert!(printed.len() < 160, "{printed}");
    }

    // PROTOCOL SM-HS-4
    #[test]
    fn a_signature_with_either_half_bad_is_refused() {
        let identity = Identity::generate();
        let good = identity.sign(b"message");
        assert!(identity.public().verify(b"message", &good));

        let mut bad_ml_dsa = good.clone();
        bad_ml_dsa[100] ^= 1;
        assert!(!identity.public().verify(b"message", &bad_ml_dsa));

        let mut bad_ed25519 = good.clone();
        bad_ed25519[composite::ML_DSA_SIGNATURE_LEN + 10] ^= 1;
        assert!(!identity.public().verify(b"message", &bad_ed25519));

        assert!(!identity.public().verify(b"massage", &good));
        assert!(
            !identity
                .public()
                .verify(b"message", &good[..good.len() - 1])
        );
        assert!(!identity.public().verify(b"message", &[]));
    }

    // PROTOCOL SM-HS-4
    #[test]
    fn halves_of_two_identities_do_not_make_a_signature() {
        let (ours, theirs) = (Identity::generate(), Identity::generate());
        let (a, b) = (ours.sign(b"m"), theirs.sign(b"m"));
        let split = composite::ML_DSA_SIGNATURE_LEN;
        let mixed = [&a[..split], &b[split..]].concat();
        assert!(!ours.public().verify(b"m", &mixed));
        assert!(!theirs.public().verify(b"m", &mixed));
    }

    // PROTOCOL SM-HS-4
    #[test]
    fn neither_half_signs_the_bare_message() {
        let identity = Identity::generate();
        let mut bare = vec![0; composite::SIGNATURE_LEN];
        identity.ml_dsa.sign(b"message", &mut bare).unwrap();
        bare[composite::ML_DSA_SIGNATURE_LEN..]
            .copy_from_slice(identity.ed25519.sign(b"message").as_ref());
        assert!(!identity.public().verify(b"message", &bare));
    }
}
