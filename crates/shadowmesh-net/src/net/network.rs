//! What the host says of its network.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;
use shadowmesh_wire::way::Way;

use super::{Net, OWN_ADDRESSES_MAX};
use crate::event::{AddressKind, OwnAddress, canonical};

impl Net {
    /// Where we can be reached, as far as the host knows. Told to peers, who try.
    pub fn set_own_addresses(&mut self, mut addresses: Vec<OwnAddress>, now: Instant) {
        for own in &mut addresses {
            own.address = canonical(own.address);
        }
        // A host may have more than can be told.
        addresses.sort_unstable_by_key(|own| (own.kind, own.address));
        addresses.dedup();
        addresses.truncate(OWN_ADDRESSES_MAX);
        if self.own_addresses != addresses {
            self.own_addresses = addresses;
            self.search_for_all(now);
            self.settle(now);
        }
    }

    /// What is reached through the tunnel: the networks of our own overlay addresses, and those that peers
    /// lead to. No way to a peer leads there. Not to be told: a network as wide as a default route, in
    /// which peers themselves are.
    pub fn set_overlay(&mut self, own: Vec<IpPrefix>, peers: Vec<IpPrefix>) {
        self.overlay.own = own;
        self.overlay.peers = peers;
    }

    /// What the host does: networks that it reaches without the tunnel though the overlay holds them, and
    /// whether it keeps our datagrams out of the tunnel (`apart`). Then a peer may be found inside a network
    /// that it leads to, and only what came through the tunnel is refused.
    pub fn set_host(&mut self, networks: Vec<IpPrefix>, apart: bool) {
        self.overlay.host = networks;
        self.overlay.apart = apart;
    }

    /// A link, an address or a route of the host changed, or the host slept: all that was found out
    /// about ways may be wrong, and peers that could not be reached may be reachable now.
    pub fn network_changed(&mut self, now: Instant) {
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        let own = self.own_addresses.iter();
        let own = own.filter(|own| matches!(own.kind, AddressKind::Host | AddressKind::Tunnel));
        let ours: Vec<IpAddr> = own.map(|own| own.address.ip()).collect();
        // Where the host does not say, all of them may still be.
        let is_gone = |ip: IpAddr| !ours.is_empty() && !ours.contains(&ip);
        for id in peers {
            let Some(peer) = self.peers.get(&id) else {
                continue;
            };
            match peer.primary {
                Some(key) => {
                    if let Some(connection) = self.control.connections.get_mut(&key) {
                        connection.paths.network_changed(is_gone, now);
                    }
                    self.drive_paths(key, now);
                    self.stale(key);
                }
                None if peer.retry.kept => self.call_anew(id, now),
                None => {}
            }
        }
        self.settle(now);
    }

    /// Calls a peer at once, whatever the calls so far led to: they may have gone nowhere.
    // PROTOCOL SM-PA-4
    fn call_anew(&mut self, id: PeerId, now: Instant) {
        // What nobody has answered is lost, and QUIC waits longer and longer before it repeats it.
        self.give_up_unanswered(id, now);
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.begin_anew();
        }
        self.call(id, now);
    }

    /// A person wants to know now, and not when the timer says: sessions that could have a better way look for
    /// one, and peers without a session are called.
    pub fn search_now(&mut self, now: Instant) {
        self.search_for_all(now);
        let unreached = self.peers.iter().filter(|(_, peer)| peer.primary.is_none());
        for id in unreached.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.connect(&id, now);
        }
        self.settle(now);
    }

    /// Another way to a peer was found: its word on the local network, or a stream that the host has
    /// opened. It is tried beside the others, and proves nothing. Anybody on the local network can speak in
    /// a peer's name, so such a word is worth what the peer could say of itself, and is looked at seldom.
    // PROTOCOL SM-LD-3
    pub fn learn_address(&mut self, id: &PeerId, address: SocketAddr, now: Instant) {
        let address = canonical(address);
        let heard = Way::of(address).is_udp();
        if heard && self.in_overlay(address) {
            return;
        }
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        if let Some(key) = peer.primary {
            let connection = self.control.connections.get(&key);
            let proven = connection.is_some_and(|connection| connection.paths.has_proven(address));
            if heard && (proven || !peer.may_hear(now)) {
                return;
            }
            peer.learn(address);
            self.offer_way(key, address, now);
            self.drive_paths(key, now);
            return self.settle(now);
        }
        if heard && !peer.may_hear(now) {
            return;
        }
        if peer.knows(address) {
            // It may have come back just now, and we may be in a long wait.
            self.call_by(*id, address, now);
            return self.settle(now);
        }
        peer.learn(address);
        self.call_by(*id, address, now);
        self.settle(now);
    }

    /// A stream ended: it leads to nobody any more.
    pub fn stream_down(&mut self, address: SocketAddr, now: Instant) {
        let mut called = Vec::new();
        for (&id, peer) in &mut self.peers {
            peer.forget_address(address);
            if peer.calls.by(address).next().is_some() {
                called.push(id);
            }
        }
        for id in called {
            self.give_up_way(id, address, "the stream to it ended", now);
        }
        for (_, key) in self.sessions() {
            if let Some(connection) = self.control.connections.get_mut(&key)
                && connection.paths.knows(address)
            {
                connection.paths.lost(address, now);
                self.drive_paths(key, now);
            }
        }
        self.settle(now);
    }
}
