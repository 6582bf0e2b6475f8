//! Who says what to whom on a local network, and when it counts.
//!
//! ```text
//! caller: beacon ──> everybody
//!                    everybody: question ──> caller
//! caller: proof ───> who asked and is a peer
//! ```
//!
//! A beacon may be a recording from another network, so nobody acts on it. Whoever hears one asks back, with a
//! nonce of its own: one question of one length, at once, whether it knows the caller or not. If it does, the
//! question is tagged under a key that only who knows both nodes can make, else it is noise, and nobody else
//! sees a difference. The caller answers only questions that it understands, which are about a beacon of the
//! last seconds and from a peer; that question is as good as a proof, so the caller has found the peer, and
//! its answer lets the peer find the caller.
//!
//! What is left to somebody who sits in two networks at once and passes words on as they come: addresses are in
//! what is tagged, so it must take the addresses of both nodes, each in the other's network. To somebody who
//! knows both PeerIds: it can make all of these words itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shadowmesh_crypto::{LanBeacon, LanPair};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::beacon::{Beacon, Kind, NONCE_LEN};

use super::Heard;
use super::near::Near;

/// An answer that takes longer is none: a network has round trips of milliseconds, and a busy machine of some
/// hundred.
// PROTOCOL SM-LD-3
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Limit: tags computed in a second for beacons, and again for questions: 20 ms of a core each. One costs a
/// tag for each peer.
// PROTOCOL SM-LD-3
const TAGS_PER_SECOND: usize = 32_768;
/// Limit: questions that we ask in a second, of all callers. On a network of so many that more call, all are
/// found a little later.
// PROTOCOL SM-LD-3
const QUESTIONS_PER_SECOND: usize = 64;
/// Limit: words taken from one source in a second: the three beacons of a start, and its answers to ours.
// PROTOCOL SM-LD-3
const WORDS_PER_SOURCE: usize = 8;
/// Limit: sources that are taken anything from in a second.
const SOURCES_MAX: usize = 1024;
/// Limit: our own beacons that may still be answered: three to each device in two IP versions.
const SAID_MAX: usize = 96;
/// Limit: our questions to peers that may still be answered: all of three seconds.
const ASKED_MAX: usize = 3 * QUESTIONS_PER_SECOND;

/// What follows a word.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reaction {
    /// To be sent to where the word came from.
    pub answer: Option<Beacon>,
    /// A peer is there.
    pub heard: Option<Heard>,
}

/// All that is known of who speaks on our networks.
pub struct Talk {
    own: LanBeacon,
    /// Limit: the configuration's.
    peers: Vec<Peer>,
    /// For questions to those who are none of these.
    nobody: LanPair,
    /// Nonces of our own beacons. Limit: [`SAID_MAX`].
    said: VecDeque<(Instant, [u8; NONCE_LEN])>,
    /// Limit: [`ASKED_MAX`].
    asked: VecDeque<Asked>,
    budget: Budget,
}

/// Whom we would recognise.
struct Peer {
    id: PeerId,
    beacon: LanBeacon,
    /// It calls, and we ask.
    asked: LanPair,
    /// We call, and it asks.
    asks: LanPair,
}

/// A peer that was asked whether the beacon was its own.
struct Asked {
    at: Instant,
    source: SocketAddr,
    /// In the table of peers.
    peer: usize,
    /// Where it listens.
    port: u16,
    question: Beacon,
}

impl Talk {
    /// Of the node `own`, which knows `peers`. `nobody` is no PeerId of anybody, random and nowhere told.
    pub fn new(own: &PeerId, peers: &[PeerId], nobody: &PeerId, now: Instant) -> Self {
        let peer = |id: &PeerId| Peer {
            id: *id,
            beacon: LanBeacon::of(id),
            asked: LanPair::of(id, own),
            asks: LanPair::of(own, id),
        };
        Self {
            own: LanBeacon::of(own),
            peers: peers.iter().map(peer).collect(),
            nobody: LanPair::of(nobody, own),
            said: VecDeque::new(),
            asked: VecDeque::new(),
            budget: Budget::new(now),
        }
    }

