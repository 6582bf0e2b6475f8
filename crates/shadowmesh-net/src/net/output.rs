//! What waits to be fetched by the parent.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use shadowmesh_wire::PeerId;

use super::news::News;
use super::publish::Published;
use crate::event::{Received, Transmit};

/// Limit: datagrams waiting. One input makes a dozen; only a parent that does not fetch gets here.
const TRANSMITS_MAX: usize = 8 * 1024;
/// Limit: inner frames waiting. They are fetched after each batch of datagrams that brought them.
const FRAMES_MAX: usize = 8 * 1024;

/// Queues towards the parent, and the published snapshot.
#[derive(Debug, Default)]
pub(super) struct Output {
    transmits: VecDeque<Transmit>,
    pub(super) news: News,
    /// Frames whose session has come up. Limit: those that waited for the sessions of one input, and one
    /// for each datagram of it.
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
}
