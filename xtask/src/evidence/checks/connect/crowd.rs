//! Very many nodes in this process, with real datagrams to one real program.
//!
//! Each is the product's own state machine (`vpn::Node`), with an address of its own from 127/8 in the
//! program's namespace; one socket stands for all of them and sends from the address of whoever sends. They
//! never reach each other without the program: what they send elsewhere is not sent.

use super::field::text;
use bytes::BytesMut;
use shadowmesh::lab::{LabNode, wait_until};
use shadowmesh_crypto::Identity;
use shadowmesh_io::netns::Netns;
use shadowmesh_io::poll::{self, Watch};
use shadowmesh_io::udp::{RecvBatch, Transmit, UdpLink};
use shadowmesh_net::{NetConfig, PeerState, Received};
use shadowmesh_vpn::{Node, NodeConfig, NodePeer};
use shadowmesh_wire::{PeerId, overlay};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Port of the crowd's socket.
const PORT: u16 = 5544;
/// Members with the same third byte of their address.
const ROW: usize = 250;
/// How long the program may take to start.
const START_MAX: Duration = Duration::from_secs(10);
/// How long the socket is waited for before clocks are looked at.
const PAUSE: Duration = Duration::from_millis(1);
/// Header of an IPv6 packet, and of one that says that nothing follows it.
const IPV6_HEADER_LEN: usize = 40;
const NO_NEXT_HEADER: u8 = 59;

/// The crowd.
pub struct Crowd {
    link: UdpLink,
    batch: RecvBatch,
    /// Where the program is.
    program: SocketAddr,
    /// All of them.
    pub members: Vec<Member>,
    wakes: Wakes,
}

/// When members want to be woken, by their number.
type Wakes = BTreeSet<(Instant, usize)>;

/// One of them.
pub struct Member {
    /// Who it is.
    pub id: PeerId,
    /// Packets that reached its device.
    pub delivered: u64,
    node: Node,
    address: Ipv4Addr,
    wake: Option<Instant>,
}

/// Identities for a crowd.
pub fn identities(count: usize) -> Vec<Identity> {
    let one = |number: usize| {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Identity::from_seeds(&seed, &seed)
    };
    (0..count).map(one).collect()
}

/// A peer that owns its derived IPv6 address alone: of many, some derive the same IPv4 address.
pub fn peer(id: PeerId, underlay: Vec<SocketAddr>) -> NodePeer {
    let address = overlay::derived_ipv6(&id);
    NodePeer {
        allowed_ips: vec![format!("{address}/128").parse().expect("a prefix")],
        underlay,
        ..NodePeer::new(id)
    }
}

impl Crowd {
    /// Makes a node of each identity; `know` says whom it knows. `program` is an address in `netns`.
    pub fn new(
        netns: &Netns,
        program: SocketAddr,
        identities: Vec<Identity>,
        mut know: impl FnMut(usize, &mut NodeConfig),
    ) -> Result<Self, String> {
        let address = (Ipv4Addr::UNSPECIFIED, PORT).into();
        let link = netns.run(|| UdpLink::bind(address)).map_err(text)?;
        let now = Instant::now();
        let mut members = Vec::new();
        for (number, identity) in identities.into_iter().enumerate() {
            let id = identity.peer_id();
            let mut seed = [1; 32];
            seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let mut net = NetConfig::new(Arc::new(identity), seed, 1);
            net.unix_time = SystemTime::now().duration_since(UNIX_EPOCH).map_err(text)?;
            let mut config = NodeConfig {
                net,
                addresses: vec![(overlay::derived_ipv6(&id).into(), 48)],
                peers: Vec::new(),
                relays: Vec::new(),
            };
            know(number, &mut config);
            let node = Node::new(config, now).map_err(text)?;
            members.push(Member {
                id,
                delivered: 0,
                node,
                address: Ipv4Addr::new(127, 1, (number / ROW) as u8, (number % ROW) as u8 + 1),
                wake: None,
            });
        }
        Ok(Self {
            link,
            batch: RecvBatch::new(),
            program,
            members,
            wakes: Wakes::new(),
        })
    }

    /// Everybody calls everybody it knows, `pause` after the one before; at the end all have had `patience`
    /// to connect, or are. Returns how many are.
    pub fn call_all(&mut self, pause: Duration, patience: Duration) -> Result<usize, String> {
        for number in 0..self.members.len() {
            let member = &mut self.members[number];
            let now = Instant::now();
            let peers = member.node.status(now).peers;
            member.node.connect_all(now);
            for peer in peers {
                member.node.connect(&peer.config.id, now);
            }
            self.drain(number);
            self.run(pause)?;
        }
        let deadline = Instant::now() + patience;
        while self.connected() < self.members.len() && Instant::now() < deadline {
            self.run(Duration::from_millis(100))?;
        }
        Ok(self.connected())
    }

    /// A member sends a packet of `len` bytes to another.
    pub fn send(&mut self, from: usize, to: PeerId, len: usize) {
        let member = &mut self.members[from];
        let packet = packet(&member.id, &to, len);
        member.node.handle_device(&packet, Instant::now());
        self.drain(from);
    }

