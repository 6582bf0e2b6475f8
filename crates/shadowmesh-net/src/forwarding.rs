//! What the data plane needs to know of sessions, as one immutable value.
//!
//! The threads that move packets hold an `Arc<Forwarding>` and never ask [`Net`](crate::Net)
//! anything: it says under which key and to which address a frame for a peer goes, and which keys
//! and window belong to a receiver index. `Net` publishes a new value whenever one of these facts
//! changes; the old one, and with it old keys, goes when the last thread lets go of it. What
//! changes for every frame (counters, replay windows, traffic) lives in atomics and mutexes inside,
//! shared by successive values.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
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

/// Immutable snapshot of all sessions, for the data plane.
#[derive(Debug, Default, Clone)]
pub struct Forwarding {
    /// Limit: one entry for each peer with a session.
    outbound: BTreeMap<PeerId, Arc<Outbound>>,
    /// Limit: two entries for each peer, the session in use and the one it replaced.
    inbound: HashMap<ReceiverIndex, Arc<Inbound>, BuildHasherDefault<IndexHasher>>,
    /// For whom we relay, by label. Limit: one entry for each peer with a session. Hashed with a key:
    /// labels are chosen by those who have them.
    clients: HashMap<Label, Client>,
    relayed: Arc<RelayCounters>,
    /// Where the peers of `outbound` are. Hashed with a key: strangers choose what is looked up.
    remotes: HashSet<SocketAddr>,
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

impl Forwarding {
    pub(crate) fn new(relayed: Arc<RelayCounters>) -> Self {
        Self {
            relayed,
            ..Self::default()
        }
    }

    /// How to send to `peer`, if there is a session.
    pub fn outbound(&self, peer: &PeerId) -> Option<&Arc<Outbound>> {
        self.outbound.get(peer)
    }

    /// How to open a frame under `index`, if it is one of ours. HOT PATH.
    pub fn inbound(&self, index: ReceiverIndex) -> Option<&Arc<Inbound>> {
        self.inbound.get(&index)
    }

    /// Whether a peer with a session is at this address. Anybody may claim to be there, so this is
    /// a reason to look at a datagram sooner and no proof.
    pub fn knows(&self, remote: SocketAddr) -> bool {
        self.remotes.contains(&remote)
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
        let sender = self.clients.get(&source);
        let sender = sender
            .filter(|client| client.outbound.peer == *from)
            .ok_or(DropReason::RelayNotServed)?;
        let receiver = self.clients.get(&to).ok_or(DropReason::RelayUnknown)?;
        Ok(RelayTo {
            outbound: &receiver.outbound,
            source,
            sender: &sender.credit,
            receiver: &receiver.credit,
            relayed: &self.relayed,
        })
    }

    /// The peers that have a session, in order.
    pub fn peers(&self) -> impl Iterator<Item = &PeerId> {
        self.outbound.keys()
    }

    #[cfg(test)]
    #[allow(clippy::disallowed_methods, reason = "the caller makes a set of them")]
    pub(crate) fn indices(&self) -> impl Iterator<Item = ReceiverIndex> + '_ {
        self.inbound.keys().copied()
    }

    pub(crate) fn insert_outbound(&mut self, outbound: Outbound) -> Arc<Outbound> {
        self.remotes.insert(outbound.remote);
        let outbound = Arc::new(outbound);
        self.outbound.insert(outbound.peer, outbound.clone());
        outbound
    }

    /// The first with a label keeps it.
    pub(crate) fn insert_client(&mut self, outbound: Arc<Outbound>, credit: Arc<Credit>) {
        let client = Client { outbound, credit };
        let label = Label::of(&client.outbound.peer);
        self.clients.entry(label).or_insert(client);
    }

    pub(crate) fn insert_inbound(&mut self, index: ReceiverIndex, inbound: Inbound) {
        self.inbound.insert(index, Arc::new(inbound));
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

/// Takes a receiver index as its own hash.
///
/// We draw the indices ourselves, uniformly; a stranger can choose what to look up but not what is
/// stored, so it cannot make the table degenerate.
#[derive(Debug, Default, Clone, Copy)]
pub struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
