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
use shadowmesh_wire::prefix::IpPrefix;
use shadowmesh_wire::sealed::{HEADER_LEN, OVERHEAD};
use shadowmesh_wire::way::{Label, is_way};

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

/// Length of the IPv6 prefix that one site is given (RFC 6177 §2; tunnel brokers give it to everybody).
const SITE_LEN: u8 = 48;
/// A way by a stream or behind another relay leads to one node, which shows one identity.
const SHARE_OF_WAY: usize = 1;

/// How many clients there are, with and without a session, and from where.
#[derive(Debug, Default)]
pub(super) struct Clients {
    count: usize,
    /// By [`counted_in`]. Limit: two for each client.
    sources: BTreeMap<IpPrefix, usize>,
}

impl Clients {
    /// Takes a place, if there is one among `max` and one for this source (a [`source_key`]). One address
    /// may have `share`.
    // PROTOCOL SM-RL-5
    fn take(&mut self, source: IpAddr, max: usize, share: usize) -> bool {
        let has_room = |prefix: IpPrefix| {
            let taken = self.sources.get(&prefix).copied().unwrap_or(0);
            taken < share_of(prefix, max, share)
        };
        let is_free = self.count < max && counted_in(source).all(has_room);
        if is_free {
            self.count += 1;
            for prefix in counted_in(source) {
                *self.sources.entry(prefix).or_default() += 1;
            }
        }
        is_free
    }

    fn give_back(&mut self, source: IpAddr) {
        self.count = self.count.saturating_sub(1);
        for prefix in counted_in(source) {
            if let Some(taken) = self.sources.get_mut(&prefix) {
                *taken -= 1;
                if *taken == 0 {
                    self.sources.remove(&prefix);
                }
            }
        }
    }
}

/// What a client counts in: its source, and with IPv6 the site of it, too. Who holds a /48 has 65,536
/// sources.
fn counted_in(source: IpAddr) -> impl Iterator<Item = IpPrefix> {
    let has_site = source.is_ipv6() && !is_way(source);
    let site = has_site.then(|| IpPrefix::containing(source, SITE_LEN));
    [IpPrefix::host(source)].into_iter().chain(site)
}

/// How many of `max` clients may be in there. A site has half of them: some carriers hold thousands of
/// customers in one /48, and whoever makes up identities in one leaves the other half to everybody else.
// PROTOCOL SM-RL-5
fn share_of(prefix: IpPrefix, max: usize, share: usize) -> usize {
    if is_way(prefix.addr()) {
        SHARE_OF_WAY
    } else if prefix.len() == SITE_LEN {
        share.max(max / 2)
    } else {
        share
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
    use shadowmesh_wire::way::Way;

    // PROTOCOL SM-RL-5
    #[test]
    fn one_source_takes_so_many_places_and_gives_them_back() {
        let mut clients = Clients::default();
        let one = |n: u128| source_key(IpAddr::V6(((0x2001_0db8 << 96) + n).into()));
        let taken = (0..100).filter(|n| clients.take(one(*n), 20, 16)).count();
        assert_eq!(taken, 16);
        let others = (0..100).filter(|n| clients.take(one((n + 1) << 80), 20, 16));
        assert_eq!(others.count(), 4);
        clients.give_back(one(7));
        assert!(clients.take(one(8), 20, 16) && !clients.take(one(9), 20, 16));
        for n in 0..4 {
            clients.give_back(one((n + 1) << 80));
        }
        for n in 0..16 {
            clients.give_back(one(n));
        }
        assert_eq!((clients.count, clients.sources.len()), (0, 0));
    }

    // PROTOCOL SM-RL-5
    #[test]
    fn all_sources_of_one_ipv6_site_together_take_no_more_than_half_of_the_places() {
        let mut clients = Clients::default();
        let house = |n: u128| source_key(IpAddr::V6(((0x2001_0db8 << 96) + (n << 64)).into()));
        let taken = |clients: &mut Clients| {
            (0..1000)
                .filter(|n| clients.take(house(*n), 100, 25))
                .count()
        };
        assert_eq!(taken(&mut clients), 50);
        let elsewhere = (0..1000).filter(|n| clients.take(house(n + 65_536), 100, 25));
        assert_eq!(elsewhere.count(), 50);
        for n in 0..50 {
            clients.give_back(house(n));
        }
        assert_eq!(taken(&mut clients), 50);
        // Somebody who gives more to one address gives it to its site, too.
        let mut clients = Clients::default();
        let one = (0..1000).filter(|_| clients.take(house(0), 100, 90));
        assert_eq!(one.count(), 90);
    }

    // PROTOCOL SM-RL-5
    #[test]
    fn a_stream_and_a_way_behind_a_relay_are_one_client_each() {
        let mut clients = Clients::default();
        let stream = |n| source_key(Way::Stream(n).address().ip());
        let (slot, label) = (1, Label(u64::MAX));
        let behind = source_key(Way::Relayed { slot, label }.address().ip());
        for source in [stream(1), stream(2), behind] {
            let taken = (0..100).filter(|_| clients.take(source, 1000, 250));
            assert_eq!(taken.count(), 1, "{source}");
        }
        clients.give_back(stream(1));
        assert!(clients.take(stream(1), 1000, 250));
    }
}
