//! What commands are told, and what the log says: the node's state in the words of the admin socket.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shadowmesh_io::cpu;
use shadowmesh_io::underlay;
use shadowmesh_net::{
    AddressKind as NetAddressKind, CandidateReport as NetCandidateReport, CandidateState, Copied,
    DropReason, NO_ANSWER, NOT_LISTED, NetError, NetEvent, PathInfo, PeerState as NetState,
    PeerStatus, STOPPED_THERE, SessionStatus, TrafficTotals,
};
use shadowmesh_vpn::{Node, NodePeerStatus, NodeStatus};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;

use super::Started;
use super::claims::Clash;
use super::host::HostView;
use crate::admin::report::{
    AddressKind, CallerReport, CandidateReport, CipherSpeeds, ClashReport, CopiedIdentity,
    DeviceReport, DoctorReport, HandshakeReport, MetricsReport, NodeReport, PathKind, PathReport,
    PeerCause, PeerReport, PeerState, QueueReport, RelayReport, RelayingReport, SessionCounts,
    TrafficReport, WayReport, WayState,
};
use crate::admin::{BenchFailure, PingFailure};
use crate::notices;

/// The node as a whole.
///
/// `overflow`: datagrams that the kernel dropped before we saw them.
pub fn node(
    node: &Node,
    started: &Started,
    host: &HostView,
    since: Instant,
    overflow: u64,
) -> NodeReport {
    let status = node.status(Instant::now());
    let is_up = |peer: &&NodePeerStatus| {
        let net = peer.net.as_ref();
        net.is_some_and(|net| net.state == NetState::Up)
    };
    let [aes_256_gcm, chacha20_poly1305] = started.cipher_speeds;
    NodeReport {
        id: status.id.to_string(),
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_ms: millis(since.elapsed()),
        device: DeviceReport {
            name: started.device.clone(),
            mtu: started.mtu,
            addresses: with_lengths(&started.addresses),
            problem: host.problem.clone(),
            clashes: host.clashes.iter().map(clash).collect(),
        },
        listen: started.listen.clone(),
        candidates: candidates(&status),
        relays: status
            .relays
            .iter()
            .map(|status| relay(node, status))
            .collect(),
        warnings: warnings(node, &status),
        relaying: started.relaying.then(|| {
            let (clients, datagrams, bytes) = status.relaying;
            RelayingReport {
                clients,
                datagrams,
                bytes,
            }
        }),
        peers_total: status.peers.len(),
        peers_up: status.peers.iter().filter(is_up).count(),
        cipher_speeds: CipherSpeeds {
            aes_256_gcm,
            chacha20_poly1305,
        },
        traffic: sum(status
            .peers
            .iter()
            .filter_map(|peer| Some(peer.net.as_ref()?.traffic))),
        handshakes: handshakes(node),
        drops: status
            .drops
            .iter()
            .copied()
            .chain((overflow > 0).then_some((DropReason::SocketOverflow, overflow)))
            .map(|(reason, count)| (reason.name().to_owned(), count))
            .collect(),
        refused_callers: status
            .refused_callers
            .iter()
            .map(|caller| CallerReport {
                id: caller.id.to_string(),
                address: caller.from,
                age_ms: millis(caller.at.elapsed()),
                count: caller.count,
            })
            .collect(),
        cpu_ms: cpu::process().map_or(0, |time| millis(time.total())),
        notices: notices::all(),
        memory_kib: cpu::memory().map_or(0, |memory| memory.resident / 1024),
    }
}

fn clash(clash: &Clash) -> ClashReport {
    ClashReport {
        is_loss: clash.is_loss(),
        says: clash.to_string(),
        next: clash.next_step(),
    }
}

