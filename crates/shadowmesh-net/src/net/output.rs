//! What waits to be fetched by the parent.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::way::Way;

use super::publish::Published;
use crate::event::{NetEvent, Received, Transmit};

/// Limit: datagrams waiting. One input makes a dozen; only a parent that does not fetch gets here.
const TRANSMITS_MAX: usize = 8 * 1024;
/// Limit: events waiting, for the same reason.
const EVENTS_MAX: usize = 8 * 1024;

/// Limit: inner frames waiting. They are fetched after each batch of datagrams that brought them.
const FRAMES_MAX: usize = 8 * 1024;

/// Queues towards the parent, and the published snapshot.
#[derive(Debug, Default)]
pub(super) struct Output {
    transmits: VecDeque<Transmit>,
    events: VecDeque<NetEvent>,
    /// Frames whose session has come up. Limit: those that waited for the sessions of one input.
    early: VecDeque<(Received, BytesMut)>,
    frames: VecDeque<(PeerId, Bytes)>,
    pub(super) published: Published,
}

impl Output {
    pub(super) fn new(published: Published) -> Self {
        Self {
            published,
            ..Self::default()
        }
    }

    /// False: the queue was full and the datagram is dropped.
    #[must_use]
    pub(super) fn transmit(&mut self, transmit: Transmit) -> bool {
        if self.transmits.len() >= TRANSMITS_MAX {
            return false;
        }
        self.transmits.push_back(transmit);
        true
    }

    /// False: the queue was full and the frame is dropped.
    #[must_use]
    pub(super) fn frame(&mut self, peer: PeerId, frame: Bytes) -> bool {
        if self.frames.len() >= FRAMES_MAX {
            return false;
        }
        self.frames.push_back((peer, frame));
        true
    }

    pub(super) fn pop_frame(&mut self) -> Option<(PeerId, Bytes)> {
        self.frames.pop_front()
    }

    pub(super) fn event(&mut self, event: NetEvent) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back(event);
        }
    }

    /// A probe of a session came from there in a QUIC packet. Said once of those that come together, or a peer
    /// that floods them would crowd out other events.
    pub(super) fn carried(&mut self, address: SocketAddr) {
        let said = |event: &NetEvent| matches!(event, NetEvent::StreamCarries { address: last } if *last == address);
        let is_stream = matches!(Way::of(address), Way::Stream(_));
        if is_stream && !self.events.back().is_some_and(said) {
            self.event(NetEvent::StreamCarries { address });
        }
    }

    /// The session of these frames is up.
    pub(super) fn release(&mut self, frames: Vec<(Received, BytesMut)>) {
        self.early.extend(frames);
    }

    pub(super) fn pop_early(&mut self) -> Option<(Received, BytesMut)> {
        self.early.pop_front()
    }

    pub(super) fn pop_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub(super) fn pop_event(&mut self) -> Option<NetEvent> {
        self.events.pop_front()
    }
}
