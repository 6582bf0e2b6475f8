//! The ways to peers: sends the probes that [`crate::paths`] asks for, and does what it decides.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shadowmesh_wire::PeerId;
use shadowmesh_wire::probe::{Probe, ProbeKind};
use shadowmesh_wire::way::Way;

use super::Net;
use crate::control::ConnKey;
use crate::drops::DropReason;
use crate::event::{
    AddressKind, CandidateReport, CandidateState, NetEvent, PathReport, SECOND_SOCKET,
};
use crate::paths::{News, Origin, Path, Tier, Want, Why};
use crate::plane::Plane;
use crate::spending::Purpose;
use crate::timers::Timer;

/// An attempt that got no answer by UDP for so long asks for a stream.
pub(super) const STREAM_AFTER: Duration = Duration::from_secs(1);
/// A probe without padding.
pub(super) const PROBE_LEN: usize = 39;

impl Net {
    /// The ways to a peer, the best first, and what became of them. `None`: no such peer.
    pub fn path_report(&self, id: &PeerId, _now: Instant) -> Option<PathReport> {
        let peer = self.peers.get(id)?;
        let connection = peer
            .primary
            .and_then(|key| self.control.connections.get(&key));
        let mut candidates: Vec<_> = connection
            .map(|connection| connection.paths.candidates())
            .unwrap_or_default()
            .iter()
            .collect();
        candidates.sort_by_key(|candidate| (rank(candidate.state), candidate.score()));
        Some(PathReport {
            current: connection.map(|c| self.relays.info(c.paths.current().remote)),
            candidates: candidates
                .into_iter()
                .map(|candidate| CandidateReport {
                    path: self.relays.info(candidate.path.remote),
                    state: candidate.state,
                    rtt: candidate.rtt,
                })
                .collect(),
            observed: self.observations().collect(),
        })
    }

    /// A session came into use, perhaps in the place of `earlier`.
    pub(super) fn activate_paths(&mut self, key: ConnKey, earlier: Option<ConnKey>, now: Instant) {
        let inherited = earlier
            .filter(|earlier| *earlier != key)
            .and_then(|earlier| {
                self.timers.stop(Timer::Paths(earlier));
                let connection = self.control.connections.get_mut(&earlier)?;
                connection.paths.rest();
                let current = connection.paths.current();
                let empty = crate::paths::Paths::new(current, self.config.paths, now);
                Some(std::mem::replace(&mut connection.paths, empty))
            });
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        connection.paths.activate(now);
        if let Some(mut inherited) = inherited {
            connection.paths.inherit(&mut inherited);
        }
        let Some(id) = connection.peer else { return };
        self.offer_known_ways(key, id, now);
        self.refresh_tiers(key);
        // Also in the place of another: what was said on that one may not have been heard.
        if self.wants_search(key) && !self.waits_for_word(key, now) {
            self.search(key, now);
        }
        self.drive_paths(key, now);
    }

    /// What the configuration, the host and relays name.
    fn offer_known_ways(&mut self, key: ConnKey, id: PeerId, now: Instant) {
        for (_, way) in self.ways(&id) {
            self.offer_way(key, way, now);
        }
    }

    /// A way to the peer of a session: to be probed. Relayed ones stay warm from then on.
    pub(super) fn offer_way(&mut self, key: ConnKey, remote: SocketAddr, _now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let path = Path::to(remote);
        let peer = connection.peer.and_then(|id| self.peers.get(&id));
        let hearsay = peer.is_some_and(|peer| peer.is_hearsay(remote));
        let origin = if hearsay { Origin::Told } else { Origin::Ours };
        connection.paths.add(path, origin);
        if !path.is(connection.paths.current()) {
            connection.paths.probe(path);
        }
    }

    /// Every session in use. A look at all peers: for what concerns all of them.
    pub(super) fn sessions(&self) -> Vec<(PeerId, ConnKey)> {
        let peers = self.peers.iter();
        peers
            .filter_map(|(id, peer)| Some((*id, peer.primary?)))
            .collect()
    }

    /// A session with one of our relays is up, so over it there is a way to everybody.
    pub(super) fn offer_relay(&mut self, relay: PeerId, now: Instant) {
        if !self.relays.contains(&relay) {
            return;
        }
        for (id, key) in self.sessions() {
            if let Some(way) = self
                .relays
                .way(&relay, &id)
                .filter(|_| !self.relays.contains(&id))
            {
                self.offer_way(key, way.address(), now);
                self.drive_paths(key, now);
            }
        }
    }