    fn drain(&mut self, number: usize) {
        let member = &mut self.members[number];
        member.drain(number, &self.link, self.program, &mut self.wakes);
    }

    /// How many have a session with all of their peers and relays.
    fn connected(&self) -> usize {
        let all = self.members.iter();
        all.filter(|member| member.is_connected()).count()
    }

    /// Works for so long.
    pub fn run(&mut self, time: Duration) -> Result<(), String> {
        let end = Instant::now() + time;
        loop {
            self.receive()?;
            let now = Instant::now();
            while let Some(&(wake, number)) = self.wakes.first()
                && wake <= now
            {
                self.members[number].node.handle_timeout(now);
                self.drain(number);
            }
            if now >= end {
                return Ok(());
            }
            poll::wait(&mut [Watch::readable(&self.link)], Some(PAUSE)).map_err(text)?;
        }
    }

    /// Takes what is there.
    fn receive(&mut self) -> Result<(), String> {
        loop {
            match self.link.recv_batch(&mut self.batch) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(text(error)),
            }
            let now = Instant::now();
            for (from, buffer) in self.batch.iter_mut() {
                let Some(number) = number_of(from.local_ip) else {
                    continue;
                };
                let Some(member) = self.members.get_mut(number) else {
                    continue;
                };
                let received = Received {
                    local_ip: from.local_ip,
                    ecn: from.ecn,
                    ..Received::from_remote(from.remote)
                };
                for datagram in buffer.chunks(from.stride) {
                    member
                        .node
                        .handle_datagram(received, BytesMut::from(datagram), now);
                }
                member.drain(number, &self.link, self.program, &mut self.wakes);
            }
        }
    }
}

/// Whose address it is.
fn number_of(address: Option<IpAddr>) -> Option<usize> {
    let Some(IpAddr::V4(address)) = address else {
        return None;
    };
    let [_, _, row, place] = address.octets();
    Some(usize::from(row) * ROW + usize::from(place.checked_sub(1)?))
}

impl Member {
    fn is_connected(&self) -> bool {
        let status = self.node.status(Instant::now());
        let peers = status.peers.iter().map(|peer| peer.net.as_ref());
        let all = peers.chain(status.relays.iter().map(Some));
        all.into_iter()
            .all(|net| net.is_some_and(|net| net.state == PeerState::Up))
    }

    fn drain(&mut self, number: usize, link: &UdpLink, program: SocketAddr, wakes: &mut Wakes) {
        // Nothing here depends on events.
        while self.node.poll_event().is_some() {}
        while let Some(transmit) = self.node.poll_transmit() {
            if transmit.remote != program {
                continue;
            }
            // What does not fit the socket is lost, as on any network.
            let _ = link.send(&Transmit {
                remote: transmit.remote,
                local_ip: Some(self.address.into()),
                traffic_class: 0,
                may_fragment: false,
                segment_size: transmit.segment_size,
                contents: &transmit.contents,
            });
        }
        while self.node.poll_device().is_some() {
            self.delivered += 1;
        }
        let wake = self.node.poll_timeout().map(|(at, _)| at);
        let before = std::mem::replace(&mut self.wake, wake);
        if before != wake {
            before.map(|at| wakes.remove(&(at, number)));
            wake.map(|at| wakes.insert((at, number)));
        }
    }
}

/// An IPv6 packet of zeros from one node to another.
fn packet(from: &PeerId, to: &PeerId, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len.max(IPV6_HEADER_LEN)];
    let payload_len = (packet.len() - IPV6_HEADER_LEN) as u16;
    let ends: [Ipv6Addr; 2] = [from, to].map(overlay::derived_ipv6);
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&payload_len.to_be_bytes());
    packet[6] = NO_NEXT_HEADER;
    packet[7] = 64;
    packet[8..24].copy_from_slice(&ends[0].octets());
    packet[24..40].copy_from_slice(&ends[1].octets());
    packet
}

/// CPU time that a process has spent, all threads, user and system.
pub fn process_cpu(pid: u32) -> Result<Duration, String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(text)?;
    // The name in parentheses may hold anything; fields 14 and 15 are user and system time (proc(5)), in
    // ticks of which every Linux has 100 a second (`USER_HZ`).
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/PID/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: Result<Vec<u64>, _> = ticks.map(str::parse).collect();
    let ticks: u64 = ticks.map_err(text)?.iter().sum();
    Ok(Duration::from_millis(10 * ticks))
}

/// The one real program of a crowd: a node in a namespace of its own.
pub fn program(directory: &Path) -> Result<LabNode, String> {
    let netns = Netns::new().map_err(text)?;
    let home = directory.join("program");
    let addresses = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
    LabNode::new(
        "program".into(),
        netns,
        &super::program::path(),
        home,
        addresses,
    )
    .map_err(text)
}

/// Starts it and waits until it answers.
pub fn start(program: &mut LabNode) -> Result<u32, String> {
    program.start().map_err(text)?;
    wait_until(START_MAX, || program.query("status", &[]).is_ok());
    program.pid().ok_or_else(|| program.log())
}
