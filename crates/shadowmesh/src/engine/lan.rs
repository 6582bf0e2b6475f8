//! Finding peers on the local network without anybody's help.
//!
//! Every node says now and then, by multicast on each of its networks, that it is there and at which
//! port it listens. Who knows its PeerId recognises it and has an address to try; nobody else can tell
//! it from noise. What is heard proves nothing: it becomes an address to be tried, and the handshake
//! decides. So a beacon that somebody keeps and sends again does no harm beyond an attempt.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use shadowmesh_crypto::LanBeacon;
use shadowmesh_io::multicast::Group;
use shadowmesh_io::netlink::{Address, Link};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::beacon::{self, Beacon, NONCE_LEN};
use shadowmesh_wire::prefix::IpPrefix;

/// When beacons are sent after the start and after a change: multicast is not repeated when it is
/// lost, and a network that has just come up loses much.
// PROTOCOL SM-LD-1
const AFTER_CHANGE: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(2),
];
/// Between two beacons when nothing changes.
// PROTOCOL SM-LD-1
const INTERVAL: Duration = Duration::from_secs(30);

/// Limit: networks that are spoken on.
const DEVICES_MAX: usize = 16;
/// Limit: IPv4 networks of these devices, in which neighbours can be. A device has one or two.
const PREFIXES_MAX: usize = 64;
/// Limit: tags computed in a second for beacons of others, 20 ms of a core. A beacon costs one for
/// each peer, until it is recognised.
const TAGS_PER_SECOND: usize = 32_768;
/// Limit: nonces of recognised beacons that are remembered, so that none counts twice.
const HEARD_MAX: usize = 1024;
/// Limit: datagrams taken from one socket in one turn.
const HEAR_MAX: usize = 64;
/// Longer than a beacon, so that one that is too long does not look like one.
const BUFFER_BYTES: usize = 64;

/// What is said and heard on the local networks.
pub struct Lan {
    own: LanBeacon,
    /// Whom we would recognise. Limit: the configuration's.
    peers: Vec<(PeerId, LanBeacon)>,
    speakers: Vec<Speaker>,
    near: Near,
    ear: Ear,
    /// How many of [`AFTER_CHANGE`] are still to come.
    left: usize,
    due: Instant,
}

/// One IP version.
struct Speaker {
    group: Group,
    /// Where we listen for datagrams of peers.
    port: u16,
    /// Joined on these. Limit: [`DEVICES_MAX`].
    devices: BTreeSet<u32>,
}

/// Where neighbours can be.
#[derive(Default)]
struct Near {
    /// The devices spoken on. Limit: [`DEVICES_MAX`].
    devices: BTreeSet<u32>,
    /// The IPv4 networks that are reached directly through these. Limit: [`PREFIXES_MAX`].
    prefixes: Vec<IpPrefix>,
}

/// What bounds the work that others can make.
struct Ear {
    heard: VecDeque<[u8; NONCE_LEN]>,
    second: Instant,
    tags: usize,
}

/// A peer said that it listens here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Who, by its own word.
    pub peer: PeerId,
    /// Where.
    pub address: SocketAddr,
}

impl Lan {
    /// Opens the sockets; `listen` are the addresses at which this node receives. An IP version that
    /// the machine lacks, or a port that is taken, is left out.
    pub fn open(own: &PeerId, peers: &[PeerId], listen: &[SocketAddr], now: Instant) -> Self {
        let groups = [IpAddr::V4(beacon::GROUP_V4), IpAddr::V6(beacon::GROUP_V6)];
        let speakers = groups.into_iter().filter_map(|group| {
            let ours = |address: &&SocketAddr| address.is_ipv4() == group.is_ipv4();
            let port = listen.iter().find(ours)?.port();
            match Group::open(SocketAddr::new(group, beacon::PORT)) {
                Ok(group) => Some(Speaker {
                    group,
                    port,
                    devices: BTreeSet::new(),
                }),
                Err(error) => {
                    tracing::debug!(%group, %error, "no discovery on local networks");
                    None
                }
            }
        });
        Self {
            own: LanBeacon::of(own),
            peers: peers.iter().map(|id| (*id, LanBeacon::of(id))).collect(),
            speakers: speakers.collect(),
            near: Near::default(),
            ear: Ear::new(now),
            left: AFTER_CHANGE.len(),
            due: now,
        }
    }

    /// These are the links and addresses of the host now; `without` is the tunnel's own.
    pub fn set_links(&mut self, links: &[Link], addresses: &[Address], without: u32, now: Instant) {
        self.near = Near::of(links, addresses, without);
        for speaker in &mut self.speakers {
            // The kernel leaves a group with the device, and a device that comes back is joined again.
            let joined = |index: &u32| speaker.group.join(*index).is_ok();
            speaker.devices = self.near.devices.iter().copied().filter(joined).collect();
        }
        self.left = AFTER_CHANGE.len();
        self.due = now;
    }

