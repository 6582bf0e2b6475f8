//! What the data plane needs to know of sessions, as one immutable value.
//!
//! The threads that move packets hold an `Arc<Forwarding>` and never ask [`Net`](crate::Net)
//! anything: it says under which key and to which address a frame for a peer goes, and which keys
//! and window belong to a receiver index. `Net` publishes a new value whenever one of these facts
//! changes, which shares with the one before all that did not ([`Shards`]); the old one, and with it old
//! keys, goes when the last thread lets go of it. What changes for every frame (counters, replay windows,
//! traffic) lives in atomics and mutexes inside, shared by successive values.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use shadowmesh_crypto::{Opener, Sealer, SharedWindow};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::envelope::ENVELOPE_OVERHEAD;
use shadowmesh_wire::sealed::{OVERHEAD, ReceiverIndex};
use shadowmesh_wire::way::Label;

use crate::credit::{Credit, RelayCounters};
use crate::drops::DropReason;
use crate::fragments::Reassembler;
use crate::plane::Plane;
use crate::shards::Shards;

/// Immutable snapshot of all sessions, for the data plane.
#[derive(Debug, Default, Clone)]
pub struct Forwarding {
    /// By PeerId. Limit: one entry for each peer with a session.
    outbound: Shards<Arc<Outbound>>,
    /// By receiver index, which we draw ourselves: a stranger can choose what to look up but not what is
    /// stored. Limit: three entries for each peer, the session in use and two that it replaced.
    inbound: Shards<Arc<Inbound>>,
    /// For whom we relay, by label. Limit: one entry for each peer with a session.
    clients: Shards<Client>,
    /// How many peers of `outbound` are at an address. Same limit.
    remotes: Shards<u32>,
    relayed: Arc<RelayCounters>,
    /// Hashes what others choose: ids, labels and addresses. Another key in every process, which changes
    /// where an entry lies and nothing else.
    hash: RandomState,
}

/// How to send to one peer.
#[derive(Debug)]
pub struct Outbound {
    /// The peer this leads to.
    pub peer: PeerId,
    /// Seals in the current epoch.
    pub sealer: Arc<Sealer>,
    /// Where the datagrams go.
    pub remote: SocketAddr,
    /// Local address to send from, where the choice matters.
    pub local_ip: Option<IpAddr>,
    /// Which local port to send from: 0 is where we listen.
    pub socket: u16,
    /// Where the way leads over a relay: how to send to that one, and for whom it is.
    pub via: Option<Via>,
    /// The largest inner packet that fits one sealed frame on this path as far as is known. Longer
    /// ones go in fragments.
    pub inner_len_max: usize,
    /// The same once the search for it is over, if it is less than our device takes: what inner
    /// senders are told, by ICMP and by the MSS of their handshakes. Never while a search goes on,
    /// because they remember it for minutes.
    pub inner_mtu: Option<usize>,
    /// To be counted for each frame sent.
    pub traffic: Arc<Traffic>,
    /// What carries the packets: sealed here, or handed to [`Net::send_frames`](crate::Net::send_frames).
    pub plane: Plane,
}

/// Somebody for whom we relay.
#[derive(Debug, Clone)]
struct Client {
    outbound: Arc<Outbound>,
    credit: Arc<Credit>,
}

/// Where to pass on what one client sends to another.
///
/// In place: take the frame apart as usual (the sender's session opens it), let [`RelayTo::take`] allow
/// its length, give the inner frame to [`readdress`](shadowmesh_wire::envelope::readdress) with
/// [`RelayTo::source`], seal the same bytes with [`Outbound::sealer`] of [`RelayTo::outbound`], count it
/// in that one's `traffic`, and send it to that one's address. The length stays as it was.
#[derive(Debug, Clone, Copy)]
pub struct RelayTo<'f> {
    /// How to send to the receiver. Its `via` is `None`.
    pub outbound: &'f Arc<Outbound>,
    /// The sender's label, to be put in the place of the receiver's.
    pub source: Label,
    sender: &'f Credit,
    receiver: &'f Credit,
    relayed: &'f RelayCounters,
}

