//! Streams: what stands here for the program's WebSocket over TLS, where UDP does not pass.
//!
//! As in the program, a node asks for a stream to a peer, its host opens one if that peer
//! [takes streams](super::HostConfig::takes_streams) and TCP leads there, and tells the node the address by which it is
//! known from then on. The other end hears of it by the first datagram. Datagrams keep their bounds and their
//! order; what a link loses is sent again, which costs a round trip and holds up all that is behind it.
//!
//! Who is killed ends its streams, and the other end hears of it at once, as from a kernel that closes
//! sockets. A host that moves, a box that forgets its mappings, a cable or a partition are silent: what is sent
//! meanwhile is lost, and both ends give the stream up after a minute. Left out: proxies, and the program's pause
//! of a stream that nobody uses.

use std::net::IpAddr;
use std::time::Duration;

use shadowmesh_net::Received;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::way::Way;

use super::topology::BoxId;
use super::{Happening, World};
use crate::ledger::HostId;
use crate::link::Link;
use crate::trace::TraceEvent;

/// TCP, TLS 1.3, and the request that makes a WebSocket of it: a round trip each.
const ROUND_TRIPS_TO_OPEN: u32 = 3;
/// How long a host goes on trying to open a stream that was asked for.
const WANTED: Duration = Duration::from_secs(120);
/// Between two tries; doubled by each, up to the last.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_LAST: Duration = Duration::from_secs(30);
/// How often the ends look whether anything still passes.
const TICK: Duration = Duration::from_secs(5);
// PROTOCOL SM-WS-6
/// Silence after which they give it up.
const DEAD_AFTER: Duration = Duration::from_secs(60);

/// A stream that stands.
#[derive(Debug)]
pub(super) struct Stream {
    /// Who opened it and who took it.
    ends: [End; 2],
    /// Where the opener was, and the boxes before it: with others the stream is cut.
    origin: Origin,
    /// Since when nothing passes.
    silent_since: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    host: HostId,
    /// In which life of the host's.
    boot: u64,
    /// When the last datagram on the way to it arrives.
    last_arrival: Duration,
}

/// Where somebody is: address, and the boxes between it and the internet with their number of restarts.
type Origin = (IpAddr, Vec<(BoxId, u64)>);

/// Somebody tries to open a stream.
#[derive(Debug)]
pub(super) struct Opening {
    from: HostId,
    boot: u64,
    to: HostId,
    until: Duration,
    pause: Duration,
}

/// A datagram on a stream.
#[derive(Debug)]
pub(super) struct Message {
    stream: u64,
    /// For the opener (0) or the taker (1).
    end: usize,
    data: Vec<u8>,
    cargo: Option<u64>,
}

impl World {
    /// How many streams stand between these two hosts.
    pub fn streams_between(&self, a: HostId, b: HostId) -> usize {
        let all = self.streams.values();
        all.filter(|stream| [(a, b), (b, a)].contains(&stream.hosts()))
            .count()
    }

    /// A node asks for a stream to a peer.
    pub(super) fn want_stream(&mut self, from: HostId, peer: &PeerId) {
        let takes = |id: &HostId| {
            let host = self.host(*id);
            host.config.takes_streams && host.id() == *peer
        };
        let Some(to) = self.host_ids().find(takes) else {
            return;
        };
        let stands = self.streams.values().any(|s| s.hosts() == (from, to));
        if stands || !self.opening.insert((from, to)) {
            return;
        }
        let opening = Opening {
            from,
            boot: self.host(from).boots,
            to,
            until: self.now + WANTED,
            pause: PAUSE_FIRST,
        };
        self.schedule_opening(opening, Duration::ZERO);
    }

    fn schedule_opening(&mut self, opening: Opening, pause: Duration) {
        let (from, to) = (opening.from, opening.to);
        let round_trip = self.delay(from, to) + self.delay(to, from);
        let at = self.now + pause + ROUND_TRIPS_TO_OPEN * round_trip;
        self.schedule(at, Happening::Opening(opening));
    }

    fn delay(&self, from: HostId, to: HostId) -> Duration {
        let link = self.links.get(&(from, to));
        link.map_or(self.default_link, |link| link.profile).delay
    }

    /// The time is over that it takes to open a stream.
    pub(super) fn open(&mut self, mut opening: Opening) {
        let (from, to) = (opening.from, opening.to);
        let host = self.host(from);
        if !host.is_up() || host.boots != opening.boot || self.now >= opening.until {
            self.opening.remove(&(from, to));
            return;
        }
        let Some(origin) = self.origin_towards(from, to) else {
            let pause = opening.pause;
            opening.pause = (2 * pause).min(PAUSE_LAST);
            return self.schedule_opening(opening, pause);
        };
        self.opening.remove(&(from, to));
        self.streams_opened += 1;
        let number = self.streams_opened;
        let ends = [from, to].map(|host| End {
            host,
            boot: self.host(host).boots,
            last_arrival: self.now,
        });
        let stream = Stream {
            ends,
            origin,
            silent_since: None,
        };
        self.streams.insert(number, stream);
        self.schedule(self.now + TICK, Happening::StreamTick(number));
        let peer = self.host(to).id();
        let address = Way::Stream(number).address();
        self.with_node(from, |node, now| node.learn_address(&peer, address, now));
    }

