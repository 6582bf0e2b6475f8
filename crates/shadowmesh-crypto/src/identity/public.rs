//! The public side of an identity: what a full certificate carries and what a node remembers of a
//! peer.

use aws_lc_rs::digest;
use shadowmesh_wire::PeerId;

use crate::composite;

/// Length of an ML-DSA-87 public key, bytes (FIPS 204, table 2).
pub(crate) const ML_DSA_PUBLIC_LEN: usize = 2592;
/// Length of an Ed25519 public key, bytes.
pub(crate) const ED25519_PUBLIC_LEN: usize = 32;

/// Separates the hash of a PeerId from every other use of SHA-256.
const PEER_ID_LABEL: &[u8] = b"shadowmesh peer id v1";

/// Both public keys of a node and the PeerId they make.
///
/// Any bytes of the right length are accepted: whether they are keys shows when a signature is
/// verified with them, and what makes them *somebody's* is the PeerId.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicIdentity {
    keys: Box<[u8; Self::LEN]>,
    peer_id: PeerId,
}

/// Why bytes are not a [`PublicIdentity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a public identity is {} bytes long, not {found}", PublicIdentity::LEN)]
pub struct PublicIdentityError {
    /// The length that was given, bytes.
    pub found: usize,
}

impl PublicIdentity {
    /// Length of the byte form: ML-DSA-87 key, then Ed25519 key.
    pub const LEN: usize = ML_DSA_PUBLIC_LEN + ED25519_PUBLIC_LEN;

    pub(crate) fn from_keys(ml_dsa: &[u8], ed25519: &[u8]) -> Self {
        Self::from_bytes(&[ml_dsa, ed25519].concat()).expect("AWS-LC gives keys of FIPS 204 length")
    }

    /// Reads the byte form.
    ///
    /// # Errors
    /// When the length is not [`PublicIdentity::LEN`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PublicIdentityError> {
        let keys: &[u8; Self::LEN] = bytes
            .try_into()
            .map_err(|_| PublicIdentityError { found: bytes.len() })?;
        Ok(Self {
            keys: Box::new(*keys),
            peer_id: peer_id(keys),
        })
    }

    /// The byte form: ML-DSA-87 key, then Ed25519 key.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.keys.to_vec()
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.keys
    }

    /// The name these keys make.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// Whether this identity signed `message` with both keys.
    // PROTOCOL SM-HS-4
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let (ml_dsa, ed25519) = self.keys.split_at(ML_DSA_PUBLIC_LEN);
        composite::verify(ml_dsa, ed25519, message, signature)
    }
}

// PROTOCOL SM-ID-1
fn peer_id(keys: &[u8; PublicIdentity::LEN]) -> PeerId {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(PEER_ID_LABEL);
    hash.update(keys);
    let hash = hash.finish();
    PeerId::from_bytes(hash.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
}

impl std::fmt::Debug for PublicIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PublicIdentity")
            .field(&self.peer_id)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    // PROTOCOL SM-ID-1
    #[test]
    fn the_peer_id_changes_with_either_key() {
        let bytes = Identity::generate().public().to_bytes();
        let name = PublicIdentity::from_bytes(&bytes).unwrap().peer_id();
        for changed_byte in [
            0,
            ML_DSA_PUBLIC_LEN - 1,
            ML_DSA_PUBLIC_LEN,
            PublicIdentity::LEN - 1,
        ] {
            let mut changed = bytes.clone();
            changed[changed_byte] ^= 1;
            assert_ne!(
                PublicIdentity::from_bytes(&changed).unwrap().peer_id(),
                name
            );
        }
    }

    // PROTOCOL SM-ID-1
    #[test]
    fn the_peer_id_is_the_labelled_hash_of_both_keys() {
        let bytes = vec![7; PublicIdentity::LEN];
        let expected = digest::digest(
            &digest::SHA256,
            &[b"shadowmesh peer id v1".as_slice(), &bytes].concat(),
        );
        let name = PublicIdentity::from_bytes(&bytes).unwrap().peer_id();
        assert_eq!(name.as_bytes().as_slice(), expected.as_ref());
    }

    #[test]
    fn a_public_identity_of_any_other_length_is_refused() {
        for found in [0, 32, PublicIdentity::LEN - 1, PublicIdentity::LEN + 1] {
            let result = PublicIdentity::from_bytes(&vec![0; found]);
            assert_eq!(result.unwrap_err(), PublicIdentityError { found });
        }
    }
}
