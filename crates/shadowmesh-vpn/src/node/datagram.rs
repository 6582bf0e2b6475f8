//! From the network: sealed frames of our sessions are opened and judged here, everything else is
//! `net`'s.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use shadowmesh_net::{DropReason, Received};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::sealed;

use super::Node;
use crate::snapshot::Inbound;

impl Node {
    /// A datagram came in. What the data threads have already judged comes here only when it was
    /// [`Inbound::NotSealed`], and is then judged alike.
    pub fn handle_datagram(&mut self, received: Received, data: BytesMut, now: Instant) {
        self.judge(received, data, now);
        self.drain_net(now);
    }

    /// A frame that waited for its session, which is up by now. Nothing waits a second time.
    // PROTOCOL SM-SF-9
    pub(super) fn judge_again(&mut self, received: Received, data: BytesMut, now: Instant) {
        let index = sealed::receiver_index(&data);
        match index.and_then(|index| self.snapshot.forwarding().inbound(index)) {
            Some(_) => self.judge(received, data, now),
            None => self.net.drops().count(DropReason::StaleSnapshot),
        }
    }

    /// Without draining: what waited for a session is judged while `net` is drained.
    fn judge(&mut self, received: Received, mut data: BytesMut, now: Instant) {
        let verdict = self.snapshot.inbound(&mut data);
        let verdict = if received.is_relayed() {
            verdict.inside()
        } else {
            verdict
        };
        match verdict {
            Inbound::Packet { range } => self.to_device.push_back(data.freeze().slice(range)),
            Inbound::Inner { peer, range } => {
                self.net.handle_inner(&peer, received, &data[range], now)
            }
            Inbound::Fragment { range } => {
                let drops = self.net.drops().clone();
                let packet = self.snapshot.reassemble(&data, range, now, &drops);
                self.to_device.extend(packet.map(Bytes::from));
            }
            Inbound::Envelope { remote, range, .. } => {
                data.truncate(range.end);
                let inside = data.split_off(range.start);
                // Once: what is inside is no envelope, whatever it says.
                self.judge(received.over_relay(remote), inside, now);
            }
            Inbound::Relay { peer, range, .. } => {
                self.net.handle_inner(&peer, received, &data[range], now);
            }
            Inbound::NotSealed => self.net.handle_datagram(received, data, now),
            // PROTOCOL SM-OV-5
            Inbound::Dropped(reason) => self.net.drops().count(reason),
        }
    }

    /// Datagrams of `stride` bytes each, which came together from one place and of which the data
    /// threads judged that they are no sealed frames. HOT PATH for peers whose packets go by QUIC.
    pub fn handle_datagrams(
        &mut self,
        received: Received,
        data: BytesMut,
        stride: usize,
        now: Instant,
    ) {
        self.net.handle_datagrams(received, data, stride, now);
        self.drain_net(now);
    }

    /// Inner frames (type byte first) from the device for a peer whose packets go by QUIC. HOT PATH.
    pub fn handle_frames(
        &mut self,
        peer: &PeerId,
        frames: impl IntoIterator<Item = Bytes>,
        now: Instant,
    ) {
        self.net.send_frames(peer, frames, now);
        self.drain_net(now);
    }

    /// Judges the packets that came by QUIC, by the same rule as those in sealed frames.
    // PROTOCOL SM-QD-5
    pub(super) fn take_frames(&mut self) {
        while let Some((peer, frame)) = self.net.poll_frame() {
            let verdict = match frame.first() {
                Some(&kind) if kind == InnerType::IpPacket as u8 => {
                    self.snapshot.inbound_packet(&peer, &frame[1..])
                }
                _ => Err(DropReason::InnerUnknown),
            };
            match verdict {
                Ok(()) => self.to_device.push_back(frame.slice(1..)),
                // PROTOCOL SM-OV-5
                Err(reason) => self.net.drops().count(reason),
            }
        }
    }

    /// The host refused a datagram of `len` bytes to `remote`: an interface is smaller than that.
    pub fn handle_too_long(&mut self, remote: SocketAddr, len: usize, now: Instant) {
        self.net.handle_too_long(remote, len, now);
        self.drain_net(now);
    }

    /// An inner frame that a data thread opened and that is no IP packet; its type byte first.
    pub fn handle_inner(&mut self, peer: &PeerId, received: Received, inner: &[u8], now: Instant) {
        self.net.handle_inner(peer, received, inner, now);
        self.drain_net(now);
    }
}
