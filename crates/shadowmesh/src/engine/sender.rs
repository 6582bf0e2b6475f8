//! Device to network: one thread, or one for each queue of the device. HOT PATH.
//!
//! The kernel keeps a flow on one queue of the device, so a flow is in one sender's hands from the
//! device to the socket and stays in order. Senders share nothing but the sockets and the counters of
//! a session's frames.
//!
//! Its work is turns. A turn first moves what the device holds, each read a packet or a super-packet
//! of up to 64 KB, into the fair queue, so that whatever waits does so where waiting is managed: the
//! device's own queue is one line of 500 super-packets. Then it takes out, by fairness, as much as one
//! or two sends hold, and looks at the device again.
//!
//! ```text
//! device ─ verdict ─> fair queue ─ signal ─> split ─ seal into the peer's run ─> UDP socket
//! ```
//!
//! Every segment is written straight into its slot of the peer's GSO run and sealed there. A run leaves
//! when it is full and when nothing waits any more: so packets that came together share a system call,
//! a lone packet waits for nothing, and under load no run leaves half empty. Packets of peers that
//! travel by QUIC leave the fair queue for control instead ([`by_quic`](super::by_quic)).

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use shadowmesh_io::poll::{self, Watch};
use shadowmesh_io::tun::TunQueue;
use shadowmesh_io::udp::{GSO_BYTES_MAX, SendFault};
use shadowmesh_net::{DropCounters, DropReason, Outbound, Plane};
use shadowmesh_vpn::Snapshot;
use shadowmesh_vpn::fair_queue::{FairQueue, FlowHasher, Limits, Signal, Size};
use shadowmesh_wire::envelope::ENVELOPE_OVERHEAD;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::ip::IpPacket;
use shadowmesh_wire::mss;
use shadowmesh_wire::offload::{GsoType, Split, VNET_HDR_LEN, VnetHdr};
use shadowmesh_wire::sealed::{HEADER_LEN, OVERHEAD, TAG_LEN};
use shadowmesh_wire::traffic_class::{self, Ecn};

use super::Shared;
use super::arrivals::{Arrivals, Served};
use super::buffers::{Buffer, Buffers};
use super::by_quic::{ROOM_WAIT_MAX, ToQuic};
use super::duty::Duty;
use super::envelopes::Envelopes;
use super::links::FULL_WAIT;
use super::oversize::Oversize;
use super::placement::{self, Direction, Placement, Turn};
use super::priority;
use super::runs::{Run, Runs};
use super::stop::Stop;

/// Reads of the device in one turn. As many small packets as share a send; and a look at a device that
/// fills faster than it can be emptied ends.
const TURN_READS_MAX: usize = 64;
/// Items taken from the fair queue in one turn: not fewer than were read, or small packets would pile
/// up here that the kernel can drop at less cost.
const TURN_ITEMS_MAX: usize = TURN_READS_MAX;
/// Bytes taken from the fair queue in one turn: two sends, about 80 us of work. What comes meanwhile
/// waits that long to be looked at.
const TURN_BYTES_MAX: usize = 2 * GSO_BYTES_MAX;

/// Bytes read of the device in one turn: a few times what leaves in it, so that a packet which came after
/// a burst of super-packets is soon found among them.
const TURN_READ_BYTES_MAX: usize = 4 * TURN_BYTES_MAX;
/// With so much waiting, what is read beyond what leaves would only push something out: a program that
/// hands over more than can leave would have this thread copy and not send. The rest is for the kernel to
/// drop, which costs nothing here.
const BACKLOG_LONG: usize = QUEUE_LIMITS.memory / 2;

/// What may wait. The bytes are those of a TCP connection with the largest socket buffer that systems
/// give by default (6 MB); the items are twice the device's own queue. Memory of the process.
const QUEUE_LIMITS: Limits = Limits {
    items: 1024,
    memory: 8 * 1024 * 1024,
};

/// Reads that a receiver does in a sender's place behind a write of its own: an answer or two. More is
/// worth a wake-up.
const ANSWER_READS_MAX: usize = 2;
/// Reads that a receiver does in a turn while it stands in. With more to read there is work for two.
const RELIEF_READS_MAX: usize = 8;
/// How long a receiver waits for room in such a turn, more or less: nothing is received meanwhile.
const RELIEF_PATIENCE: Duration = Duration::from_millis(2);
/// A turn that took so long waited for room, or there is more to do than it looks.
const TURN_LONG: Duration = Duration::from_millis(1);

