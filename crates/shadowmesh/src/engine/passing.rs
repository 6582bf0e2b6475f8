//! A relay's part: what clients send to each other, sealed again where it was received and sent from
//! there. HOT PATH.
//!
//! A frame that is to be passed on keeps its length: the label of its receiver gives way to that of its
//! sender, and it is sealed for its receiver's session in the place where it was opened. What a client
//! sent in one run the kernel has merged into one buffer, so it leaves in one run again, without a copy,
//! another thread or the device.
//!
//! Sealing happens beside other receivers, sending in the order of the batches, as writing to the device
//! does; so a flow stays in order.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use shadowmesh_io::udp::{SendFault, Transmit};
use shadowmesh_net::{DropReason, RelayTo};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::envelope;

use super::Shared;
use super::runs::SEGMENTS_MAX;

/// How long a receiver waits for room in sockets' buffers over a whole batch. Everybody's datagrams wait with it, so it is no
/// longer than a burst takes to leave; what does not leave by then is lost, and the two ends see that.
const ROOM_WAIT: Duration = Duration::from_millis(2);

/// What a batch brings for others.
#[derive(Default)]
pub struct Passing {
    /// Limit: the datagrams of a batch.
    runs: Vec<Run>,
}

/// Frames for one receiver that lie one behind the other and leave together: all of one length, only
/// the last may be shorter.
struct Run {
    way: Way,
    /// Where in the batch they begin, and their bytes in all.
    at: usize,
    len: usize,
    segment: usize,
    segments: usize,
}

/// Where a run leaves to, and how. No session is held: it may have had its time when the turn comes.
#[derive(PartialEq, Eq)]
struct Way {
    peer: PeerId,
    remote: SocketAddr,
    local_ip: Option<IpAddr>,
    socket: u16,
    /// Of the outer IP header.
    traffic_class: u8,
    /// The path is not known to take its length, and it must pass.
    may_fragment: bool,
}

impl Passing {
    /// Seals a frame for its receiver, in place. The frame begins at byte `at` of the batch and its inner
    /// frame is an envelope, which lies at `inner`. `ecn` is what came on the outer header: what a queue
    /// before us marked, the receiver is to see (RFC 6040).
    // PROTOCOL SM-RL-2
    pub fn seal(
        &mut self,
        to: &RelayTo<'_>,
        (at, frame): (usize, &mut [u8]),
        inner: Range<usize>,
        ecn: u8,
    ) -> Result<(), DropReason> {
        let may_fragment = to.take(frame.len(), Instant::now())?;
        let bytes = inner.len() as u64 - 1;
        if !envelope::readdress(&mut frame[inner], to.source) {
            return Err(DropReason::InnerMalformed);
        }
        let outbound = to.outbound;
        let counter = outbound.sealer.reserve(1);
        let counter = counter.ok_or(DropReason::SealExhausted)?;
        outbound.sealer.seal(counter, frame);
        outbound.traffic.sent(1, bytes);
        let way = Way {
            peer: outbound.peer,
            remote: outbound.remote,
            local_ip: outbound.local_ip,
            socket: outbound.socket,
            traffic_class: ecn,
            may_fragment,
        };
        match self.runs.last_mut() {
            Some(run) if run.takes(&way, at, frame.len()) => {
                run.len += frame.len();
                run.segments += 1;
            }
            _ => self.runs.push(Run {
                way,
                at,
                len: frame.len(),
                segment: frame.len(),
                segments: 1,
            }),
        }
        Ok(())
    }

    /// Sends everything; `bytes` is the batch.
    pub fn send(&mut self, bytes: &[u8], shared: &Shared) {
        // One wait for all of them: a client that names another receiver with every frame makes as many
        // runs as there are frames.
        let until = Instant::now() + ROOM_WAIT;
        for run in self.runs.drain(..) {
            let links = &shared.links;
            let patience = until.saturating_duration_since(Instant::now());
            let sent = links.send_within(run.way.socket, run.transmit(bytes), patience);
            if let Err(fault) = sent {
                let reason = match fault {
                    SendFault::Full | SendFault::Overrun => DropReason::TransmitBacklog,
                    SendFault::TooBig => {
                        shared.outbox.too_long(run.way.remote, run.segment);
                        DropReason::TooBig
                    }
                    _ => DropReason::SendFailed,
                };
                shared.drops.add(reason, run.segments as u64);
            }
        }
    }
}

impl Run {
    /// Whether a frame at byte `at` may leave with these.
    fn takes(&self, way: &Way, at: usize, len: usize) -> bool {
        at == self.at + self.len
            && len <= self.segment
            && self.len == self.segment * self.segments
            && self.segments < SEGMENTS_MAX
            && self.way == *way
    }

    fn transmit<'b>(&self, bytes: &'b [u8]) -> Transmit<'b> {
        Transmit {
            remote: self.way.remote,
            local_ip: self.way.local_ip,
            traffic_class: self.way.traffic_class,
            may_fragment: self.way.may_fragment,
            segment_size: (self.segments > 1).then_some(self.segment),
            contents: &bytes[self.at..self.at + self.len],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(last: u8, ecn: u8) -> Way {
        Way {
            peer: PeerId::from_bytes([last; 32]),
            remote: SocketAddr::from(([192, 0, 2, last], 4433)),
            local_ip: None,
            socket: 0,
            traffic_class: ecn,
            may_fragment: false,
        }
    }

    fn run(len: usize, segments: usize) -> Run {
        Run {
            way: way(1, 0),
            at: 1000,
            len,
            segment: 100,
            segments,
        }
    }

    #[test]
    fn what_lies_together_for_one_receiver_leaves_together_and_a_shorter_frame_is_the_last() {
        let two = run(200, 2);
        assert!(two.takes(&way(1, 0), 1200, 100));
        assert!(two.takes(&way(1, 0), 1200, 60));
        assert!(!two.takes(&way(1, 0), 1300, 100), "a gap");
        assert!(!two.takes(&way(1, 0), 1200, 101), "longer");
        assert!(!two.takes(&way(1, 3), 1200, 100), "a mark");
        assert!(!two.takes(&way(2, 0), 1200, 100), "another receiver");
        let ended = run(160, 2);
        assert!(!ended.takes(&way(1, 0), 1160, 60));
        let full = run(100 * SEGMENTS_MAX, SEGMENTS_MAX);
        assert!(!full.takes(&way(1, 0), 1000 + 100 * SEGMENTS_MAX, 100));
        let bytes = vec![7; 2000];
        let transmit = two.transmit(&bytes);
        assert_eq!(
            (transmit.segment_size, transmit.contents.len()),
            (Some(100), 200)
        );
    }
}
