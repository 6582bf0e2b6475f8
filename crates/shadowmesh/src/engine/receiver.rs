//! Network to device: one thread, or several. HOT PATH.
//!
//! A batch is one `recvmmsg` of one socket: up to 32 buffers, each one datagram or up to 64 that the
//! kernel merged (GRO). Every datagram is looked at on its own, because anybody can send one that is
//! merged with a peer's. Sealed frames are opened where they lie, their packets merged into
//! super-packets as lists of ranges, and handed to the device in gathered writes: no payload byte is
//! copied on the way. What is no sealed frame costs a table lookup and, if there is room, one copy
//! into control's queue; that is all a flood of first packets gets here.
//!
//! Two kinds of frame lead on. What a relay of ours passed on is opened a second time where it lies
//! ([`relayed`](super::relayed)); what is for somebody else is sealed again there
//! ([`passing`](super::passing)).
//!
//! Several receivers take turns at the sockets, work side by side, and write in the order they took
//! ([`turnstile`](super::turnstile)). A peer's datagrams come on one pair of addresses, so sharing out
//! sockets (`SO_REUSEPORT`) would leave one busy peer to one thread; sharing out batches does not.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use shadowmesh_crypto::ReplayWindow;
use shadowmesh_io::poll::{self, Waker, Watch};
use shadowmesh_io::tun::{Offloads, QUEUES_MAX, TunQueue};
use shadowmesh_io::udp::{self, RecvBatch, UdpLink};
use shadowmesh_net::{DropReason, Received};
use shadowmesh_vpn::{Inbound, Snapshot};
use shadowmesh_wire::ip::IpPacket;
use shadowmesh_wire::offload::{Coalescer, IOV_LEN_MAX};
use shadowmesh_wire::sealed;
use shadowmesh_wire::traffic_class::{self, MarkedNotEct};
use shadowmesh_wire::way::Way;

use super::Shared;
use super::inbox::Outbox;
use super::passing::Passing;
use super::placement::{self, Direction, Placement, Turn};
use super::priority::{self, Standing};
use super::relayed::Relayed;
use super::runs::SEGMENTS_MAX;
use super::sender::{Relief, SharedWork};
use super::stop::Stop;
use super::turnstile::{Entrance, Ticket};

/// A batch of at most this many buffers and bytes is finished without letting the next receiver in: it
/// takes about as long as waking that one up would. So where there is little to do one receiver does it
/// all, and the others sleep.
const SMALL_BUFFERS_MAX: usize = 4;
const SMALL_BYTES_MAX: usize = 16 * 1024;

/// A receiver that is held up must find room for its frames in the replay window. It has one batch in
/// hand, and each of the others is at most one ahead of it, as nobody takes a second before its turn. The
/// reader of further sockets is one more of the others.
// PROTOCOL SM-SF-4
const _: () = assert!(
    (QUEUES_MAX * RecvBatch::BUFFERS * SEGMENTS_MAX) as u64 <= ReplayWindow::LEN,
    "late batches fall out of the replay window"
);

/// One receiver thread's share of the engine.
pub struct Receiver {
    shared: Shared,
    /// Where answers to what it wrote come out, if that is one place.
    answers: Option<Arc<SharedWork>>,
    /// Whether it stands in for the sender while there is little to do.
    relieves: bool,
    stop: Arc<Stop>,
    /// There is little to do of late.
    is_calm: bool,
    /// The socket to be asked first, so that none is forgotten over a busy one.
    first_link: usize,
    /// The numbers of the sockets, where they are further ones.
    numbers: Vec<u16>,
    batch: RecvBatch,
    delivery: Delivery,
    standing: Standing,
}

/// A turn in the sender's place, as [`Placement`] counts it.
fn turn_out(relief: Relief, has_more: bool) -> Turn {
    Turn {
        direction: Direction::Out,
        bytes: relief.bytes,
        has_more,
        // Who relieves is calm.
        unresponsive: 0,
    }
}

