//! Received IP packets into as few writes to the device as possible.
//!
//! HOT PATH. The receiver thread opens a batch of sealed frames in place and gives their packets to
//! a [`Coalescer`] one by one; at the end of the batch it takes the writes. A write of one packet
//! is the packet as it was received; a write of several is a rewritten header (some tens of bytes,
//! owned by the coalescer) and the ranges of the receive buffer where the payloads lie. So no
//! payload byte moves before the kernel copies it.
//!
//! Nothing is held back from one batch to the next: merging costs no latency. Only ranges are kept
//! and no references, so one coalescer, whose vectors keep their capacity, serves all batches
//! without allocating.
//!
//! Order: writes stand in the order of their first packets, and a packet that belongs to a flow but
//! can not join its open run ends that run. So the packets of a flow never overtake each other;
//! packets of different flows may.

mod candidate;
mod run;
mod writes;

use candidate::{Candidate, FlowKey, Judged};
use run::Run;
use writes::WriteList;
pub use writes::{IOV_LEN_MAX, Pieces, Write};

/// Runs open at a time. A batch brings packets of a few busy flows; with more, the oldest run is
/// closed, which costs a merge and never a packet. The table is searched one by one, so it is short.
const RUNS_MAX: usize = 16;

/// Merges runs of TCP segments and UDP datagrams of a batch. Holds nothing back between batches,
/// keeps no reference to the packets, and allocates only until its vectors have grown to the size
/// of a batch. Packets of one flow keep their order; packets of different flows may change places.
///
/// ```
/// use shadowmesh_wire::offload::{Coalescer, IOV_LEN_MAX};
/// use std::io::IoSlice;
///
/// fn deliver(
///     coalescer: &mut Coalescer,
///     buffer: &[u8],
///     packets: &[std::ops::Range<usize>],
///     mut write: impl FnMut(&[IoSlice<'_>]),
/// ) {
///     for range in packets {
///         coalescer.push(range.start, &buffer[range.clone()]);
///     }
///     let mut iov = [IoSlice::new(&[]); IOV_LEN_MAX];
///     for one in coalescer.finish() {
///         let len = one.gather(buffer, &mut iov);
///         write(&iov[..len]);
///     }
/// }
/// # let mut lens = Vec::new();
/// # deliver(&mut Coalescer::new(true), &[0; 40], &[0..20, 20..40], |iov| lens.push(iov.len()));
/// # assert_eq!(lens, [2, 2]);
/// ```
#[derive(Debug)]
pub struct Coalescer {
    /// Off: every packet is a write of its own.
    merge_any: bool,
    merge_udp: bool,
    /// At most [`RUNS_MAX`].
    runs: Vec<Run>,
    writes: WriteList,
    /// The writes were taken; the next push begins a new batch.
    finished: bool,
}

impl Coalescer {
    /// `merge_udp` says whether the device takes merged UDP (`TUN_F_USO4` and `TUN_F_USO6`, Linux
    /// 6.2). Merged TCP every device with a virtio header takes.
    pub fn new(merge_udp: bool) -> Self {
        Self {
            merge_any: true,
            merge_udp,
            runs: Vec::with_capacity(RUNS_MAX),
            writes: WriteList::default(),
            finished: false,
        }
    }

    /// For a device without a virtio header, which takes packets one by one.
    pub fn without_merging() -> Self {
        Self {
            merge_any: false,
            ..Self::new(false)
        }
    }

    /// Takes the next packet of the batch, which starts at byte `at` of the receive buffer. The
    /// bytes there must stay as they are until the writes are done.
    // PROTOCOL SM-DV-1
    #[inline]
    pub fn push(&mut self, at: usize, packet: &[u8]) {
        if self.finished {
            self.writes.clear();
            self.finished = false;
        }
        if !self.merge_any {
            self.writes.push(at, packet.len());
            return;
        }
        match candidate::judge(packet, self.merge_udp) {
            Judged::Mergeable(candidate) => self.push_candidate(at, &candidate),
            Judged::InFlow(key) => {
                if let Some(number) = self.find(&key) {
                    self.close(number);
                }
                self.writes.push(at, packet.len());
            }
            Judged::NoFlow => {
                self.writes.push(at, packet.len());
            }
            Judged::Barrier => {
                self.close_all();
                self.writes.push(at, packet.len());
            }
        }
    }

    /// Ends the batch and returns its writes, in the order they are to be made.
    pub fn finish(&mut self) -> impl ExactSizeIterator<Item = Write<'_>> {
        if self.finished {
            self.writes.clear();
        }
        self.close_all();
        self.finished = true;
        self.writes.iter()
    }

    fn push_candidate(&mut self, at: usize, candidate: &Candidate<'_>) {
        if let Some(number) = self.find(candidate.key()) {
            let run = &mut self.runs[number];
            if run.accepts(candidate) && candidate.checksums_hold() {
                self.writes.extend(
                    run.write(),
                    at + candidate.header_len(),
                    candidate.payload_len(),
                );
                run.extend(candidate);
                if run.is_over() {
                    self.close(number);
                }
                return;
            }
            self.close(number);
        }
        let write = self.writes.push(at, candidate.len());
        if !candidate.ends_run() && candidate.checksums_hold() {
            if self.runs.len() == RUNS_MAX {
                self.close_oldest();
            }
            self.runs.push(Run::new(write, candidate));
        }
    }

    fn find(&self, key: &FlowKey) -> Option<usize> {
        self.runs.iter().position(|run| run.key() == key)
    }

    fn close_oldest(&mut self) {
        let oldest = (0..self.runs.len()).min_by_key(|&number| self.runs[number].write());
        if let Some(number) = oldest {
            self.close(number);
        }
    }

    fn close_all(&mut self) {
        while !self.runs.is_empty() {
            self.close(self.runs.len() - 1);
        }
    }

    fn close(&mut self, number: usize) {
        let run = self.runs.swap_remove(number);
        run.finish(&mut self.writes);
    }
}
