//! Sessions: data keys with one peer, from the handshake to their end.
//!
//! A session belongs to one control connection and lives no longer. It is made once both sides
//! have said Hello on the authenticated connection ([`Session::establish`]), moves from epoch to
//! epoch ([`epochs`]), is watched for silence ([`liveness`]), and competes with another session of
//! the same peer when both sides connected at once ([`precedence`]).

mod epochs;
mod liveness;
mod precedence;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quinn_proto::crypto;
use shadowmesh_crypto::{Cipher, ExportError, KeyChain, SharedWindow, choose};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::Hello;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::probe::{Probe, ProbeKind};
use shadowmesh_wire::sealed::{HEADER_LEN, OVERHEAD, ReceiverIndex, TAG_LEN};

pub(crate) use epochs::{EpochError, Epochs, Step};
pub(crate) use liveness::{Liveness, Pulse, TICK as LIVENESS_TICK};
pub(crate) use precedence::{Contender, newcomer_wins};

use crate::bucket::Bucket;
use crate::drops::DropCounters;
use crate::forwarding::{Inbound, Outbound, Traffic};
use crate::fragments::Reassembler;
use crate::memory::Memory;
use crate::paths::{Counts, Paths};
use crate::plane::{Choice, Plane};

/// Version of the protocol on top of QUIC.
pub(crate) const PROTOCOL_VERSION: u16 = 1;

/// Messages for the parent that one session may bring at once, and in which time one more. They are asked for
/// by people.
// PROTOCOL SM-CT-5
pub(crate) const MESSAGES_BURST: u32 = 16;
const MESSAGES_INTERVAL: Duration = Duration::from_secs(1);
/// Limit: pings under way in one session; the oldest is forgotten.
const PINGS_MAX: usize = 64;

/// A session with a peer.
pub(crate) struct Session {
    pub(crate) peer: PeerId,
    pub(crate) epochs: Epochs,
    pub(crate) liveness: Liveness,
    /// What the peer said at the start.
    pub(crate) theirs: Theirs,
    pub(crate) cipher: Cipher,
    /// What carries its packets.
    pub(crate) plane: Choice,
    pub(crate) established_at: Instant,
    /// Where the peer receives by an earlier session, until it is known to have this one: packets go by that.
    pub(crate) beside: Option<ReceiverIndex>,
    /// Last round trip measured by a probe.
    pub(crate) rtt: Option<Duration>,
    pub(crate) traffic: Arc<Traffic>,
    /// Probes of ours that left: the data plane did not send them.
    probes_sent: u64,
    window: Arc<SharedWindow>,
    fragments: Arc<Mutex<Reassembler>>,
    /// Probes under way. Limit: [`PINGS_MAX`].
    pings: VecDeque<Ping>,
    /// Messages for the parent.
    messages: Bucket,
}

/// A probe request under way.
pub(crate) struct Ping {
    token: u64,
    /// The parent asked for it, and wants to hear of the answer.
    asked: bool,
    sent_at: Instant,
}

/// The parts of the peer's Hello that stay of use.
pub(crate) struct Theirs {
    pub(crate) boot: u64,
    pub(crate) index: ReceiverIndex,
    pub(crate) reset_token: [u8; 16],
    pub(crate) mtu: u16,
    /// Which of its calls this is, where it called us.
    pub(crate) call: Option<u64>,
}

/// Why no session came out of two Hellos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EstablishError {
    #[error("peer speaks protocol version {0}, we speak {PROTOCOL_VERSION}")]
    Version(u16),
    #[error("{}", no_common_cipher(*.0))]
    NoCipher([u32; 2]),
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// What people are told on both sides when a handshake ends for want of a cipher; `ours` are our
/// measured speeds. Whoever takes one cipher only knows what the other side takes.
pub(crate) fn no_common_cipher(ours: [u32; 2]) -> String {
    let [aes, chacha] = Cipher::ALL;
    match ours {
        [_, 0] => format!("no common cipher: we allow only {aes}, the peer only {chacha}"),
        [0, _] => format!("no common cipher: we allow only {chacha}, the peer only {aes}"),
        _ => "no common cipher: the peer allows none".into(),
    }
}