/// What a receiver waits for.
struct Watches<'w> {
    /// Sockets, then whatever ends the work, then the device, if it may ever be watched.
    all: Vec<Watch<'w>>,
    links: usize,
    ends: usize,
}

/// What a batch, or a message of a stream, brings to the device, and to others.
pub(super) struct Delivery {
    coalescer: Coalescer,
    /// The number of the socket that the batch came by: 0 is where we listen.
    socket: u16,
    /// Bytes before each datagram that are none of it.
    gap: usize,
    /// For others.
    passing: Passing,
    /// What relays passed on to us and was not looked into yet.
    relayed: Relayed,
    /// Datagrams of peers, as far as can be told.
    of_peers: u32,
    /// As [`Turn::unresponsive`] counts them, since a receiver asked last.
    unresponsive: u64,
    /// Packets that came in fragments, and whatever came behind the first of these, or it would overtake.
    /// Limit: the datagrams of a batch.
    whole: Vec<Vec<u8>>,
}

impl Receiver {
    /// A receiver that has not begun.
    pub fn new(shared: Shared, answers: Option<Arc<SharedWork>>, stop: Arc<Stop>) -> Self {
        Self {
            delivery: Delivery::new(&shared, 0),
            shared,
            answers,
            relieves: false,
            stop,
            is_calm: true,
            first_link: 0,
            numbers: Vec::new(),
            batch: RecvBatch::new(),
            standing: Standing::default(),
        }
    }

    /// The same, the only one of its node: it stands in for the sender while there is little to do.
    pub fn relieving(self) -> Self {
        Self {
            relieves: true,
            ..self
        }
    }

