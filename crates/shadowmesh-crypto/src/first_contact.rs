//! The first-contact tag: how a node tells a first packet meant for it from noise.
//!
//! A connection's first Initial carries a destination connection id that the client chooses. Ours
//! is a nonce and a MAC over it, keyed by the PeerId of the node it is meant for. Who does not know
//! that PeerId cannot make a node do any work or send any byte back. The PeerId is no secret, so
//! this is a filter against scanners and blind floods and no authentication: that is the
//! handshake's, and Retry's against those who do know the PeerId.
//!
//! To an observer who does not know the PeerId the id is as random as any QUIC client's.

use aws_lc_rs::{constant_time, digest, hmac};
use shadowmesh_wire::PeerId;

/// Separates this use of a PeerId from every other.
const LABEL: &[u8] = b"shadowmesh first contact v1";

const NONCE_LEN: usize = 8;
/// 20 bytes is the longest connection id of QUIC v1 (RFC 9000 §17.2); 12 of it are the tag.
const DCID_LEN: usize = 20;

/// Makes and checks the destination connection id of a first Initial.
pub struct FirstContact;

impl FirstContact {
    /// The id for a first packet to `server`; `nonce` must be fresh and random.
    // PROTOCOL SM-HS-7
    pub fn new_dcid(server: &PeerId, nonce: [u8; NONCE_LEN]) -> [u8; DCID_LEN] {
        let mut dcid = [0; DCID_LEN];
        dcid[..NONCE_LEN].copy_from_slice(&nonce);
        dcid[NONCE_LEN..].copy_from_slice(&tag(server, &nonce));
        dcid
    }

    /// Whether `dcid` was made for `server`.
    pub fn verify(server: &PeerId, dcid: &[u8]) -> bool {
        if dcid.len() != DCID_LEN {
            return false;
        }
        let (nonce, theirs) = dcid.split_at(NONCE_LEN);
        constant_time::verify_slices_are_equal(&tag(server, nonce), theirs).is_ok()
    }
}

fn tag(server: &PeerId, nonce: &[u8]) -> [u8; DCID_LEN - NONCE_LEN] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(LABEL);
    hash.update(server.as_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA256, hash.finish().as_ref());
    let mut tag = [0; DCID_LEN - NONCE_LEN];
    tag.copy_from_slice(&hmac::sign(&key, nonce).as_ref()[..DCID_LEN - NONCE_LEN]);
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-HS-7
    #[test]
    fn a_first_contact_id_is_accepted_only_by_the_node_it_names() {
        let server = PeerId::from_bytes([1; 32]);
        let dcid = FirstContact::new_dcid(&server, [9; 8]);
        assert!(FirstContact::verify(&server, &dcid));
        assert!(!FirstContact::verify(&PeerId::from_bytes([2; 32]), &dcid));
    }

    // PROTOCOL SM-HS-7
    #[test]
    fn a_first_contact_id_with_any_bit_changed_or_of_any_other_length_is_refused() {
        let server = PeerId::from_bytes([1; 32]);
        let dcid = FirstContact::new_dcid(&server, *b"abcdefgh");
        for bit in 0..DCID_LEN * 8 {
            let mut changed = dcid;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(!FirstContact::verify(&server, &changed), "bit {bit}");
        }
        for len in 0..DCID_LEN {
            assert!(!FirstContact::verify(&server, &dcid[..len]), "length {len}");
        }
        assert!(!FirstContact::verify(
            &server,
            &[dcid.as_slice(), &[0]].concat()
        ));
    }
}
