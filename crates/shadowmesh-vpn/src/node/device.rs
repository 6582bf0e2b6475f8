//! From the device to a peer, one packet at a time: the slow path of the engine (packets whose
//! session is still coming) and the only path of the simulated world.

use std::time::Instant;

use bytes::Bytes;
use shadowmesh_net::{DropReason, Outbound, Plane, Transmit, wrap};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::mss;
use shadowmesh_wire::sealed::{HEADER_LEN, OVERHEAD, TAG_LEN};

use super::Node;
use crate::oversize::Fragments;

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
        if packet.len() > outbound.inner_len_max {
            return self.send_fragments(outbound, packet, now);
        }
        self.transmits.push_back(seal_packet(outbound, packet)?);
        Ok(())
    }

    /// Sends a packet that is too long for the path in pieces, and tells its sender.
    // PROTOCOL SM-MT-3
    fn send_fragments(
        &mut self,
        outbound: &Outbound,
        packet: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let message = self.signals.make(outbound, packet, now);
        self.to_device.extend(message.map(Bytes::from));
        let mut fragments = Fragments::new(outbound, packet)?;
        let mut slot = vec![0; fragments.frame_len_max()];
        while let Some(len) = fragments.write_next(&mut slot) {
            self.transmits
                .push_back(to_transmit(outbound, slot[..len].to_vec())?);
        }
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

    /// Packets for `peer` go otherwise than before: sends what has waited for it, if they go at all.
    pub(super) fn send_waiting(&mut self, peer: &PeerId, now: Instant) {
        if self.snapshot.forwarding().outbound(peer).is_none() {
            return;
        }
        let waiting: Vec<_> = self.demand.take(peer).collect();
        for packet in waiting {
            if let Err(reason) = self.send_packet(&packet, now) {
                self.net.drops().count(reason);
            }
        }
    }
}

/// One IP packet as one sealed frame. It fits: the caller has looked.
fn seal_packet(outbound: &Outbound, packet: &[u8]) -> Result<Transmit, DropReason> {
    let counter = outbound
        .sealer
        .reserve(1)
        .ok_or(DropReason::SealExhausted)?;
    let mut contents = vec![0; packet.len() + OVERHEAD];
    contents[HEADER_LEN] = InnerType::IpPacket as u8;
    let inner_end = contents.len() - TAG_LEN;
    let inner = &mut contents[HEADER_LEN + 1..inner_end];
    inner.copy_from_slice(packet);
    // PROTOCOL SM-MT-6
    if let Some(mtu) = outbound.inner_mtu {
        mss::clamp(inner, mtu);
    }
    outbound.sealer.seal(counter, &mut contents);
    outbound.traffic.sent(1, packet.len() as u64);
    to_transmit(outbound, contents)
}

/// A sealed frame on its way: straight, or inside a frame to the relay.
fn to_transmit(outbound: &Outbound, contents: Vec<u8>) -> Result<Transmit, DropReason> {
    let frame = Transmit {
        remote: outbound.remote,
        local_ip: outbound.local_ip,
        socket: outbound.socket,
        ecn: None,
        may_fragment: false,
        segment_size: None,
        contents,
    };
    match &outbound.via {
        Some(via) => wrap(via, frame).ok_or(DropReason::SealExhausted),
        None => Ok(frame),
    }
}