    /// Works until it is stopped or the device fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut placement = Placement::new(priority::receiver(), Direction::In);
        let shared = self.shared.clone();
        let links: Vec<&UdpLink> = shared.links.iter().collect();
        self.serve(&links, &[], &mut placement)
    }

    /// As [`run`](Self::run), on the further sockets, of which there are none at first.
    pub fn run_extra(mut self) -> io::Result<()> {
        let mut placement = Placement::new(priority::receiver(), Direction::In);
        let shared = self.shared.clone();
        while !self.stop.is_set() {
            let set = shared.links.extra().current();
            let links: Vec<&UdpLink> = set.links().collect();
            self.numbers = set.numbers().collect();
            self.serve(&links, &[set.replaced()], &mut placement)?;
        }
        Ok(())
    }

    /// Works until it is stopped, the device fails, or one of `others` is readable.
    fn serve(
        &mut self,
        links: &[&UdpLink],
        others: &[&Waker],
        placement: &mut Placement,
    ) -> io::Result<()> {
        let shared = self.shared.clone();
        let stop = Arc::clone(&self.stop);
        let relieved = self.answers.clone().filter(|_| self.relieves);
        let device = relieved.as_ref().map(|work| work.device(&shared));
        let mut watches = Watches::new(links, &stop, others, device);
        let mut kept = None;
        loop {
            let mut entrance = kept.take().unwrap_or_else(|| shared.turnstile.enter());
            // No snapshot is held here, and no ticket.
            let Some(ticket) = self.take(links, &mut watches, &mut entrance, placement)? else {
                return Ok(());
            };
            let (buffers, bytes) = self.size();
            let turn = Turn {
                direction: Direction::In,
                bytes,
                has_more: buffers == RecvBatch::BUFFERS,
                // Of the batch before: this one is not opened yet.
                unresponsive: std::mem::take(&mut self.delivery.unresponsive),
            };
            self.worked(turn, placement, &mut watches);
            let is_small = buffers <= SMALL_BUFFERS_MAX && bytes <= SMALL_BYTES_MAX;
            kept = is_small.then_some(entrance);
            self.open();
            self.deliver(&ticket)?;
            drop(ticket);
            if is_small
                && self.is_calm
                && let Some(answers) = &self.answers
            {
                let answered = answers.answer()?;
                if let Some(relief) = answered.filter(|relief| relief.was_long) {
                    self.worked(turn_out(relief, true), placement, &mut watches);
                }
            }
        }
    }

    /// Receives the next batch of any socket, waiting for it; `None` when it is time to end.
    ///
    /// After a batch that was not full its socket is empty, so while there is little to do the next thing
    /// is to wait: a lone packet costs one call to receive it and one to wait for the next. When there is
    /// more, the next datagrams have come meanwhile.
    fn take<'t>(
        &mut self,
        links: &[&UdpLink],
        watches: &mut Watches<'_>,
        entrance: &mut Entrance<'t>,
        placement: &mut Placement,
    ) -> io::Result<Option<Ticket<'t>>> {
        let mut waiting_since = None;
        while !self.stop.is_set() && !watches.is_end() {
            for turn in 0..links.len() {
                let number = (self.first_link + turn) % links.len();
                let watch = watches.link(number);
                if !watch.is_ready() {
                    continue;
                }
                match links[number].recv_batch(&mut self.batch) {
                    Ok(count) => {
                        if self.is_calm && count < RecvBatch::BUFFERS {
                            watch.forget();
                        }
                        self.first_link = number + 1;
                        self.delivery.socket = self.numbers.get(number).copied().unwrap_or(0);
                        return Ok(Some(entrance.ticket()));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => watch.forget(),
                    // The error of an earlier send (ICMP), reported here; the next receive goes on.
                    Err(_) => {}
                }
            }
            if watches.take_device() {
                self.relieve(placement, watches)?;
            }
            if !watches.is_any_ready() {
                let since = *waiting_since.get_or_insert_with(Instant::now);
                poll::wait(&mut watches.all, None)?;
                self.standing.waited(since.elapsed());
            }
        }
        Ok(None)
    }

    /// A turn in the sender's place.
    fn relieve(&mut self, placement: &mut Placement, watches: &mut Watches<'_>) -> io::Result<()> {
        let Some(work) = &self.answers else {
            return Ok(());
        };
        match work.relieve()? {
            Some(relief) => {
                let has_more = relief.was_long || !relief.is_all;
                self.worked(turn_out(relief, has_more), placement, watches);
            }
            None => {
                work.duty.give_back();
                watches.watch_device(false);
            }
        }
        Ok(())
    }

    /// So much was received, or sent in the sender's place: there is little to do, or there no longer is.
    fn worked(&mut self, turn: Turn, placement: &mut Placement, watches: &mut Watches<'_>) {
        placement.worked(turn);
        self.is_calm = placement.is_calm();
        if self.relieves
            && let Some(work) = &self.answers
        {
            // In a flood of strangers' datagrams this is no place for packets of our own.
            let is_calm = self.is_calm && !self.standing.is_ordinary();
            watches.watch_device(work.duty.is_taken(is_calm));
        }
    }

    /// Buffers and bytes of the batch.
    fn size(&mut self) -> (usize, usize) {
        let lens = self.batch.iter_mut().map(|(from, _)| from.len);
        lens.fold((0, 0), |(buffers, bytes), len| (buffers + 1, bytes + len))
    }

    /// Opens the batch and finds out what is to be delivered. Beside other receivers.
    fn open(&mut self) {
        // Given back at the end, before the writes: the keys may have had their time.
        let snapshot = self.shared.cell.load();
        let mut datagrams = 0;
        for (number, (from, buffer)) in self.batch.iter_mut().enumerate() {
            if let Some(count) = forged(&from) {
                self.shared.drops.add(DropReason::MalformedDatagram, count);
                continue;
            }
            let start = number * RecvBatch::BUFFER_BYTES;
            let (shared, delivery) = (&self.shared, &mut self.delivery);
            let run = buffer.chunks_mut(from.stride);
            datagrams += delivery.open(shared, &snapshot, &from, run, start);
            open_relayed(shared, &snapshot, &from, (start, buffer), delivery);
        }
        let of_peers = self.delivery.take_of_peers();
        self.standing.served(of_peers, datagrams);
    }

    /// Hands the batch's packets to the device, when its turn has come. The turn ends with the ticket.
    // PROTOCOL SM-DV-3
    fn deliver(&mut self, ticket: &Ticket<'_>) -> io::Result<()> {
        let bytes = self.batch.bytes();
        self.delivery.send(&self.shared, bytes, || ticket.wait())
    }
}

