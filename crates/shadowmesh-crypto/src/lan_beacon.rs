//! Beacons on the local network that only those recognise who know the sender.
//!
//! The key is derived from the sender's PeerId: its peers have it, and everybody else sees random
//! bytes, of which no two look related. The PeerId is no secret, so a beacon proves nothing: it may be
//! replayed, and forged by who knows the PeerId. All it can do is make a peer try an address, where
//! the handshake decides.

use aws_lc_rs::{constant_time, digest, hmac};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::beacon::{Beacon, NONCE_LEN, TAG_LEN};

/// Separates this use of a PeerId from every other.
const LABEL: &[u8] = b"shadowmesh lan v1";
/// First byte of what is authenticated, by use of the result.
const MASK: u8 = 0;
const TAG: u8 = 1;

/// What makes and recognises the beacons of one node.
pub struct LanBeacon(hmac::Key);

impl LanBeacon {
    /// For the node with that PeerId.
    // PROTOCOL SM-LD-2
    pub fn of(sender: &PeerId) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(LABEL);
        hash.update(sender.as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, hash.finish().as_ref()))
    }

    /// A beacon that says the sender listens on `port`; `nonce` must be fresh and random.
    // PROTOCOL SM-LD-2
    pub fn make(&self, port: u16, nonce: [u8; NONCE_LEN]) -> Beacon {
        let port = self.masked(port, &nonce).to_be_bytes();
        Beacon {
            nonce,
            port,
            tag: self.tag(&nonce, port),
        }
    }

    /// The port, if the beacon is of this node.
    // PROTOCOL SM-LD-2
    pub fn open(&self, beacon: &Beacon) -> Option<u16> {
        let tag = self.tag(&beacon.nonce, beacon.port);
        constant_time::verify_slices_are_equal(&tag, &beacon.tag).ok()?;
        Some(self.masked(u16::from_be_bytes(beacon.port), &beacon.nonce))
    }

    fn masked(&self, port: u16, nonce: &[u8; NONCE_LEN]) -> u16 {
        let mask = self.function(MASK, nonce, &[]);
        port ^ u16::from_be_bytes([mask[0], mask[1]])
    }

    fn tag(&self, nonce: &[u8; NONCE_LEN], port: [u8; 2]) -> [u8; TAG_LEN] {
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&self.function(TAG, nonce, &port)[..TAG_LEN]);
        tag
    }

    fn function(&self, of: u8, nonce: &[u8; NONCE_LEN], more: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&[of]);
        context.update(nonce);
        context.update(more);
        let mut out = [0; 32];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(byte: u8) -> LanBeacon {
        LanBeacon::of(&PeerId::from_bytes([byte; 32]))
    }

    // PROTOCOL SM-LD-2
    #[test]
    fn a_beacon_is_recognised_by_who_knows_the_sender_and_by_nobody_else() {
        for port in [0, 1, 4433, u16::MAX] {
            let beacon = of(1).make(port, [9; NONCE_LEN]);
            assert_eq!(of(1).open(&beacon), Some(port));
            assert_eq!(of(2).open(&beacon), None);
        }
    }

    // PROTOCOL SM-LD-2
    #[test]
    fn a_beacon_with_any_bit_changed_is_nobodys() {
        let bytes = of(1).make(4433, *b"sixteen bytes...").to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            let beacon = Beacon::parse(&changed).unwrap();
            assert_eq!(of(1).open(&beacon), None, "bit {bit}");
        }
    }

    // PROTOCOL SM-LD-2
    #[test]
    fn two_beacons_of_one_node_share_nothing_that_could_be_recognised() {
        let (one, other) = (of(1).make(4433, [1; 16]), of(1).make(4433, [2; 16]));
        assert_ne!(one.port, other.port);
        assert_ne!(one.tag, other.tag);
        assert_ne!(one.port, 4433u16.to_be_bytes());
        // As far apart as random bytes are: about half of the bits.
        let differ: u32 = one
            .tag
            .iter()
            .zip(other.tag)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        assert!((32..96).contains(&differ), "{differ} of 128 bits differ");
    }
}