impl Session {
    /// Makes the session of an authenticated connection on which both Hellos were exchanged.
    // PROTOCOL SM-CT-2
    // PROTOCOL SM-EP-1
    // PROTOCOL SM-SF-8
    pub(crate) fn establish(
        peer: PeerId,
        quic: &dyn crypto::Session,
        side: quinn_proto::Side,
        ours: (ReceiverIndex, [u32; 2]),
        hello: &Hello,
        (plane, memory): (Choice, &Arc<Memory>),
        now: Instant,
    ) -> Result<Self, EstablishError> {
        if hello.version != PROTOCOL_VERSION {
            return Err(EstablishError::Version(hello.version));
        }
        let (index, speeds) = ours;
        let cipher = choose(speeds, hello.cipher_speeds).ok_or(EstablishError::NoCipher(speeds))?;
        let chain = KeyChain::export(quic, side, cipher, index, hello.index)?;
        Ok(Self {
            peer,
            epochs: Epochs::new(chain, now),
            liveness: Liveness::new(now),
            theirs: Theirs {
                boot: hello.boot,
                index: hello.index,
                reset_token: hello.reset_token,
                mtu: hello.mtu,
                call: hello.call,
            },
            cipher,
            plane,
            established_at: now,
            // The server said its Hello last, so it has the session.
            beside: hello.beside.filter(|_| side.is_server()),
            rtt: None,
            traffic: Arc::default(),
            probes_sent: 0,
            window: Arc::new(SharedWindow::new()),
            fragments: Arc::new(Mutex::new(Reassembler::new(memory))),
            pings: VecDeque::new(),
            messages: Bucket::full(now),
        })
    }

    /// Gives up packets whose rest has not come in time, to whatever thread their pieces came.
    // PROTOCOL SM-MT-4
    pub(crate) fn expire_fragments(&self, drops: &DropCounters, now: Instant) {
        // A thread that panicked while it held the lock left whole packets behind or none.
        let mut fragments = self
            .fragments
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        fragments.expire(now, |reason| drops.count(reason));
    }

    /// Whether the peer may tell the parent one thing more.
    pub(crate) fn may_tell_parent(&mut self, now: Instant) -> bool {
        self.messages.take(MESSAGES_BURST, MESSAGES_INTERVAL, now)
    }

    /// Whether packets go as QUIC datagrams.
    pub(crate) fn uses_quic(&self) -> bool {
        self.plane.plane() == Plane::Quic
    }

    /// How the data plane sends.
    pub(crate) fn outbound(&self, paths: &Paths, device_mtu: u16) -> Outbound {
        let path = paths.current();
        let (inner_len_max, inner_mtu) = paths.inner_len(device_mtu);
        Outbound {
            inner_len_max,
            inner_mtu,
            peer: self.peer,
            sealer: self.epochs.sealer(),
            remote: path.remote,
            local_ip: path.local_ip,
            socket: path.socket,
            via: None,
            traffic: self.traffic.clone(),
            plane: self.plane.plane(),
        }
    }

    /// How the data plane receives.
    pub(crate) fn inbound(&self, paths: &Paths, device_mtu: u16) -> Inbound {
        Inbound {
            inner_mtu: paths.inner_len(device_mtu).1,
            fragments: self.fragments.clone(),
            peer: self.peer,
            opener: self.epochs.opener(),
            window: self.window.clone(),
            takes_packets: false,
            relay_slot: None,
            relays_for: false,
            traffic: self.traffic.clone(),
        }
    }

    /// A sealed probe request, whose answer is awaited. `asked`: the parent wants to hear of it.
    /// `None`: the epoch has no counters left.
    pub(crate) fn ask(&mut self, token: u64, asked: bool, now: Instant) -> Option<Vec<u8>> {
        let request = self.ask_openly(token, asked, now);
        self.seal_probe(request, 0)
    }

