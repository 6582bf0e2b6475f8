//! What goes over our relays, and which of them are kept.
//!
//! What QUIC and probes send to a way over a relay is put into frames of the session with that relay
//! here; the data plane does the same for packets, by `Outbound::via`. A relay is reached straight or
//! by a stream, never over another relay.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shadowmesh_wire::PeerId;
use shadowmesh_wire::envelope::ENVELOPE_OVERHEAD;
use shadowmesh_wire::way::{Label, Way};

use super::Net;
use crate::control::{Close, ConnKey, Connection};
use crate::drops::DropReason;
use crate::event::{DownReason, Transmit};
use crate::peer::Role;
use crate::relay::seal_envelope;
use crate::timers::Timer;

/// Relays with which a session is kept: one to use, one to use when that one dies.
// PROTOCOL SM-RL-6
const RELAYS_WARM: usize = 2;
/// How often it is looked whether there are so many.
// PROTOCOL SM-RL-6
const RELAYS_TICK: Duration = Duration::from_secs(1);
/// How long a relay beyond those is kept: until the round trips of all are known, and no other is found
/// dead.
const RELAY_TRIAL: Duration = Duration::from_secs(10);

impl Net {
    /// Sends datagrams over the relay with this slot to the peer with this label. They go in sealed
    /// frames whatever carries that session's packets.
    // PROTOCOL SM-RL-1
    pub(super) fn queue_relayed(&mut self, slot: u16, label: Label, datagrams: &Transmit) {
        let len = datagrams.segment_size.unwrap_or(datagrams.contents.len());
        let relay = self.relay_at(slot);
        let Some(connection) = relay.and_then(|key| self.control.connections.get(&key)) else {
            return self.drops.count(DropReason::NoRelay);
        };
        let path = connection.paths.current();
        let mut frames = Vec::new();
        if let Some(session) = connection.session() {
            let (sealer, traffic) = (session.epochs.sealer(), &session.traffic);
            for datagram in datagrams.contents.chunks(len.max(1)) {
                frames.push(seal_envelope(&sealer, traffic, label, datagram));
            }
        }
        for frame in frames {
            match frame {
                Some(contents) => self.hand_over(Transmit {
                    remote: path.remote,
                    local_ip: path.local_ip,
                    socket: path.socket,
                    ecn: datagrams.ecn,
                    may_fragment: datagrams.may_fragment,
                    segment_size: None,
                    contents,
                }),
                None => self.drops.count(DropReason::SealExhausted),
            }
        }
    }

    /// The connection whose session leads to the relay with this slot, if it can be used.
    pub(super) fn relay_at(&self, slot: u16) -> Option<ConnKey> {
        let relay = self.peers.get(&self.relays.at(slot)?)?;
        let key = relay.primary?;
        let connection = self.control.connections.get(&key)?;
        let straight = !is_relayed(connection);
        (straight && connection.session().is_some()).then_some(key)
    }

    /// The way to a peer over a relay, if that one can be used.
    pub(super) fn way_over(&self, relay: &PeerId, id: &PeerId) -> Option<SocketAddr> {
        self.relay_at(self.relays.slot(relay)?)?;
        Some(self.relays.way(relay, id)?.address())
    }

