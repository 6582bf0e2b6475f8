//! Words on the local network that only those understand who know who speaks.
//!
//! A beacon is tagged under a key that is derived from the sender's PeerId ([`LanBeacon`]): its peers have
//! it, and everybody else sees random bytes, of which no two look related. The PeerId is no secret, and a
//! beacon can be recorded, so it proves nothing, and nobody acts on one. What follows is tagged under a key of
//! both PeerIds ([`LanPair`]): a question over the nonce of the beacon, and a proof over that of the question.
//! Who can make them knows both nodes, and does so now; who only knows one of them, or has recordings, can
//! neither make them nor tell them from noise.
//!
//! No signatures: a PeerId is the hash of a public key of kilobytes, which would have to be sent along, to
//! whoever asks. A false proof costs its victim a first packet to an address on its own network, and shows
//! that two nodes are peers to somebody who knows both.

use std::net::IpAddr;

use aws_lc_rs::{constant_time, digest, hmac};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::beacon::{Beacon, Kind, NONCE_LEN, TAG_LEN};

/// Separate these uses of PeerIds from every other.
const LABEL: &[u8] = b"shadowmesh lan v2";
const PAIR_LABEL: &[u8] = b"shadowmesh lan v2 pair";
/// First byte of what is authenticated, by use of the result; that of a tag is the kind.
const MASK: u8 = 0;

type Nonce = [u8; NONCE_LEN];
/// Two addresses on one network: of who called, and of who asks.
type Between = (IpAddr, IpAddr);

/// What makes and recognises the beacons of one node.
pub struct LanBeacon(hmac::Key);

impl LanBeacon {
    /// For the node with that PeerId.
    // PROTOCOL SM-LD-2
    pub fn of(sender: &PeerId) -> Self {
        Self(key(&[LABEL, sender.as_bytes()]))
    }

    /// A beacon that says the sender listens on `port`; `nonce` must be fresh and random.
    // PROTOCOL SM-LD-2
    pub fn make(&self, port: u16, nonce: Nonce) -> Beacon {
        let port = masked(&self.0, port, &nonce).to_be_bytes();
        Beacon {
            kind: Kind::Beacon,
            nonce,
            port,
            tag: tag(&self.0, &[&[Kind::Beacon as u8], &nonce, &port]),
        }
    }

    /// The port, if the beacon is of this node.
    // PROTOCOL SM-LD-2
    pub fn open(&self, beacon: &Beacon) -> Option<u16> {
        let Beacon { nonce, port, .. } = beacon;
        let expected = tag(&self.0, &[&[Kind::Beacon as u8], nonce, port]);
        let port = masked(&self.0, u16::from_be_bytes(*port), nonce);
        (beacon.kind == Kind::Beacon && is(&expected, &beacon.tag)).then_some(port)
    }
}

/// What two nodes say to each other after a beacon of the first: it called, the second asks.
pub struct LanPair(hmac::Key);

impl LanPair {
    /// For the node that called, and the one that asks.
    // PROTOCOL SM-LD-3
    pub fn of(caller: &PeerId, asker: &PeerId) -> Self {
        Self(key(&[PAIR_LABEL, caller.as_bytes(), asker.as_bytes()]))
    }

    /// The asker's question to who called with the nonce `called`. `between` are the addresses of the caller
    /// and of the asker, which listens on `port`. `nonce` must be fresh and random.
    // PROTOCOL SM-LD-3
    pub fn question(&self, called: &Nonce, between: Between, port: u16, nonce: Nonce) -> Beacon {
        let port = masked(&self.0, port, &nonce).to_be_bytes();
        Beacon {
            kind: Kind::Question,
            nonce,
            port,
            tag: self.question_tag(called, between, &nonce, port),
        }
    }

    /// The asker's port, if the question is its own, and about the beacon that we sent with the nonce
    /// `called`. `between` are our address and that from which the question came.
    // PROTOCOL SM-LD-3
    pub fn open_question(
        &self,
        question: &Beacon,
        called: &Nonce,
        between: Between,
    ) -> Option<u16> {
        let Beacon { nonce, port, .. } = question;
        let expected = self.question_tag(called, between, nonce, *port);
        let port = masked(&self.0, u16::from_be_bytes(*port), nonce);
        (question.kind == Kind::Question && is(&expected, &question.tag)).then_some(port)
    }

    /// The caller's answer to a question. `filler` is random, and means nothing.
    // PROTOCOL SM-LD-3
    pub fn proof(&self, question: &Beacon, filler: [u8; 2]) -> Beacon {
        Beacon {
            kind: Kind::Proof,
            nonce: question.nonce,
            port: filler,
            tag: self.proof_tag(question),
        }
    }

