//! What [`Net`](crate::Net) takes in and gives out, as plain values.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use shadowmesh_crypto::{Cipher, PublicIdentity};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::ControlMessage;
use shadowmesh_wire::way::Way;

use crate::forwarding::TrafficTotals;
use crate::lives::Copied;
use crate::plane::PlaneStatus;

/// The words of [`PeerStatus::last_error`] where the peer's configuration does not list us.
pub const NOT_LISTED: &str = "refused: no peer with our PeerId stands in its configuration";
/// The same where the peer said goodbye.
pub const STOPPED_THERE: &str = "stopped there: its node said goodbye";
/// The same where nothing came back.
pub const NO_ANSWER: &str = "no answer";

/// Where a datagram came from, as the link saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The sender's address.
    pub remote: SocketAddr,
    /// Our address it was sent to, if the operating system told.
    pub local_ip: Option<IpAddr>,
    /// The two ECN bits of the IP header, if the operating system told.
    pub ecn: Option<u8>,
    /// Which local port it came to: 0 is where we listen, others were opened to send from.
    pub socket: u16,
}

impl Received {
    /// A datagram from `remote` of which nothing else is known.
    pub fn from_remote(remote: SocketAddr) -> Self {
        Self {
            remote,
            local_ip: None,
            ecn: None,
            socket: 0,
        }
    }

    /// A datagram that a relay passed on, as it is judged: it came by the way `remote` over that relay.
    pub fn over_relay(self, remote: SocketAddr) -> Self {
        Self {
            remote,
            local_ip: None,
            socket: 0,
            ..self
        }
    }

    /// Whether a relay passed it on: then there is no other relay's envelope in it.
    // PROTOCOL SM-RL-2
    pub fn is_relayed(&self) -> bool {
        matches!(Way::of(self.remote), Way::Relayed { .. })
    }

    /// With IPv4 addresses as such, not mapped into IPv6 as a dual-stack socket tells them: an
    /// address must compare equal however it came.
    pub(crate) fn canonical(self) -> Self {
        Self {
            remote: canonical(self.remote),
            local_ip: self.local_ip.map(|ip| ip.to_canonical()),
            ..self
        }
    }
}

/// An address with IPv4 as such, see [`Received::canonical`]. A link-local address keeps its interface,
/// without which nothing can be sent there.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip.is_ipv4() => SocketAddr::new(ip, address.port()),
        _ => address,
    }
}

/// The number of the further socket by which clients ask a relay a second time, where it has one: beyond those
/// that a search opens. It is opened by the host, which says at which port ([`Net::set_second_port`]).
///
/// [`Net::set_second_port`]: crate::Net::set_second_port
// PROTOCOL SM-RL-10
pub const SECOND_SOCKET: u16 = 257;

/// A datagram (or a run of equal-sized ones) to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub remote: SocketAddr,
    /// Our address to send from, where the choice matters.
    pub local_ip: Option<IpAddr>,
    /// Which local port to send from: 0 is where we listen; any other is opened when it is first used.
    pub socket: u16,
    /// ECN bits to set.
    pub ecn: Option<u8>,
    /// The network may cut it (IPv4 without DF): QUIC needs 1200 bytes (RFC 9000 §14), and not every
    /// path has them. Never for sealed frames, whose length is the search's to find.
    pub may_fragment: bool,
    /// Size of each datagram but the last, when `contents` holds more than one.
    pub segment_size: Option<usize>,
    /// The bytes.
    pub contents: Vec<u8>,
}

