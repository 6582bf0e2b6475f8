//! The immutable picture the data threads work on: who owns which address, which session leads
//! there, which keys open what comes in. A change of anything makes a new snapshot; nobody ever
//! waits for a lock to learn where a packet goes.
//!
//! Both verdicts apply the same rule, so that a peer can neither send from nor be sent to anything
//! but its own addresses:
//!
//! | | source must be | destination must be |
//! |---|---|---|
//! | outbound (device to peer) | one of our own addresses | in a peer's allowed_ips |
//! | inbound (peer to device) | in the allowed_ips of the very peer whose keys opened it | one of our own addresses |
//!
//! Broadcast, multicast and link-local destinations have no owner on a layer 3 mesh and are dropped
//! with a reason of their own, because every host sends a few and they should not look like faults.
//!
//! The verdict functions count nothing: the caller counts the [`DropReason`] it was given, save for
//! [`DropReason::NoSession`] outbound, which means "hand the packet to [`Node::handle_device`]"; it
//! is queued there and counted only if the session does not come.
//!
//! [`Node::handle_device`]: crate::Node::handle_device

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, MutexGuard, PoisonError};

use shadowmesh_crypto::{OpenError, ReplayWindow};
use shadowmesh_net::{DropReason, Forwarding, Outbound};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::ip::IpPacket;
use shadowmesh_wire::sealed::{self, ReceiverIndex};

use crate::members::Members;

/// What the data threads need to know, at one moment.
#[derive(Debug)]
pub struct Snapshot {
    version: u64,
    members: Arc<Members>,
    forwarding: Arc<Forwarding>,
    /// For each peer of `members`, by index: the session to send in.
    outbound: Vec<Option<Arc<Outbound>>>,
}

/// What a received datagram turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound {
    /// An IP packet that may go to the device; `range` is where it lies in the datagram.
    Packet {
        /// Who sealed it.
        peer: PeerId,
        /// The IP packet, without the inner type byte.
        range: Range<usize>,
    },
    /// Another inner frame, for [`Node::handle_inner`](crate::Node::handle_inner).
    Inner {
        /// Who sealed it.
        peer: PeerId,
        /// The inner frame, its type byte first.
        range: Range<usize>,
    },
    /// No sealed frame of a session we have; the datagram is untouched and is
    /// [`Node::handle_datagram`](crate::Node::handle_datagram)'s.
    NotSealed,
    /// Not to be delivered.
    Dropped(DropReason),
}

impl Snapshot {
    /// Puts together what may flow (`members`) and how (`forwarding`).
    pub fn new(version: u64, members: Arc<Members>, forwarding: Arc<Forwarding>) -> Self {
        let outbound = members
            .peers()
            .iter()
            .map(|p| forwarding.outbound(&p.id).cloned())
            .collect();
        Self {
            version,
            members,
            forwarding,
            outbound,
        }
    }

    /// Counts up with every change.
    pub fn version(&self) -> u64 {
        self.version
    }

    // PROTOCOL SM-OV-3
    // PROTOCOL SM-OV-4
    /// Which session an IP packet from the device is to be sealed in. HOT PATH.
    pub fn outbound(&self, packet: &[u8]) -> Result<&Arc<Outbound>, DropReason> {
        let peer = self.outbound_peer(packet)?;
        self.outbound[peer].as_ref().ok_or(DropReason::NoSession)
    }

    /// The peer an IP packet from the device is for, as an index into the members.
    pub(crate) fn outbound_peer(&self, packet: &[u8]) -> Result<usize, DropReason> {
        let packet = IpPacket::parse(packet).map_err(|_| DropReason::MalformedIpPacket)?;
        let (source, destination) = (packet.source(), packet.destination());
        if self.members.is_own(destination) {
            return Err(DropReason::OwnAddress);
        }
        if is_local_only(destination) {
            return Err(DropReason::NotUnicast);
        }
        let peer = self.members.owner(destination).ok_or(DropReason::NoRoute)?;
        if !self.members.is_own(source) {
            return Err(DropReason::ForeignSource);
        }
        Ok(peer)
    }

    /// Opens a datagram in place and judges what was inside.
    pub fn inbound(&self, datagram: &mut [u8]) -> Inbound {
        self.inbound_batch().judge(datagram)
    }

