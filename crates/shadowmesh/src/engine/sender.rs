//! Device to network: one thread. HOT PATH.
//!
//! A batch is up to [`READS_MAX`] reads of the device, each a packet or a super-packet of up to 64 KB.
//! Every segment is written straight into its slot of the peer's GSO run and sealed there: one copy
//! between the application's socket and ours. Runs leave when they are full and at the end of the
//! batch, so small packets of one burst share a system call, and a lone packet waits for nothing.

use std::io;
use std::sync::Arc;

use shadowmesh_io::poll::{self, Watch};
use shadowmesh_io::tun::READ_LEN_MAX;
use shadowmesh_io::udp::{GSO_BYTES_MAX, SendFault};
use shadowmesh_net::{DropReason, Outbound};
use shadowmesh_vpn::Snapshot;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::offload::{Split, VNET_HDR_LEN, VnetHdr};
use shadowmesh_wire::sealed::{HEADER_LEN, OVERHEAD, TAG_LEN};

use super::Shared;
use super::runs::{Run, Runs};
use super::stop::Stop;

/// Reads before everything is sent. Unpaced small packets go three times as fast with 32 as with 1;
/// more only lets the first packet of a batch wait longer.
const READS_MAX: usize = 32;

/// The sender thread's share of the engine.
pub struct Sender {
    shared: Shared,
    stop: Arc<Stop>,
}

impl Sender {
    /// A sender that has not begun.
    pub fn new(shared: Shared, stop: Arc<Stop>) -> Self {
        Self { shared, stop }
    }

    /// Works until it is stopped or the device fails.
    pub fn run(self) -> io::Result<()> {
        let mut buffer = vec![0; READ_LEN_MAX].into_boxed_slice();
        let mut runs = Runs::new();
        while !self.stop.is_set() {
            if self.batch(&mut buffer, &mut runs)? < READS_MAX {
                self.wait()?;
            }
        }
        Ok(())
    }

    /// Blocks until there is something to read. No snapshot is held here.
    fn wait(&self) -> io::Result<()> {
        let mut watches = [
            Watch::readable(&*self.shared.device),
            Watch::readable(self.stop.waker()),
        ];
        poll::wait(&mut watches, None).map(drop)
    }

    /// Reads, seals and sends one batch; returns how many reads there were.
    fn batch(&self, buffer: &mut [u8], runs: &mut Runs) -> io::Result<usize> {
        let snapshot = self.shared.cell.load();
        let mut reads = 0;
        while reads < READS_MAX {
            match self.shared.device.read(buffer) {
                Ok(len) => self.forward(&snapshot, &mut buffer[..len], runs),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            reads += 1;
        }
        runs.send_all(&mut |peer, run| self.send(peer, run));
        Ok(reads)
    }

    /// One read of the device, on its way to wherever it may go.
    fn forward(&self, snapshot: &Snapshot, read: &mut [u8], runs: &mut Runs) {
        let Some((header, packet)) = read.split_at_mut_checked(VNET_HDR_LEN) else {
            return self.shared.drops.count(DropReason::BadOffload);
        };
        let done = match snapshot.outbound(packet) {
            Ok(peer) => split(header, packet).and_then(|packets| self.seal(peer, packets, runs)),
            Err(DropReason::NoSession) => {
                split(header, packet).map(|packets| self.hand_over(packets))
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = done {
            self.shared.drops.count(reason);
        }
    }

    /// Seals every packet of a super-packet into the peer's run.
    fn seal(
        &self,
        peer: &Arc<Outbound>,
        mut packets: Split<'_>,
        runs: &mut Runs,
    ) -> Result<(), DropReason> {
        let frame_len_max = packets.segment_len_max() + OVERHEAD;
        if frame_len_max > GSO_BYTES_MAX {
            return Err(DropReason::TooBig);
        }
        let count = packets.count() as u64;
        let first = peer
            .sealer
            .reserve(count)
            .ok_or(DropReason::SealExhausted)?;
        let run = runs.towards(peer, &mut |peer, run| self.send(peer, run));
        let mut bytes = 0;
        for counter in first..first + count {
            if !run.has_room(frame_len_max) {
                self.send(peer, run);
                run.clear();
            }
            let slot = run.slot();
            let Some(len) = packets.write_next(&mut slot[HEADER_LEN + 1..]) else {
                break;
            };
            slot[HEADER_LEN] = InnerType::IpPacket as u8;
            let frame_len = HEADER_LEN + 1 + len + TAG_LEN;
            peer.sealer.seal(counter, &mut slot[..frame_len]);
            run.commit(frame_len);
            bytes += len as u64;
        }
        peer.traffic.sent(count, bytes);
        Ok(())
    }

    /// Lets control have every packet of a super-packet.
    fn hand_over(&self, mut packets: Split<'_>) {
        let mut packet = vec![0; packets.segment_len_max()];
        while let Some(len) = packets.write_next(&mut packet) {
            self.shared.outbox.device(&packet[..len]);
        }
    }

    fn send(&self, peer: &Outbound, run: &Run) {
        if let Err(fault) = self.shared.links.send_patiently(run.transmit(peer)) {
            let reason = match fault {
                SendFault::Full | SendFault::Overrun => DropReason::TransmitBacklog,
                SendFault::TooBig => DropReason::TooBig,
                _ => DropReason::SendFailed,
            };
            self.shared.drops.add(reason, run.segments() as u64);
        }
    }
}

fn split<'a>(header: &[u8], packet: &'a mut [u8]) -> Result<Split<'a>, DropReason> {
    let header = VnetHdr::parse(header).ok_or(DropReason::BadOffload)?;
    Split::new(header, packet).map_err(|_| DropReason::BadOffload)
}