/// A sender thread and the work that it shares with a receiver.
pub struct Sender {
    work: Arc<SharedWork>,
    shared: Shared,
    stop: Arc<Stop>,
}

/// The work of a sender, for whoever is awake.
///
/// Much of what a receiver writes to the device is answered by the kernel before the write returns: a
/// ping, a TCP acknowledgement. The answer then lies in the device while its sender sleeps, and waking
/// it costs more than sending. So a receiver that has little to do looks itself, unless the sender is
/// at work; and the only receiver of a node takes the sender's place altogether while there is little to
/// do ([`duty`](super::duty)). The lock is held by one or the other from the device to the socket, so
/// flows stay in order.
pub struct SharedWork {
    work: Mutex<Work>,
    /// Which queue of the device it empties.
    source: usize,
    /// Who watches the device.
    pub duty: Duty,
}

/// From one queue of the device to the sockets.
struct Work {
    shared: Shared,
    /// Which queue of the device is its own.
    source: usize,
    runs: Runs,
    queue: FairQueue<Waiting>,
    hasher: FlowHasher,
    buffers: Buffers,
    to_quic: ToQuic,
    oversize: Oversize,
    patience: Patience,
}

/// How long whoever does the work may wait for room.
#[derive(Debug, Clone, Copy)]
enum Patience {
    /// A sender, for each send: it has nothing better to do.
    OfSender,
    /// A receiver: until then.
    Until(Instant),
}

/// What came of a turn in a sender's place.
#[derive(Debug, Clone, Copy)]
pub struct Relief {
    /// Bytes that left.
    pub bytes: usize,
    /// Nothing more lay in the device, or waits in the queue.
    pub is_all: bool,
    /// It had to wait for room, or took as long.
    pub was_long: bool,
}

/// A packet or super-packet that waits for its turn.
struct Waiting {
    /// Where it goes. Judged when it was read; a wait is a few milliseconds at most.
    peer: Arc<Outbound>,
    /// Virtio header and packet.
    buffer: Buffer,
    /// As [`Turn::unresponsive`] counts it.
    is_unresponsive: bool,
}

impl Sender {
    /// A sender that has not begun.
    pub fn new(shared: Shared, source: usize, stop: Arc<Stop>) -> io::Result<Self> {
        let work = SharedWork {
            work: Mutex::new(Work::new(shared.clone(), source)),
            source,
            duty: Duty::new()?,
        };
        Ok(Self {
            work: Arc::new(work),
            shared,
            stop,
        })
    }

    /// Its work, for a receiver.
    pub fn work(&self) -> Arc<SharedWork> {
        Arc::clone(&self.work)
    }

    /// Works until it is stopped or the device fails.
    pub fn run(self) -> io::Result<()> {
        let mut placement = Placement::new(priority::sender(), Direction::Out);
        let mut arrivals = Arrivals::default();
        let duty = &self.work.duty;
        while !self.stop.is_set() {
            if duty.is_receivers() {
                self.wait_for_recall()?;
                continue;
            }
            duty.sender_works();
            let served = self.work.lock().until_idle(&self.stop, &mut placement)?;
            duty.sender_rests(placement.is_calm());
            arrivals.served(served);
            self.wait(&mut arrivals)?;
        }
        Ok(())
    }

    /// Blocks until there is something to read, or pauses where that is so at once again and again. No
    /// snapshot and no session is held here, and no lock.
    fn wait(&self, arrivals: &mut Arrivals) -> io::Result<()> {
        if let Some(pause) = arrivals.pause() {
            thread::sleep(pause);
            return Ok(());
        }
        let mut watches = [
            Watch::readable(self.work.device(&self.shared)),
            Watch::readable(self.stop.waker()),
        ];
        let start = Instant::now();
        poll::wait(&mut watches, None)?;
        arrivals.woken_after(start.elapsed());
        Ok(())
    }

    /// Blocks while the receiver stands in.
    fn wait_for_recall(&self) -> io::Result<()> {
        let duty = &self.work.duty;
        let mut watches = [
            Watch::readable(duty.recall()),
            Watch::readable(self.stop.waker()),
        ];
        poll::wait(&mut watches, None)?;
        if watches[0].is_ready() {
            duty.recalled();
        }
        Ok(())
    }
}

