//! What the host says of its network.

use std::net::SocketAddr;
use std::time::Instant;

use shadowmesh_wire::PeerId;

use super::{Net, OWN_ADDRESSES_MAX};
use crate::event::OwnAddress;

impl Net {
    /// Where we can be reached, as far as the host knows. Told to peers, who try.
    pub fn set_own_addresses(&mut self, mut addresses: Vec<OwnAddress>, _now: Instant) {
        addresses.truncate(OWN_ADDRESSES_MAX);
        self.own_addresses = addresses;
    }

    /// A link, an address or a route of the host changed, or the host slept: all that was found out
    /// about ways may be wrong, and peers that could not be reached may be reachable now.
    pub fn network_changed(&mut self, now: Instant) {
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in peers {
            let Some(peer) = self.peers.get(&id) else {
                continue;
            };
            match peer.primary {
                Some(key) => {
                    let token = self.random_token();
                    self.send_probe(key, token, false, now);
                }
                None if peer.retry.persistent => self.start_attempt(id, now),
                None => {}
            }
        }
        self.settle(now);
    }

    /// Another way to a peer was found: its word on the local network, or a stream that the host has
    /// opened. It is tried beside the others, and proves nothing.
    pub fn learn_address(&mut self, id: &PeerId, address: SocketAddr, now: Instant) {
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        if peer.learn(address) && peer.primary.is_none() && peer.attempt.is_none() {
            self.start_attempt(*id, now);
            self.settle(now);
        }
    }

    /// A stream ended: it leads to nobody any more.
    pub fn stream_down(&mut self, address: SocketAddr, now: Instant) {
        for peer in self.peers.values_mut() {
            peer.forget_address(address);
        }
        let broken: Vec<_> = self.control.at_address(address).collect();
        for key in broken {
            let token = self.random_token();
            self.send_probe(key, token, false, now);
        }
        self.settle(now);
    }
}