/// Something the parent of [`Net`](crate::Net) should know. Of what is state (all but `PingReply` and
/// `Control`) the last word for each peer is never lost; what came before it in the same input may be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NetEvent {
    /// The handshake that we started is complete on our side; the session follows as soon as the
    /// peer has confirmed it.
    Handshaken {
        /// With whom.
        peer: PeerId,
        /// Time since our first Initial.
        took: Duration,
        /// Whether an earlier session was resumed.
        resumed: bool,
        /// Whether the peer took our early data.
        early_data: bool,
    },
    /// A session is up: frames can be sealed for the peer. Also sent when a new session replaces
    /// one that was up.
    PeerUp {
        /// With whom.
        peer: PeerId,
        /// Where its datagrams come from.
        path: PathInfo,
        /// Chosen for this session.
        cipher: Cipher,
    },
    /// The peer has no session any more.
    PeerDown {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: DownReason,
    },
    /// The session moved to a new epoch.
    Rekeyed {
        /// With whom.
        peer: PeerId,
        /// The epoch now used for sending.
        epoch: u32,
    },
    /// The peer's datagrams now take another way.
    PathChanged {
        /// Whose.
        peer: PeerId,
        /// The new one.
        path: PathInfo,
    },
    /// The peer's packets are carried by something else now.
    PlaneChanged {
        /// Whose.
        peer: PeerId,
        /// By what, and why.
        plane: PlaneStatus,
    },
    /// Answer to [`Net::ping`](crate::Net::ping).
    PingReply {
        /// Who answered.
        peer: PeerId,
        /// As returned by `ping`.
        token: u64,
        /// Round-trip time.
        rtt: Duration,
        /// The way it took.
        path: PathInfo,
    },
    /// A peer's full public key was seen and verified; worth keeping across restarts.
    LearnedKey(Arc<PublicIdentity>),
    /// Nothing comes back from the peer by UDP: a stream to it is wanted, if you know where to.
    WantStream {
        /// To whom.
        peer: PeerId,
    },
    /// A probe of a session came by this stream in a QUIC packet. Of sealed frames whoever opens them knows.
    StreamCarries {
        /// Where it came from, as the host names the stream.
        address: SocketAddr,
    },
    /// Two machines use one identity, and take the session in turns. Said once an hour, as long as that goes on;
    /// [`PeerStatus::copied`] says so at any time.
    IdentityCopied {
        /// With whom.
        peer: PeerId,
        /// Whose.
        copied: Copied,
    },
    /// Of the local ports opened to send from, only these are still wanted.
    SocketsDone {
        /// Their numbers.
        keep: Vec<u16>,
    },
    /// A control message that is not `Net`'s business.
    Control {
        /// From whom.
        peer: PeerId,
        /// What.
        message: ControlMessage,
    },
}

impl NetEvent {
    /// Whom it is about, if it is about one peer.
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            NetEvent::Handshaken { peer, .. }
            | NetEvent::PeerUp { peer, .. }
            | NetEvent::PeerDown { peer, .. }
            | NetEvent::Rekeyed { peer, .. }
            | NetEvent::PathChanged { peer, .. }
            | NetEvent::PlaneChanged { peer, .. }
            | NetEvent::PingReply { peer, .. }
            | NetEvent::WantStream { peer }
            | NetEvent::IdentityCopied { peer, .. }
            | NetEvent::Control { peer, .. } => Some(*peer),
            NetEvent::LearnedKey(key) => Some(key.peer_id()),
            NetEvent::StreamCarries { .. } | NetEvent::SocketsDone { .. } => None,
        }
    }
}

/// The way datagrams take to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathInfo {
    /// Straight to this address.
    Direct(SocketAddr),
    /// Over a relay.
    Relayed {
        /// Which.
        relay: PeerId,
    },
    /// Over a stream that the host holds: WebSocket over TLS.
    Stream,
}

impl PathInfo {
    /// `direct`, for people and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            PathInfo::Direct(_) => "direct",
            PathInfo::Relayed { .. } => "relay",
            PathInfo::Stream => "web",
        }
    }

    /// The UDP address datagrams for the peer are sent to; `None` where they go over somebody or
    /// something else.
    pub fn remote(&self) -> Option<SocketAddr> {
        match self {
            PathInfo::Direct(remote) => Some(*remote),
            PathInfo::Relayed { .. } | PathInfo::Stream => None,
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// The peer said that it lost our keys.
    Reset,
    /// Nothing came back for too long.
    Silent,
    /// No new keys could be agreed on for too long.
    KeyTooOld,
    /// The peer closed it, leaving.
    PeerLeft,
    /// The peer does not, or no longer, take us as a member.
    Refused,
    /// The peer found it dead, and will call.
    FoundDead,
    /// The peer has another session with our identity.
    TakenOver,
    /// The peer closed it for another reason, or the connection failed.
    ConnectionLost,
    /// We removed the peer.
    Removed,
    /// We are shutting down.
    Shutdown,
}

impl DownReason {
    /// Short lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            DownReason::Reset => "reset",
            DownReason::Silent => "silent",
            DownReason::KeyTooOld => "key_too_old",
            DownReason::PeerLeft => "peer_left",
            DownReason::Refused => "refused",
            DownReason::FoundDead => "found_dead",
            DownReason::TakenOver => "taken_over",
            DownReason::ConnectionLost => "connection_lost",
            DownReason::Removed => "removed",
            DownReason::Shutdown => "shutdown",
        }
    }
}