impl<'w> Watches<'w> {
    /// The device is not watched yet.
    fn new(
        links: &[&'w UdpLink],
        stop: &'w Stop,
        others: &[&'w Waker],
        device: Option<&'w TunQueue>,
    ) -> Self {
        let ends = [stop.waker()].into_iter().chain(others.iter().copied());
        let mut all: Vec<_> = links.iter().copied().map(Watch::readable).collect();
        all.extend(ends.map(Watch::readable));
        let ends = all.len() - links.len();
        all.extend(device.map(Watch::readable));
        let mut watches = Self {
            all,
            links: links.len(),
            ends,
        };
        watches.watch_device(false);
        watches
    }

    fn link(&mut self, number: usize) -> &mut Watch<'w> {
        &mut self.all[number]
    }

    fn is_end(&self) -> bool {
        self.all[self.links..][..self.ends]
            .iter()
            .any(Watch::is_ready)
    }

    fn is_any_ready(&self) -> bool {
        self.all.iter().any(Watch::is_ready)
    }

    fn device(&mut self) -> Option<&mut Watch<'w>> {
        self.all.get_mut(self.links + self.ends)
    }

    fn watch_device(&mut self, watched: bool) {
        if let Some(device) = self.device() {
            device.set_active(watched);
        }
    }

    /// Whether the device has something, which the caller takes.
    fn take_device(&mut self) -> bool {
        let device = self.device().filter(|device| device.is_ready());
        device.map(Watch::forget).is_some()
    }
}

impl Delivery {
    /// Nothing to deliver; `gap` is how many bytes stand before each datagram.
    pub(super) fn new(shared: &Shared, gap: usize) -> Self {
        Self {
            coalescer: coalescer(shared.device.offloads()),
            socket: 0,
            gap,
            passing: Passing::new(gap),
            relayed: Relayed::default(),
            of_peers: 0,
            unresponsive: 0,
            whole: Vec::new(),
        }
    }

    /// Opens datagrams of one source that lie one behind the other from byte `start` on, each with its gap
    /// before it; returns how many there were.
    pub(super) fn open<'d>(
        &mut self,
        shared: &Shared,
        snapshot: &Snapshot,
        from: &udp::Received,
        run: impl IntoIterator<Item = &'d mut [u8]>,
        start: usize,
    ) -> u32 {
        let gap = self.gap;
        let mut control = ToControl::new(&shared.outbox, snapshot, from);
        control.received.socket = self.socket;
        let mut at = start + gap;
        let mut datagrams = 0;
        snapshot.inbound_run(run, |inbound, datagram| {
            judge(shared, &mut control, inbound, datagram, at, self);
            at += datagram.len() + gap;
            datagrams += 1;
        });
        control.finish();
        datagrams
    }

    /// How many datagrams were of peers, as far as can be told, since it was asked last.
    pub(super) fn take_of_peers(&mut self) -> u32 {
        std::mem::take(&mut self.of_peers)
    }

    fn count_unresponsive(&mut self, packet: &[u8]) {
        let view = IpPacket::parse(packet);
        let is_counted = view.is_ok_and(|view| placement::is_unresponsive(&view));
        self.unresponsive += u64::from(is_counted);
    }

    /// Sends and writes what was opened, after `turn` has come; `bytes` is what the datagrams lie in.
    pub(super) fn send(
        &mut self,
        shared: &Shared,
        bytes: &[u8],
        turn: impl FnOnce(),
    ) -> io::Result<()> {
        let writes = self.coalescer.finish();
        turn();
        self.passing.send(bytes, shared);
        let mut slices = [IoSlice::new(&[]); IOV_LEN_MAX];
        for write in writes {
            let len = write.gather(bytes, &mut slices);
            if let Err(error) = shared.device.write_vectored(&slices[..len]) {
                if is_device_gone(&error) {
                    return Err(error);
                }
                let packets = write.pieces().count() as u64;
                shared.drops.add(DropReason::DeviceFull, packets);
            }
        }
        for packet in self.whole.drain(..) {
            shared.deliver_alone(&packet);
        }
        Ok(())
    }
}

