//! Finding peers on the local network without anybody's help.
//!
//! Every node says now and then, by multicast on each of its networks, that it is there. Whoever hears it asks
//! back, peer or not, and the sender answers those whose question shows that they know each other: see
//! [`talk`], which decides all of it. So whoever hears, records or repeats such words learns nothing of who knows whom, and what a
//! peer says becomes an address to be tried only when it said so a moment ago. There the handshake decides.

mod near;
mod talk;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use shadowmesh_io::multicast::Group;
use shadowmesh_io::netlink::{Address, Link};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::beacon::{self, Beacon};

use near::Near;
use talk::Talk;

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

/// Limit: datagrams taken from one socket in one turn.
const HEAR_MAX: usize = 64;
/// Longer than a datagram of ours, so that one that is too long does not look like one.
const BUFFER_BYTES: usize = 64;

/// What is said and heard on the local networks.
pub struct Lan {
    speakers: Vec<Speaker>,
    near: Near,
    talk: Talk,
    /// How many of [`AFTER_CHANGE`] are still to come.
    left: usize,
    due: Instant,
}

/// One IP version.
struct Speaker {
    group: Group,
    /// Where we listen for datagrams of peers.
    port: u16,
    /// Joined on these. Limit: [`near::DEVICES_MAX`].
    devices: BTreeSet<u32>,
}

/// A peer said that it listens here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Who; it proved that it knows us both.
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
        // Without randomness nothing is said at all, and then nothing of this is used.
        let nobody = PeerId::from_bytes(random().unwrap_or_default());
        Self {
            speakers: speakers.collect(),
            near: Near::default(),
            talk: Talk::new(own, peers, &nobody, now),
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
            speaker.devices = self.near.devices().filter(joined).collect();
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
                let beacon = self.talk.call(speaker.port, nonce, now).to_bytes();
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

    /// The peers that spoke since the last call, as far as [`HEAR_MAX`] datagrams go. Whoever is to be
    /// answered is.
    pub fn hear(&mut self, now: Instant) -> Vec<Heard> {
        let mut heard = Vec::new();
        let mut buffer = [0; BUFFER_BYTES];
        for speaker in &self.speakers {
            for _ in 0..HEAR_MAX {
                // Nothing there, or the error of an earlier send; either ends this turn.
                let Ok((len, source)) = speaker.group.receive(&mut buffer) else {
                    break;
                };
                let (Some(word), Some(nonce)) = (Beacon::parse(&buffer[..len]), random()) else {
                    continue;
                };
                let source = without_flow(source);
                let said = (&word, source, speaker.port);
                let reaction = self.talk.hear(said, &self.near, nonce, now);
                if let Some(answer) = reaction.answer
                    && let Err(error) = speaker.group.answer(source, &answer.to_bytes())
                {
                    tracing::trace!(%error, "an answer on the local network was not sent");
                }
                heard.extend(reaction.heard);
            }
        }
        heard
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

    fn id(byte: u8) -> PeerId {
        PeerId::from_bytes([byte; 32])
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