/// The first part of a way that leads over a relay.
#[derive(Debug)]
pub struct Via {
    /// How to send to the relay. Its own `via` is `None`.
    pub relay: Arc<Outbound>,
    /// Names the peer to the relay.
    pub label: Label,
}

/// How to receive under one receiver index.
#[derive(Debug)]
pub struct Inbound {
    /// Who sends under this index.
    pub peer: PeerId,
    /// Opens frames of the current epoch and, during the overlap, of the one before.
    pub opener: Arc<Opener>,
    /// One window for all epochs of the session, because the counter runs on through epochs.
    pub window: Arc<SharedWindow>,
    /// What came in pieces. One for all epochs of the session.
    pub fragments: Arc<Mutex<Reassembler>>,
    /// As [`Outbound::inner_mtu`]: what the peer's TCP may be told of the way to it.
    pub inner_mtu: Option<usize>,
    /// The peer is a member: packets may flow. A relay, or who only uses us as one, has none, whole or in
    /// pieces.
    pub takes_packets: bool,
    /// Which of our relays the peer is, if it is one: it may pass on what others send us.
    pub relay_slot: Option<u16>,
    /// We pass on what the peer sends to others.
    pub relays_for: bool,
    /// To be counted for each frame opened.
    pub traffic: Arc<Traffic>,
}

/// What QUIC needs of every path (RFC 9000 §14.1).
const QUIC_LEN_MIN: usize = 1200;
/// Inner bytes of a frame that every IPv4 path passes.
const LONG_FRAME: u64 = 512;

/// Frames and bytes (of inner content) of one session. Also how `Net` notices silence.
#[derive(Debug, Default)]
pub struct Traffic {
    sent_frames: AtomicU64,
    sent_bytes: AtomicU64,
    received_frames: AtomicU64,
    received_bytes: AtomicU64,
    long_frames: AtomicU64,
}

impl RelayTo<'_> {
    /// Whether a frame of so many bytes may go, which then counts for the sender and the receiver. True:
    /// on its way the network may cut it (IPv4 without DF), because the path to the receiver is not
    /// known to take it, and QUIC takes for granted that 1200 bytes pass. HOT PATH.
    ///
    /// # Errors
    /// [`DropReason::RelayTooLong`] and [`DropReason::RelayRate`].
    // PROTOCOL SM-RL-3
    // PROTOCOL SM-RL-7
    pub fn take(&self, frame_len: usize, now: Instant) -> Result<bool, DropReason> {
        let fits = frame_len <= self.outbound.inner_len_max + OVERHEAD;
        if !fits && frame_len > QUIC_LEN_MIN + ENVELOPE_OVERHEAD {
            return Err(DropReason::RelayTooLong);
        }
        let allowed =
            self.sender.send(frame_len, now) && self.receiver.receive(self.source, frame_len, now);
        if !allowed {
            return Err(DropReason::RelayRate);
        }
        self.relayed.passed_on(frame_len);
        Ok(!fits)
    }
}

impl Outbound {
    /// Whether this says the same.
    fn is(&self, other: &Self) -> bool {
        // Whoever adds a field is reminded of it here.
        let Self {
            peer,
            sealer,
            remote,
            local_ip,
            socket,
            via,
            inner_len_max,
            inner_mtu,
            traffic,
            plane,
        } = self;
        let via_is = match (via, &other.via) {
            (Some(via), Some(other)) => {
                Arc::ptr_eq(&via.relay, &other.relay) && via.label == other.label
            }
            (via, other) => via.is_none() && other.is_none(),
        };
        via_is
            && Arc::ptr_eq(sealer, &other.sealer)
            && Arc::ptr_eq(traffic, &other.traffic)
            && (peer, remote, local_ip, socket)
                == (&other.peer, &other.remote, &other.local_ip, &other.socket)
            && (inner_len_max, inner_mtu, plane)
                == (&other.inner_len_max, &other.inner_mtu, &other.plane)
    }
}

impl Inbound {
    /// Whether this says the same.
    fn is(&self, other: &Self) -> bool {
        let Self {
            peer,
            opener,
            window,
            fragments,
            inner_mtu,
            takes_packets,
            relay_slot,
            relays_for,
            traffic,
        } = self;
        Arc::ptr_eq(opener, &other.opener)
            && Arc::ptr_eq(window, &other.window)
            && Arc::ptr_eq(fragments, &other.fragments)
            && Arc::ptr_eq(traffic, &other.traffic)
            && (peer, inner_mtu, takes_packets)
                == (&other.peer, &other.inner_mtu, &other.takes_packets)
            && (relay_slot, relays_for) == (&other.relay_slot, &other.relays_for)
    }
}