    /// Where `from` is, if TCP leads from there to `to`.
    fn origin_towards(&self, from: HostId, to: HostId) -> Option<Origin> {
        let (host, server) = (self.host(from), self.host(to));
        let target = *self.addresses_for(from, to).first()?;
        let passes = host.plugged && server.is_up() && server.plugged;
        if !passes || self.is_cut_off(from, target.ip()) {
            return None;
        }
        Some((host.address.ip(), self.topology.passage(host.behind)?))
    }

    /// A node sends a datagram on a stream.
    pub(super) fn send_on_stream(&mut self, from: HostId, number: u64, data: Vec<u8>) {
        let cargo = self.cargo;
        let Some(stream) = self.streams.get(&number) else {
            return self.lose(cargo);
        };
        let end = usize::from(stream.ends[0].host == from);
        let to = stream.ends[end].host;
        self.trace
            .add(TraceEvent::Sent, self.now, from.0, to.0, data.len());
        if !self.stream_passes(number) {
            return self.lose(cargo);
        }
        let link = self.links.entry((from, to));
        let link = link.or_insert_with(|| Link::new(self.default_link));
        let Some(at) = link.send_until_it_arrives(data.len(), self.now, &mut self.rng) else {
            return self.lose(cargo);
        };
        self.hosts[from.0].sent_bytes += data.len();
        let last = self
            .streams
            .get_mut(&number)
            .expect("it was just looked at");
        let at = at.max(last.ends[end].last_arrival);
        last.ends[end].last_arrival = at;
        let message = Message {
            stream: number,
            end,
            data,
            cargo,
        };
        self.schedule(at, Happening::Message(message));
    }

    fn stream_passes(&self, number: u64) -> bool {
        self.streams.get(&number).is_some_and(|stream| {
            let (from, to) = stream.hosts();
            self.origin_towards(from, to).as_ref() == Some(&stream.origin)
        })
    }

    pub(super) fn arrive_by_stream(&mut self, message: Message) {
        let stream = self.streams.get(&message.stream);
        let Some(End { host, .. }) = stream.map(|stream| stream.ends[message.end]) else {
            return self.lose(message.cargo);
        };
        let received = Received::from_remote(Way::Stream(message.stream).address());
        let other = self.streams[&message.stream].ends[1 - message.end].host;
        self.trace.add(
            TraceEvent::Arrived,
            self.now,
            other.0,
            host.0,
            message.data.len(),
        );
        self.hand_in(host, received, message.data, message.cargo);
    }

    /// Both ends look whether the other is still there.
    pub(super) fn tick_stream(&mut self, number: u64) {
        let passes = self.stream_passes(number);
        let Some(stream) = self.streams.get_mut(&number) else {
            return;
        };
        let since = *stream.silent_since.get_or_insert(self.now);
        if passes {
            stream.silent_since = None;
        } else if self.now >= since + DEAD_AFTER {
            let ends = stream.ends;
            self.streams.remove(&number);
            for End { host, boot, .. } in ends {
                self.hear_end(host, boot, number);
            }
            return;
        }
        self.schedule(self.now + TICK, Happening::StreamTick(number));
    }

    /// A host's life is over, and its streams are.
    pub(super) fn end_streams(&mut self, of: HostId) {
        let is_its = |stream: &Stream| stream.ends.iter().any(|end| end.host == of);
        let ended: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| is_its(stream))
            .map(|(number, _)| *number)
            .collect();
        for number in ended {
            let passes = self.stream_passes(number);
            let Some(stream) = self.streams.remove(&number) else {
                continue;
            };
            for End { host, boot, .. } in stream.ends {
                if host != of {
                    // In the dark it hears nothing, and waits.
                    let after = if passes {
                        self.delay(of, host)
                    } else {
                        DEAD_AFTER
                    };
                    let what = Happening::StreamEnd { host, boot, number };
                    self.schedule(self.now + after, what);
                }
            }
        }
    }

    /// A host hears that a stream of its has ended.
    pub(super) fn hear_end(&mut self, host: HostId, boot: u64, number: u64) {
        if self.host(host).is_up() && self.host(host).boots == boot {
            let address = Way::Stream(number).address();
            self.with_node(host, |node, now| node.stream_down(address, now));
        }
    }
}

impl Stream {
    /// Opener and taker.
    fn hosts(&self) -> (HostId, HostId) {
        (self.ends[0].host, self.ends[1].host)
    }
}
