//! From the device to a peer, one packet at a time: the slow path of the engine (packets whose
//! session is still coming) and the only path of the simulated world.

use std::time::Instant;

use shadowmesh_net::{DropReason, Outbound, Plane, Transmit};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::sealed::{HEADER_LEN, OVERHEAD, TAG_LEN};

use super::Node;

impl Node {
    /// An IP packet came from the device. Without a session it waits a little and the peer is called.
    pub fn handle_device(&mut self, packet: &[u8], now: Instant) {
        match self.send_packet(packet, now) {
            Ok(()) => {}
            Err(DropReason::NoSession) => self.wait_for_session(packet, now),
            // PROTOCOL SM-OV-5
            Err(reason) => self.net.drops().count(reason),
        }
        self.drain_net(now);
    }

    /// Judges, seals and queues one packet.
    fn send_packet(&mut self, packet: &[u8], now: Instant) -> Result<(), DropReason> {
        let snapshot = self.snapshot.clone();
        let outbound = snapshot.outbound(packet)?;
        if outbound.plane == Plane::Quic {
            let mut frame = Vec::with_capacity(1 + packet.len());
            frame.push(InnerType::IpPacket as u8);
            frame.extend_from_slice(packet);
            self.net.send_frames(&outbound.peer, [frame.into()], now);
            return Ok(());
        }
        self.transmits.push_back(seal_packet(outbound, packet)?);
        Ok(())
    }

    fn wait_for_session(&mut self, packet: &[u8], now: Instant) {
        let Ok(peer) = self.snapshot.outbound_peer(packet) else {
            return;
        };
        let peer = self.members.peers()[peer].id;
        let lost = self.demand.push(peer, packet, now);
        self.net
            .drops()
            .add(DropReason::WaitingQueueFull, lost as u64);
        self.net.connect(&peer, now);
    }

    /// The session with `peer` is up: sends what has waited for it.
    pub(super) fn send_waiting(&mut self, peer: &PeerId, now: Instant) {
        let waiting: Vec<_> = self.demand.take(peer).collect();
        for packet in waiting {
            if let Err(reason) = self.send_packet(&packet, now) {
                self.net.drops().count(reason);
            }
        }
    }
}

/// The longest payload of a UDP datagram over IPv4.
const DATAGRAM_LEN_MAX: usize = 65_507;

/// One IP packet as one sealed frame.
fn seal_packet(outbound: &Outbound, packet: &[u8]) -> Result<Transmit, DropReason> {
    if packet.len() + OVERHEAD > DATAGRAM_LEN_MAX {
        return Err(DropReason::TooBig);
    }
    let counter = outbound
        .sealer
        .reserve(1)
        .ok_or(DropReason::SealExhausted)?;
    let mut contents = vec![0; packet.len() + OVERHEAD];
    contents[HEADER_LEN] = InnerType::IpPacket as u8;
    let inner_end = contents.len() - TAG_LEN;
    contents[HEADER_LEN + 1..inner_end].copy_from_slice(packet);
    outbound.sealer.seal(counter, &mut contents);
    outbound.traffic.sent(1, packet.len() as u64);
    Ok(Transmit {
        remote: outbound.remote,
        local_ip: outbound.local_ip,
        ecn: None,
        segment_size: None,
        contents,
    })
}
