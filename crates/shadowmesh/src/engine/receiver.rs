//! Network to device: one thread. HOT PATH.
//!
//! A batch is one `recvmmsg` of one socket: up to 32 buffers, each one datagram or up to 64 that the
//! kernel merged (GRO). Every datagram is looked at on its own, because anybody can send one that is
//! merged with a peer's. Sealed frames are opened where they lie, their packets merged into
//! super-packets as lists of ranges, and handed to the device in gathered writes: no payload byte is
//! copied on the way. What is no sealed frame costs a table lookup and, if there is room, one copy
//! into control's queue; that is all a flood of first packets gets here.

use std::io::{self, IoSlice};
use std::sync::Arc;

use shadowmesh_io::poll::{self, Watch};
use shadowmesh_io::udp::{self, RecvBatch, UdpLink};
use shadowmesh_net::{DropReason, Received};
use shadowmesh_vpn::{Inbound, InboundBatch};
use shadowmesh_wire::offload::{Coalescer, IOV_LEN_MAX};

use super::Shared;
use super::stop::Stop;

/// The receiver thread's share of the engine.
pub struct Receiver {
    shared: Shared,
    stop: Arc<Stop>,
}

impl Receiver {
    /// A receiver that has not begun.
    pub fn new(shared: Shared, stop: Arc<Stop>) -> Self {
        Self { shared, stop }
    }

    /// Works until it is stopped or the device fails.
    pub fn run(self) -> io::Result<()> {
        let mut batch = RecvBatch::new();
        let mut coalescer = Coalescer::new(self.shared.device.offloads().udp);
        let mut watches = self.watches();
        while !self.stop.is_set() {
            let mut received = 0;
            for link in self.shared.links.iter() {
                received += self.receive(link, &mut batch, &mut coalescer)?;
            }
            if received == 0 {
                // No snapshot is held here.
                poll::wait(&mut watches, None)?;
            }
        }
        Ok(())
    }

    fn watches(&self) -> Vec<Watch<'_>> {
        let links = self.shared.links.iter().map(Watch::readable);
        links.chain([Watch::readable(self.stop.waker())]).collect()
    }

    /// Receives one batch of one socket and delivers it; returns how many buffers there were.
    fn receive(
        &self,
        link: &UdpLink,
        batch: &mut RecvBatch,
        coalescer: &mut Coalescer,
    ) -> io::Result<usize> {
        let count = match link.recv_batch(batch) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            // The error of an earlier send (ICMP), reported here; the next receive goes on.
            Err(_) => return Ok(1),
        };
        let snapshot = self.shared.cell.load();
        let mut judge = snapshot.inbound_batch();
        for (number, (from, buffer)) in batch.iter_mut().enumerate() {
            let mut at = number * RecvBatch::BUFFER_BYTES;
            for datagram in buffer.chunks_mut(from.stride) {
                self.judge(&mut judge, &from, datagram, at, coalescer);
                at += datagram.len();
            }
        }
        // Before the writes: control may want the window, and the keys may have had their time.
        drop(judge);
        drop(snapshot);
        self.deliver(batch.bytes(), coalescer)?;
        Ok(count)
    }

    /// One datagram, which starts at byte `at` of the batch.
    fn judge(
        &self,
        batch: &mut InboundBatch<'_>,
        from: &udp::Received,
        datagram: &mut [u8],
        at: usize,
        coalescer: &mut Coalescer,
    ) {
        match batch.judge(datagram) {
            Inbound::Packet { range, .. } => {
                coalescer.push(at + range.start, &datagram[range]);
            }
            Inbound::Inner { peer, range } => {
                let inner = &datagram[range];
                self.shared.outbox.inner(peer, received(from), inner);
            }
            Inbound::NotSealed => {
                let known = batch.knows(from.remote);
                self.shared.outbox.datagram(received(from), datagram, known);
            }
            Inbound::Dropped(reason) => self.shared.drops.count(reason),
        }
    }

    /// Hands the batch's packets to the device.
    fn deliver(&self, bytes: &[u8], coalescer: &mut Coalescer) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); IOV_LEN_MAX];
        for write in coalescer.finish() {
            let len = write.gather(bytes, &mut slices);
            if let Err(error) = self.shared.device.write_vectored(&slices[..len]) {
                if is_device_gone(&error) {
                    return Err(error);
                }
                let packets = write.pieces().count() as u64;
                self.shared.drops.add(DropReason::DeviceFull, packets);
            }
        }
        Ok(())
    }
}

fn received(from: &udp::Received) -> Received {
    Received {
        remote: from.remote,
        local_ip: from.local_ip,
        ecn: from.ecn,
    }
}

/// `EBADFD`: the device was deleted while we held it. Every other refusal is about one packet, or
/// passes (`EIO` while the administrator has it down).
fn is_device_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}