impl Forwarding {
    pub(crate) fn new(relayed: Arc<RelayCounters>) -> Self {
        Self {
            relayed,
            ..Self::default()
        }
    }

    /// How to send to `peer`, if there is a session.
    pub fn outbound(&self, peer: &PeerId) -> Option<&Arc<Outbound>> {
        let outbound = self.outbound.get(self.hash.hash_one(peer));
        outbound.filter(|outbound| outbound.peer == *peer)
    }

    /// How to open a frame under `index`, if it is one of ours. HOT PATH.
    pub fn inbound(&self, index: ReceiverIndex) -> Option<&Arc<Inbound>> {
        self.inbound.get(index.0)
    }

    /// Whether a peer with a session is at this address. Anybody may claim to be there, so this is
    /// a reason to look at a datagram sooner and no proof.
    pub fn knows(&self, remote: SocketAddr) -> bool {
        self.remotes.get(self.hash.hash_one(remote)).is_some()
    }

    /// Where an envelope goes that `from` sent for the peer with this label. Good for all datagrams of a
    /// run from the one to the other. HOT PATH.
    ///
    /// # Errors
    /// [`DropReason::RelayNotServed`]: we do not relay for the sender. [`DropReason::RelayUnknown`]:
    /// nobody with that label has a session here; then the frame is to be handed to `Net`, which tells
    /// the sender.
    // PROTOCOL SM-RL-4
    pub fn relay(&self, from: &PeerId, to: Label) -> Result<RelayTo<'_>, DropReason> {
        let source = Label::of(from);
        let sender = self.client(source);
        let sender = sender
            .filter(|client| client.outbound.peer == *from)
            .ok_or(DropReason::RelayNotServed)?;
        let receiver = self.client(to).ok_or(DropReason::RelayUnknown)?;
        Ok(RelayTo {
            outbound: &receiver.outbound,
            source,
            sender: &sender.credit,
            receiver: &receiver.credit,
            relayed: &self.relayed,
        })
    }

    fn client(&self, label: Label) -> Option<&Client> {
        let client = self.clients.get(self.hash.hash_one(label));
        client.filter(|client| Label::of(&client.outbound.peer) == label)
    }

    #[cfg(test)]
    pub(crate) fn indices(&self) -> impl Iterator<Item = ReceiverIndex> + '_ {
        self.inbound.keys().map(ReceiverIndex)
    }

    /// Whether two values say the same of these peers, and nothing of anybody else.
    #[cfg(test)]
    pub(crate) fn says_what<'p>(
        &self,
        other: &Self,
        mut peers: impl Iterator<Item = &'p PeerId>,
    ) -> bool {
        let lens = |this: &Self| {
            let (outbound, inbound) = (this.outbound.keys().count(), this.inbound.keys().count());
            (
                outbound,
                inbound,
                this.clients.keys().count(),
                this.remotes.keys().count(),
            )
        };
        let same_inbound = |index: ReceiverIndex| match (self.inbound(index), other.inbound(index))
        {
            (Some(one), Some(other)) => one.is(other),
            _ => false,
        };
        lens(self) == lens(other)
            && self.indices().all(same_inbound)
            && peers.all(|peer| {
                let label = Label::of(peer);
                let same_client = match (self.client(label), other.client(label)) {
                    (Some(one), Some(other)) => Arc::ptr_eq(&one.credit, &other.credit),
                    (one, other) => one.is_none() && other.is_none(),
                };
                let same_outbound = match (self.outbound(peer), other.outbound(peer)) {
                    (Some(one), Some(two)) => {
                        one.is(two) && self.knows(one.remote) && other.knows(one.remote)
                    }
                    (one, other) => one.is_none() && other.is_none(),
                };
                same_client && same_outbound
            })
    }

    /// How to send to `peer` from now on, if at all. False: as before.
    pub(crate) fn set_outbound(
        self: &mut Arc<Self>,
        peer: &PeerId,
        outbound: Option<Outbound>,
    ) -> bool {
        let before = self.outbound(peer);
        let same = match (before, &outbound) {
            (Some(before), Some(outbound)) => before.is(outbound),
            (before, outbound) => before.is_none() && outbound.is_none(),
        };
        if same {
            return false;
        }
        let left = before.map(|before| before.remote);
        let this = Arc::make_mut(self);
        if let Some(left) = left {
            this.count_remote(left, |peers| peers - 1);
        }
        let key = this.hash.hash_one(peer);
        match outbound {
            Some(outbound) => {
                this.count_remote(outbound.remote, |peers| peers + 1);
                this.outbound.insert(key, Arc::new(outbound));
            }
            None => this.outbound.remove(key),
        }
        true
    }

    fn count_remote(&mut self, remote: SocketAddr, change: impl FnOnce(u32) -> u32) {
        let key = self.hash.hash_one(remote);
        match change(self.remotes.get(key).copied().unwrap_or(0)) {
            0 => self.remotes.remove(key),
            peers => self.remotes.insert(key, peers),
        }
    }

    /// Who has this label, and what it may have relayed. As before: the value stays the same one.
    pub(crate) fn set_client(
        self: &mut Arc<Self>,
        label: Label,
        client: Option<(Arc<Outbound>, Arc<Credit>)>,
    ) {
        let same = match (self.client(label), &client) {
            (Some(before), Some((outbound, credit))) => {
                Arc::ptr_eq(&before.outbound, outbound) && Arc::ptr_eq(&before.credit, credit)
            }
            (before, client) => before.is_none() && client.is_none(),
        };
        if same {
            return;
        }
        let this = Arc::make_mut(self);
        let key = this.hash.hash_one(label);
        match client {
            Some((outbound, credit)) => this.clients.insert(key, Client { outbound, credit }),
            None => this.clients.remove(key),
        }
    }

    /// How to open frames under an index from now on, if at all. As before: the value stays the same one.
    pub(crate) fn set_inbound(
        self: &mut Arc<Self>,
        index: ReceiverIndex,
        inbound: Option<Inbound>,
    ) {
        let same = match (self.inbound(index), &inbound) {
            (Some(before), Some(inbound)) => before.is(inbound),
            (before, inbound) => before.is_none() && inbound.is_none(),
        };
        if same {
            return;
        }
        let this = Arc::make_mut(self);
        match inbound {
            Some(inbound) => this.inbound.insert(index.0, Arc::new(inbound)),
            None => this.inbound.remove(index.0),
        }
    }
}

