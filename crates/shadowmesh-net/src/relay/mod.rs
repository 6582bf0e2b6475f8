//! Relays: who carries datagrams between peers that cannot reach each other straight.
//!
//! A relay is a session like any other; the datagram for a peer travels as an envelope in a frame to
//! it. The way to a peer over a relay is written as an address ([`Way::Relayed`]) whose slot says
//! which of our relays is meant; this module keeps the slots.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use shadowmesh_crypto::Sealer;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::envelope::{self, ENVELOPE_OVERHEAD, HEAD_LEN};
use shadowmesh_wire::sealed::{HEADER_LEN, OVERHEAD};
use shadowmesh_wire::way::{Label, Way};

use crate::bucket::Bucket;
pub(crate) use crate::credit::{Credit, RelayCounters};
use crate::event::{PathInfo, Transmit};
use crate::forwarding::{Traffic, Via};

/// Limit: relays a node uses.
pub(crate) const RELAYS_MAX: usize = 16;

/// The relays we use, by slot. A slot is never given to another relay, so an address keeps its meaning.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    /// Limit: [`RELAYS_MAX`]. `None`: it was removed.
    slots: Vec<Option<PeerId>>,
    /// Handshakes that each may bring us, and all streams together. Limit: one for each slot and one.
    callers: BTreeMap<u16, Bucket>,
    /// Until then every relay is of use: a peer may be with any of them.
    all_wanted_until: Option<Instant>,
}

/// Handshakes that one relay may bring us at once, and how fast that is regained: a small network that
/// starts together; and a fifth of the table of unfinished handshakes, in which each may stay for 2 s.
// PROTOCOL SM-HS-10
const CALLERS_BURST: u32 = 64;
const CALLERS_INTERVAL: Duration = Duration::from_millis(50);

/// Where all streams together are counted among the slots, which begin at 1.
const STREAMS: u16 = 0;

/// How long relays are kept that were called because a peer was not with the others.
// PROTOCOL SM-RL-6
const ALL_WANTED: Duration = Duration::from_secs(60);

impl Relays {
    /// Gives a relay a slot. A relay beyond the limit gets none, and is not used.
    pub(crate) fn add(&mut self, id: PeerId) {
        if self.slot(&id).is_none() && self.slots.len() < RELAYS_MAX {
            self.slots.push(Some(id));
        }
    }

    /// A peer was looked for in vain: it may be with any of them.
    pub(crate) fn want_all(&mut self, now: Instant) {
        self.all_wanted_until = Some(now + ALL_WANTED);
    }

    /// Whether that was so not long ago.
    pub(crate) fn are_all_wanted(&self, now: Instant) -> bool {
        self.all_wanted_until.is_some_and(|until| now < until)
    }

    /// Whether somebody who calls from this address may be looked at: a relay of ours may make up any
    /// number of callers, and each of them would be a source of its own to the gate; and so may whoever
    /// opens one stream after another to us.
    // PROTOCOL SM-HS-10
    pub(crate) fn may_bring_caller(&mut self, from: SocketAddr, now: Instant) -> bool {
        let slot = match Way::of(from) {
            Way::Relayed { slot, .. } => slot,
            Way::Stream(_) => STREAMS,
            Way::Udp(_) => return true,
        };
        let callers = self.callers.entry(slot);
        let bucket = callers.or_insert_with(|| Bucket::full(now));
        bucket.take(CALLERS_BURST, CALLERS_INTERVAL, now)
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

    /// The relays with the numbers by which ways over them name them.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u16, PeerId)> + '_ {
        let slots = self.slots.iter().zip(1..);
        slots.filter_map(|(id, slot)| Some((slot, (*id)?)))
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

    /// The number by which ways over this relay name it.
    pub(crate) fn slot(&self, id: &PeerId) -> Option<u16> {
        let at = self
            .slots
            .iter()
            .position(|slot| slot.as_ref() == Some(id))?;
        Some(at as u16 + 1)
    }
}

/// A datagram for the peer with a label, in a frame for the relay whose session this is. `None`: the
/// epoch has no counters left.
// PROTOCOL SM-RL-1
pub(crate) fn seal_envelope(
    sealer: &Sealer,
    traffic: &Traffic,
    label: Label,
    datagram: &[u8],
) -> Option<Vec<u8>> {
    let mut frame = vec![0; datagram.len() + ENVELOPE_OVERHEAD];
    let (head, rest) = frame[HEADER_LEN..].split_at_mut(HEAD_LEN);
    head.copy_from_slice(&envelope::encode(label));
    rest[..datagram.len()].copy_from_slice(datagram);
    sealer.seal(sealer.reserve(1)?, &mut frame);
    traffic.sent(1, (frame.len() - OVERHEAD) as u64);
    Some(frame)
}

/// What goes to the relay instead of a single datagram for a peer behind it. `None`: the epoch has no
/// counters left. For those who send one at a time; data threads write it in place.
pub fn wrap(via: &Via, datagram: Transmit) -> Option<Transmit> {
    let relay = &via.relay;
    let contents = seal_envelope(&relay.sealer, &relay.traffic, via.label, &datagram.contents)?;
    Some(Transmit {
        remote: relay.remote,
        local_ip: relay.local_ip,
        socket: relay.socket,
        contents,
        ..datagram
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-HS-10
    #[test]
    fn all_streams_together_bring_no_more_callers_than_one_relay() {
        let now = crate::tests::harness::start();
        let mut relays = Relays::default();
        let stream = |id| Way::Stream(id).address();
        let brought = (1..1000).filter(|id| relays.may_bring_caller(stream(*id), now));
        assert_eq!(brought.count(), CALLERS_BURST as usize);
        assert!(relays.may_bring_caller(([192, 0, 2, 1], 7).into(), now));
        let of_relay = Way::Relayed {
            slot: 1,
            label: Label(7),
        };
        assert!(relays.may_bring_caller(of_relay.address(), now));
        assert!(relays.may_bring_caller(stream(1), now + CALLERS_INTERVAL));
    }

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