    /// Such a request for QUIC to encrypt.
    pub(crate) fn ask_openly(&mut self, token: u64, asked: bool, now: Instant) -> Probe {
        self.ping_sent(token, asked, now);
        Probe {
            kind: ProbeKind::Request,
            token,
        }
    }

    /// A probe leaves: the other side counts it too, like every frame that it opens.
    pub(crate) fn probe_leaves(&mut self, len: usize) {
        self.traffic.probe_sent(len as u64);
        self.probes_sent += 1;
        self.liveness.probe_sent();
    }

    /// Frames so far, without our own probes.
    pub(crate) fn counts(&self) -> Counts {
        let totals = self.traffic.totals();
        Counts {
            sent: totals.sent_frames.saturating_sub(self.probes_sent),
            received: totals.received_frames,
        }
    }

    /// The sealed answer to a probe request. `None`: the epoch has no counters left.
    pub(crate) fn answer(&mut self, request: Probe) -> Option<Vec<u8>> {
        self.seal_probe(request.reply(), 0)
    }

    /// A sealed probe request, padded to a datagram of `len` bytes if it is shorter. `None`: the epoch
    /// has no counters left.
    pub(crate) fn seal_request(&mut self, token: u64, len: usize) -> Option<Vec<u8>> {
        let kind = ProbeKind::Request;
        self.seal_probe(Probe { kind, token }, len)
    }

    fn seal_probe(&mut self, probe: Probe, len: usize) -> Option<Vec<u8>> {
        let body = probe.encode();
        let mut datagram = vec![0; len.max(HEADER_LEN + 1 + body.len() + TAG_LEN)];
        datagram[HEADER_LEN] = InnerType::Probe.into();
        datagram[HEADER_LEN + 1..][..body.len()].copy_from_slice(&body);
        let sealer = self.epochs.sealer();
        sealer.seal(sealer.reserve(1)?, &mut datagram);
        self.probe_leaves(datagram.len() - OVERHEAD);
        Some(datagram)
    }

    /// Remembers a probe sent.
    fn ping_sent(&mut self, token: u64, asked: bool, sent_at: Instant) {
        if self.pings.len() >= PINGS_MAX {
            self.pings.pop_front();
        }
        self.pings.push_back(Ping {
            token,
            asked,
            sent_at,
        });
    }

    /// Gives up the probes under way, to the session that takes the place of this one.
    pub(crate) fn take_pings(&mut self) -> VecDeque<Ping> {
        std::mem::take(&mut self.pings)
    }

    /// Takes over the probes of a session whose place this one takes: their answers come here.
    pub(crate) fn adopt_pings(&mut self, mut earlier: VecDeque<Ping>) {
        earlier.append(&mut self.pings);
        let over = earlier.len().saturating_sub(PINGS_MAX);
        earlier.drain(..over);
        self.pings = earlier;
    }

    /// A probe came back: its round trip and whether the parent asked for it, if it is one of ours
    /// and the first answer to it.
    pub(crate) fn ping_answered(&mut self, token: u64, now: Instant) -> Option<(Duration, bool)> {
        let at = self.pings.iter().position(|ping| ping.token == token)?;
        let ping = self.pings.remove(at)?;
        let rtt = now.saturating_duration_since(ping.sent_at);
        self.rtt = Some(rtt);
        Some((rtt, ping.asked))
    }

    /// Whether `datagram` ends in the token by which the peer says that it lost our keys.
    // PROTOCOL SM-SF-6
    pub(crate) fn is_reset(&self, datagram: &[u8]) -> bool {
        let Some(tail) = datagram.last_chunk::<16>() else {
            return false;
        };
        // Constant time: who guesses at the token must not learn how far the guess was right.
        let differing = tail
            .iter()
            .zip(&self.theirs.reset_token)
            .fold(0, |differing, (a, b)| differing | (a ^ b));
        differing == 0
    }
}
