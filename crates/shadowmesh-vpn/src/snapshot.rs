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
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use shadowmesh_crypto::{Authentic, OpenError};
use shadowmesh_net::{DropCounters, DropReason, Forwarding, Outbound, Reassembled, RelayTo};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::envelope;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::ip::IpPacket;
use shadowmesh_wire::mss;
use shadowmesh_wire::sealed;
use shadowmesh_wire::way::{Label, Way};

use crate::members::Members;
use crate::outbounds::Outbounds;

/// What the data threads need to know, at one moment.
#[derive(Debug)]
pub struct Snapshot {
    version: u64,
    members: Arc<Members>,
    forwarding: Arc<Forwarding>,
    /// For each peer of `members`, by index: the session to send in.
    outbounds: Outbounds,
}

/// What a received datagram turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Inbound {
    /// An IP packet that may go to the device; `range` is where it lies in the datagram.
    Packet {
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
    /// A piece of a packet, for [`Snapshot::reassemble`].
    Fragment {
        /// The body of the inner frame, without its type byte.
        range: Range<usize>,
    },
    /// What a relay of ours passed on: a datagram to be judged like any other, once, with its `remote` and
    /// [`Inbound::inside`].
    Envelope {
        /// The relay.
        relay: PeerId,
        /// The way it came, written as an address.
        remote: SocketAddr,
        /// The datagram inside.
        range: Range<usize>,
    },
    /// To be passed on: we are the sender's relay. See [`Forwarding::relay`].
    Relay {
        /// Who sealed it.
        peer: PeerId,
        /// For whom.
        label: Label,
        /// The inner frame, its type byte first.
        range: Range<usize>,
    },
    /// No sealed frame of a session we have; the datagram is untouched and is
    /// [`Node::handle_datagram`](crate::Node::handle_datagram)'s.
    NotSealed,
    /// Not to be delivered.
    Dropped(DropReason),
}

impl Inbound {
    /// The verdict on a datagram that a relay passed on: there is no envelope inside an envelope.
    // PROTOCOL SM-RL-2
    pub fn inside(self) -> Self {
        match self {
            Self::Envelope { .. } | Self::Relay { .. } => Self::Dropped(DropReason::RelayNotOurs),
            other => other,
        }
    }
}

impl Snapshot {
    /// Puts together what may flow (`members`) and how (`forwarding`).
    pub fn new(version: u64, members: Arc<Members>, forwarding: Arc<Forwarding>) -> Self {
        let peers = members.peers().iter();
        let outbounds = Outbounds::new(peers.map(|p| forwarding.outbound(&p.id).cloned()));
        Self {
            version,
            members,
            forwarding,
            outbounds,
        }
    }

    /// The next picture, with the same members, in which one sends otherwise to those of `changed` only.
    pub(crate) fn next(
        &self,
        forwarding: Arc<Forwarding>,
        changed: impl IntoIterator<Item = PeerId>,
    ) -> Self {
        let mut outbounds = self.outbounds.clone();
        for id in changed {
            // A relay that is no peer has no packets.
            if let Some(member) = self.members.number(&id) {
                outbounds.set(member, forwarding.outbound(&id).cloned());
            }
        }
        Self {
            version: self.version + 1,
            members: self.members.clone(),
            forwarding,
            outbounds,
        }
    }

    /// Whether this says of sessions what `forwarding` says, and no earlier value.
    pub(crate) fn is_of(&self, forwarding: &Arc<Forwarding>) -> bool {
        Arc::ptr_eq(&self.forwarding, forwarding)
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
        self.outbounds.get(peer).ok_or(DropReason::NoSession)
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
        let mut verdict = Inbound::NotSealed;
        self.inbound_run(std::iter::once(datagram), |inbound, _| verdict = inbound);
        verdict
    }

