//! The two certificates: SubjectPublicKeyInfo structures (RFC 5280 §4.1.2.7), sent as raw public
//! keys (RFC 7250).
//!
//! *Full*: both public keys. *Short*: only the PeerId, for a peer that holds the full key already;
//! it saves 2.6 KB each way. DER has one encoding for each, so reading is comparing with a fixed
//! prefix and a fixed length. The object identifiers are ours, under a random UUID (X.667).

use rustls::pki_types::CertificateDer;
use shadowmesh_wire::PeerId;

use crate::PublicIdentity;

/// `SEQUENCE { SEQUENCE { OID 2.25.53518271693192469259095587786060529287.1 }, BIT STRING }`
const FULL_PREFIX: [u8; 33] = [
    0x30, 0x82, 0x0a, 0x5d, 0x30, 0x16, 0x06, 0x14, 0x69, 0xd0, 0xc3, 0x9f, 0xa1, 0x81, 0xf6, 0x92,
    0xbb, 0xdb, 0x9c, 0xad, 0xa8, 0xce, 0xf7, 0xf2, 0xb3, 0xfd, 0x07, 0x01, 0x03, 0x82, 0x0a, 0x41,
    0x00,
];
/// `SEQUENCE { SEQUENCE { OID 2.25.53518271693192469259095587786060529287.2 }, BIT STRING }`
const SHORT_PREFIX: [u8; 29] = [
    0x30, 0x3b, 0x30, 0x16, 0x06, 0x14, 0x69, 0xd0, 0xc3, 0x9f, 0xa1, 0x81, 0xf6, 0x92, 0xbb, 0xdb,
    0x9c, 0xad, 0xa8, 0xce, 0xf7, 0xf2, 0xb3, 0xfd, 0x07, 0x02, 0x03, 0x21, 0x00,
];

/// A peer's certificate as it came: a claim, until the handshake's signature is verified.
// PROTOCOL SM-HS-6
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Certificate {
    /// Both public keys.
    Full(PublicIdentity),
    /// Only the name; whoever reads it must hold the keys.
    Short(PeerId),
}

/// Why bytes are no certificate of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neither a full nor a short ShadowMesh certificate")]
pub struct CertificateError;

impl Certificate {
    /// Reads a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When it is not byte for byte one of the two forms.
    // PROTOCOL SM-HS-6
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        if let Some(keys) = der.strip_prefix(&FULL_PREFIX) {
            return PublicIdentity::from_bytes(keys)
                .map(Self::Full)
                .map_err(|_| CertificateError);
        }
        let id = der.strip_prefix(&SHORT_PREFIX).ok_or(CertificateError)?;
        let id = id.try_into().map_err(|_| CertificateError)?;
        Ok(Self::Short(PeerId::from_bytes(id)))
    }

    /// Whose it claims to be.
    pub fn peer_id(&self) -> PeerId {
        match self {
            Self::Full(identity) => identity.peer_id(),
            Self::Short(peer) => *peer,
        }
    }

    pub(super) fn full(identity: &PublicIdentity) -> CertificateDer<'static> {
        CertificateDer::from([FULL_PREFIX.as_slice(), identity.as_bytes()].concat())
    }

    pub(super) fn short(peer: &PeerId) -> CertificateDer<'static> {
        CertificateDer::from([SHORT_PREFIX.as_slice(), peer.as_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity() -> PublicIdentity {
        PublicIdentity::from_bytes(&vec![3; PublicIdentity::LEN]).unwrap()
    }

    // PROTOCOL SM-HS-6
    #[test]
    fn both_certificates_survive_their_encoding() {
        let identity = identity();
        let full = Certificate::full(&identity);
        assert_eq!(
            Certificate::parse(&full),
            Ok(Certificate::Full(identity.clone()))
        );
        let short = Certificate::short(&identity.peer_id());
        assert_eq!(
            Certificate::parse(&short),
            Ok(Certificate::Short(identity.peer_id()))
        );
        assert!(short.len() < 64);
    }

    /// Walks the DER by its own lengths: they must fit into each other and end where the bytes do.
    #[test]
    fn both_certificates_are_well_formed_der() {
        fn element(der: &[u8], tag: u8) -> (&[u8], &[u8]) {
            assert_eq!(der[0], tag);
            let (len, header) = match der[1] {
                len @ 0..0x80 => (usize::from(len), 2),
                0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
                other => panic!("length form {other:#x}"),
            };
            der[header..].split_at(len)
        }
        for der in [
            Certificate::full(&identity()),
            Certificate::short(&identity().peer_id()),
        ] {
            let (info, rest) = element(&der, 0x30);
            assert!(rest.is_empty());
            let (algorithm, rest) = element(info, 0x30);
            let (_oid, parameters) = element(algorithm, 0x06);
            assert!(parameters.is_empty());
            let (_key, rest) = element(rest, 0x03);
            assert!(rest.is_empty());
        }
    }

    // PROTOCOL SM-HS-6
    #[test]
    fn a_certificate_cut_short_or_with_bytes_behind_it_is_refused() {
        for der in [
            Certificate::full(&identity()),
            Certificate::short(&identity().peer_id()),
        ] {
            for len in 0..der.len() {
                assert_eq!(Certificate::parse(&der[..len]), Err(CertificateError));
            }
            let longer = [der.as_ref(), &[0]].concat();
            assert_eq!(Certificate::parse(&longer), Err(CertificateError));
        }
    }

    proptest! {
        // PROTOCOL SM-HS-6
        #[test]
        fn arbitrary_bytes_are_no_certificate(bytes: Vec<u8>) {
            prop_assert_eq!(Certificate::parse(&bytes), Err(CertificateError));
        }
    }
}