/// What is counted, beside the node as a whole.
pub fn metrics(
    node: &Node,
    report: NodeReport,
    sessions: SessionCounts,
    queues: Vec<QueueReport>,
) -> MetricsReport {
    let (mut peers, mut paths) = ([0; 4], [0; 3]);
    for peer in &node.status(Instant::now()).peers {
        let net = peer.net.as_ref();
        peers[state(net.map_or(NetState::Idle, |net| net.state)) as usize] += 1;
        if let Some(session) = session_of(peer) {
            paths[path(node, session.path, None).kind as usize] += 1;
        }
    }
    let overflow = DropReason::SocketOverflow.name();
    let counted = |reason: &DropReason| match reason.name() {
        // The kernel counts these.
        name if name == overflow => (name, report.drops.get(name).copied().unwrap_or(0)),
        name => (name, node.drops().get(*reason)),
    };
    let up = |relay: &&RelayReport| relay.state == PeerState::Up;
    let relays_up = report.relays.iter().filter(up).count();
    MetricsReport {
        peers,
        paths,
        relays: [relays_up, report.relays.len() - relays_up],
        connectivity: node.connectivity().totals(),
        sessions,
        drops: DropReason::ALL.iter().map(counted).collect(),
        queues,
        node: report,
    }
}

/// Every peer, in the order of the configuration.
pub fn peers(node: &Node) -> Vec<PeerReport> {
    let status = node.status(Instant::now());
    status
        .peers
        .iter()
        .map(|status| peer(node, status))
        .collect()
}

fn peer(node: &Node, status: &NodePeerStatus) -> PeerReport {
    let session = session_of(status);
    let net = status.net.as_ref();
    PeerReport {
        id: status.config.id.to_string(),
        name: status.config.name.clone(),
        state: state(net.map_or(NetState::Idle, |net| net.state)),
        problem: problem(status),
        cause: cause(status),
        seen_age_ms: net.and_then(|net| net.heard).map(millis),
        handshake_age_ms: net.and_then(|net| net.handshake).map(millis),
        path: session.map(|session| session_path(node, session)),
        epoch: session.map(|session| session.epoch),
        cipher: session.map(|session| session.cipher.to_string()),
        data_plane: session.map(|session| session.plane.name().to_owned()),
        allowed_ips: status
            .config
            .allowed_ips
            .iter()
            .map(ToString::to_string)
            .collect(),
        traffic: traffic(net.map(|net| net.traffic).unwrap_or_default()),
        session_age_ms: session.map(|session| millis(session.age)),
        key_age_ms: session.map(|session| millis(session.key_age)),
        resumed: session.map(|session| session.resumed),
        observed: session.and_then(|session| session.observed),
        copied: net.and_then(|net| net.copied).map(whose),
    }
}

fn session_path(node: &Node, session: &SessionStatus) -> PathReport {
    PathReport {
        local: session.local_ip.or_else(|| source_towards(session.path)),
        mtu: session.path_mtu,
        ..path(node, session.path, session.rtt)
    }
}

fn relay(node: &Node, status: &PeerStatus) -> RelayReport {
    let session = status.session.as_ref();
    RelayReport {
        id: status.peer.to_string(),
        name: name_of(node, &status.peer),
        state: state(status.state),
        problem: match session {
            Some(_) => None,
            None => status.last_error.clone(),
        },
        path: session.map(|session| session_path(node, session)),
        observed: session.and_then(|session| session.observed),
        observed_second: session.and_then(|session| session.observed_second),
    }
}

fn name_of(node: &Node, id: &PeerId) -> Option<String> {
    node.peer(id)?.name.clone()
}

/// What the host knows of our addresses, and what peers and relays see.
fn candidates(status: &NodeStatus) -> Vec<CandidateReport> {
    let known = status.own_addresses.iter().map(|own| CandidateReport {
        address: own.address,
        kind: match own.kind {
            NetAddressKind::Announced => AddressKind::Announced,
            NetAddressKind::Host | NetAddressKind::Tunnel => AddressKind::Host,
            NetAddressKind::Mapped => AddressKind::Mapped,
        },
        seen_by: 0,
    });
    let mut found: Vec<CandidateReport> = known.collect();
    let peers = status.peers.iter().filter_map(|peer| peer.net.as_ref());
    let is_peer = |id| status.peers.iter().any(|peer| peer.config.id == id);
    let relays = status.relays.iter().filter(|relay| !is_peer(relay.peer));
    let sessions = peers.chain(relays).filter_map(|net| net.session.as_ref());
    for address in sessions.filter_map(|session| session.observed) {
        match found.iter_mut().find(|known| known.address == address) {
            Some(known) => known.seen_by += 1,
            None => found.push(CandidateReport {
                address,
                kind: AddressKind::Observed,
                seen_by: 1,
            }),
        }
    }
    found
}