    /// The session with a relay is gone: whoever was reached over it is looked for elsewhere at once.
    pub(super) fn on_relay_down(&mut self, relay: PeerId, now: Instant) {
        if !self.relays.contains(&relay) {
            return;
        }
        for (id, key) in self.sessions() {
            let way = self.relays.way(&relay, &id);
            if let (Some(way), Some(connection)) = (way, self.control.connections.get_mut(&key)) {
                connection.paths.lost(way.address(), now);
                self.drive_paths(key, now);
            }
        }
    }

    pub(super) fn on_paths_timeout(&mut self, key: ConnKey, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let Some(counts) = connection.session().map(|session| session.counts()) else {
            return;
        };
        connection.paths.handle_timeout(counts, now);
        self.drive_paths(key, now);
    }

    /// Once a second. `calmly`: nothing was heard for a while, and one probe should show why.
    pub(super) fn look_at_paths(&mut self, key: ConnKey, calmly: bool, now: Instant) {
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let Some(counts) = connection.session().map(|session| session.counts()) else {
            return;
        };
        connection.paths.watch(counts, now);
        if calmly {
            connection.paths.probe_calmly();
        }
        self.drive_paths(key, now);
    }

    /// Sends the probes that are wanted, does what was decided, and sets the timer.
    pub(super) fn drive_paths(&mut self, key: ConnKey, now: Instant) {
        self.refresh_tiers(key);
        loop {
            let Some(connection) = self.control.connections.get_mut(&key) else {
                return;
            };
            if let Some(news) = connection.paths.poll_news() {
                self.on_paths_news(key, news, now);
            } else if let Some(want) = connection.paths.poll_probe() {
                self.send_path_probe(key, want, now);
            } else {
                break;
            }
        }
        let paths = self.control.connections.get(&key).map(|c| &c.paths);
        match paths.and_then(crate::paths::Paths::poll_timeout) {
            Some(at) => self.timers.set(Timer::Paths(key), at),
            None => self.timers.stop(Timer::Paths(key)),
        }
    }

    /// What ways through tunnel devices, and over a relay that we reach by a stream, are worth.
    pub(super) fn refresh_tiers(&mut self, key: ConnKey) {
        let own = self.own_addresses.iter();
        let tunnels = own.filter(|own| own.kind == AddressKind::Tunnel);
        let tunnels: Vec<IpAddr> = tunnels.map(|own| own.address.ip()).collect();
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        connection.paths.set_tunnels(&tunnels);
        let Some(connection) = self.control.connections.get(&key) else {
            return;
        };
        let relayed: Vec<(SocketAddr, Tier)> = connection
            .paths
            .candidates()
            .iter()
            .filter(|candidate| !candidate.is_direct_udp())
            .map(|candidate| (candidate.path.remote, self.tier(candidate.path.remote)))
            .collect();
        if relayed.is_empty() {
            return;
        }
        if let Some(connection) = self.control.connections.get_mut(&key) {
            let tier = |remote| {
                let known = relayed.iter().find(|(way, _)| *way == remote);
                known.map_or(Tier::of(remote), |(_, tier)| *tier)
            };
            connection.paths.set_tiers(tier);
        }
    }

    fn tier(&self, remote: SocketAddr) -> Tier {
        let Way::Relayed { slot, .. } = Way::of(remote) else {
            return Tier::of(remote);
        };
        let relay = self.relays.at(slot).and_then(|id| self.peers.get(&id));
        let session = relay
            .and_then(|relay| relay.primary)
            .and_then(|key| self.control.connections.get(&key));
        match session.map(|session| Way::of(session.paths.current().remote)) {
            Some(Way::Stream(_)) => Tier::RelayedStream,
            _ => Tier::Relayed,
        }
    }

    fn send_path_probe(&mut self, key: ConnKey, want: Want, now: Instant) {
        let token = want.token.unwrap_or_else(|| self.random_token());
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        if want.token.is_none() {
            connection.paths.sent(want.path, token, now);
        } else if !self.may_guess(want.path, now) {
            return;
        }
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let Some(session) = connection.session_mut() else {
            return;
        };
        let kind = ProbeKind::Request;
        match session.plane.plane() {
            Plane::Sealed => {
                let datagram = session.seal_request(token, 0);
                self.send_probe_frame(key, want, datagram, now);
            }
            Plane::Quic => {
                self.send_probe_by_quic(key, want.path, Probe { kind, token }, now);
            }
        }
    }