impl Traffic {
    /// Counts frames sent. HOT PATH: once for each batch.
    pub fn sent(&self, frames: u64, bytes: u64) {
        self.sent_frames.fetch_add(frames, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes > frames * LONG_FRAME {
            self.long_frames.fetch_add(frames, Ordering::Relaxed);
        }
    }

    /// Counts a probe sent. However long, it is no reason to send another.
    pub(crate) fn probe_sent(&self, bytes: u64) {
        self.sent_frames.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Frames sent that not every path passes: a reason to confirm that this one does.
    pub(crate) fn long_frames(&self) -> u64 {
        self.long_frames.load(Ordering::Relaxed)
    }

    /// Counts authentic frames received. HOT PATH: once for each batch.
    pub fn received(&self, frames: u64, bytes: u64) {
        self.received_frames.fetch_add(frames, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The figures now.
    pub fn totals(&self) -> TrafficTotals {
        TrafficTotals {
            sent_frames: self.sent_frames.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            received_frames: self.received_frames.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
        }
    }
}

/// A reading of [`Traffic`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct TrafficTotals {
    /// Frames sealed and handed to the link.
    pub sent_frames: u64,
    /// Inner bytes of these.
    pub sent_bytes: u64,
    /// Frames opened.
    pub received_frames: u64,
    /// Inner bytes of these.
    pub received_bytes: u64,
}

impl TrafficTotals {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            sent_frames: self.sent_frames + other.sent_frames,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            received_frames: self.received_frames + other.received_frames,
            received_bytes: self.received_bytes + other.received_bytes,
        }
    }
}