    /// A beacon of ours for one network, on which we listen at `port`; `nonce` is fresh and random.
    pub fn call(&mut self, port: u16, nonce: [u8; NONCE_LEN], now: Instant) -> Beacon {
        self.forget(now);
        if self.said.len() == SAID_MAX {
            self.said.pop_front();
        }
        self.said.push_back((now, nonce));
        self.own.make(port, nonce)
    }

    /// A word came from `source` on a socket where we listen for peers at `port`; `nonce` is fresh and random.
    // PROTOCOL SM-LD-3
    pub fn hear(
        &mut self,
        (word, source, port): (&Beacon, SocketAddr, u16),
        near: &Near,
        nonce: [u8; NONCE_LEN],
        now: Instant,
    ) -> Reaction {
        self.forget(now);
        if !near.has(source) || !self.budget.admits(source.ip(), now) {
            return Reaction::default();
        }
        match word.kind {
            Kind::Beacon => {
                // The address that the system speaks from; where it has none, nobody understands us.
                let own = near.towards(source).next().unwrap_or(source.ip());
                self.ask(word, (source, own, port), nonce, now)
            }
            Kind::Question => self.prove(word, source, near, nonce),
            Kind::Proof => self.believe(word, source),
        }
    }

    /// Somebody called. Everybody is asked the same way: what follows takes as long and looks the same whether
    /// it is a peer or not.
    // PROTOCOL SM-LD-3
    fn ask(
        &mut self,
        beacon: &Beacon,
        (source, own, port): (SocketAddr, IpAddr, u16),
        nonce: [u8; NONCE_LEN],
        now: Instant,
    ) -> Reaction {
        // Our own comes back to us.
        let is_ours = self.said.iter().any(|(_, said)| *said == beacon.nonce);
        if is_ours || !self.budget.asks() {
            return Reaction::default();
        }
        let mut caller = None;
        if self.budget.tags_of_beacons(self.peers.len()) {
            // To the end, whoever it is.
            for (at, peer) in self.peers.iter().enumerate() {
                if let Some(port) = peer.beacon.open(beacon) {
                    caller = Some((at, port));
                }
            }
        }
        let key = caller.map_or(&self.nobody, |(at, _)| &self.peers[at].asked);
        let question = key.question(&beacon.nonce, (source.ip(), own), port, nonce);
        if let Some((peer, port)) = caller {
            if self.asked.len() == ASKED_MAX {
                self.asked.pop_front();
            }
            self.asked.push_back(Asked {
                at: now,
                source,
                peer,
                port,
                question,
            });
        }
        Reaction {
            answer: Some(question),
            heard: None,
        }
    }

    /// Somebody asks whether a beacon was ours. Who it is shows in the question, if that is a peer's; to
    /// others nothing is said.
    // PROTOCOL SM-LD-3
    fn prove(
        &mut self,
        question: &Beacon,
        source: SocketAddr,
        near: &Near,
        nonce: [u8; NONCE_LEN],
    ) -> Reaction {
        for own in near.towards(source) {
            for (_, said) in self.said.iter().rev() {
                if !self.budget.tags_of_questions(self.peers.len()) {
                    return Reaction::default();
                }
                let mut peers = self.peers.iter();
                let found = peers.find_map(|peer| {
                    let between = (own, source.ip());
                    let port = peer.asks.open_question(question, said, between)?;
                    Some((peer, port))
                });
                if let Some((peer, port)) = found {
                    let [high, low, ..] = nonce;
                    let proof = peer.asks.proof(question, [high, low]);
                    return Reaction {
                        answer: Some(proof),
                        heard: heard(peer.id, source, port),
                    };
                }
            }
        }
        Reaction::default()
    }

