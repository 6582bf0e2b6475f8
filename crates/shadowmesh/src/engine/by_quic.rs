//! Packets on their way to control, for peers whose packets go by QUIC. HOT PATH.
//!
//! QUIC lives in the node, so it seals on the control thread. The sender splits what it read into
//! packets, puts the byte of an inner frame before each, and hands all of one batch of the device that
//! go to one peer over in one message: a message for each packet would cost more than its encryption.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use shadowmesh_net::{DropCounters, DropReason, Outbound};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::offload::Split;
use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};

/// Batches that may wait for control, each about [`BATCH_BYTES`]: 1 MB, some 3 ms of its work.
const BATCHES_MAX: usize = 16;
/// A batch that has become so long is handed over before the next super-packet.
const BATCH_BYTES: usize = 64 * 1024;
/// How long a sender waits for room. A wait is back-pressure on the device, a drop a lost packet; much
/// longer, and peers with sealed frames would suffer with it.
pub const ROOM_WAIT_MAX: Duration = Duration::from_millis(5);
/// How long until it looks again.
const ROOM_WAIT: Duration = Duration::from_micros(100);

/// Inner frames for one peer, one behind the other.
#[derive(Debug)]
pub struct FrameBatch {
    /// Whose.
    pub peer: PeerId,
    bytes: BytesMut,
    lens: Vec<u16>,
}

impl FrameBatch {
    fn new(peer: PeerId) -> Self {
        Self {
            peer,
            bytes: BytesMut::with_capacity(BATCH_BYTES),
            lens: Vec::new(),
        }
    }

    /// The frames, without copying them.
    pub fn frames(mut self) -> impl Iterator<Item = Bytes> {
        let lens = self.lens.into_iter();
        lens.map(move |len| self.bytes.split_to(len.into()).freeze())
    }

    /// Appends every packet of a super-packet as an inner frame.
    fn append(&mut self, mut packets: Split<'_>) {
        let longest = packets.segment_len_max();
        loop {
            let start = self.bytes.len();
            self.bytes.resize(start + 1 + longest, 0);
            let len = packets.write_next(&mut self.bytes[start + 1..]);
            self.bytes
                .truncate(len.map_or(start, |len| start + 1 + len));
            let Some(len) = len else { return };
            self.bytes[start] = InnerType::IpPacket as u8;
            // An IP packet is shorter than 64 KB, and so are all its segments.
            self.lens.push((1 + len) as u16);
        }
    }
}

/// Batches being filled, and the way to control.
pub struct ToQuic {
    batches: Vec<FrameBatch>,
    control: Sender<FrameBatch>,
    drops: Arc<DropCounters>,
}

/// The queue between the sender and control: its writing and its reading end.
pub fn queue() -> (Sender<FrameBatch>, Receiver<FrameBatch>) {
    mpsc::channel(BATCHES_MAX)
}

impl ToQuic {
    /// Nothing yet.
    pub fn new(control: Sender<FrameBatch>, drops: Arc<DropCounters>) -> Self {
        Self {
            batches: Vec::new(),
            control,
            drops,
        }
    }

    /// Takes the packets of a super-packet for a peer, waiting for room no longer than `patience` says.
    /// HOT PATH.
    pub fn push(
        &mut self,
        to: &Outbound,
        packets: Split<'_>,
        patience: impl FnOnce() -> Duration,
    ) -> Result<(), DropReason> {
        if packets.segment_len_max() >= usize::from(u16::MAX) {
            return Err(DropReason::TooBig);
        }
        let at = self.batches.iter().position(|batch| batch.peer == to.peer);
        let at = at.unwrap_or_else(|| {
            self.batches.push(FrameBatch::new(to.peer));
            self.batches.len() - 1
        });
        self.batches[at].append(packets);
        if self.batches[at].bytes.len() >= BATCH_BYTES {
            let batch = self.batches.swap_remove(at);
            self.hand_over(batch, patience());
        }
        Ok(())
    }

    /// Hands over everything, at the end of a batch of the device.
    pub fn flush(&mut self, patience: impl Fn() -> Duration) {
        while let Some(batch) = self.batches.pop() {
            self.hand_over(batch, patience());
        }
    }

    fn hand_over(&self, mut batch: FrameBatch, patience: Duration) {
        let mut waited = Duration::ZERO;
        loop {
            match self.control.try_send(batch) {
                Ok(()) => return,
                Err(TrySendError::Full(back)) => batch = back,
                // Control is gone, and the end of this thread under way.
                Err(TrySendError::Closed(back)) => {
                    batch = back;
                    break;
                }
            }
            if waited >= patience {
                break;
            }
            thread::sleep(ROOM_WAIT);
            waited += ROOM_WAIT;
        }
        self.drops
            .add(DropReason::QuicBacklog, batch.lens.len() as u64);
    }
}