impl SharedWork {
    /// For a receiver that has just written something: sends what came back at once; `None` while somebody
    /// else is at it. Waits for nobody, and about [`RELIEF_PATIENCE`] for room. Leaves nothing waiting in the
    /// queue: the sender may sleep.
    pub fn answer(&self) -> io::Result<Option<Relief>> {
        let work = self.try_lock();
        work.map(|mut work| work.turn(ANSWER_READS_MAX, Duration::MAX))
            .transpose()
    }

    /// For the receiver that stands in: a small turn. As [`answer`](Self::answer); but what is left waiting
    /// is the sender's, who is to be called back unless that was all.
    pub fn relieve(&self) -> io::Result<Option<Relief>> {
        let work = self.try_lock();
        work.map(|mut work| work.turn(RELIEF_READS_MAX, TURN_LONG))
            .transpose()
    }

    /// What is to be watched for packets.
    pub fn device<'s>(&self, shared: &'s Shared) -> &'s TunQueue {
        source(shared, self.source)
    }

    /// For the sender.
    fn lock(&self) -> MutexGuard<'_, Work> {
        // Whoever panicked here lost packets at most: nothing is half written.
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        work.patience = Patience::OfSender;
        work
    }

    fn try_lock(&self) -> Option<MutexGuard<'_, Work>> {
        match self.work.try_lock() {
            Ok(work) => Some(work),
            Err(TryLockError::Poisoned(work)) => Some(work.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Work {
    fn new(shared: Shared, source: usize) -> Self {
        Self {
            to_quic: shared.outbox.to_quic(),
            shared,
            source,
            runs: Runs::new(),
            queue: FairQueue::new(QUEUE_LIMITS),
            hasher: FlowHasher::new([random(), random()]),
            buffers: Buffers::default(),
            oversize: Oversize::default(),
            patience: Patience::OfSender,
        }
    }

    /// Turns until the device is empty and nothing waits; returns what was served.
    fn until_idle(&mut self, stop: &Stop, placement: &mut Placement) -> io::Result<Served> {
        let mut served = Served::default();
        while !stop.is_set() {
            let start = Instant::now();
            let is_drained = self.read_device(TURN_READS_MAX)?;
            let turn = self.serve();
            let is_all = self.queue.is_empty();
            if is_all {
                self.finish();
            }
            placement.worked(Turn {
                direction: Direction::Out,
                bytes: turn.bytes,
                has_more: start.elapsed() >= TURN_LONG,
                unresponsive: turn.unresponsive,
            });
            served += turn;
            if is_all && is_drained {
                break;
            }
        }
        Ok(served)
    }

    /// Some of what the device holds, for a receiver, which serves no longer than that.
    fn turn(&mut self, reads_max: usize, serve_max: Duration) -> io::Result<Relief> {
        let start = Instant::now();
        self.patience = Patience::Until(start + RELIEF_PATIENCE);
        let is_drained = self.read_device(reads_max)?;
        let mut bytes = 0;
        while !self.queue.is_empty() && start.elapsed() < serve_max {
            bytes += self.serve().bytes;
        }
        self.finish();
        Ok(Relief {
            bytes,
            is_all: is_drained && self.queue.is_empty(),
            was_long: start.elapsed() >= TURN_LONG,
        })
    }

    /// Sends the runs that are not full. No session is held afterwards.
    fn finish(&mut self) {
        let (shared, patience) = (&self.shared, self.patience);
        self.runs
            .send_all(&mut |peer, run| send(shared, patience, peer, run));
        self.to_quic.flush(|| patience.of(ROOM_WAIT_MAX));
    }

    /// Moves what the device holds into the fair queue; whether that was all.
    fn read_device(&mut self, reads_max: usize) -> io::Result<bool> {
        let snapshot = self.shared.cell.load();
        let now = Instant::now();
        let mut budget = match self.queue.memory() < BACKLOG_LONG {
            true => TURN_READ_BYTES_MAX,
            false => TURN_BYTES_MAX,
        };
        for _ in 0..reads_max {
            let source = source(&self.shared, self.source);
            match self.buffers.fill(|room| source.read(room)) {
                Ok(buffer) => {
                    budget = budget.saturating_sub(buffer.len());
                    self.admit(&snapshot, buffer, now);
                    if budget == 0 {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// One read of the device, on its way to wherever it may go.
    fn admit(&mut self, snapshot: &Snapshot, mut buffer: Buffer, now: Instant) {
        match judge(snapshot, &self.hasher, &mut buffer) {
            Ok(Judged {
                peer,
                hash,
                size,
                is_unresponsive,
            }) => {
                let item = Waiting {
                    peer: Arc::clone(peer),
                    buffer,
                    is_unresponsive,
                };
                let (drops, buffers) = (&self.shared.drops, &mut self.buffers);
                let lost = &mut |item, size, reason| lose(drops, buffers, item, size, reason);
                self.queue.push(hash, item, size, now, lost);
                return;
            }
            Err(DropReason::NoSession) => self.hand_over(&mut buffer),
            Err(reason) => self.shared.drops.count(reason),
        }
        self.buffers.free(buffer);
    }

    /// Takes one turn's share out of the fair queue, into the runs of the peers.
    fn serve(&mut self) -> Served {
        let now = Instant::now();
        let mut served = Served::default();
        while served.items < TURN_ITEMS_MAX && served.bytes < TURN_BYTES_MAX {
            let (drops, buffers) = (&self.shared.drops, &mut self.buffers);
            let lost = &mut |item, size, reason| lose(drops, buffers, item, size, reason);
            let Some((mut item, size, signal)) = self.queue.pop(now, lost) else {
                break;
            };
            if let Err(reason) = self.forward(&item.peer, item.buffer.filled(), signal) {
                self.shared.drops.add(reason, size.segments.into());
            }
            self.buffers.free(item.buffer);
            served += Served {
                items: 1,
                bytes: size.bytes as usize,
                unresponsive: match item.is_unresponsive {
                    true => size.segments.into(),
                    false => 0,
                },
            };
        }
        served
    }

    /// One item whose turn has come.
    fn forward(
        &mut self,
        peer: &Arc<Outbound>,
        read: &mut [u8],
        signal: Signal,
    ) -> Result<(), DropReason> {
        let (header, packet) = read.split_at_mut(VNET_HDR_LEN);
        if signal == Signal::Mark {
            traffic_class::set_ecn(packet, Ecn::Ce);
        }
        let class = traffic_class::outer(traffic_class::of(packet), self.shared.dscp);
        let mut packets = split(header, packet)?;
        if signal == Signal::LoseFirst {
            packets.skip_next();
            self.shared.drops.count(DropReason::QueueCodel);
        }
        match peer.plane {
            Plane::Sealed if Oversize::concerns(peer, &packets) => {
                self.seal_fragments(peer, class, packets)
            }
            Plane::Sealed => self.seal(peer, class, packets),
            Plane::Quic => {
                let patience = self.patience;
                self.to_quic
                    .push(peer, packets, || patience.of(ROOM_WAIT_MAX))
            }
        }
    }

    /// What is too long for the path goes in pieces.
    fn seal_fragments(
        &mut self,
        peer: &Arc<Outbound>,
        class: u8,
        packets: Split<'_>,
    ) -> Result<(), DropReason> {
        let patience = self.patience;
        let send = &mut |peer: &Outbound, run: &Run| send(&self.shared, patience, peer, run);
        let run = self.runs.towards(peer, send);
        self.oversize
            .seal(peer, (class, packets), &self.shared, run, send)
    }

    // PROTOCOL SM-TC-1
    // PROTOCOL SM-TC-2
    /// Seals every packet of a super-packet into the peer's run, under one outer traffic class.
    fn seal(
        &mut self,
        peer: &Arc<Outbound>,
        class: u8,
        mut packets: Split<'_>,
    ) -> Result<(), DropReason> {
        let count = packets.remaining() as u64;
        let mut envelopes = Envelopes::reserve(peer, count)?;
        let frame_len_max = packets.segment_len_max() + OVERHEAD + envelopes.overhead();
        if frame_len_max > GSO_BYTES_MAX {
            return Err(DropReason::TooBig);
        }
        let first = peer
            .sealer
            .reserve(count)
            .ok_or(DropReason::SealExhausted)?;
        let front = envelopes.front();
        let patience = self.patience;
        let send = &mut |peer: &Outbound, run: &Run| send(&self.shared, patience, peer, run);
        let run = self.runs.towards(peer, send);
        let mut bytes = 0;
        for counter in first..first + count {
            if !run.has_room(frame_len_max, class) {
                send(peer, run);
                run.clear();
            }
            let slot = run.slot();
            let frame = &mut slot[front..];
            let Some(len) = packets.write_next(&mut frame[HEADER_LEN + 1..]) else {
                break;
            };
            frame[HEADER_LEN] = InnerType::IpPacket as u8;
            // PROTOCOL SM-MT-6
            if let Some(mtu) = peer.inner_mtu {
                mss::clamp(&mut frame[HEADER_LEN + 1..][..len], mtu);
            }
            let frame_len = HEADER_LEN + 1 + len + TAG_LEN;
            peer.sealer.seal(counter, &mut frame[..frame_len]);
            let datagram_len = envelopes.close(slot, frame_len);
            run.commit(datagram_len, class);
            bytes += len as u64;
        }
        peer.traffic.sent(count, bytes);
        Ok(())
    }

    /// Lets control have every packet of a super-packet.
    fn hand_over(&self, buffer: &mut Buffer) {
        let (header, packet) = buffer.filled().split_at_mut(VNET_HDR_LEN);
        match split(header, packet) {
            Ok(mut packets) => {
                let mut packet = vec![0; packets.segment_len_max()];
                while let Some(len) = packets.write_next(&mut packet) {
                    self.shared.outbox.device(&packet[..len]);
                }
            }
            Err(reason) => self.shared.drops.count(reason),
        }
    }
}

fn source(shared: &Shared, number: usize) -> &TunQueue {
    &shared.device.queues()[number]
}

/// From the operating system: the standard library seeds its hash tables so.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

/// What a look at a read tells.
struct Judged<'s> {
    peer: &'s Arc<Outbound>,
    /// Of its flow.
    hash: u64,
    size: Size,
    is_unresponsive: bool,
}

fn judge<'s>(
    snapshot: &'s Snapshot,
    hasher: &FlowHasher,
    buffer: &mut Buffer,
) -> Result<Judged<'s>, DropReason> {
    let memory = buffer.memory() as u32;
    let read = &*buffer.filled();
    let header = VnetHdr::parse(read).ok_or(DropReason::BadOffload)?;
    let packet = &read[VNET_HDR_LEN..];
    let peer = snapshot.outbound(packet)?;
    let view = IpPacket::parse(packet).map_err(|_| DropReason::MalformedIpPacket)?;
    let size = Size {
        bytes: packet.len() as u32,
        memory,
        segments: segments(&header, packet.len()),
        ecn_capable: Ecn::of(traffic_class::of(packet)).is_capable(),
    };
    Ok(Judged {
        peer,
        hash: hasher.hash(&view),
        size,
        is_unresponsive: placement::is_unresponsive(&view),
    })
}

/// How many packets a read will be cut into, near enough to count losses by before it is cut: its
/// headers are taken for payload.
fn segments(header: &VnetHdr, len: usize) -> u32 {
    match header.gso() {
        GsoType::None => 1,
        _ => len.div_ceil(usize::from(header.gso_size).max(1)) as u32,
    }
}

/// What the fair queue threw away.
fn lose(
    drops: &DropCounters,
    buffers: &mut Buffers,
    item: Waiting,
    size: Size,
    reason: DropReason,
) {
    drops.add(reason, size.segments.into());
    buffers.free(item.buffer);
}

impl Patience {
    /// How long to wait for room now, where a sender waits `of_sender`.
    fn of(self, of_sender: Duration) -> Duration {
        match self {
            Self::OfSender => of_sender,
            Self::Until(end) => end.saturating_duration_since(Instant::now()),
        }
    }
}

fn send(shared: &Shared, patience: Patience, peer: &Outbound, run: &Run) {
    let (socket, transmit) = (Run::socket(peer), run.transmit(peer));
    let patience = patience.of(FULL_WAIT);
    let sent = shared.links.send_within(socket, transmit, patience);
    if let Err(fault) = sent {
        let reason = match fault {
            SendFault::Full | SendFault::Overrun => DropReason::TransmitBacklog,
            SendFault::TooBig => {
                let len = run.segment_len();
                match &peer.via {
                    None => shared.outbox.too_long(peer.remote, len),
                    Some(via) => {
                        shared.outbox.too_long(via.relay.remote, len);
                        let len = len.saturating_sub(ENVELOPE_OVERHEAD);
                        shared.outbox.too_long(peer.remote, len);
                    }
                }
                DropReason::TooBig
            }
            _ => DropReason::SendFailed,
        };
        shared.drops.add(reason, run.segments() as u64);
    }
}

fn split<'a>(header: &[u8], packet: &'a mut [u8]) -> Result<Split<'a>, DropReason> {
    let header = VnetHdr::parse(header).ok_or(DropReason::BadOffload)?;
    Split::new(header, packet).map_err(|_| DropReason::BadOffload)
}