    /// Somebody says that a beacon was its own.
    // PROTOCOL SM-LD-3
    fn believe(&mut self, proof: &Beacon, source: SocketAddr) -> Reaction {
        let answers = |asked: &Asked| {
            let key = &self.peers[asked.peer].asked;
            asked.source == source
                && asked.question.nonce == proof.nonce
                && key.is_proof(proof, &asked.question)
        };
        let Some(asked) = self.asked.iter().position(answers) else {
            return Reaction::default();
        };
        // Each question is answered once.
        let asked = self.asked.remove(asked).expect("it was found there");
        Reaction {
            answer: None,
            heard: heard(self.peers[asked.peer].id, source, asked.port),
        }
    }

    /// What can no longer be answered.
    fn forget(&mut self, now: Instant) {
        let is_over = |at: Instant| now > at + ANSWER_WITHIN;
        while self.said.front().is_some_and(|(at, _)| is_over(*at)) {
            self.said.pop_front();
        }
        while self.asked.front().is_some_and(|asked| is_over(asked.at)) {
            self.asked.pop_front();
        }
    }
}

/// At port 0 nobody listens.
fn heard(peer: PeerId, source: SocketAddr, port: u16) -> Option<Heard> {
    let mut address = source;
    address.set_port(port);
    (port != 0).then_some(Heard { peer, address })
}

/// What others can make us do in a second.
struct Budget {
    second: Instant,
    questions: usize,
    /// Tags for beacons, and for questions.
    tags: [usize; 2],
    /// Words by source. Limit: [`SOURCES_MAX`].
    words: BTreeMap<IpAddr, usize>,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            second: now,
            questions: 0,
            tags: [0; 2],
            words: BTreeMap::new(),
        }
    }

    /// Whether another word of this source is taken.
    fn admits(&mut self, source: IpAddr, now: Instant) -> bool {
        if now >= self.second + Duration::from_secs(1) {
            *self = Self::new(now);
        }
        if !self.words.contains_key(&source) && self.words.len() >= SOURCES_MAX {
            return false;
        }
        let words = self.words.entry(source).or_default();
        *words += 1;
        *words <= WORDS_PER_SOURCE
    }

    fn asks(&mut self) -> bool {
        self.questions += 1;
        self.questions <= QUESTIONS_PER_SECOND
    }

    fn tags_of_beacons(&mut self, more: usize) -> bool {
        take(&mut self.tags[0], more)
    }

    fn tags_of_questions(&mut self, more: usize) -> bool {
        take(&mut self.tags[1], more)
    }
}

fn take(tags: &mut usize, more: usize) -> bool {
    let takes = *tags < TAGS_PER_SECOND;
    *tags += if takes { more } else { 0 };
    takes
}

#[cfg(test)]
mod tests {
    use shadowmesh_io::netlink::{Address, Link};

    use super::*;

    /// A node on the network 192.0.2.0/24.
    struct Node {
        talk: Talk,
        near: Near,
        at: SocketAddr,
        /// What was sent, so that nonces differ.
        count: u16,
        heard: Vec<Heard>,
    }

