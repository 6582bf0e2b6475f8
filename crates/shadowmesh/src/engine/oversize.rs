//! Super-packets whose segments are too long for one sealed frame on their path.
//!
//! The slower way of the sender: every segment is written out, its sender is told if it is to be told,
//! and it leaves in fragments, through the same runs as everything else. What fits after all (the
//! short end of a super-packet) goes as it always does.

use std::time::Instant;

use shadowmesh_net::{DropReason, Outbound};
use shadowmesh_vpn::{Fragments, TooBigSignals};
use shadowmesh_wire::offload::Split;
use shadowmesh_wire::traffic_class;

use super::Shared;
use super::envelopes::Envelopes;
use super::runs::Run;

/// What the sender keeps for this.
#[derive(Default)]
pub struct Oversize {
    signals: TooBigSignals,
    /// The segment in hand.
    segment: Vec<u8>,
}

impl Oversize {
    /// Whether a super-packet needs this way. HOT PATH.
    pub fn concerns(peer: &Outbound, packets: &Split<'_>) -> bool {
        packets.segment_len_max() > peer.inner_len_max
    }

    /// The next segment, its sender told if it is too long.
    fn next_segment(
        &mut self,
        peer: &Outbound,
        packets: &mut Split<'_>,
        shared: &Shared,
        now: Instant,
    ) -> Option<usize> {
        self.segment.resize(packets.segment_len_max(), 0);
        let len = packets.write_next(&mut self.segment)?;
        if let Some(message) = self.signals.make(peer, &self.segment[..len], now) {
            shared.deliver_alone(&message);
        }
        Some(len)
    }

    /// Sends every segment in as many fragments as it takes.
    // PROTOCOL SM-MT-3
    pub fn seal(
        &mut self,
        peer: &Outbound,
        (class, mut packets): (u8, Split<'_>),
        shared: &Shared,
        run: &mut Run,
        send: &mut impl FnMut(&Outbound, &Run),
    ) -> Result<(), DropReason> {
        let now = Instant::now();
        // Not ECN-capable: a mark on one fragment would have to survive the putting together.
        let class = traffic_class::not_ect(class);
        while let Some(len) = self.next_segment(peer, &mut packets, shared, now) {
            let mut fragments = Fragments::new(peer, &self.segment[..len])?;
            let mut envelopes = Envelopes::reserve(peer, fragments.remaining() as u64)?;
            let front = envelopes.front();
            let frame_len_max = fragments.frame_len_max() + envelopes.overhead();
            loop {
                if !run.has_room(frame_len_max, class) {
                    send(peer, run);
                    run.clear();
                }
                let Some(frame_len) = fragments.write_next(&mut run.slot()[front..]) else {
                    break;
                };
                let len = envelopes.close(run.slot(), frame_len);
                run.commit(len, class);
            }
        }
        Ok(())
    }
}