    /// Judges datagrams that were received together. HOT PATH, once for each batch.
    pub fn inbound_batch(&self) -> InboundBatch<'_> {
        InboundBatch {
            snapshot: self,
            session: None,
        }
    }

    fn inbound_packet(&self, sealed_by: &PeerId, packet: &[u8]) -> Result<(), DropReason> {
        let packet = IpPacket::parse(packet).map_err(|_| DropReason::MalformedIpPacket)?;
        let source = packet.source();
        // A peer that owns a default route owns neither our addresses nor everybody's.
        if self.members.is_own(source) || is_local_only(source) {
            return Err(DropReason::SpoofedSource);
        }
        let owner = self
            .members
            .owner(source)
            .map(|index| &self.members.peers()[index].id);
        if owner != Some(sealed_by) {
            return Err(DropReason::SpoofedSource);
        }
        if !self.members.is_own(packet.destination()) {
            return Err(DropReason::NotForUs);
        }
        Ok(())
    }
}

/// Opens and judges the datagrams of one batch.
///
/// Datagrams of one session come in runs, so its replay window is locked, and its traffic counted,
/// once for each run and not for each datagram. At most one window is locked at a time; drop the batch
/// before blocking.
pub struct InboundBatch<'s> {
    snapshot: &'s Snapshot,
    session: Option<OpenSession<'s>>,
}

/// The session of the last datagram.
struct OpenSession<'s> {
    index: ReceiverIndex,
    inbound: &'s shadowmesh_net::Inbound,
    window: MutexGuard<'s, ReplayWindow>,
    frames: u64,
    bytes: u64,
}

impl<'s> InboundBatch<'s> {
    /// Whether a peer with a session is at this address, as far as an address says.
    pub fn knows(&self, remote: SocketAddr) -> bool {
        self.snapshot.forwarding.knows(remote)
    }

    // PROTOCOL SM-OV-3
    // PROTOCOL SM-SF-4
    /// Opens a datagram in place and judges what was inside. HOT PATH.
    pub fn judge(&mut self, datagram: &mut [u8]) -> Inbound {
        let Some(session) = sealed::receiver_index(datagram).and_then(|index| self.enter(index))
        else {
            return Inbound::NotSealed;
        };
        let range = match session.open(datagram) {
            Ok(inner) => inner,
            Err(error) => return Inbound::Dropped(drop_reason(error)),
        };
        let peer = session.inbound.peer;
        if datagram.get(range.start) != Some(&(InnerType::IpPacket as u8)) {
            return Inbound::Inner { peer, range };
        }
        let range = range.start + 1..range.end;
        match self
            .snapshot
            .inbound_packet(&peer, &datagram[range.clone()])
        {
            Ok(()) => Inbound::Packet { peer, range },
            Err(reason) => Inbound::Dropped(reason),
        }
    }

    /// The session of an index, if it is one of ours.
    fn enter(&mut self, index: ReceiverIndex) -> Option<&mut OpenSession<'s>> {
        if self.session.as_ref().is_none_or(|open| open.index != index) {
            let inbound = self.snapshot.forwarding.inbound(index)?;
            // The old window is let go before the new one is locked: two threads that each waited
            // for the other's would wait for ever.
            self.session = None;
            // A thread that panicked while it held the window left it valid: it is only bits.
            let window = inbound
                .window
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            self.session = Some(OpenSession {
                index,
                inbound,
                window,
                frames: 0,
                bytes: 0,
            });
        }
        self.session.as_mut()
    }
}

impl OpenSession<'_> {
    fn open(&mut self, datagram: &mut [u8]) -> Result<Range<usize>, OpenError> {
        let opened = self.inbound.opener.open(datagram, &mut self.window)?;
        self.frames += 1;
        // The type byte is ours and not the user's.
        self.bytes += opened.inner.len() as u64 - 1;
        Ok(opened.inner)
    }
}

impl Drop for OpenSession<'_> {
    fn drop(&mut self) {
        self.inbound.traffic.received(self.frames, self.bytes);
    }
}

/// Addresses that mean "everybody near" or "nobody": never one peer's, even inside a peer's default
/// route.
fn is_local_only(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            a.is_multicast() || a == Ipv4Addr::BROADCAST || a.is_link_local() || a.is_unspecified()
        }
        IpAddr::V6(a) => {
            a.is_multicast() || a.is_unicast_link_local() || a == Ipv6Addr::UNSPECIFIED
        }
    }
}

fn drop_reason(error: OpenError) -> DropReason {
    match error {
        OpenError::TooShort => DropReason::SealTooShort,
        OpenError::NoSuchEpoch => DropReason::SealNoEpoch,
        OpenError::Forged => DropReason::SealForged,
        OpenError::Replayed => DropReason::SealReplayed,
        OpenError::TooOld => DropReason::SealTooOld,
    }
}
