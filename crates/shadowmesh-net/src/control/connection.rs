//! One control connection and how far it is.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::{Side, VarInt};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::sealed::ReceiverIndex;

use super::datagrams::DatagramQueue;
use super::early::EarlyFrames;
use super::stream::ControlStream;
use super::{Cids, ConnKey, Owner};
use crate::memory::Memory;
use crate::paths::Paths;
use crate::session::Session;

/// Limit: QUIC ids remembered for a connection. quinn has at most eight out at a time; a peer that
/// makes us issue more loses the address translation of the oldest, which harms only itself.
pub(crate) const CIDS_PER_CONNECTION: usize = 32;

/// A control connection.
pub(crate) struct Connection {
    pub(crate) quic: quinn_proto::Connection,
    /// The address QUIC believes in, for the whole life of the connection.
    pub(crate) virtual_remote: SocketAddr,
    /// The address datagrams really go to.
    pub(crate) paths: Paths,
    /// With whom. Known from the start when we connect, from the handshake when they do.
    pub(crate) peer: Option<PeerId>,
    pub(crate) stream: ControlStream,
    /// Inner frames that go as QUIC datagrams.
    pub(crate) datagrams: DatagramQueue,
    pub(crate) phase: Phase,
    /// Our receiver index for the session of this connection.
    pub(crate) index: Option<ReceiverIndex>,
    /// Frames under this index that came before the session.
    pub(crate) early: EarlyFrames,
    /// DATAGRAM frames that came before the session, but after the peer was authenticated.
    pub(crate) early_datagrams: EarlyFrames,
    /// Our first Initial, or the arrival of theirs.
    pub(crate) started_at: Instant,
    /// Which of our calls this is, counted over all since the start of the node; not for those who call us.
    // PROTOCOL SM-HS-13
    pub(crate) number: Option<u64>,
    /// First contact: every Initial is sent twice.
    pub(crate) double_initials: bool,
    /// The handshake resumed an earlier one (known only to the side that connected).
    pub(crate) resumed: bool,
    cids: VecDeque<u64>,
}

/// How far a connection is.
pub(crate) enum Phase {
    /// TLS is under way; the other side is nobody yet.
    Handshake,
    /// The peer is authenticated; its Hello is awaited.
    Hello,
    /// A session is up.
    Up(Box<Session>),
    /// Closed; QUIC still drains.
    Closed,
}

impl Phase {
    pub(crate) fn session(&self) -> Option<&Session> {
        match self {
            Phase::Up(session) => Some(session),
            _ => None,
        }
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        match self {
            Phase::Up(session) => Some(session),
            _ => None,
        }
    }
}

/// Why we close a control connection: the QUIC application error code.
// PROTOCOL SM-CT-4
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Close {
    /// Another session with the same peer took over.
    Replaced = 0,
    /// We are leaving; no reconnect is wanted.
    Leaving = 1,
    /// The other side is not, or no longer, a member.
    NotMember = 2,
    /// The other side broke the protocol.
    Protocol = 3,
    /// The session was found dead or never came up.
    Dead = 4,
    /// No cipher is allowed by both sides; only another configuration helps.
    NoCipher = 5,
    /// We are a relay, and do not serve the other side, or have no room for it.
    NotServed = 6,
}

impl Close {
    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

impl Connection {
    /// A connection of which nothing came yet; what it will make us keep counts in `memory`.
    pub(crate) fn new(
        quic: quinn_proto::Connection,
        paths: Paths,
        memory: &Arc<Memory>,
        now: Instant,
    ) -> Self {
        Self {
            virtual_remote: quic.remote_address(),
            quic,
            paths,
            peer: None,
            stream: ControlStream::default(),
            datagrams: DatagramQueue::new(memory),
            phase: Phase::Handshake,
            index: None,
            early: EarlyFrames::new(memory),
            early_datagrams: EarlyFrames::new(memory),
            started_at: now,
            number: None,
            double_initials: false,
            resumed: false,
            cids: VecDeque::new(),
        }
    }

    pub(crate) fn is_client(&self) -> bool {
        self.quic.side() == Side::Client
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        self.phase.session()
    }

    pub(crate) fn session_mut(&mut self) -> Option<&mut Session> {
        self.phase.session_mut()
    }

    /// Whether anything came from the other side.
    pub(crate) fn was_answered(&self) -> bool {
        self.quic.stats().udp_rx.datagrams > 0
    }

    /// Remembers ids that now lead here, and lets go of the oldest.
    pub(super) fn own_cids(&mut self, fresh: Vec<u64>, cids: &Cids, key: ConnKey) {
        self.cids.extend(fresh);
        while self.cids.len() > CIDS_PER_CONNECTION
            && let Some(old) = self.cids.pop_front()
        {
            cids.release(old, Owner::Connection(key));
        }
    }

    /// Takes all ids out of the table.
    pub(super) fn release_cids(self, cids: &Cids, key: ConnKey) {
        for id in self.cids {
            cids.release(id, Owner::Connection(key));
        }
        if let Some(index) = self.index {
            cids.release(index.0, Owner::Session(key));
        }
    }
}
