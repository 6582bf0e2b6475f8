//! What the data threads go by: keeps [`Forwarding`] as it should be, peer by peer.
//!
//! Whoever changes something that stands there says of which peer it is ([`Net::stale`]). Between two
//! inputs the entries of those peers are made anew, and of those that are reached over them; nothing here
//! looks at all peers. So what one peer does, a change of path above all, costs hardly more however many
//! others there are (up to five tables of n/128 entries are copied: [`crate::shards`]), and needs no limit of
//! its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shadowmesh_wire::PeerId;
use shadowmesh_wire::envelope::ENVELOPE_OVERHEAD;
use shadowmesh_wire::sealed::ReceiverIndex;
use shadowmesh_wire::way::{Label, Way};

use super::Net;
use crate::control::{ConnKey, Connection};
use crate::forwarding::{Forwarding, Inbound, Outbound, Via};
use crate::peer::Role;
use crate::relay::{Credit, RelayCounters};
use crate::session::Session;

/// The published value, and what it takes to change it.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) forwarding: Arc<Forwarding>,
    /// Of whom something changed since. Limit: one for each peer.
    stale: BTreeSet<PeerId>,
    /// To whom one sends otherwise since the parent asked last. Limit: one for each peer that it knows of.
    changed: BTreeSet<PeerId>,
    /// What stands in `forwarding` of each peer. Limit: one for each peer with a session.
    entries: BTreeMap<PeerId, Entry>,
    /// Whose path leads over the relay with this slot. Same limit.
    over: BTreeSet<(u16, PeerId)>,
}

/// What must be taken out again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    /// Of the session in use and of those that it replaced.
    indices: Vec<ReceiverIndex>,
    /// The relay over which the path leads.
    slot: Option<u16>,
}

impl Published {
    pub(super) fn new(relayed: Arc<RelayCounters>) -> Self {
        Self {
            forwarding: Arc::new(Forwarding::new(relayed)),
            ..Self::default()
        }
    }

    /// What stands there of this peer is no longer so.
    pub(super) fn stale(&mut self, id: PeerId) {
        self.stale.insert(id);
    }

    /// As [`Self::stale`], for all whose path leads over a relay.
    fn stale_over(&mut self, slot: u16) {
        let ids = |byte| PeerId::from_bytes([byte; 32]);
        let over = self.over.range((slot, ids(0))..=(slot, ids(0xff)));
        self.stale.extend(over.map(|(_, id)| *id));
    }

    /// Whose way to send changed since the last call.
    pub(super) fn take_changed(&mut self) -> BTreeSet<PeerId> {
        std::mem::take(&mut self.changed)
    }

    /// Notes what stands there of a peer now, and says which indices stood there before.
    fn note(&mut self, id: PeerId, entry: Entry) -> Vec<ReceiverIndex> {
        let slot = entry.slot;
        let before = if entry == Entry::default() {
            self.entries.remove(&id)
        } else {
            self.entries.insert(id, entry)
        };
        let before = before.unwrap_or_default();
        if before.slot != slot {
            before.slot.map(|slot| self.over.remove(&(slot, id)));
            slot.map(|slot| self.over.insert((slot, id)));
        }
        before.indices
    }
}

impl Net {
    /// What the data plane goes by changed, of the peer of this connection.
    pub(super) fn stale(&mut self, key: ConnKey) {
        let connection = self.control.connections.get(&key);
        if let Some(id) = connection.and_then(|connection| connection.peer) {
            self.output.published.stale(id);
        }
    }

    /// This relay is to be used no longer.
    pub(super) fn forget_relay(&mut self, id: &PeerId) {
        if let Some(slot) = self.relays.slot(id) {
            self.output.published.stale_over(slot);
            self.relays.remove(id);
        }
    }

    /// Brings what the data plane goes by up to date.
    pub(super) fn publish(&mut self) {
        if self.output.published.stale.is_empty() {
            return;
        }
        for (slot, relay) in self.relays.slots() {
            if self.output.published.stale.contains(&relay) {
                self.output.published.stale_over(slot);
            }
        }
        let stale = std::mem::take(&mut self.output.published.stale);
        // What leads over a relay takes up how one sends to that.
        let (first, then): (Vec<PeerId>, Vec<PeerId>) = stale.into_iter().partition(|id| {
            self.relays
                .slot(id)
                .is_some_and(|slot| self.relay_at(slot).is_some())
        });
        for id in first.into_iter().chain(then) {
            self.publish_peer(id);
        }
    }