    /// When to call [`speak`](Self::speak).
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Sends a beacon to each network.
    // PROTOCOL SM-LD-1
    pub fn speak(&mut self, now: Instant) {
        for speaker in &self.speakers {
            for device in &speaker.devices {
                let Some(nonce) = random() else {
                    return;
                };
                let beacon = self.own.make(speaker.port, nonce).to_bytes();
                if let Err(error) = speaker.group.send(*device, &beacon) {
                    // No address yet, no route: the next change or the next turn sends again.
                    tracing::trace!(device, %error, "a beacon was not sent");
                }
            }
        }
        self.left = self.left.saturating_sub(1);
        let wait = match self.left {
            0 => jittered(INTERVAL),
            left => AFTER_CHANGE[AFTER_CHANGE.len() - left],
        };
        self.due = now + wait;
    }

    /// The sockets, readable when there is something to [`hear`](Self::hear).
    pub fn sockets(&self) -> impl Iterator<Item = &Group> {
        self.speakers.iter().map(|speaker| &speaker.group)
    }

    /// The peers that spoke since the last call, as far as [`HEAR_MAX`] datagrams go.
    pub fn hear(&mut self, now: Instant) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut buffer = [0; BUFFER_BYTES];
        for speaker in &self.speakers {
            for _ in 0..HEAR_MAX {
                // Nothing there, or the error of an earlier send; either ends this turn.
                let Ok((len, source)) = speaker.group.receive(&mut buffer) else {
                    break;
                };
                let beacon = Beacon::parse(&buffer[..len]);
                let source = without_flow(source);
                // PROTOCOL SM-LD-3
                let beacon = beacon.filter(|_| self.near.has(source));
                heard.extend(
                    beacon.and_then(|beacon| self.ear.judge(&self.peers, &beacon, source, now)),
                );
            }
        }
        heard
    }
}

impl Near {
    fn of(links: &[Link], addresses: &[Address], without: u32) -> Self {
        let speaks = |link: &&Link| {
            link.up && link.carrier && link.ethernet.is_some() && link.index != without
        };
        let devices: BTreeSet<u32> = links
            .iter()
            .filter(speaks)
            .take(DEVICES_MAX)
            .map(|link| link.index)
            .collect();
        let prefixes = addresses
            .iter()
            .filter(|own| own.address.is_ipv4() && devices.contains(&own.index))
            .take(PREFIXES_MAX)
            .map(|own| IpPrefix::containing(own.address, own.prefix_len))
            .collect();
        Self { devices, prefixes }
    }

    /// Whether a source is on one of our networks. A socket of a multicast group also gets what routers
    /// brought from afar, and in IPv6 whatever else is sent to its port.
    // PROTOCOL SM-LD-3
    fn has(&self, source: SocketAddr) -> bool {
        match source {
            SocketAddr::V4(source) => {
                let ip = (*source.ip()).into();
                self.prefixes.iter().any(|prefix| prefix.contains(ip))
            }
            SocketAddr::V6(source) => {
                source.ip().is_unicast_link_local() && self.devices.contains(&source.scope_id())
            }
        }
    }
}

impl Ear {
    fn new(now: Instant) -> Self {
        Self {
            heard: VecDeque::new(),
            second: now,
            tags: 0,
        }
    }

    // PROTOCOL SM-LD-3
    fn judge(
        &mut self,
        peers: &[(PeerId, LanBeacon)],
        beacon: &Beacon,
        source: SocketAddr,
        now: Instant,
    ) -> Option<Heard> {
        if now >= self.second + Duration::from_secs(1) {
            (self.second, self.tags) = (now, 0);
        }
        if self.tags >= TAGS_PER_SECOND || self.heard.contains(&beacon.nonce) {
            return None;
        }
        let mut open = |(id, key): &(PeerId, LanBeacon)| {
            self.tags += 1;
            key.open(beacon).map(|port| (*id, port))
        };
        let (peer, port) = peers.iter().find_map(&mut open)?;
        if self.heard.len() == HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back(beacon.nonce);
        let mut address = source;
        address.set_port(port);
        (port != 0).then_some(Heard { peer, address })
    }
}

