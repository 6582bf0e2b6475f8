//! The identity file, as a crash, a bad disk or an editor may leave it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shadowmesh_crypto::Identity;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(identity) = Identity::from_file_bytes(bytes) {
        let again = Identity::from_file_bytes(&identity.to_file_bytes());
        assert_eq!(
            again.expect("what is written can be read").peer_id(),
            identity.peer_id()
        );
    }
});
