//! Packets that wait for a session: the first packet to a peer is what makes us call it, and it
//! should not be the price of the call.
//!
//! The queue is short in count and in time. A handshake takes a round trip or two; a packet that has
//! waited longer than [`WAIT_MAX`] is a retransmission's older twin, and delivering it would only
//! confuse whoever measures. A full queue loses its oldest packet, for the same reason.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use shadowmesh_wire::PeerId;

/// Packets kept for one peer: more than a TCP handshake or a ping needs.
pub const PACKETS_PER_PEER_MAX: usize = 64;
/// Packets kept for all peers together; at the usual 1420 bytes this is 6 MB.
pub const PACKETS_MAX: usize = 4096;
/// How long a packet may wait; longer than a handshake with several lost datagrams.
pub const WAIT_MAX: Duration = Duration::from_secs(3);

/// The packets waiting for sessions, by peer.
#[derive(Debug, Default)]
pub struct DemandQueue {
    waiting: BTreeMap<PeerId, VecDeque<Waiting>>,
    /// Until when the oldest packet of each peer waits. Looked at with every input: many peers may be away.
    oldest: BTreeSet<(Instant, PeerId)>,
    packets: usize,
}

#[derive(Debug)]
struct Waiting {
    until: Instant,
    packet: Vec<u8>,
}

impl DemandQueue {
    /// Keeps `packet` until there is a session with `peer`. Returns how many packets were lost for
    /// it: one when a queue was full.
    #[must_use]
    pub fn push(&mut self, peer: PeerId, packet: &[u8], now: Instant) -> usize {
        let queue = self.waiting.entry(peer).or_default();
        if self.packets == PACKETS_MAX && queue.is_empty() {
            self.waiting.remove(&peer);
            return 1;
        }
        let full = queue.len() == PACKETS_PER_PEER_MAX || self.packets == PACKETS_MAX;
        let before = queue.front().map(|oldest| oldest.until);
        if full {
            queue.pop_front();
        }
        queue.push_back(Waiting {
            until: now + WAIT_MAX,
            packet: packet.to_vec(),
        });
        let after = queue.front().map(|oldest| oldest.until);
        self.oldest_changed(peer, before, after);
        self.packets += usize::from(!full);
        usize::from(full)
    }

    /// Takes what waits for `peer`, in the order it came.
    pub fn take(&mut self, peer: &PeerId) -> impl Iterator<Item = Vec<u8>> {
        let queue = self.waiting.remove(peer).unwrap_or_default();
        self.oldest_changed(*peer, queue.front().map(|oldest| oldest.until), None);
        self.packets -= queue.len();
        queue.into_iter().map(|w| w.packet)
    }

    /// Forgets packets that have waited too long and returns how many they were.
    #[must_use]
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.packets;
        while let Some(&(until, peer)) = self.oldest.first()
            && until <= now
        {
            let queue = self.waiting.entry(peer).or_default();
            while queue.pop_front_if(|w| w.until <= now).is_some() {
                self.packets -= 1;
            }
            let after = queue.front().map(|oldest| oldest.until);
            if after.is_none() {
                self.waiting.remove(&peer);
            }
            self.oldest_changed(peer, Some(until), after);
        }
        before - self.packets
    }

    fn oldest_changed(&mut self, peer: PeerId, before: Option<Instant>, after: Option<Instant>) {
        if before != after {
            before.map(|until| self.oldest.remove(&(until, peer)));
            after.map(|until| self.oldest.insert((until, peer)));
        }
    }

    /// When the next packet will have waited too long.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.oldest.first().map(|&(until, _)| until)
    }

    /// The peers something waits for.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.waiting.keys().copied()
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made but by reading the clock; the tests only count from it"
)]
mod tests {
    use super::*;

    fn peer(n: u16) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        PeerId::from_bytes(bytes)
    }

    #[test]
    fn packets_come_out_in_order_and_only_for_their_peer() {
        let mut queue = DemandQueue::default();
        let now = Instant::now();
        for n in 0..3u8 {
            assert_eq!(queue.push(peer(1), &[n], now), 0);
            assert_eq!(queue.push(peer(2), &[n + 10], now), 0);
        }
        assert_eq!(queue.take(&peer(1)).collect::<Vec<_>>(), [[0], [1], [2]]);
        assert_eq!(queue.take(&peer(1)).count(), 0);
        assert_eq!(queue.take(&peer(2)).count(), 3);
    }

    #[test]
    fn a_full_queue_loses_its_oldest_packet() {
        let mut queue = DemandQueue::default();
        let now = Instant::now();
        let lost: usize = (0..PACKETS_PER_PEER_MAX + 2)
            .map(|n| queue.push(peer(1), &[n as u8], now))
            .sum();
        assert_eq!(lost, 2);
        let kept: Vec<_> = queue.take(&peer(1)).collect();
        assert_eq!(kept.len(), PACKETS_PER_PEER_MAX);
        assert_eq!(kept[0], [2]);
    }

    #[test]
    fn all_peers_together_stay_within_the_limit() {
        let mut queue = DemandQueue::default();
        let now = Instant::now();
        let count = PACKETS_MAX + 100;
        let lost: usize = (0..count)
            .map(|n| queue.push(peer((n / 50) as u16), &[0], now))
            .sum();
        assert_eq!(lost, 100);
        assert_eq!(queue.expire(now + WAIT_MAX), PACKETS_MAX);
        assert_eq!((queue.next_expiry(), queue.oldest.len()), (None, 0));
    }

    #[test]
    fn a_packet_waits_three_seconds_and_no_longer() {
        let mut queue = DemandQueue::default();
        let start = Instant::now();
        assert_eq!(queue.push(peer(1), &[1], start), 0);
        assert_eq!(queue.push(peer(1), &[2], start + Duration::from_secs(1)), 0);
        assert_eq!(queue.next_expiry(), Some(start + WAIT_MAX));
        assert_eq!(queue.expire(start + WAIT_MAX - Duration::from_millis(1)), 0);
        assert_eq!(queue.expire(start + WAIT_MAX), 1);
        assert_eq!(queue.take(&peer(1)).collect::<Vec<_>>(), [[2]]);
        assert_eq!(queue.next_expiry(), None);
    }
}