    /// A relay can be used from now on: whoever could not be reached is tried over it at once.
    // PROTOCOL SM-RL-6
    pub(super) fn on_relay_up(&mut self, relay: PeerId, now: Instant) {
        let waiting: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(id, peer)| peer.primary.is_none() && !self.relays.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            let Some(way) = self.way_over(&relay, &id) else {
                continue;
            };
            let Some(peer) = self.peers.get(&id) else {
                continue;
            };
            if peer.calls.is_under_way() || peer.retry.kept {
                self.call_by(id, way, now);
            } else {
                self.know_ways(id);
            }
        }
    }

    /// A relay says that a peer is not there: the way over it leads nowhere. Another relay may know it.
    // PROTOCOL SM-RL-8
    pub(super) fn on_relay_refused(&mut self, key: ConnKey, label: Label, now: Instant) {
        let connection = self.control.connections.get(&key);
        let relay = connection.and_then(|connection| connection.peer);
        let Some(slot) = relay.and_then(|relay| self.relays.slot(&relay)) else {
            return;
        };
        let way = Way::Relayed { slot, label }.address();
        let ids: Vec<PeerId> = self.peers_with(label).collect();
        for id in ids {
            let Some(peer) = self.peers.get(&id) else {
                continue;
            };
            let primary = peer.primary;
            let mut wanted = peer.retry.is_wanted(now);
            let why = "it has no session with any relay of ours";
            self.give_up_way(id, way, why, now);
            let session = primary.and_then(|key| self.control.connections.get_mut(&key));
            if let (Some(key), Some(connection)) = (primary, session) {
                connection.paths.lost(way, now);
                wanted |= !connection.paths.has_any_proven();
                self.drive_paths(key, now);
            }
            if wanted {
                self.want_all_relays(now);
            }
        }
    }

    /// The peers with a label: one, save by design.
    pub(super) fn peers_with(&self, label: Label) -> impl Iterator<Item = PeerId> + '_ {
        let mut first = [0; 32];
        first[..8].copy_from_slice(&label.0.to_be_bytes());
        let same = self.peers.range(PeerId::from_bytes(first)..);
        same.map(|(id, _)| *id)
            .take_while(move |id| Label::of(id) == label)
    }

    /// Somebody is wanted who has no session with us, and may be behind a relay: without any, they are wanted too.
    // PROTOCOL SM-RL-6
    pub(super) fn want_relays(&mut self, now: Instant) {
        let ids: Vec<PeerId> = self.relays.ids().collect();
        let mut slots = ids.iter().filter_map(|id| self.relays.slot(id));
        if slots.any(|slot| self.relay_at(slot).is_some()) {
            return;
        }
        for id in ids {
            let Some(peer) = self
                .peers
                .get_mut(&id)
                .filter(|peer| peer.primary.is_none())
            else {
                continue;
            };
            peer.want(now);
            self.set_call_timer(id);
        }
    }

    /// Somebody we look for may be with a relay that we have no session with.
    // PROTOCOL SM-RL-6
    fn want_all_relays(&mut self, now: Instant) {
        self.relays.want_all(now);
        self.call_relays(now);
    }

    /// Looks whether enough relays answer, and gives up what is beyond that.
    // PROTOCOL SM-RL-6
    pub(super) fn keep_relays(&mut self, now: Instant) {
        let usable: Vec<(PeerId, ConnKey)> = self
            .relays
            .ids()
            .filter_map(|id| Some((id, self.relay_at(self.relays.slot(&id)?)?)))
            .collect();
        if usable.len() < RELAYS_WARM {
            self.call_relays(now);
        } else if !self.relays.are_all_wanted(now) {
            self.let_go_of_relays(usable, now);
        }
        self.ask_seconds(now);
        self.timers.set(Timer::Relays, now + RELAYS_TICK);
    }

    /// Calls every relay that is not being called.
    fn call_relays(&mut self, now: Instant) {
        let ids: Vec<PeerId> = self.relays.ids().collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            peer.retry.kept = true;
            let idle = peer.primary.is_none()
                && !peer.calls.is_under_way()
                && self.timers.get(Timer::Connect(id)).is_none();
            if idle {
                self.call(id, now);
            }
        }
    }

    /// Ends the sessions with all relays but the nearest, once these were there for a while, and but those
    /// that some path leads over. Relays that do not answer are not called any more.
    fn let_go_of_relays(&mut self, mut usable: Vec<(PeerId, ConnKey)>, now: Instant) {
        let in_use = self.slots_in_use();
        usable.sort_by_key(|&(_, key)| self.relay_rtt(key));
        for &(id, key) in usable.iter().skip(RELAYS_WARM) {
            let old = self
                .control
                .connections
                .get(&key)
                .is_some_and(|connection| {
                    let session = connection.session();
                    session.is_some_and(|session| now >= session.established_at + RELAY_TRIAL)
                });
            let used = self
                .relays
                .slot(&id)
                .is_some_and(|slot| in_use.contains(&slot));
            let transit = self.peers.get(&id).map(|peer| peer.role) == Some(Role::Transit);
            if old && !used && transit {
                self.close(key, Close::Leaving, DownReason::Removed, now);
            }
        }
        let ids: Vec<PeerId> = self.relays.ids().collect();
        for id in ids {
            let Some(peer) = self.peers.get_mut(&id) else {
                continue;
            };
            if peer.role == Role::Transit && peer.primary.is_none() {
                peer.retry.kept = false;
                peer.calls.stop_waiting();
                self.set_call_timer(id);
            }
        }
    }

    fn relay_rtt(&self, key: ConnKey) -> Option<Duration> {
        let connection = self.control.connections.get(&key)?;
        let probed = connection.session()?.rtt;
        Some(probed.unwrap_or_else(|| connection.quic.rtt()))
    }

    /// The relays that the path of some session leads over.
    fn slots_in_use(&self) -> BTreeSet<u16> {
        let keys = self.peers.values().filter_map(|peer| peer.primary);
        let paths =
            keys.filter_map(|key| Some(self.control.connections.get(&key)?.paths.current()));
        paths
            .filter_map(|path| match Way::of(path.remote) {
                Way::Relayed { slot, .. } => Some(slot),
                Way::Udp(_) | Way::Stream(_) => None,
            })
            .collect()
    }

    /// The longest datagram that is of use on a way over a relay: what the longest frame to the relay
    /// holds. `None` on other ways, and where that was never looked for.
    // PROTOCOL SM-RL-3
    pub(super) fn relay_carries(&self, remote: SocketAddr) -> Option<usize> {
        let Way::Relayed { slot, .. } = Way::of(remote) else {
            return None;
        };
        let connection = self.control.connections.get(&self.relay_at(slot)?)?;
        let search = connection.paths.mtu.as_ref()?;
        Some(search.target() - ENVELOPE_OVERHEAD)
    }
}

/// Whether a connection's path leads over a relay.
pub(super) fn is_relayed(connection: &Connection) -> bool {
    matches!(
        Way::of(connection.paths.current().remote),
        Way::Relayed { .. }
    )
}