/// How many datagrams a buffer holds whose source claims to be one of our relays or streams: no network
/// delivers from there.
fn forged(from: &udp::Received) -> Option<u64> {
    let count = from.len.div_ceil(from.stride) as u64;
    (!Way::of(from.remote).is_udp()).then_some(count)
}

/// What relays passed on in a buffer, which starts at byte `start` of the batch: opened a second time, as
/// if it had been received the way it came.
// PROTOCOL SM-RL-2
pub(super) fn open_relayed(
    shared: &Shared,
    snapshot: &Snapshot,
    from: &udp::Received,
    (start, buffer): (usize, &mut [u8]),
    delivery: &mut Delivery,
) {
    let (mut relayed, of_peers) = (std::mem::take(&mut delivery.relayed), delivery.of_peers);
    relayed.drain(start, buffer, |remote, starts, datagrams| {
        let from = udp::Received {
            remote,
            local_ip: None,
            stride: datagrams.stride(),
            ..*from
        };
        let mut control = ToControl::new(&shared.outbox, snapshot, &from);
        snapshot.inbound_run(datagrams, |inbound, datagram| {
            let at = starts.next().expect("each datagram has a place");
            judge(
                shared,
                &mut control,
                inbound.inside(),
                datagram,
                at,
                delivery,
            );
        });
        control.finish();
    });
    // The frames around them were counted.
    (delivery.relayed, delivery.of_peers) = (relayed, of_peers);
}