    fn id(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    fn node(number: u8, peers: &[u8], now: Instant) -> Node {
        let link = Link {
            index: 1,
            name: "lan".into(),
            mtu: 1500,
            up: true,
            carrier: true,
            ethernet: Some([2, 0, 0, 0, 0, number]),
            kind: None,
            master: None,
            tunnel: false,
        };
        let ip = IpAddr::from([192, 0, 2, number]);
        let address = Address {
            index: 1,
            address: ip,
            prefix_len: 24,
            ready: true,
        };
        let peers: Vec<PeerId> = peers.iter().map(|byte| id(*byte)).collect();
        let nobody = PeerId::from_bytes([0xee ^ number; 32]);
        Node {
            talk: Talk::new(&id(number), &peers, &nobody, now),
            near: Near::of(&[link], &[address], 9),
            at: SocketAddr::new(ip, 21_077),
            count: 0,
            heard: Vec::new(),
        }
    }

    impl Node {
        fn nonce(&mut self) -> [u8; NONCE_LEN] {
            self.count += 1;
            let [high, low] = self.count.to_be_bytes();
            let mut nonce = [low; NONCE_LEN];
            nonce[1] = high;
            nonce[0] = self.at.port() as u8 ^ self.at.to_string().as_bytes()[8];
            nonce
        }

        fn call(&mut self, now: Instant) -> Beacon {
            let nonce = self.nonce();
            self.talk.call(4433, nonce, now)
        }

        /// Hears a word and says what follows.
        fn hear(&mut self, word: &Beacon, source: SocketAddr, now: Instant) -> Option<Beacon> {
            let nonce = self.nonce();
            let said = (word, source, 4433);
            let reaction = self.talk.hear(said, &self.near, nonce, now);
            self.heard.extend(reaction.heard);
            reaction.answer
        }
    }

    fn there(node: &Node, peer: u8) -> Heard {
        Heard {
            peer: id(peer),
            address: SocketAddr::new(node.at.ip(), 4433),
        }
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn two_peers_find_each_other_by_one_beacon_of_either() {
        let now = Instant::now();
        let (mut caller, mut asker) = (node(1, &[2], now), node(2, &[5, 1], now));
        let beacon = caller.call(now);
        let question = asker.hear(&beacon, caller.at, now).expect("it asks");
        assert!(asker.heard.is_empty(), "a beacon alone says nothing");
        let proof = caller.hear(&question, asker.at, now).expect("it proves");
        assert_eq!(caller.heard, [there(&asker, 2)]);
        assert_eq!(asker.hear(&proof, caller.at, now), None);
        assert_eq!(asker.heard, [there(&caller, 1)]);
        // Each proof counts once.
        assert_eq!(asker.hear(&proof, caller.at, now), None);
        assert_eq!(asker.heard.len(), 1);
        // Our own beacon comes back by multicast.
        assert_eq!(caller.hear(&beacon, caller.at, now), None);
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn a_recorded_beacon_draws_the_same_from_who_has_its_sender_as_a_peer_and_who_has_not() {
        let then = Instant::now();
        let beacon = node(1, &[2], then).call(then);
        // Elsewhere, later, by somebody else who has its address and keeps on.
        let at: SocketAddr = "192.0.2.1:21077".parse().unwrap();
        let (mut knows, mut stranger) = (node(2, &[1], then), node(3, &[4], then));
        let mut said = [0, 0];
        for second in 0..20u64 {
            let now = then + Duration::from_millis(3_600_000 + second * 300);
            let answers = [&mut knows, &mut stranger].map(|node| node.hear(&beacon, at, now));
            for (count, answer) in said.iter_mut().zip(&answers) {
                *count += usize::from(answer.is_some());
            }
            let [one, other] =
                answers.map(|answer| answer.map(|word| (word.kind, word.to_bytes().len())));
            assert_eq!(one, other);
            // What it answers with is noise: recorded words do not fit.
            for kind in [Kind::Beacon, Kind::Question, Kind::Proof] {
                let noise = Beacon { kind, ..beacon };
                for node in [&mut knows, &mut stranger] {
                    node.hear(&noise, at, now);
                }
            }
        }
        assert_eq!(said[0], said[1]);
        assert!(knows.heard.is_empty() && stranger.heard.is_empty());
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn who_knows_only_one_of_two_peers_learns_nothing_by_speaking_in_its_name() {
        let now = Instant::now();
        // It knows 1, and guesses that somebody has that as a peer.
        let (mut knows, mut stranger) = (node(2, &[1], now), node(3, &[4], now));
        let mut forger = node(1, &[7], now);
        let beacon = forger.call(now);
        for node in [&mut knows, &mut stranger] {
            let question = node.hear(&beacon, forger.at, now).expect("all ask");
            // Neither is understood, so neither can be told from the other.
            assert_eq!(forger.hear(&question, node.at, now), None);
            // A proof under any key it can have.
            for key in [LanPair::of(&id(1), &id(1)), LanPair::of(&id(1), &id(7))] {
                let proof = key.proof(&question, [0; 2]);
                assert_eq!(node.hear(&proof, forger.at, now), None);
            }
            assert!(node.heard.is_empty());
        }
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn words_that_are_passed_on_late_or_between_other_addresses_count_for_nothing() {
        let now = Instant::now();
        let late = now + ANSWER_WITHIN + Duration::from_millis(1);
        let (mut caller, mut asker) = (node(1, &[2], now), node(2, &[1], now));
        let elsewhere: SocketAddr = "192.0.2.66:21077".parse().unwrap();
        // Whoever passes words on has an address of its own.
        let beacon = caller.call(now);
        let question = asker.hear(&beacon, elsewhere, now).unwrap();
        assert_eq!(caller.hear(&question, elsewhere, now), None);
        let question = asker.hear(&beacon, caller.at, now).unwrap();
        assert_eq!(caller.hear(&question, elsewhere, now), None);
        let proof = caller.hear(&question, asker.at, now).unwrap();
        assert_eq!(asker.hear(&proof, elsewhere, now), None);
        let by_its_sender = [there(&asker, 2)];
        assert_eq!(caller.heard, by_its_sender);
        // And no recording.
        assert_eq!(caller.hear(&question, asker.at, late), None);
        assert_eq!(asker.hear(&proof, caller.at, late), None);
        assert!(asker.heard.is_empty());
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn port_0_is_never_heard() {
        let now = Instant::now();
        let (mut caller, mut asker) = (node(1, &[2], now), node(2, &[1], now));
        let beacon = caller.talk.call(0, [3; 16], now);
        let question = asker.hear(&beacon, caller.at, now).unwrap();
        let proof = caller.hear(&question, asker.at, now).unwrap();
        asker.hear(&proof, caller.at, now);
        assert!(asker.heard.is_empty() && caller.heard.len() == 1);
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn a_source_gets_so_many_answers_and_all_sources_together_so_many_whoever_they_are() {
        let now = Instant::now();
        for peers in [&[1][..], &[4]] {
            let mut asker = node(2, peers, now);
            let beacon = |number: u8| LanBeacon::of(&id(1)).make(4433, [number; 16]);
            let source = |host: u8| SocketAddr::new([192, 0, 2, host].into(), 21_077);
            let answers = (0..100).filter_map(|n| asker.hear(&beacon(n), source(66), now));
            assert_eq!(answers.count(), WORDS_PER_SOURCE);
            let answers = (100..200).filter_map(|n| asker.hear(&beacon(n), source(n), now));
            assert_eq!(answers.count(), QUESTIONS_PER_SECOND - WORDS_PER_SOURCE);
            let later = now + Duration::from_secs(1);
            assert!(asker.hear(&beacon(201), source(66), later).is_some());
            // Off our network nobody is answered, nor at another port.
            for far in ["198.51.100.1:21077", "192.0.2.1:53"] {
                assert!(
                    asker
                        .hear(&beacon(202), far.parse().unwrap(), later)
                        .is_none()
                );
            }
        }
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn a_flood_of_noise_costs_a_bounded_number_of_tags_and_is_over_after_a_second() {
        let now = Instant::now();
        let peers: Vec<u8> = (0..200).collect::<Vec<u8>>().repeat(10);
        let mut asker = node(250, &peers, now);
        let beacon = asker.call(now);
        for host in 0..255 {
            let source = SocketAddr::new([192, 0, 2, host].into(), 21_077);
            for number in 0..WORDS_PER_SOURCE as u8 {
                for kind in [Kind::Beacon, Kind::Question] {
                    let mut noise = Beacon { kind, ..beacon };
                    noise.nonce[..2].copy_from_slice(&[host, number]);
                    asker.hear(&noise, source, now);
                }
            }
        }
        let most = TAGS_PER_SECOND + asker.talk.peers.len();
        assert!(
            asker.talk.budget.tags[1] >= TAGS_PER_SECOND,
            "it was a flood"
        );
        assert!(asker.talk.budget.tags.iter().all(|tags| *tags <= most));
        let later = now + Duration::from_secs(1);
        let caller = LanBeacon::of(&id(7)).make(4433, [255; 16]);
        let source: SocketAddr = "192.0.2.7:21077".parse().unwrap();
        assert!(asker.hear(&caller, source, later).is_some());
        assert_eq!(asker.talk.asked.len(), 1, "it was recognised");
    }
}