    // PROTOCOL SM-OV-3
    // PROTOCOL SM-SF-4
    /// Opens datagrams that were received together in place, and tells `each` what every one was, in
    /// their order. HOT PATH, once for each buffer of a batch.
    ///
    /// Any number of threads may do this at once. Datagrams of one session come in runs, so its
    /// replay window is locked, and its traffic counted, once for each run. No window is locked while
    /// frames are opened or while `each` is called.
    pub fn inbound_run<'d>(
        &self,
        datagrams: impl IntoIterator<Item = &'d mut [u8]>,
        mut each: impl FnMut(Inbound, &mut [u8]),
    ) {
        let mut datagrams = datagrams.into_iter();
        loop {
            let mut run = [const { None }; RUN_MAX];
            let mut len = 0;
            for (place, datagram) in run.iter_mut().zip(&mut datagrams) {
                *place = Some(self.open(datagram));
                len += 1;
            }
            accept(&mut run[..len]);
            for opening in run[..len].iter_mut().flatten() {
                each(self.verdict(opening), opening.datagram);
            }
            if len < RUN_MAX {
                return;
            }
        }
    }

    /// All sessions, also those with relays that are no members.
    pub fn forwarding(&self) -> &Forwarding {
        &self.forwarding
    }

    /// Whether a peer with a session is at this address, as far as an address says.
    pub fn knows(&self, remote: SocketAddr) -> bool {
        self.forwarding.knows(remote)
    }

    /// Where an envelope goes that `from` sent for the peer with this label, see [`Forwarding::relay`].
    /// HOT PATH.
    pub fn relay(&self, from: &PeerId, to: Label) -> Result<RelayTo<'_>, DropReason> {
        self.forwarding.relay(from, to)
    }

    /// The expensive part, without any lock.
    fn open<'s, 'd>(&'s self, datagram: &'d mut [u8]) -> Opening<'s, 'd> {
        let session = sealed::receiver_index(datagram)
            .and_then(|index| self.forwarding.inbound(index))
            .map(|session| &**session);
        let state = match session {
            None => Opened::NotSealed,
            Some(session) => match session.opener.open(datagram, session.window.highest()) {
                Ok(frame) => Opened::Authentic(frame),
                Err(error) => Opened::Refused(error),
            },
        };
        Opening {
            datagram,
            session,
            state,
        }
    }

    fn verdict(&self, opening: &mut Opening<'_, '_>) -> Inbound {
        let range = match &opening.state {
            Opened::Fresh(range) => range.clone(),
            Opened::Refused(error) => return Inbound::Dropped(drop_reason(*error)),
            Opened::NotSealed => return Inbound::NotSealed,
            Opened::Authentic(_) => unreachable!("the window was asked about every frame"),
        };
        let session = opening.session.expect("a frame opens in a session");
        let datagram = &mut *opening.datagram;
        let kind = datagram.get(range.start).copied();
        let body = range.start + 1..range.end;
        let is_packet = [InnerType::IpPacket, InnerType::Fragment]
            .iter()
            .any(|packet| kind == Some(*packet as u8));
        // PROTOCOL SM-RL-9
        if is_packet && !session.takes_packets {
            return Inbound::Dropped(DropReason::RoleRefused);
        }
        if kind == Some(InnerType::Fragment as u8) {
            return Inbound::Fragment { range: body };
        }
        if kind == Some(InnerType::Relayed as u8) {
            return passed_on(session, datagram, body);
        }
        if kind == Some(InnerType::RelayEnvelope as u8) {
            return to_be_passed_on(session, datagram, range);
        }
        if kind != Some(InnerType::IpPacket as u8) {
            return Inbound::Inner {
                peer: session.peer,
                range,
            };
        }
        match self.admit(session, &mut datagram[body.clone()]) {
            Ok(()) => Inbound::Packet { range: body },
            Err(reason) => Inbound::Dropped(reason),
        }
    }

    /// Takes a [`Inbound::Fragment`] in: the packet, if it was the last missing piece and the packet
    /// may go to the device. What is dropped for it, or with it, is counted in `drops`.
    // PROTOCOL SM-MT-4
    pub fn reassemble(
        &self,
        datagram: &[u8],
        range: Range<usize>,
        now: Instant,
        drops: &DropCounters,
    ) -> Option<Vec<u8>> {
        let index = sealed::receiver_index(datagram)?;
        let session = self.forwarding.inbound(index)?;
        // A thread that panicked while it held the lock left whole packets behind or none.
        let mut fragments = session
            .fragments
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let pushed = fragments.push(&datagram[range], now, |reason| drops.count(reason));
        drop(fragments);
        match pushed {
            Reassembled::Waiting => None,
            Reassembled::Refused(reason) => {
                drops.count(reason);
                None
            }
            Reassembled::Whole(mut packet) => match self.admit(session, &mut packet) {
                Ok(()) => Some(packet),
                Err(reason) => {
                    drops.count(reason);
                    None
                }
            },
        }
    }

    /// Whether a packet of a session may go to the device. A TCP handshake learns what the way back
    /// takes.
    // PROTOCOL SM-MT-6
    fn admit(
        &self,
        session: &shadowmesh_net::Inbound,
        packet: &mut [u8],
    ) -> Result<(), DropReason> {
        self.inbound_packet(&session.peer, packet)?;
        if let Some(mtu) = session.inner_mtu {
            mss::clamp(packet, mtu);
        }
        Ok(())
    }

    /// Whether an IP packet that `sealed_by` sealed may go to the device. HOT PATH.
    pub fn inbound_packet(&self, sealed_by: &PeerId, packet: &[u8]) -> Result<(), DropReason> {
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

/// What a session brings that claims to be passed on by a relay.
// PROTOCOL SM-RL-2
fn passed_on(session: &shadowmesh_net::Inbound, datagram: &[u8], body: Range<usize>) -> Inbound {
    let Some(slot) = session.relay_slot else {
        return Inbound::Dropped(DropReason::RelayNotOurs);
    };
    let Some((label, inside)) = envelope::decode(&datagram[body.clone()]) else {
        return Inbound::Dropped(DropReason::InnerMalformed);
    };
    Inbound::Envelope {
        relay: session.peer,
        remote: Way::Relayed { slot, label }.address(),
        range: body.end - inside.len()..body.end,
    }
}

/// What a session brings for somebody else.
// PROTOCOL SM-RL-4
fn to_be_passed_on(
    session: &shadowmesh_net::Inbound,
    datagram: &[u8],
    range: Range<usize>,
) -> Inbound {
    if !session.relays_for {
        return Inbound::Dropped(DropReason::RelayNotServed);
    }
    match envelope::decode(&datagram[range.start + 1..range.end]) {
        Some((label, _)) => Inbound::Relay {
            peer: session.peer,
            label,
            range,
        },
        None => Inbound::Dropped(DropReason::InnerMalformed),
    }
}

/// Datagrams that are opened before the windows are asked: what one GRO buffer holds. More would
/// only let the first ones leave the cache before they are delivered.
const RUN_MAX: usize = 64;

/// A datagram of a run on its way to a verdict.
struct Opening<'s, 'd> {
    datagram: &'d mut [u8],
    /// The session it claims to be of; `None` when it is no sealed frame of ours.
    session: Option<&'s shadowmesh_net::Inbound>,
    state: Opened,
}

/// What is known of it.
enum Opened {
    /// It opened; whether it was here before, the window was not asked yet.
    Authentic(Authentic),
    /// It opened for the first time; here lies the inner frame.
    Fresh(Range<usize>),
    /// It did not open, or was here before.
    Refused(OpenError),
    /// Not a frame of any session of ours.
    NotSealed,
}

/// Asks the replay windows about all frames of a run. One window is locked at a time: two threads
/// that each held one and waited for the other's would wait for ever.
// PROTOCOL SM-SF-4
fn accept(run: &mut [Option<Opening<'_, '_>>]) {
    let mut at = 0;
    while let Some(Some(first)) = run.get(at) {
        let Some(session) = first.session else {
            at += 1;
            continue;
        };
        let mut window = session.window.lock();
        let (mut frames, mut bytes) = (0, 0);
        for opening in run[at..].iter_mut().flatten() {
            if !opening.session.is_some_and(|s| std::ptr::eq(s, session)) {
                break;
            }
            at += 1;
            let Opened::Authentic(frame) = &opening.state else {
                continue;
            };
            opening.state = match window.accept(frame) {
                Ok(opened) => {
                    frames += 1;
                    // The type byte is ours and not the user's.
                    bytes += opened.inner.len() as u64 - 1;
                    Opened::Fresh(opened.inner)
                }
                Err(error) => Opened::Refused(error),
            };
        }
        drop(window);
        session.traffic.received(frames, bytes);
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
