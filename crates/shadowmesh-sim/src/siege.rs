//! One node whose threads are played one by one, among peers of which one is hostile.
//!
//! The node is not asked to judge datagrams at once, as in the [world](crate::World). Data threads do it by
//! the picture that they have, which may be an old one ([`Siege::publish`] brings it up to date), and what
//! they cannot finish waits in a queue for the control thread ([`Siege::control`] takes it). So everything
//! is seen that happens while the two do not agree.
//!
//! There are two who keep to the protocol: a member, and a client for whom the node only relays. What
//! they and the node say to each other arrives, and whatever the hostile one does, they have to be able to
//! go on. It is a member, or a stranger for whom the node relays.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use shadowmesh_crypto::Identity;
use shadowmesh_net::{DataPlane, DropReason, NetConfig, NetEvent, Received, RelayConfig, Transmit};
use shadowmesh_vpn::{Inbound, Node, NodeConfig, NodePeer, NodeRelay, Snapshot};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::overlay::derived_ipv4;

use crate::hostile::Hostile;
use crate::packet;

/// Limit: what waits for the control thread, as in the engine. More is dropped and counted.
const QUEUE_MAX: usize = 512;
/// Limit: what one input may make a node say and send. Beyond this it does not come to an end.
const ANSWERS_MAX: usize = 100_000;

/// What one stream takes at once.
const WINDOW: usize = 64 * 1024;

const VICTIM: ([u8; 4], u16) = ([192, 0, 2, 1], 4433);
const MEMBER: ([u8; 4], u16) = ([192, 0, 2, 2], 4433);
const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 3], 4433);
const HOSTILE: ([u8; 4], u16) = ([192, 0, 2, 66], 4433);

/// Making keys takes longer than all else here.
static IDENTITIES: LazyLock<[Arc<Identity>; 4]> = LazyLock::new(|| {
    [1, 2, 3, 4].map(|n| Arc::new(Identity::from_seeds(&[n; 32], &[n + 100; 32])))
});

/// What the hostile one is to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A member: packets may flow.
    Member,
    /// Anybody: the node relays for it, and no more.
    Stranger,
}

/// Something on its way to the control thread.
enum ToControl {
    Datagram(Received, BytesMut),
    Datagrams(Received, BytesMut, usize),
    Inner(PeerId, Received, Vec<u8>),
}

/// The node, its peers, and the hostile one.
pub struct Siege {
    now: Instant,
    victim: Node,
    /// What the data threads go by.
    sight: Arc<Snapshot>,
    /// Limit: [`QUEUE_MAX`].
    queue: VecDeque<ToControl>,
    friends: [Node; 2],
    /// The one who does as it likes.
    pub hostile: Hostile,
    /// What the hostile one has to send lies here until it is delivered.
    pub held: Vec<Vec<u8>>,
    /// Its datagrams are held, and not delivered as they are made.
    pub holds: bool,
    /// What the node said so far.
    pub events: Vec<NetEvent>,
    /// Packets that came out at the node, and at the member.
    pub delivered: [u64; 2],
    sent: u64,
}

impl Siege {
    /// The member and the client have their sessions; the hostile one has not called yet.
    pub fn new(standing: Standing, plane: DataPlane) -> Self {
        // Nothing depends on its value.
        let now = Instant::now();
        let ids = [0, 1, 2, 3].map(|n: usize| IDENTITIES[n].peer_id());
        let peer = |id, address: Option<([u8; 4], u16)>| NodePeer {
            underlay: address.map(SocketAddr::from).into_iter().collect(),
            data_plane: plane,
            ..NodePeer::new(id)
        };
        let mut peers = vec![peer(ids[1], None)];
        if standing == Standing::Member {
            peers.push(peer(ids[3], None));
        }
        let victim = node(0, peers, Vec::new(), now);
        let member = node(1, vec![peer(ids[0], Some(VICTIM))], Vec::new(), now);
        let relay = NodeRelay {
            id: ids[0],
            underlay: vec![VICTIM.into()],
            known_key: None,
        };
        let client = node(2, Vec::new(), vec![relay], now);
        let hostile = Hostile::new(
            IDENTITIES[3].clone(),
            HOSTILE.into(),
            (ids[0], VICTIM.into()),
        );
        let mut siege = Self {
            now,
            sight: victim.snapshot(),
            victim,
            queue: VecDeque::new(),
            friends: [member, client],
            hostile,
            held: Vec::new(),
            holds: false,
            events: Vec::new(),
            delivered: [0; 2],
            sent: 0,
        };
        for friend in &mut siege.friends {
            friend.connect_all(now);
        }
        siege.run(200, true);
        assert!(siege.friends_are_well(), "before anybody did anything");
        siege
    }

