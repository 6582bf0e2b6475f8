//! From the network: sealed frames of our sessions are opened and judged here, everything else is
//! `net`'s.

use std::time::Instant;

use bytes::BytesMut;
use shadowmesh_net::Received;
use shadowmesh_wire::PeerId;

use super::Node;
use crate::snapshot::Inbound;

impl Node {
    /// A datagram came in. What the data threads have already judged comes here only when it was
    /// [`Inbound::NotSealed`], and is then judged alike.
    pub fn handle_datagram(&mut self, received: Received, data: BytesMut, now: Instant) {
        self.judge(received, data, now);
        self.drain_net(now);
    }

    /// Without draining: what waited for a session is judged while `net` is drained.
    pub(super) fn judge(&mut self, received: Received, mut data: BytesMut, now: Instant) {
        match self.snapshot.inbound(&mut data) {
            Inbound::Packet { range, .. } => self.to_device.push_back(data[range].to_vec()),
            Inbound::Inner { peer, range } => {
                self.net.handle_inner(&peer, received, &data[range], now)
            }
            Inbound::NotSealed => self.net.handle_datagram(received, data, now),
            // PROTOCOL SM-OV-5
            Inbound::Dropped(reason) => self.net.drops().count(reason),
        }
    }

    /// An inner frame that a data thread opened and that is no IP packet; its type byte first.
    pub fn handle_inner(&mut self, peer: &PeerId, received: Received, inner: &[u8], now: Instant) {
        self.net.handle_inner(peer, received, inner, now);
        self.drain_net(now);
    }
}
