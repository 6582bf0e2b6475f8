//! A relay's part: what clients send to each other, sealed again where it was received and sent from
//! there. HOT PATH.
//!
//! A frame that is to be passed on keeps its length: the label of its receiver gives way to that of its
//! sender, and it is sealed for its receiver's session in the place where it was opened. What a client
//! sent in one run the kernel has merged into one buffer, so it leaves in one run again, without a copy,
//! another thread or the device. In a message of a stream a length stands before each frame; there what
//! leaves together is copied together first, which costs less than a system call for each.
//!
//! Sealing happens beside other receivers, sending in the order of the batches, as writing to the device
//! does; so a flow stays in order.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use shadowmesh_io::udp::{GSO_BYTES_MAX, SendFault, Transmit};
use shadowmesh_net::{DropReason, RelayTo};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::envelope;

use super::Shared;
use super::runs::SEGMENTS_MAX;

/// How long a receiver waits for room in sockets' buffers over a whole batch. Everybody's datagrams wait with it, so it is no
/// longer than a burst takes to leave; what does not leave by then is lost, and the two ends see that.
const ROOM_WAIT: Duration = Duration::from_millis(2);

/// What a batch brings for others.
pub struct Passing {
    /// Limit: the datagrams of a batch.
    runs: Vec<Run>,
    /// Bytes between two frames of a batch.
    gap: usize,
    /// The frames of a run without the gaps. Limit: [`GSO_BYTES_MAX`].
    gathered: Vec<u8>,
}

/// Frames for one receiver that lie one behind the other, but for gaps, and leave together: all of one
/// length, only the last may be shorter.
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
    /// Nothing; `gap` is how many bytes stand before each frame.
    pub fn new(gap: usize) -> Self {
        Self {
            runs: Vec::new(),
            gap,
            gathered: Vec::new(),
        }
    }

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
            Some(run) if run.takes(&way, at, frame.len(), self.gap) => {
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
            let transmit = run.transmit(bytes, self.gap, &mut self.gathered);
            let sent = links.send_within(run.way.socket, transmit, patience);
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
    fn takes(&self, way: &Way, at: usize, len: usize, gap: usize) -> bool {
        at == self.at + self.len + gap * self.segments
            && len <= self.segment
            && self.len == self.segment * self.segments
            && self.segments < SEGMENTS_MAX
            && self.len + len <= GSO_BYTES_MAX
            && self.way == *way
    }

    fn transmit<'b>(&self, bytes: &'b [u8], gap: usize, gathered: &'b mut Vec<u8>) -> Transmit<'b> {
        let end = self.at + self.len + gap * (self.segments - 1);
        let mut contents = &bytes[self.at..end];
        if contents.len() > self.len {
            gathered.clear();
            for frame in contents.chunks(self.segment + gap) {
                gathered.extend_from_slice(&frame[..frame.len().min(self.segment)]);
            }
            contents = &gathered[..self.len];
        }
        Transmit {
            remote: self.way.remote,
            local_ip: self.way.local_ip,
            traffic_class: self.way.traffic_class,
            may_fragment: self.way.may_fragment,
            segment_size: (self.segments > 1).then_some(self.segment),
            contents,
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
        assert!(two.takes(&way(1, 0), 1200, 100, 0));
        assert!(two.takes(&way(1, 0), 1200, 60, 0));
        assert!(!two.takes(&way(1, 0), 1300, 100, 0), "a gap");
        assert!(!two.takes(&way(1, 0), 1200, 101, 0), "longer");
        assert!(!two.takes(&way(1, 3), 1200, 100, 0), "a mark");
        assert!(!two.takes(&way(2, 0), 1200, 100, 0), "another receiver");
        let ended = run(160, 2);
        assert!(!ended.takes(&way(1, 0), 1160, 60, 0));
        let full = run(100 * SEGMENTS_MAX, SEGMENTS_MAX);
        assert!(!full.takes(&way(1, 0), 1000 + 100 * SEGMENTS_MAX, 100, 0));
        let (bytes, mut gathered) = (vec![7; 2000], Vec::new());
        let transmit = two.transmit(&bytes, 0, &mut gathered);
        assert_eq!(
            (transmit.segment_size, transmit.contents.len()),
            (Some(100), 200)
        );
    }

    // PROTOCOL SM-WS-5
    #[test]
    fn frames_of_a_message_leave_together_without_their_lengths() {
        let mut bytes = vec![0; 1000];
        for (frame, len) in [(1u8, 100), (2, 100), (3, 60)] {
            bytes.extend([0xee; 2]);
            bytes.resize(bytes.len() + len, frame);
        }
        let mut first = run(100, 1);
        first.at = 1002;
        assert!(first.takes(&way(1, 0), 1104, 100, 2));
        assert!(!first.takes(&way(1, 0), 1102, 100, 2), "no gap");
        let mut three = run(260, 3);
        three.at = 1002;
        let mut gathered = Vec::new();
        let transmit = three.transmit(&bytes, 2, &mut gathered);
        assert_eq!(transmit.segment_size, Some(100));
        let expected = [vec![1; 100], vec![2; 100], vec![3; 60]].concat();
        assert_eq!(transmit.contents, expected);
        let alone = first.transmit(&bytes, 2, &mut gathered);
        assert_eq!(alone.contents, [1; 100]);
        let mut two = run(200, 2);
        two.at = 1002;
        assert!(!two.takes(&way(1, 0), 1206, 101, 2) && two.takes(&way(1, 0), 1206, 60, 2));
        let mut long = run(32_000, 2);
        (long.segment, long.len) = (32_000, 64_000);
        assert!(
            !long.takes(&way(1, 0), long.at + 64_004, 2000, 2),
            "more than one send takes"
        );
    }
}