/// The flow label belongs to a datagram and not to an address.
fn without_flow(source: SocketAddr) -> SocketAddr {
    match source {
        SocketAddr::V6(from) => {
            SocketAddrV6::new(*from.ip(), from.port(), 0, from.scope_id()).into()
        }
        source => source,
    }
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// A quarter more or less, so that nodes that were started together do not speak together.
fn jittered(interval: Duration) -> Duration {
    let [byte] = random().unwrap_or([128]);
    interval * 3 / 4 + interval / 2 * u32::from(byte) / 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn id(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
    }

    fn peers(ids: &[u8]) -> Vec<(PeerId, LanBeacon)> {
        let peer = |byte: &u8| (id(*byte), LanBeacon::of(&id(*byte)));
        ids.iter().map(peer).collect()
    }

    fn near(host: u8) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::new(192, 0, 2, host).into(), 21_077)
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn a_peer_is_heard_at_the_source_of_its_beacon_with_the_port_it_says() {
        let now = Instant::now();
        let beacon = LanBeacon::of(&id(2)).make(4433, [7; 16]);
        let heard = Ear::new(now).judge(&peers(&[1, 2]), &beacon, near(9), now);
        let address = SocketAddr::new(near(9).ip(), 4433);
        assert_eq!(
            heard,
            Some(Heard {
                peer: id(2),
                address
            })
        );
        let stranger = LanBeacon::of(&id(3)).make(4433, [7; 16]);
        let heard = Ear::new(now).judge(&peers(&[1, 2]), &stranger, near(9), now);
        assert_eq!(heard, None);
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn a_beacon_that_is_sent_again_from_elsewhere_says_nothing() {
        let now = Instant::now();
        let (peers, mut ear) = (peers(&[1]), Ear::new(now));
        let beacon = LanBeacon::of(&id(1)).make(4433, [7; 16]);
        assert!(ear.judge(&peers, &beacon, near(9), now).is_some());
        assert_eq!(ear.judge(&peers, &beacon, near(66), now), None);
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn port_0_is_never_heard() {
        let now = Instant::now();
        let (peers, mut ear) = (peers(&[1]), Ear::new(now));
        let key = LanBeacon::of(&id(1));
        let said = ear.judge(&peers, &key.make(0, [3; 16]), near(9), now);
        assert_eq!(said, None);
        let said = ear.judge(&peers, &key.make(4433, [4; 16]), near(9), now);
        assert!(said.is_some());
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn only_who_is_in_a_network_of_a_link_spoken_on_is_heard_and_over_ipv6_the_link_itself() {
        let link = |index, up, ethernet| Link {
            index,
            name: format!("link{index}"),
            mtu: 1500,
            up,
            carrier: true,
            ethernet,
            kind: None,
            master: None,
        };
        let (ethernet, tunnel) = (Some([2, 0, 0, 0, 0, 1]), 9);
        let links = [
            link(1, true, ethernet),
            link(2, false, ethernet),
            link(3, true, None),
            link(tunnel, true, ethernet),
        ];
        let address = |index, address: &str, prefix_len| Address {
            index,
            address: address.parse().unwrap(),
            prefix_len,
            ready: true,
        };
        let addresses = [
            address(1, "192.0.2.1", 25),
            address(1, "2001:db8::1", 64),
            address(2, "198.51.100.1", 24),
            address(3, "203.0.113.1", 24),
            address(tunnel, "10.100.1.1", 16),
        ];
        let near = Near::of(&links, &addresses, tunnel);
        let heard = |source: &str| near.has(source.parse().unwrap());
        assert!(heard("192.0.2.127:21077"));
        for far in [
            "192.0.2.128:21077",
            "198.51.100.2:21077",
            "203.0.113.2:21077",
            "10.100.1.2:21077",
            "[2001:db8::2]:21077",
        ] {
            assert!(!heard(far), "{far}");
        }
        let on = |scope| {
            let ip = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
            near.has(SocketAddrV6::new(ip, 21_077, 0, scope).into())
        };
        assert!(on(1) && !on(2) && !on(tunnel));
    }

    // PROTOCOL SM-LD-3
    #[test]
    fn a_flood_of_noise_costs_a_bounded_number_of_tags_and_is_over_after_a_second() {
        let now = Instant::now();
        let ids: Vec<u8> = (0..200).collect();
        let (peers, mut ear) = (peers(&ids), Ear::new(now));
        for number in 0..1000u128 {
            let noise = LanBeacon::of(&id(250)).make(1, number.to_be_bytes());
            assert_eq!(ear.judge(&peers, &noise, near(9), now), None);
        }
        assert!(ear.tags < TAGS_PER_SECOND + peers.len());
        let beacon = LanBeacon::of(&id(7)).make(4433, [255; 16]);
        assert_eq!(ear.judge(&peers, &beacon, near(9), now), None);
        let later = now + Duration::from_secs(1);
        assert!(ear.judge(&peers, &beacon, near(9), later).is_some());
    }

    // PROTOCOL SM-LD-1
    #[test]
    fn beacons_are_sent_three_times_at_first_and_then_every_30_s_or_so() {
        let now = Instant::now();
        let mut lan = Lan::open(&id(1), &[], &[], now);
        let mut waits = Vec::new();
        for _ in 0..4 {
            let at = lan.due();
            lan.speak(at);
            waits.push(lan.due() - at);
        }
        assert_eq!(waits[..2], AFTER_CHANGE[1..]);
        let about = Duration::from_millis(22_500)..Duration::from_millis(37_500);
        assert!(
            waits[2..].iter().all(|wait| about.contains(wait)),
            "{waits:?}"
        );
        let later = lan.due() + INTERVAL;
        lan.set_links(&[], &[], 0, later);
        assert_eq!(lan.due(), later, "a change is told at once");
    }
}