/// One opened datagram, which starts at byte `at` of the batch.
fn judge(
    shared: &Shared,
    control: &mut ToControl<'_>,
    inbound: Inbound,
    datagram: &mut [u8],
    at: usize,
    delivery: &mut Delivery,
) {
    delivery.of_peers += u32::from(match inbound {
        Inbound::Packet { .. }
        | Inbound::Inner { .. }
        | Inbound::Fragment { .. }
        | Inbound::Envelope { .. }
        | Inbound::Relay { .. } => true,
        Inbound::NotSealed => control.known && !sealed::is_initial(datagram),
        Inbound::Dropped(_) => false,
    });
    match inbound {
        Inbound::Packet { range } => {
            let at = at + range.start;
            let packet = &mut datagram[range];
            delivery.count_unresponsive(packet);
            match traffic_class::decapsulate(packet, control.received.ecn.unwrap_or(0)) {
                Ok(()) if delivery.whole.is_empty() => delivery.coalescer.push(at, packet),
                // PROTOCOL SM-DV-3
                Ok(()) => delivery.whole.push(packet.to_vec()),
                Err(MarkedNotEct) => shared.drops.count(DropReason::EcnMarked),
            }
        }
        Inbound::Inner { peer, range } => {
            let inner = &datagram[range];
            shared.outbox.inner(peer, control.received, inner);
        }
        Inbound::Fragment { range } => {
            let drops = &shared.drops;
            let snapshot = control.snapshot;
            let whole = snapshot.reassemble(datagram, range, Instant::now(), drops);
            if let Some(packet) = whole {
                delivery.count_unresponsive(&packet);
                delivery.whole.push(packet);
            }
        }
        Inbound::Envelope { remote, range, .. } => {
            let range = at + range.start..at + range.end;
            delivery.relayed.push(remote, range);
        }
        Inbound::Relay { peer, label, range } => {
            let ecn = control.received.ecn.unwrap_or(0);
            let passed = match control.snapshot.relay(&peer, label) {
                Ok(to) => delivery.passing.seal(&to, (at, datagram), range, ecn),
                // The sender is to be told.
                Err(DropReason::RelayUnknown) => {
                    let inner = &datagram[range];
                    shared.outbox.inner(peer, control.received, inner);
                    Ok(())
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = passed {
                shared.drops.count(reason);
            }
        }
        Inbound::NotSealed => control.push(datagram),
        Inbound::Dropped(reason) => shared.drops.count(reason),
    }
}

/// Merges what the device takes merged.
pub(super) fn coalescer(offloads: Offloads) -> Coalescer {
    match offloads {
        Offloads::NONE => Coalescer::without_merging(),
        offloads => Coalescer::new(offloads.udp),
    }
}

/// What of one received buffer is control's. Datagrams of a peer are copied one behind the other into
/// one message, because packets may go by QUIC; what anybody else sends goes alone, into queues that
/// are shorter.
struct ToControl<'s> {
    outbox: &'s Outbox,
    snapshot: &'s Snapshot,
    received: Received,
    /// A peer with a session is at this address, as far as an address says.
    known: bool,
    /// Bytes of the buffer: as much as can come.
    len: usize,
    run: BytesMut,
    /// Length of the first datagram in the run, and so of all but the last.
    stride: usize,
    /// A shorter one was added: nothing may follow it.
    ended: bool,
}

impl<'s> ToControl<'s> {
    fn new(outbox: &'s Outbox, snapshot: &'s Snapshot, from: &udp::Received) -> Self {
        Self {
            outbox,
            snapshot,
            received: Received {
                remote: from.remote,
                local_ip: from.local_ip,
                ecn: from.ecn,
                socket: 0,
            },
            known: snapshot.knows(from.remote),
            len: from.len,
            run: BytesMut::new(),
            stride: 0,
            ended: false,
        }
    }

    fn push(&mut self, datagram: &[u8]) {
        if !self.known || sealed::is_initial(datagram) {
            return self.outbox.datagram(self.received, datagram, self.known);
        }
        // In a message of a stream every length may follow every other.
        if self.ended || datagram.len() > self.stride {
            self.flush();
            self.run.reserve(self.len);
            self.stride = datagram.len();
        }
        self.ended = datagram.len() < self.stride;
        self.run.extend_from_slice(datagram);
    }

    fn flush(&mut self) {
        if !self.run.is_empty() {
            let run = std::mem::take(&mut self.run);
            self.outbox.datagrams(self.received, run, self.stride);
        }
    }

    fn finish(mut self) {
        self.flush();
    }
}

/// `EBADFD`: the device was deleted while we held it. Every other refusal is about one packet, or
/// passes (`EIO` while the administrator has it down).
fn is_device_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADFD)
}

#[cfg(test)]
mod tests {
    use shadowmesh_wire::way::Label;

    use super::*;

    #[test]
    fn what_a_network_brings_in_the_name_of_a_relay_or_a_stream_is_forged_and_counted() {
        let relayed = Way::Relayed {
            slot: 1,
            label: Label(2),
        };
        let count = |remote| {
            forged(&udp::Received {
                remote,
                local_ip: None,
                ecn: None,
                stride: 1200,
                len: 2500,
            })
        };
        assert_eq!(count(relayed.address()), Some(3));
        assert_eq!(count(Way::Stream(7).address()), Some(3));
        for address in ["[100::1]:4433", "[100::ffff:0:0:1]:1"] {
            assert_eq!(count(address.parse().unwrap()), Some(3), "{address}");
        }
        for address in ["192.0.2.1:4433", "[2001:db8::1]:4433", "[100:0:0:1::1]:1"] {
            assert_eq!(count(address.parse().unwrap()), None, "{address}");
        }
    }
}
