//! What we pass on for others, and who these may be.
//!
//! As a relay we take in calls of nodes that nobody gave us. They get a session like anybody, which tells
//! them their address as we see it and carries envelopes; nothing else of theirs is taken, and the parent
//! never hears of them. Threads that move packets pass envelopes on themselves, by
//! [`Forwarding::relay`](crate::Forwarding::relay); here is the way for those that come one at a time, and
//! for those that cannot be passed on, whose sender is told. Nothing is kept of who talks to whom.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::ControlMessage;
use shadowmesh_wire::envelope::{self, ENVELOPE_OVERHEAD, HEAD_LEN};
use shadowmesh_wire::sealed::{HEADER_LEN, OVERHEAD};
use shadowmesh_wire::way::Label;

use super::Net;
use super::lifecycle::HANDSHAKE_MAX;
use crate::control::Close;
use crate::drops::DropReason;
use crate::event::{Received, Transmit};
use crate::gate::source_key;
use crate::peer::{Peer, Role};
use crate::relay::Credit;
use crate::timers::Timer;

/// How long a client is remembered after its session: what it may have relayed begins anew no sooner.
pub(super) const CLIENT_MEMORY: Duration = Duration::from_secs(10);

/// Nobody with that label has a session here.
const NOT_HERE: u8 = 0;

/// How many clients there are, with and without a session, and from where.
#[derive(Debug, Default)]
pub(super) struct Clients {
    count: usize,
    /// Limit: one for each client.
    sources: BTreeMap<IpAddr, usize>,
}

impl Clients {
    /// Takes a place, if there is one among `max` and one for this source, which may have `share`.
    // PROTOCOL SM-RL-5
    fn take(&mut self, source: IpAddr, max: usize, share: usize) -> bool {
        let of_source = self.sources.get(&source).copied().unwrap_or(0);
        let is_free = self.count < max && of_source < share;
        if is_free {
            self.count += 1;
            self.sources.insert(source, of_source + 1);
        }
        is_free
    }