/// Everything that says why a peer is not reached better.
pub fn doctor(node: &Node, report: NodeReport) -> DoctorReport {
    let now = Instant::now();
    let way = |candidate: &NetCandidateReport| WayReport {
        path: path(node, candidate.path, candidate.rtt),
        state: match candidate.state {
            CandidateState::Untried => WayState::Untried,
            CandidateState::Unanswered => WayState::Unanswered,
            CandidateState::Proven => WayState::Proven,
            CandidateState::Broken => WayState::Broken,
        },
    };
    let status = node.status(now);
    let ways = status.peers.iter().map(|peer| {
        let ways = node.path_report(&peer.config.id, now);
        let candidates = ways.map(|ways| ways.candidates).unwrap_or_default();
        candidates.iter().map(way).collect()
    });
    DoctorReport {
        node: report,
        ways: ways.collect(),
        peers: status
            .peers
            .iter()
            .map(|status| peer(node, status))
            .collect(),
    }
}

/// What keeps a peer from being up. A peer that we were never told how to reach is not in error.
fn problem(status: &NodePeerStatus) -> Option<String> {
    let net = status.net.as_ref()?;
    match (&net.session, &net.last_error) {
        (Some(_), _) => None,
        (None, Some(error)) => Some(error.clone()),
        (None, None) if status.config.underlay.is_empty() => {
            Some("waits for its call: it has no address in our configuration".into())
        }
        (None, None) => None,
    }
}

/// The same in one word.
fn cause(status: &NodePeerStatus) -> Option<PeerCause> {
    let net = status.net.as_ref().filter(|net| net.session.is_none())?;
    Some(match net.last_error.as_deref()? {
        NOT_LISTED => PeerCause::Refused,
        STOPPED_THERE => PeerCause::Stopped,
        NO_ANSWER => PeerCause::NoAnswer,
        _ => PeerCause::Said,
    })
}

fn session_of(peer: &NodePeerStatus) -> Option<&SessionStatus> {
    peer.net.as_ref()?.session.as_ref()
}

fn state(state: NetState) -> PeerState {
    match state {
        NetState::Connecting | NetState::Waiting => PeerState::Connecting,
        NetState::Up => PeerState::Up,
        NetState::Silent => PeerState::Silent,
        _ => PeerState::Idle,
    }
}

/// The address from which the kernel sends to the other end of a path, where the choice is left to it.
fn source_towards(path: PathInfo) -> Option<IpAddr> {
    underlay::source_towards(path.remote()?)
}

/// A path with its last known round trip.
pub fn path(node: &Node, path: PathInfo, rtt: Option<Duration>) -> PathReport {
    let (kind, relay) = match path {
        PathInfo::Relayed { relay } => (PathKind::Relay, Some(relay)),
        PathInfo::Stream => (PathKind::Web, None),
        _ => (PathKind::Direct, None),
    };
    PathReport {
        kind,
        remote: path.remote(),
        relay: relay.map(|relay| relay.to_string()),
        relay_name: relay.and_then(|relay| name_of(node, &relay)),
        local: None,
        rtt_us: rtt.map(|rtt| rtt.as_micros().try_into().unwrap_or(u64::MAX)),
        mtu: None,
    }
}

fn traffic(totals: TrafficTotals) -> TrafficReport {
    TrafficReport {
        packets_in: totals.received_frames,
        bytes_in: totals.received_bytes,
        packets_out: totals.sent_frames,
        bytes_out: totals.sent_bytes,
    }
}

fn sum(all: impl Iterator<Item = TrafficTotals>) -> TrafficReport {
    all.map(traffic)
        .fold(TrafficReport::default(), |sum, one| TrafficReport {
            packets_in: sum.packets_in + one.packets_in,
            bytes_in: sum.bytes_in + one.bytes_in,
            packets_out: sum.packets_out + one.packets_out,
            bytes_out: sum.bytes_out + one.bytes_out,
        })
}

fn handshakes(node: &Node) -> HandshakeReport {
    let counters = node.handshake_counters();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    HandshakeReport {
        kem: read(&counters.kem),
        sign: read(&counters.sign),
        verify: read(&counters.verify),
    }
}