/// How far we are with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerState {
    /// No session, and nowhere to call, or no call so far.
    Idle,
    /// An attempt is under way.
    Connecting,
    /// The last attempt failed; the next one is set.
    Waiting,
    /// A session is up, and what was asked in it was answered.
    Up,
    /// A session is up, but nothing has come back for some seconds although something was asked.
    Silent,
}

impl PeerState {
    /// Short lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            PeerState::Idle => "idle",
            PeerState::Connecting => "connecting",
            PeerState::Waiting => "waiting",
            PeerState::Up => "up",
            PeerState::Silent => "silent",
        }
    }
}

/// One row of [`Net::status`](crate::Net::status).
#[derive(Debug, Clone)]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerId,
    /// How far.
    pub state: PeerState,
    /// The session, if up.
    pub session: Option<SessionStatus>,
    /// Frames and bytes over all sessions since the peer was added.
    pub traffic: TrafficTotals,
    /// What went wrong last, in words.
    pub last_error: Option<String>,
    /// Whether two machines use the peer's identity, or ours, in sessions with it.
    pub copied: Option<Copied>,
    /// Since it was last heard in a session; `None`: never.
    pub heard: Option<Duration>,
    /// Since the last handshake with it was complete; `None`: never.
    pub handshake: Option<Duration>,
}

/// The session part of [`PeerStatus`].
#[derive(Debug, Clone)]
pub struct SessionStatus {
    /// The way datagrams take.
    pub path: PathInfo,
    /// The local address it uses, where the choice is not left to the operating system.
    pub local_ip: Option<IpAddr>,
    /// Last measured round trip: by probe if there was one, else by QUIC.
    pub rtt: Option<Duration>,
    /// Cipher of the session.
    pub cipher: Cipher,
    /// What carries packets, and why.
    pub plane: PlaneStatus,
    /// Epoch used for sending.
    pub epoch: u32,
    /// Since the session is up.
    pub age: Duration,
    /// Since the last rekey, or since the session is up.
    pub key_age: Duration,
    /// Whether we opened the control connection.
    pub initiated: bool,
    /// Whether the handshake resumed an earlier one.
    pub resumed: bool,
    /// Our address as the peer sees it.
    pub observed: Option<SocketAddr>,
    /// The same as a relay sees it from its second port, where that was asked.
    pub observed_second: Option<SocketAddr>,
    /// Largest inner packet of the peer's device.
    pub mtu: u16,
    /// The largest IP packet that is known to pass on the path, headers of IP and UDP included;
    /// what is longer than our frames ever are is not asked for. `None` while it is searched.
    pub path_mtu: Option<usize>,
}

/// An address of ours that a peer may try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnAddress {
    /// With the port where we listen, or the one that was mapped to it.
    pub address: SocketAddr,
    /// How it came to us.
    pub kind: AddressKind,
}

/// How an address leads to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressKind {
    /// The configuration says that it leads to us. First, so that no other takes its room.
    Announced,
    /// A router maps it to us, because we asked.
    Mapped,
    /// It is one of this host.
    Host,
    /// It is one of this host, on a tunnel device that is not ours: peers in the same other VPN reach us there.
    Tunnel,
}

/// The ways to one peer, for people: what is used, what else was tried, and what became of it.
#[derive(Debug, Clone)]
pub struct PathReport {
    /// The way in use, if there is a session.
    pub current: Option<PathInfo>,
    /// Every way known, the best first.
    pub candidates: Vec<CandidateReport>,
    /// Our addresses as others see them: who says so, and what it sees.
    pub observed: Vec<(PeerId, SocketAddr)>,
}

/// One way to a peer.
#[derive(Debug, Clone)]
pub struct CandidateReport {
    /// Which.
    pub path: PathInfo,
    /// What is known of it.
    pub state: CandidateState,
    /// Last measured round trip.
    pub rtt: Option<Duration>,
}

/// What is known of a way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateState {
    /// A probe is under way, or will be soon.
    Untried,
    /// Probes to it were not answered.
    Unanswered,
    /// It was proven, and answers.
    Proven,
    /// It was proven, but answers no longer.
    Broken,
}

impl CandidateState {
    /// Short lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            CandidateState::Untried => "untried",
            CandidateState::Unanswered => "unanswered",
            CandidateState::Proven => "proven",
            CandidateState::Broken => "broken",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_on_a_link_keeps_its_interface_and_ipv4_is_ipv4() {
        use std::net::SocketAddrV6;
        let link = SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0, 3).into();
        assert_eq!(canonical(link), link);
        let mapped = "[::ffff:192.0.2.1]:7".parse().unwrap();
        assert_eq!(canonical(mapped), ([192, 0, 2, 1], 7).into());
    }
}