    fn give_back(&mut self, source: IpAddr) {
        self.count = self.count.saturating_sub(1);
        if let Some(of_source) = self.sources.get_mut(&source) {
            *of_source -= 1;
            if *of_source == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl Net {
    /// Clients with a session that are no peers of ours, and what was passed on for everybody together:
    /// datagrams and their bytes.
    pub fn relay_totals(&self) -> (usize, u64, u64) {
        let clients = self.peers.values().filter(|peer| peer.role == Role::Client);
        let clients = clients.filter(|peer| peer.primary.is_some()).count();
        let (datagrams, bytes) = self.relayed.totals();
        (clients, datagrams, bytes)
    }

    pub(super) fn is_client(&self, id: &PeerId) -> bool {
        self.peers
            .get(id)
            .is_some_and(|peer| peer.role == Role::Client)
    }

    /// Somebody has shown who it is, and is no peer of ours: may it be a client?
    // PROTOCOL SM-RL-5
    pub(super) fn admit_client(
        &mut self,
        id: PeerId,
        from: SocketAddr,
        now: Instant,
    ) -> Result<(), Close> {
        let source = source_key(from.ip());
        if !self.config.relay.enabled {
            return Err(Close::NotMember);
        }
        let label_taken = self.peers_with(Label::of(&id)).any(|other| other != id);
        if !self.config.relay.allows(&id) || label_taken {
            return Err(Close::NotServed);
        }
        if self.is_client(&id) {
            return Ok(());
        }
        let relay = &self.config.relay;
        let (max, share) = (relay.clients_max, relay.clients_per_source);
        if !self.clients.take(source, max, share) {
            return Err(Close::NotServed);
        }
        self.peers.insert(id, Peer::client(id, source));
        // Its handshake may still come to nothing.
        self.timers
            .set(Timer::ForgetClient(id), now + HANDSHAKE_MAX + CLIENT_MEMORY);
        Ok(())
    }

    /// A session is up: what its peer may have relayed.
    pub(super) fn grant_credit(&mut self, id: PeerId, now: Instant) {
        let relay = &self.config.relay;
        if !relay.enabled {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.credit.is_none()
        {
            peer.credit = Some(Arc::new(Credit::new(relay.client_rate, now)));
        }
    }

    /// A client's session ended a while ago, or should have come up by now.
    pub(super) fn forget_client(&mut self, id: PeerId, now: Instant) {
        if self.is_gone(&id) {
            self.end_client(&id);
            self.forget_peer(&id);
        } else if self.is_client(&id) && self.peers[&id].primary.is_none() {
            self.timers
                .set(Timer::ForgetClient(id), now + CLIENT_MEMORY);
        }
    }

    /// This peer is no client any more: its place is free.
    pub(super) fn end_client(&mut self, id: &PeerId) {
        let source = self
            .peers
            .get_mut(id)
            .and_then(|peer| peer.client_of.take());
        if let Some(source) = source {
            self.clients.give_back(source);
        }
    }

    /// Whether this is a client without any connection.
    fn is_gone(&self, id: &PeerId) -> bool {
        let peer = self.peers.get(id);
        peer.is_some_and(|peer| peer.role == Role::Client && peer.primary.is_none())
            && self.control.of_peer(id).is_empty()
    }

    /// Passes an envelope on (its type byte first), or tells its sender that it cannot be.
    // PROTOCOL SM-RL-4
    pub(super) fn pass_on(
        &mut self,
        from: &PeerId,
        received: Received,
        inner: &[u8],
        now: Instant,
    ) {
        let Some((label, _)) = inner.get(1..).and_then(envelope::decode) else {
            return self.drops.count(DropReason::InnerMalformed);
        };
        let forwarding = self.output.published.forwarding.clone();
        let frame_len = inner.len() + ENVELOPE_OVERHEAD - HEAD_LEN;
        let passed = forwarding.relay(from, label).and_then(|to| {
            let may_fragment = to.take(frame_len, now)?;
            Ok((to, may_fragment))
        });
        let (to, may_fragment) = match passed {
            Ok(passed) => passed,
            Err(reason) => {
                self.drops.count(reason);
                if reason == DropReason::RelayUnknown {
                    self.refuse(from, label, now);
                }
                return;
            }
        };
        let outbound = to.outbound;
        let Some(counter) = outbound.sealer.reserve(1) else {
            return self.drops.count(DropReason::SealExhausted);
        };
        let mut contents = vec![0; frame_len];
        let place = &mut contents[HEADER_LEN..][..inner.len()];
        place.copy_from_slice(inner);
        envelope::readdress(place, to.source);
        outbound.sealer.seal(counter, &mut contents);
        outbound.traffic.sent(1, (frame_len - OVERHEAD) as u64);
        self.hand_over(Transmit {
            remote: outbound.remote,
            local_ip: outbound.local_ip,
            socket: outbound.socket,
            ecn: received.ecn,
            may_fragment,
            segment_size: None,
            contents,
        });
    }

    /// Tells a client that a peer is not here, but not as often as it may ask.
    // PROTOCOL SM-RL-8
    fn refuse(&mut self, from: &PeerId, label: Label, now: Instant) {
        let Some(peer) = self.peers.get(from) else {
            return;
        };
        let told = peer
            .credit
            .as_ref()
            .is_some_and(|credit| credit.refuse(now));
        if let Some(key) = peer.primary.filter(|_| told) {
            let reason = NOT_HERE;
            self.send_message(key, &ControlMessage::RelayRefused { label, reason }, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-RL-5
    #[test]
    fn one_source_takes_so_many_places_and_gives_them_back() {
        let mut clients = Clients::default();
        let one = |n: u128| source_key(IpAddr::V6(((0x2001_0db8 << 96) + n).into()));
        let taken = (0..100).filter(|n| clients.take(one(*n), 20, 16)).count();
        assert_eq!(taken, 16);
        let others = (0..100).filter(|n| clients.take(one((n + 1) << 64), 20, 16));
        assert_eq!(others.count(), 4);
        clients.give_back(one(7));
        assert!(clients.take(one(8), 20, 16) && !clients.take(one(9), 20, 16));
        for n in 0..4 {
            clients.give_back(one((n + 1) << 64));
        }
        for n in 0..16 {
            clients.give_back(one(n));
        }
        assert_eq!((clients.count, clients.sources.len()), (0, 0));
    }
}
