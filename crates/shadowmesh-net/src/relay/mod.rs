//! Relays: who carries datagrams between peers that cannot reach each other straight.
//!
//! A relay is a session like any other; the datagram for a peer travels as an envelope in a frame to
//! it. The way to a peer over a relay is written as an address ([`Way::Relayed`]) whose slot says
//! which of our relays is meant; this module keeps the slots.

use std::net::SocketAddr;

use shadowmesh_wire::PeerId;
use shadowmesh_wire::way::{Label, Way};

use crate::event::PathInfo;

/// Limit: relays a node uses.
pub(crate) const RELAYS_MAX: usize = 16;

/// The relays we use, by slot. A slot is never given to another relay, so an address keeps its meaning.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    /// Limit: [`RELAYS_MAX`]. `None`: it was removed.
    slots: Vec<Option<PeerId>>,
}

impl Relays {
    /// Gives a relay a slot. A relay beyond the limit gets none, and is not used.
    pub(crate) fn add(&mut self, id: PeerId) {
        if self.slot(&id).is_none() && self.slots.len() < RELAYS_MAX {
            self.slots.push(Some(id));
        }
    }

    /// Takes a relay out.
    pub(crate) fn remove(&mut self, id: &PeerId) {
        for slot in &mut self.slots {
            if slot.as_ref() == Some(id) {
                *slot = None;
            }
        }
    }

    /// The relays, in the order they were given.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.slots.iter().copied().flatten()
    }

    /// Whether we use this peer as a relay.
    pub(crate) fn contains(&self, id: &PeerId) -> bool {
        self.slot(id).is_some()
    }

    /// The relay with this slot.
    pub(crate) fn at(&self, slot: u16) -> Option<PeerId> {
        *self.slots.get(usize::from(slot).checked_sub(1)?)?
    }

    /// The way to `peer` over `relay`.
    pub(crate) fn way(&self, relay: &PeerId, peer: &PeerId) -> Option<Way> {
        let slot = self.slot(relay)?;
        let label = Label::of(peer);
        (relay != peer).then_some(Way::Relayed { slot, label })
    }

    /// What people are told of a way.
    pub(crate) fn info(&self, address: SocketAddr) -> PathInfo {
        match Way::of(address) {
            Way::Udp(remote) => PathInfo::Direct(remote),
            Way::Stream(_) => PathInfo::Stream,
            Way::Relayed { slot, .. } => match self.at(slot) {
                Some(relay) => PathInfo::Relayed { relay },
                None => PathInfo::Direct(address),
            },
        }
    }

    fn slot(&self, id: &PeerId) -> Option<u16> {
        let at = self
            .slots
            .iter()
            .position(|slot| slot.as_ref() == Some(id))?;
        Some(at as u16 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_its_meaning_when_a_relay_is_removed() {
        let [a, b, c] = [1, 2, 3].map(|n| PeerId::from_bytes([n; 32]));
        let mut relays = Relays::default();
        relays.add(a);
        relays.add(b);
        relays.add(a);
        let way = relays.way(&b, &c).unwrap();
        assert_eq!(relays.info(way.address()), PathInfo::Relayed { relay: b });
        assert_eq!(relays.way(&b, &b), None);
        relays.remove(&a);
        relays.add(c);
        assert_eq!(relays.way(&b, &c), Some(way));
        assert_eq!(relays.ids().collect::<Vec<_>>(), [b, c]);
        assert_eq!(relays.at(1), None);
        assert!(relays.contains(&c) && !relays.contains(&a));
    }
}
