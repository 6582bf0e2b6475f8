//! Certificates and public identities, as a stranger presents them before anything is verified.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shadowmesh_crypto::{Certificate, FirstContact, PublicIdentity};
use shadowmesh_wire::PeerId;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(certificate) = Certificate::parse(bytes) {
        match &certificate {
            Certificate::Full(identity) => {
                assert!(
                    bytes.ends_with(&identity.to_bytes()),
                    "the keys are the bytes that came"
                );
                // Not a key pair anybody signed with; what counts is that any key bytes are safe.
                assert!(!identity.verify(b"message", bytes));
            }
            Certificate::Short(peer) => assert!(bytes.ends_with(peer.as_bytes())),
        }
    }
    if let Ok(identity) = PublicIdentity::from_bytes(bytes) {
        assert_eq!(identity.to_bytes(), bytes);
    }
    // Twelve bytes of HMAC are not found by chance.
    assert!(!FirstContact::verify(&PeerId::from_bytes([7; 32]), bytes));
});