    /// Whether a proof answers our question.
    // PROTOCOL SM-LD-3
    pub fn is_proof(&self, proof: &Beacon, question: &Beacon) -> bool {
        let expected = self.proof_tag(question);
        let answers = proof.kind == Kind::Proof && proof.nonce == question.nonce;
        answers & is(&expected, &proof.tag)
    }

    fn question_tag(
        &self,
        called: &Nonce,
        (caller, asker): Between,
        nonce: &Nonce,
        port: [u8; 2],
    ) -> [u8; TAG_LEN] {
        let kind = [Kind::Question as u8];
        let (caller, asker) = (bytes(caller), bytes(asker));
        tag(&self.0, &[&kind, called, &caller, &asker, nonce, &port])
    }

    /// The tag of a question stands for the beacon too, and for both addresses.
    fn proof_tag(&self, question: &Beacon) -> [u8; TAG_LEN] {
        let kind = [Kind::Proof as u8];
        let Beacon { nonce, tag: of, .. } = question;
        tag(&self.0, &[&kind, nonce, of])
    }
}

/// All addresses in one length.
fn bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn key(parts: &[&[u8]]) -> hmac::Key {
    let mut hash = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| hash.update(part));
    hmac::Key::new(hmac::HMAC_SHA256, hash.finish().as_ref())
}

fn masked(key: &hmac::Key, port: u16, nonce: &Nonce) -> u16 {
    let [high, low, ..] = function(key, &[&[MASK], nonce]);
    port ^ u16::from_be_bytes([high, low])
}

fn tag(key: &hmac::Key, parts: &[&[u8]]) -> [u8; TAG_LEN] {
    let mut tag = [0; TAG_LEN];
    tag.copy_from_slice(&function(key, parts)[..TAG_LEN]);
    tag
}

fn is(expected: &[u8; TAG_LEN], tag: &[u8; TAG_LEN]) -> bool {
    constant_time::verify_slices_are_equal(expected, tag).is_ok()
}

fn function(key: &hmac::Key, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    fn of(byte: u8) -> LanBeacon {
        LanBeacon::of(&id(byte))
    }

    fn pair(caller: u8, asker: u8) -> LanPair {
        LanPair::of(&id(caller), &id(asker))
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
            let opened = Beacon::parse(&changed).and_then(|beacon| of(1).open(&beacon));
            assert_eq!(opened, None, "bit {bit}");
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

    const CALLER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ASKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    const BETWEEN: Between = (CALLER, ASKER);

    // PROTOCOL SM-LD-3
    #[test]
    fn a_question_is_understood_by_the_caller_it_means_about_the_beacon_it_means() {
        let question = pair(1, 2).question(&[7; 16], BETWEEN, 4433, [8; 16]);
        let port = pair(1, 2).open_question(&question, &[7; 16], BETWEEN);
        assert_eq!(port, Some(4433));
        for other in [pair(1, 3), pair(3, 2), pair(2, 1)] {
            assert_eq!(other.open_question(&question, &[7; 16], BETWEEN), None);
        }
        assert_eq!(pair(1, 2).open_question(&question, &[6; 16], BETWEEN), None);
        for elsewhere in [(ASKER, ASKER), (CALLER, CALLER), (ASKER, CALLER)] {
            let port = pair(1, 2).open_question(&question, &[7; 16], elsewhere);
            assert_eq!(port, None);
        }
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn a_proof_answers_one_question_of_one_pair() {
        let question = pair(1, 2).question(&[7; 16], BETWEEN, 4433, [8; 16]);
        let other = pair(1, 2).question(&[7; 16], BETWEEN, 4433, [9; 16]);
        let of_another = pair(1, 2).question(&[6; 16], BETWEEN, 4433, [8; 16]);
        let elsewhere = pair(1, 2).question(&[7; 16], (ASKER, CALLER), 4433, [8; 16]);
        let proof = pair(1, 2).proof(&question, [5; 2]);
        assert!(pair(1, 2).is_proof(&proof, &question));
        for other in [other, of_another, elsewhere] {
            assert!(!pair(1, 2).is_proof(&proof, &other));
        }
        assert!(!pair(2, 1).is_proof(&proof, &question));
        assert!(!pair(1, 3).is_proof(&proof, &question));
        // Neither of the two others is one.
        assert!(!pair(1, 2).is_proof(&question, &question));
        assert!(!pair(1, 2).is_proof(&of(1).make(1, [8; 16]), &question));
    }
}
