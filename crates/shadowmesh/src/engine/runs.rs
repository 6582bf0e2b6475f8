//! Sealed frames of one peer, back to back, on their way out in one GSO send.
//!
//! The kernel's terms for `UDP_SEGMENT`: at most 64 segments and 65507 bytes, all of one length, and
//! only the last may be shorter. So a shorter frame ends its run, and a longer one starts another; and
//! one of another traffic class does, because the send has one IP header for all.
//! The buffers are made once; a packet is written into its slot, sealed there, and leaves from there.

use std::sync::Arc;

use shadowmesh_io::udp::{GSO_BYTES_MAX, Transmit};
use shadowmesh_net::Outbound;

/// The kernel's `UDP_MAX_SEGMENTS` before Linux 6.9, and what GRO on the other side can undo.
pub const SEGMENTS_MAX: usize = 64;

/// The frames collected for one peer.
pub struct Run {
    buffer: Box<[u8]>,
    len: usize,
    /// Length of the first frame, and so of all but the last.
    segment: usize,
    segments: usize,
    /// Of the outer IP header.
    traffic_class: u8,
    /// A shorter frame was added: nothing may follow it.
    ended: bool,
}

impl Run {
    /// An empty run.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; GSO_BYTES_MAX].into_boxed_slice(),
            len: 0,
            segment: 0,
            segments: 0,
            traffic_class: 0,
            ended: false,
        }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.segments == 0
    }

    /// How many frames there are.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Length of the longest frame.
    pub fn segment_len(&self) -> usize {
        self.segment
    }

    /// Whether a frame of up to `len` bytes and this traffic class may follow. HOT PATH.
    pub fn has_room(&self, len: usize, traffic_class: u8) -> bool {
        if self.is_empty() {
            return len <= self.buffer.len();
        }
        !self.ended
            && len <= self.segment
            && traffic_class == self.traffic_class
            && self.segments < SEGMENTS_MAX
            && self.len + len <= self.buffer.len()
    }

    /// Where the next frame is to be written. HOT PATH.
    pub fn slot(&mut self) -> &mut [u8] {
        &mut self.buffer[self.len..]
    }

    /// The next frame stands in the slot and is `len` bytes long; [`has_room`](Self::has_room) said
    /// that it may. HOT PATH.
    pub fn commit(&mut self, len: usize, traffic_class: u8) {
        debug_assert!(
            self.has_room(len, traffic_class),
            "the caller asked for room first"
        );
        if self.is_empty() {
            self.segment = len;
            self.traffic_class = traffic_class;
        }
        self.ended = len < self.segment;
        self.len += len;
        self.segments += 1;
    }

    /// Which local port a run for a peer, or for the relay that leads there, is sent from.
    pub fn socket(to: &Outbound) -> u16 {
        to.via.as_ref().map_or(to.socket, |via| via.relay.socket)
    }

    /// The run as one send to a peer, or to the relay that leads there.
    pub fn transmit(&self, to: &Outbound) -> Transmit<'_> {
        let to = to.via.as_ref().map_or(to, |via| &via.relay);
        Transmit {
            remote: to.remote,
            local_ip: to.local_ip,
            traffic_class: self.traffic_class,
            may_fragment: false,
            segment_size: (self.segments > 1).then_some(self.segment),
            contents: &self.buffer[..self.len],
        }
    }

    /// Starts over.
    pub fn clear(&mut self) {
        self.len = 0;
        self.segments = 0;
        self.ended = false;
    }
}

/// How many peers can have a run at once. A batch is 32 reads; one that goes to more peers than this
/// sends some runs early, which costs a system call and nothing else.
const RUNS_MAX: usize = 8;

/// The runs of the batch in hand, each with the peer it goes to.
pub struct Runs {
    runs: Vec<(Arc<Outbound>, Run)>,
    /// Buffers not in use.
    spare: Vec<Run>,
}

impl Runs {
    /// All buffers, made once.
    pub fn new() -> Self {
        Self {
            runs: Vec::with_capacity(RUNS_MAX),
            spare: (0..RUNS_MAX).map(|_| Run::new()).collect(),
        }
    }

    /// The run of a peer, started if need be; `send` sends the oldest when all buffers are taken.
    /// HOT PATH.
    pub fn towards(
        &mut self,
        peer: &Arc<Outbound>,
        send: &mut impl FnMut(&Outbound, &Run),
    ) -> &mut Run {
        if let Some(at) = self.runs.iter().position(|(of, _)| Arc::ptr_eq(of, peer)) {
            return &mut self.runs[at].1;
        }
        // The peer's keys or path changed since its run began: what was sealed before leaves before.
        if let Some(at) = self.runs.iter().position(|(of, _)| of.peer == peer.peer) {
            let run = self.retire(at, send);
            self.spare.push(run);
        }
        let run = match self.spare.pop() {
            Some(run) => run,
            None => self.retire(0, send),
        };
        self.runs.push((Arc::clone(peer), run));
        let (_, run) = self.runs.last_mut().expect("one was just pushed");
        run
    }

    /// Sends everything, and forgets the peers: nothing of a snapshot is held afterwards.
    pub fn send_all(&mut self, send: &mut impl FnMut(&Outbound, &Run)) {
        while !self.runs.is_empty() {
            let run = self.retire(0, send);
            self.spare.push(run);
        }
    }

    fn retire(&mut self, at: usize, send: &mut impl FnMut(&Outbound, &Run)) -> Run {
        let (peer, mut run) = self.runs.remove(at);
        if !run.is_empty() {
            send(&peer, &run);
            run.clear();
        }
        run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_frames_follow_each_other_up_to_64() {
        let mut run = Run::new();
        for _ in 0..SEGMENTS_MAX {
            assert!(run.has_room(100, 0));
            run.commit(100, 0);
        }
        assert!(!run.has_room(100, 0));
        run.clear();
        assert!(run.is_empty() && run.has_room(100, 0));
    }

    #[test]
    fn a_run_never_exceeds_what_one_send_takes() {
        let mut run = Run::new();
        while run.has_room(1450, 0) {
            run.commit(1450, 0);
        }
        assert_eq!(run.segments(), GSO_BYTES_MAX / 1450);
    }

    #[test]
    fn a_shorter_frame_ends_the_run_and_a_longer_one_does_not_fit() {
        let mut run = Run::new();
        run.commit(1450, 0);
        assert!(!run.has_room(1451, 0));
        assert!(run.has_room(80, 0));
        run.commit(80, 0);
        assert!(!run.has_room(80, 0));
        assert!(!run.has_room(1450, 0));
    }

    #[test]
    fn a_frame_of_another_traffic_class_does_not_follow() {
        let mut run = Run::new();
        run.commit(1450, 0xb8);
        assert!(run.has_room(1450, 0xb8));
        assert!(!run.has_room(1450, 0));
        run.clear();
        assert!(run.has_room(1450, 0));
    }
}