    /// A guess has been charged before it was sealed.
    fn send_probe_frame(
        &mut self,
        key: ConnKey,
        want: Want,
        sealed: Option<Vec<u8>>,
        now: Instant,
    ) {
        match (want.token, sealed) {
            (Some(_), Some(datagram)) => self.send_frame(want.path, datagram),
            (_, sealed) => self.send_sealed(key, want.path, sealed, now),
        }
    }

    /// Whether one more guess may go there. What may not is counted.
    // PROTOCOL SM-PA-9
    fn may_guess(&mut self, path: Path, now: Instant) -> bool {
        let may = self
            .spending
            .take(path.remote, PROBE_LEN, Purpose::Guess, now);
        if !may {
            self.drops.count(DropReason::GuessLimit);
        }
        may
    }

    fn on_paths_news(&mut self, key: ConnKey, news: News, now: Instant) {
        match news {
            News::Move(from, path, why) => self.on_moved(key, (from, path), why, now),
            News::SearchWanted => self.search(key, now),
            News::SearchOver {
                first,
                found,
                sockets,
            } => {
                if first && !found {
                    self.connectivity.not_migrated();
                } else if !first {
                    self.connectivity.retried(found);
                }
                if sockets {
                    self.close_sockets();
                }
            }
            News::Silent => {
                if let Some(peer) = self.control.connections.get(&key).and_then(|c| c.peer) {
                    self.want_stream(peer);
                }
            }
        }
    }

    /// Traffic takes another way. Frames under way on the old one are still taken in.
    fn on_moved(&mut self, key: ConnKey, (from, path): (Path, Path), why: Why, now: Instant) {
        self.control.path_moved(key, from.remote, now);
        self.stale(key);
        let Some(connection) = self.control.connections.get_mut(&key) else {
            return;
        };
        let Some(id) = connection.peer else { return };
        let rtt = connection
            .paths
            .candidates()
            .iter()
            .find(|candidate| candidate.path.is(path))
            .and_then(|candidate| candidate.rtt);
        if let Some(session) = connection.session_mut() {
            session.rtt = rtt.or(session.rtt);
            session.plane.path_changed(now);
        }
        let was_direct = self.tier(from.remote).is_direct();
        let is_direct = self.tier(path.remote).is_direct();
        let counts = self.is_member(&id);
        match why {
            Why::Better(took) if counts && is_direct && !was_direct => {
                self.connectivity.migrated(took.or(rtt).unwrap_or_default());
            }
            Why::Broken if counts && was_direct => self.connectivity.fell_back(),
            _ => {}
        }
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.last_seen = Some(path.remote);
        }
        self.tell(NetEvent::PathChanged {
            peer: id,
            path: self.relays.info(path.remote),
        });
        // Nobody is to read in a relay's log whom it serves.
        // PROTOCOL SM-RL-5
        let named = (!self.is_client(&id)).then(|| tracing::field::display(id));
        tracing::debug!(
            peer = named,
            ?why,
            kind = self.relays.info(path.remote).kind(),
            "path"
        );
        self.tell_address(key, path.remote, now);
        self.start_mtu(key, Some(key), now);
        // Who is reached over this peer is reached otherwise now.
        if self.relays.contains(&id) {
            for (_, key) in self.sessions() {
                self.refresh_tiers(key);
            }
        }
    }

    pub(super) fn want_stream(&mut self, peer: PeerId) {
        self.tell(NetEvent::WantStream { peer });
    }

    /// A search that used extra local ports is over: only those that became ways are kept.
    pub(super) fn close_sockets(&mut self) {
        let in_search = self.peers.values().any(|peer| {
            peer.primary
                .and_then(|key| self.control.connections.get(&key))
                .is_some_and(|connection| connection.paths.uses_sockets())
        });
        if in_search {
            return;
        }
        let mut keep: Vec<u16> = self
            .peers
            .values()
            .filter_map(|peer| self.control.connections.get(&peer.primary?))
            .flat_map(|connection| connection.paths.candidates())
            .filter(|candidate| candidate.heard_at.is_some() && candidate.path.socket != 0)
            .map(|candidate| candidate.path.socket)
            .chain(self.sockets_used())
            .collect();
        keep.extend(self.second_port.map(|_| SECOND_SOCKET));
        keep.sort_unstable();
        keep.dedup();
        self.tell(NetEvent::SocketsDone { keep });
    }
}

fn rank(state: CandidateState) -> u8 {
    match state {
        CandidateState::Proven => 0,
        CandidateState::Broken => 1,
        CandidateState::Untried => 2,
        CandidateState::Unanswered => 3,
    }
}
