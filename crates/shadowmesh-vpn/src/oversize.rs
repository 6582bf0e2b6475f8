//! Packets too long for one sealed frame on their path.
//!
//! None of them vanishes: it is cut, sealed piece by piece ([`Fragments`]), and put together by the
//! peer. That costs, so whoever sends them is told to send shorter ones, by ICMP ([`TooBigSignals`])
//! and by the MSS of TCP handshakes (`wire::mss`, from both ends), once the path's length is settled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use shadowmesh_net::{Bucket, DropReason, Outbound, Pieces, pieces};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::fragment::{FRAGMENT_HEADER_LEN, FragmentHeader};
use shadowmesh_wire::icmp;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::sealed::{HEADER_LEN, OVERHEAD, TAG_LEN};

/// One message in this time to the senders behind one peer's path; the kernel remembers each for
/// minutes, and what it did not hear it hears at the next packet.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(20);
/// So many may come at once: one for each of the connections that are open at a change.
const SIGNAL_BURST: u32 = 16;
/// Limit: peers that are counted one by one. Beyond that there are no messages for further peers.
const SIGNAL_PEERS_MAX: usize = 1024;

/// Tells inner senders that their packets are too long, not too often.
#[derive(Debug, Default)]
pub struct TooBigSignals {
    /// Of each peer. Limit: [`SIGNAL_PEERS_MAX`].
    allowances: BTreeMap<PeerId, Bucket>,
}

impl TooBigSignals {
    /// The message for the sender of `packet`, if the path is settled, the packet is longer than that,
    /// its sender can do something about it, and it was not told enough already.
    // PROTOCOL SM-MT-5
    pub fn make(&mut self, outbound: &Outbound, packet: &[u8], now: Instant) -> Option<Vec<u8>> {
        let message = icmp::too_big(packet, outbound.inner_mtu?)?;
        self.allows(outbound.peer, now).then_some(message)
    }

    fn allows(&mut self, peer: PeerId, now: Instant) -> bool {
        if self.allowances.len() >= SIGNAL_PEERS_MAX && !self.allowances.contains_key(&peer) {
            self.allowances.retain(|_, bucket| bucket.whole_at() > now);
            if self.allowances.len() >= SIGNAL_PEERS_MAX {
                return false;
            }
        }
        let allowance = self.allowances.entry(peer);
        let allowance = allowance.or_insert_with(|| Bucket::full(now));
        allowance.take(SIGNAL_BURST, SIGNAL_INTERVAL, now)
    }
}

/// A packet as sealed frames, each with a piece of it.
pub struct Fragments<'a> {
    outbound: &'a Outbound,
    packet: &'a [u8],
    pieces: Pieces,
    id: u32,
    counter: u64,
}

impl<'a> Fragments<'a> {
    /// Takes the counters for all pieces.
    // PROTOCOL SM-MT-3
    pub fn new(outbound: &'a Outbound, packet: &'a [u8]) -> Result<Self, DropReason> {
        if packet.len() > usize::from(u16::MAX) {
            return Err(DropReason::TooBig);
        }
        let pieces = pieces(packet.len(), outbound.inner_len_max);
        let count = pieces.len() as u64;
        let first = outbound.sealer.reserve(count);
        let counter = first.ok_or(DropReason::SealExhausted)?;
        outbound.traffic.sent(count, packet.len() as u64);
        Ok(Self {
            outbound,
            packet,
            pieces,
            id: counter as u32,
            counter,
        })
    }

    /// Bytes of the longest frame.
    pub fn frame_len_max(&self) -> usize {
        self.outbound.inner_len_max + OVERHEAD
    }

    /// How many are still to be written.
    pub fn remaining(&self) -> usize {
        self.pieces.len()
    }

    /// Writes and seals the next frame at the front of `slot`, which holds
    /// [`frame_len_max`](Self::frame_len_max) bytes; returns its length, or `None` after the last.
    pub fn write_next(&mut self, slot: &mut [u8]) -> Option<usize> {
        let (offset, len) = self.pieces.next()?;
        let header = FragmentHeader {
            id: self.id,
            total: self.packet.len() as u16,
            offset: offset as u16,
        };
        let body = HEADER_LEN + 1;
        let piece = body + FRAGMENT_HEADER_LEN;
        slot[HEADER_LEN] = InnerType::Fragment.into();
        slot[body..piece].copy_from_slice(&header.encode());
        slot[piece..piece + len].copy_from_slice(&self.packet[offset..offset + len]);
        let frame_len = piece + len + TAG_LEN;
        self.outbound
            .sealer
            .seal(self.counter, &mut slot[..frame_len]);
        self.counter += 1;
        Some(frame_len)
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "an Instant cannot be made but by reading the clock; the test only counts from it"
)]
mod tests {
    use super::*;

    // PROTOCOL SM-MT-5
    #[test]
    fn a_peer_gets_a_burst_of_messages_and_then_a_few_and_does_not_count_for_others() {
        let mut signals = TooBigSignals::default();
        let peer = |n: u16| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&n.to_be_bytes());
            PeerId::from_bytes(id)
        };
        let now = Instant::now();
        let allowed = (0..100).filter(|_| signals.allows(peer(0), now)).count();
        assert_eq!(allowed, SIGNAL_BURST as usize);
        assert!(signals.allows(peer(1), now));
        assert!(signals.allows(peer(0), now + SIGNAL_INTERVAL));
        assert!(!signals.allows(peer(0), now + SIGNAL_INTERVAL));
        for n in 2..2 * SIGNAL_PEERS_MAX as u16 {
            signals.allows(peer(n), now);
        }
        assert_eq!(signals.allowances.len(), SIGNAL_PEERS_MAX);
        assert!(signals.allows(peer(5000), now + SIGNAL_INTERVAL * SIGNAL_BURST));
    }
}
