//! A relay that does not do what it should: it has its sessions like any other, and does what it likes
//! with the envelopes that come to it. That is all a malicious relay can do; the keys of what is inside
//! it does not have.

use std::time::Duration;

use bytes::BytesMut;
use rand::rngs::StdRng;
use shadowmesh_net::Received;
use shadowmesh_vpn::Inbound;
use shadowmesh_wire::PeerId;

use super::{Happening, World};
use crate::ledger::HostId;

/// An envelope as a relay has it in hand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Envelope {
    /// Whom the relay will name as its sender.
    pub from: PeerId,
    /// Type, label of the receiver and datagram.
    pub inner: Vec<u8>,
}

/// What a relay makes of an envelope: any number of them, each after a while.
pub type Mischief = Box<dyn FnMut(Envelope, &mut StdRng) -> Vec<(Duration, Envelope)>>;

impl World {
    /// A datagram reached a relay that lies.
    pub(super) fn arrive_at_liar(&mut self, at: HostId, received: Received, mut data: Vec<u8>) {
        let snapshot = self.host(at).node().snapshot();
        match snapshot.inbound(&mut data) {
            Inbound::Relay { peer, range, .. } => {
                let envelope = Envelope {
                    from: peer,
                    inner: data[range].to_vec(),
                };
                let mischief = self.liars.get_mut(&at).expect("the caller has looked");
                for (after, envelope) in mischief(envelope, &mut self.rng) {
                    let what = Happening::Lie {
                        relay: at,
                        envelope,
                    };
                    self.schedule(self.now + after, what);
                }
            }
            Inbound::Inner { peer, range } => self.with_node(at, |node, now| {
                node.handle_inner(&peer, received, &data[range], now);
            }),
            Inbound::NotSealed => self.with_node(at, |node, now| {
                node.handle_datagram(received, BytesMut::from(&data[..]), now);
            }),
            // A relay has no part in its clients' network, whether it lies or not.
            Inbound::Packet { .. }
            | Inbound::Fragment { .. }
            | Inbound::Envelope { .. }
            | Inbound::Dropped(_) => {}
        }
    }

    pub(super) fn lie(&mut self, relay: HostId, envelope: &Envelope) {
        if self.host(relay).is_up() {
            let received = Received::from_remote(self.host(relay).address());
            self.with_node(relay, |node, now| {
                node.handle_inner(&envelope.from, received, &envelope.inner, now);
            });
        }
    }
}
