//! What the host says of its network.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use shadowmesh_wire::PeerId;

use super::{Net, OWN_ADDRESSES_MAX};
use crate::control::Close;
use crate::event::{DownReason, OwnAddress, canonical};

impl Net {
    /// Where we can be reached, as far as the host knows. Told to peers, who try.
    pub fn set_own_addresses(&mut self, mut addresses: Vec<OwnAddress>, now: Instant) {
        for own in &mut addresses {
            own.address = canonical(own.address);
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(OWN_ADDRESSES_MAX);
        if self.own_addresses != addresses {
            self.own_addresses = addresses;
            self.search_for_all(now);
            self.settle(now);
        }
    }

    /// A link, an address or a route of the host changed, or the host slept: all that was found out
    /// about ways may be wrong, and peers that could not be reached may be reachable now.
    pub fn network_changed(&mut self, now: Instant) {
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        let own = &self.own_addresses;
        let ours: Vec<IpAddr> = own.iter().map(|own| own.address.ip()).collect();
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
                }
                None if peer.retry.persistent => self.start_attempt(id, now),
                None => {}
            }
        }
        self.output.forwarding_stale = true;
        self.settle(now);
    }

    /// Another way to a peer was found: its word on the local network, or a stream that the host has
    /// opened. It is tried beside the others, and proves nothing.
    pub fn learn_address(&mut self, id: &PeerId, address: SocketAddr, now: Instant) {
        let address = canonical(address);
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        let (new, primary, attempt) = (peer.learn(address), peer.primary, peer.attempt);
        if let Some(key) = primary {
            self.offer_way(key, address, now);
            self.drive_paths(key, now);
            return self.settle(now);
        }
        let unanswered = attempt
            .and_then(|key| self.control.connections.get(&key))
            .is_some_and(|connection| !connection.was_answered());
        if new && let Some(attempt) = attempt.filter(|_| unanswered) {
            // Its packets go to the old addresses only, and wait longer and longer.
            self.close(attempt, Close::Replaced, DownReason::Removed, now);
        }
        if new && (attempt.is_none() || unanswered) {
            self.start_attempt(*id, now);
        }
        self.settle(now);
    }

    /// A stream ended: it leads to nobody any more.
    pub fn stream_down(&mut self, address: SocketAddr, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.forget_address(address);
        }
        let keys: Vec<_> = self
            .peers
            .values()
            .filter_map(|peer| peer.primary)
            .collect();
        for key in keys {
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