    /// The node under siege.
    pub fn victim(&self) -> &Node {
        &self.victim
    }

    /// How often the node dropped something for that reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.victim.drops().get(reason)
    }

    /// The hostile one calls once more; the number of the call.
    pub fn call(&mut self) -> Option<usize> {
        self.hostile.call(self.now)
    }

    /// The data threads get the picture of now.
    pub fn publish(&mut self) {
        self.sight = self.victim.snapshot();
    }

    /// What the hostile one holds, and everything else of it so far, goes to the data threads.
    pub fn release(&mut self) {
        for datagram in std::mem::take(&mut self.held) {
            self.strike(datagram);
        }
    }

    /// A datagram of the hostile one reaches the data threads.
    pub fn strike(&mut self, datagram: Vec<u8>) {
        let from = Received::from_remote(self.hostile.address);
        self.judge(from, &datagram, false);
    }

    /// As if they had come together in one buffer, and as if no session were known to the data threads.
    pub fn strike_together(&mut self, datagrams: &[Vec<u8>]) {
        let Some(stride) = datagrams.first().map(Vec::len).filter(|len| *len > 0) else {
            return;
        };
        let from = Received::from_remote(self.hostile.address);
        let fits = datagrams
            .iter()
            .take_while(|datagram| datagram.len() == stride);
        let run: Vec<u8> = fits.flatten().copied().collect();
        self.hand_over(ToControl::Datagrams(from, BytesMut::from(&run[..]), stride));
    }

    /// The control thread takes what waits, and does what follows.
    pub fn control(&mut self) {
        while let Some(input) = self.queue.pop_front() {
            match input {
                ToControl::Datagram(from, data) => {
                    self.victim.handle_datagram(from, data, self.now)
                }
                ToControl::Datagrams(from, data, stride) => {
                    self.victim.handle_datagrams(from, data, stride, self.now);
                }
                ToControl::Inner(peer, from, inner) => {
                    self.victim.handle_inner(&peer, from, &inner, self.now);
                }
            }
            self.drain();
        }
    }

    /// So many milliseconds pass. `in_step`: the data threads get every new picture at once.
    pub fn run(&mut self, ms: u32, in_step: bool) {
        for _ in 0..ms {
            self.now += Duration::from_millis(1);
            let now = self.now;
            if self
                .victim
                .poll_timeout()
                .is_some_and(|(due, _)| due <= now)
            {
                self.victim.handle_timeout(now);
            }
            self.drain();
            for friend in &mut self.friends {
                if friend.poll_timeout().is_some_and(|(due, _)| due <= now) {
                    friend.handle_timeout(now);
                }
            }
            self.friends_speak();
            self.hostile.listen(now);
            self.hostile_speaks();
            self.control();
            if in_step {
                self.publish();
            }
        }
    }

    /// One step of one whom nobody knows: the lower half of its kind says what is done, the upper by which call
    /// and how.
    ///
    /// # Panics
    /// When a frame is neither delivered nor counted.
    pub fn act(&mut self, kind: u8, len: u8, bytes: &[u8]) {
        let calls: Vec<usize> = self.hostile.calls().collect();
        let which = calls.get(usize::from(kind >> 5) % calls.len().max(1));
        let how = kind >> 4 & 1 == 1;
        match (kind & 15, which) {
            (0, _) => {
                self.call();
            }
            (1, Some(&call)) => {
                let hello = self.hostile.hello(call);
                self.hostile.say(call, &hello);
            }
            (2, Some(&call)) => {
                self.hostile.say(call, bytes);
            }
            // The same again and again, until the stream takes no more.
            (3, Some(&call)) if !bytes.is_empty() => {
                let hello = if how {
                    self.hostile.hello(call)
                } else {
                    Vec::new()
                };
                let again = bytes.repeat((WINDOW - hello.len()) / bytes.len());
                self.hostile.say(call, &[hello, again].concat());
            }
            (4, Some(&call)) => self.say_inside(call, bytes, how),
            (5, Some(&call)) => self.hostile.say_openly(call, bytes),
            // What has the form of a frame, and names a session.
            (6, Some(&call)) => {
                if let Some(index) = self.hostile.index(call) {
                    let mut frame = vec![0x43];
                    frame.extend(index.to_bytes());
                    frame.extend(bytes);
                    frame.resize(frame.len().max(usize::from(len)), 0);
                    self.strike(frame);
                }
            }
            (7, _) => self.holds = how,
            (8, _) => {
                match how {
                    true => self.held.reverse(),
                    false => {
                        let by = usize::from(len) % self.held.len().max(1);
                        self.held.rotate_left(by);
                    }
                }
                self.release();
            }
            (9, _) => self.run(u32::from(len), how),
            (10, _) => self.publish(),
            (11, _) => self.send_packets(),
            (12, _) => self.control(),
            (13, Some(&call)) => {
                let frames = (0..len).filter_map(|_| self.hostile.seal(call, bytes));
                let frames: Vec<_> = frames.collect();
                self.strike_together(&frames);
            }
            (14, _) => {
                self.control();
                self.publish();
            }
            (15, _) => self.strike(bytes.to_vec()),
            _ => {}
        }
    }

    /// A sealed frame. `watched`: everybody knows the session, so that it is seen what becomes of the frame.
    fn say_inside(&mut self, call: usize, inner: &[u8], watched: bool) {
        if watched {
            self.control();
            self.publish();
        }
        let Some(frame) = self.hostile.seal(call, inner).filter(|_| !inner.is_empty()) else {
            return;
        };
        let before = self.outcome();
        self.strike(frame);
        if watched {
            self.control();
            // A probe is answered, padding means nothing, a piece may wait, an envelope may be passed on.
            let is_quiet = matches!(inner[0], 3 | 4 | 6 | 7 | 8);
            assert!(
                is_quiet || self.outcome() > before,
                "neither delivered nor counted"
            );
        }
    }

    /// What came out at the node, and what it counted.
    fn outcome(&self) -> u64 {
        self.delivered[0] + self.victim().drops().total()
    }

    /// Whether packets still go both ways between the node and the member, and the client is still served.
    /// What the data threads go by is of now.
    pub fn friends_are_well(&mut self) -> bool {
        let before = self.delivered;
        for _ in 0..20 {
            self.publish();
            self.send_packets();
            self.run(200, true);
            let both = self
                .delivered
                .iter()
                .zip(before)
                .all(|(now, before)| *now > before);
            if both && self.serves_client() {
                return true;
            }
        }
        false
    }

    /// The member and the node send each other a packet.
    pub fn send_packets(&mut self) {
        let addresses = [0, 1].map(|n: usize| derived_ipv4(&IDENTITIES[n].peer_id()).into());
        let [ours, theirs] = addresses;
        self.sent += 1;
        let len = packet::len_min(&ours);
        let out = packet::numbered(ours, theirs, self.sent, len);
        let back = packet::numbered(theirs, ours, self.sent, len);
        self.victim.handle_device(&out, self.now);
        self.drain();
        self.friends[0].handle_device(&back, self.now);
        self.friends_speak();
    }

    fn serves_client(&self) -> bool {
        let client = IDENTITIES[2].peer_id();
        self.victim
            .snapshot()
            .forwarding()
            .outbound(&client)
            .is_some()
    }

    fn hostile_speaks(&mut self) {
        let calls: Vec<usize> = self.hostile.calls().collect();
        for call in calls {
            let datagrams = self.hostile.transmits(call, self.now);
            self.held.extend(datagrams);
        }
        if !self.holds {
            self.release();
        }
    }

    fn friends_speak(&mut self) {
        for at in [0, 1] {
            while let Some(packet) = self.friends[at].poll_device() {
                self.delivered[1] += u64::from(packet::number(&packet).is_some());
            }
            while self.friends[at].poll_event().is_some() {}
            while let Some(transmit) = self.friends[at].poll_transmit() {
                let from = Received::from_remote([MEMBER, CLIENT][at].into());
                for datagram in datagrams(&transmit) {
                    self.judge(from, datagram, false);
                }
            }
        }
    }

    /// Takes all that the node has to give, which has to come to an end.
    fn drain(&mut self) {
        let mut answers = 0;
        let mut counted = || {
            answers += 1;
            assert!(answers < ANSWERS_MAX, "one input is answered without end");
        };
        while let Some(event) = self.victim.poll_event() {
            counted();
            self.events.push(event);
        }
        while let Some(packet) = self.victim.poll_device() {
            counted();
            self.delivered[0] += u64::from(packet::number(&packet).is_some());
        }
        let mut sent = Vec::new();
        while let Some(transmit) = self.victim.poll_transmit() {
            counted();
            sent.push(transmit);
        }
        for transmit in sent {
            self.arrive(&transmit);
        }
    }

    fn arrive(&mut self, transmit: &Transmit) {
        let from = Received::from_remote(VICTIM.into());
        for datagram in datagrams(transmit) {
            if transmit.remote == self.hostile.address {
                self.hostile.take(datagram, self.now);
                continue;
            }
            let friend = [MEMBER, CLIENT]
                .iter()
                .position(|address| transmit.remote == SocketAddr::from(*address));
            if let Some(friend) = friend {
                let data = BytesMut::from(datagram);
                self.friends[friend].handle_datagram(from, data, self.now);
            }
        }
    }

    /// What a data thread does with a datagram, by the picture that it has.
    fn judge(&mut self, from: Received, datagram: &[u8], inside: bool) {
        let mut data = datagram.to_vec();
        let sight = self.sight.clone();
        let verdict = sight.inbound(&mut data);
        let verdict = if inside { verdict.inside() } else { verdict };
        let drops = self.victim.drops().clone();
        match verdict {
            Inbound::Packet { range } => {
                self.delivered[0] += u64::from(packet::number(&data[range]).is_some());
            }
            Inbound::Inner { peer, range } => {
                self.hand_over(ToControl::Inner(peer, from, data[range].to_vec()));
            }
            Inbound::Fragment { range } => {
                let whole = sight.reassemble(&data, range, self.now, &drops);
                let number = whole.and_then(|packet| packet::number(&packet));
                self.delivered[0] += u64::from(number.is_some());
            }
            Inbound::Envelope { remote, range, .. } => {
                self.judge(from.over_relay(remote), &data[range], true);
            }
            Inbound::Relay { peer, range, .. } => {
                self.hand_over(ToControl::Inner(peer, from, data[range].to_vec()));
            }
            Inbound::NotSealed => {
                self.hand_over(ToControl::Datagram(from, BytesMut::from(&data[..])));
            }
            Inbound::Dropped(reason) => drops.count(reason),
        }
    }

    fn hand_over(&mut self, input: ToControl) {
        if self.queue.len() >= QUEUE_MAX {
            return self.victim.drops().count(DropReason::ControlBacklog);
        }
        self.queue.push_back(input);
    }
}

fn datagrams(transmit: &Transmit) -> impl Iterator<Item = &[u8]> {
    let len = transmit.segment_size.unwrap_or(transmit.contents.len());
    transmit.contents.chunks(len.max(1))
}

fn node(which: usize, peers: Vec<NodePeer>, relays: Vec<NodeRelay>, now: Instant) -> Node {
    let identity = IDENTITIES[which].clone();
    let mut net = NetConfig::new(identity, [which as u8; 32], 1);
    net.unix_time = Duration::from_secs(1_800_000_000);
    if which == 0 {
        net.relay = RelayConfig {
            enabled: true,
            ..RelayConfig::default()
        };
    }
    let config = NodeConfig {
        net,
        addresses: Vec::new(),
        peers,
        relays,
    };
    Node::new(config, now).expect("the configuration is sound")
}