    fn publish_peer(&mut self, id: PeerId) {
        let outbound = self.outbound_of(&id);
        let inbounds = self.inbounds_of(&id);
        let entry = Entry {
            indices: inbounds.iter().map(|(index, _)| *index).collect(),
            slot: self.slot_of(&id),
        };
        let published = &mut self.output.published;
        let forwarding = &mut published.forwarding;
        let changed = forwarding.set_outbound(&id, outbound);
        let known = self.peers.get(&id);
        if changed && known.is_some_and(|peer| peer.role != Role::Client) {
            published.changed.insert(id);
        }
        let indices = entry.indices.clone();
        let before = published.note(id, entry);
        let forwarding = &mut published.forwarding;
        for index in before.into_iter().filter(|index| !indices.contains(index)) {
            forwarding.set_inbound(index, None);
        }
        for (index, inbound) in inbounds {
            forwarding.set_inbound(index, Some(inbound));
        }
        self.publish_client(Label::of(&id));
    }

    /// Of the peers with a label the first is a client under it: one, save by design.
    fn publish_client(&mut self, label: Label) {
        if !self.config.relay.enabled {
            return;
        }
        let client = self.client_with(label);
        self.output.published.forwarding.set_client(label, client);
    }

    fn client_with(&self, label: Label) -> Option<(Arc<Outbound>, Arc<Credit>)> {
        self.peers_with(label).find_map(|id| {
            let credit = self.peers[&id].credit.clone()?;
            let outbound = self.output.published.forwarding.outbound(&id)?.clone();
            outbound.via.is_none().then_some((outbound, credit))
        })
    }

    fn in_use(&self, id: &PeerId) -> Option<&Connection> {
        self.control.connections.get(&self.peers.get(id)?.primary?)
    }

    /// The session by which packets go while the peer is not known to have the one in use, where neither is on
    /// the QUIC plane: there the connection in use carries them.
    // PROTOCOL SM-HS-13
    fn beside(&self, id: &PeerId, in_use: &Session) -> Option<&Session> {
        let index = in_use.beside.filter(|_| !in_use.uses_quic())?;
        let session = self.lingering_at(id, index)?;
        (!session.uses_quic()).then_some(session)
    }

    /// The replaced session that a peer receives by under this index.
    pub(super) fn lingering_at(&self, id: &PeerId, index: ReceiverIndex) -> Option<&Session> {
        let lingering = self.peers.get(id)?.lingering.iter();
        let mut sessions = lingering.filter_map(|key| self.control.connections.get(key)?.session());
        sessions.find(|session| session.theirs.index == index)
    }

    /// The relay over which the path to a peer leads.
    fn slot_of(&self, id: &PeerId) -> Option<u16> {
        match Way::of(self.in_use(id)?.paths.current().remote) {
            Way::Relayed { slot, .. } => Some(slot),
            Way::Udp(_) | Way::Stream(_) => None,
        }
    }

    /// How to send to a peer. One whose relay cannot be used is left out: it leads nowhere now.
    fn outbound_of(&self, id: &PeerId) -> Option<Outbound> {
        let connection = self.in_use(id)?;
        let session = connection.session()?;
        let session = self.beside(id, session).unwrap_or(session);
        let mut outbound = session.outbound(&connection.paths, self.config.mtu);
        if let Way::Relayed { slot, label } = Way::of(outbound.remote) {
            self.relay_at(slot)?;
            let relay = self
                .output
                .published
                .forwarding
                .outbound(&self.relays.at(slot)?);
            let relay = relay.filter(|relay| relay.via.is_none())?.clone();
            // What the way to the relay takes, less than what its frame puts around ours.
            let fits = relay.inner_len_max.saturating_sub(ENVELOPE_OVERHEAD);
            outbound.inner_len_max = outbound.inner_len_max.min(fits);
            outbound.via = Some(Via { relay, label });
        }
        Some(outbound)
    }

    /// How to receive from a peer.
    fn inbounds_of(&self, id: &PeerId) -> Vec<(ReceiverIndex, Inbound)> {
        let Some(peer) = self.peers.get(id) else {
            return Vec::new();
        };
        let keys = peer.sessions();
        keys.filter_map(|key| {
            let connection = self.control.connections.get(&key)?;
            let mut inbound = connection
                .session()?
                .inbound(&connection.paths, self.config.mtu);
            inbound.takes_packets = peer.role == Role::Member;
            inbound.relay_slot = self.relays.slot(id);
            inbound.relays_for = peer.credit.is_some();
            Some((connection.index?, inbound))
        })
        .collect()
    }
}

#[cfg(test)]
impl Net {
    /// Whether what is published is what it would be if it were made anew as a whole.
    pub(crate) fn assert_published(&self) {
        let published = &self.output.published;
        if !published.stale.is_empty() {
            return;
        }
        let forwarding = &published.forwarding;
        let mut anew = Arc::new(Forwarding::new(self.relayed.clone()));
        for id in self.peers.keys() {
            anew.set_outbound(id, self.outbound_of(id));
            for (index, inbound) in self.inbounds_of(id) {
                anew.set_inbound(index, Some(inbound));
            }
        }
        for id in self.peers.keys() {
            if let Some((outbound, credit)) = self.client_with(Label::of(id)) {
                anew.set_client(Label::of(id), Some((outbound, credit)));
            }
        }
        assert!(forwarding.says_what(&anew, self.peers.keys()));
    }
}