fn with_lengths(addresses: &[(IpAddr, u8)]) -> Vec<String> {
    let with_length = |(address, len): &(IpAddr, u8)| format!("{address}/{len}");
    addresses.iter().map(with_length).collect()
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// What is the peer's. Asked for at a peer's wish, so it must not cost what a whole status does.
pub fn allowed_ips<'n>(node: &'n Node, peer: &PeerId) -> &'n [IpPrefix] {
    node.peer(peer).map_or(&[], |peer| &peer.allowed_ips)
}

/// The overlay address at which a program on the peer can be reached: the first single address of
/// what is the peer's.
pub fn overlay_address(node: &Node, peer: &PeerId) -> Option<IpAddr> {
    let is_host = |prefix: &&IpPrefix| **prefix == IpPrefix::host(prefix.addr());
    let mut allowed_ips = allowed_ips(node, peer).iter();
    allowed_ips.find(is_host).map(IpPrefix::addr)
}

/// In the words of the admin socket.
pub fn ping_failure(error: &NetError) -> PingFailure {
    match error {
        NetError::NoSession => PingFailure::NoSession,
        _ => PingFailure::UnknownPeer,
    }
}

/// In the words of the admin socket. A session whose stream takes no message ends before long, so it
/// counts as none.
pub fn bench_failure(error: &NetError) -> BenchFailure {
    match error {
        NetError::UnknownPeer => BenchFailure::UnknownPeer,
        _ => BenchFailure::NoSession,
    }
}

/// What a user would notice at INFO, other changes of a peer at DEBUG. Addresses never above DEBUG.
pub fn log_event(node: &Node, event: &NetEvent) {
    let called = |peer: &PeerId| called(node, peer);
    match event {
        NetEvent::PeerUp { peer, path, cipher } => {
            tracing::info!(peer = called(peer), %cipher, "session up");
            tracing::debug!(%peer, ?path, "path of the session");
        }
        NetEvent::PeerDown { peer, reason } => {
            tracing::info!(peer = called(peer), reason = reason.name(), "session down");
        }
        NetEvent::PlaneChanged { peer, plane } => {
            tracing::info!(
                peer = called(peer),
                plane = plane.name(),
                "data plane changed"
            );
        }
        NetEvent::Rekeyed { peer, epoch } => tracing::debug!(%peer, epoch, "new keys"),
        NetEvent::PathChanged { peer, path } => {
            tracing::debug!(%peer, ?path, "path changed");
        }
        NetEvent::Handshaken {
            peer,
            took,
            resumed,
            early_data,
        } => tracing::debug!(%peer, ?took, resumed, early_data, "handshake complete"),
        NetEvent::IdentityCopied { peer, copied } => {
            let whose = whose(*copied);
            tracing::warn!(peer = called(peer), "{}; {}", whose.says(), whose.next());
        }
        _ => {}
    }
}

/// What people should know whatever they came to look at.
fn warnings(node: &Node, status: &NodeStatus) -> Vec<String> {
    let peers = status.peers.iter().filter_map(|peer| peer.net.as_ref());
    let is_peer = |id| status.peers.iter().any(|peer| peer.config.id == id);
    let relays = status.relays.iter().filter(|relay| !is_peer(relay.peer));
    let copied = peers.chain(relays).filter_map(|net| {
        let whose = whose(net.copied?);
        let name = name_of(node, &net.peer).unwrap_or_else(|| net.peer.to_string());
        Some(format!("{name}: {}; {}", whose.says(), whose.next()))
    });
    copied.collect()
}

fn whose(copied: Copied) -> CopiedIdentity {
    match copied {
        Copied::Theirs => CopiedIdentity::Theirs,
        Copied::Ours => CopiedIdentity::Ours,
    }
}

/// What people call a peer, else the beginning of its PeerId.
fn called(node: &Node, peer: &PeerId) -> String {
    name_of(node, peer).unwrap_or_else(|| {
        let beginning: String = peer.to_string().chars().take(11).collect();
        format!("{beginning}…")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_takes_no_message_is_not_called_a_stranger() {
        let failure = bench_failure(&NetError::NotTaken);
        assert_eq!(failure, BenchFailure::NoSession);
        assert_eq!(
            bench_failure(&NetError::UnknownPeer),
            BenchFailure::UnknownPeer
        );
    }
}
