//! What the data threads hand to control: bounded queues, one for each kind of sender.
//!
//! Kinds do not share a queue, because they do not deserve the same patience. A first packet may
//! come from anybody at any rate; it must not crowd out the control connections of peers, which must
//! not crowd out packets of our own applications that wait for a session.

use bytes::BytesMut;
use shadowmesh_net::{DropCounters, DropReason, Received};
use shadowmesh_wire::{PeerId, sealed};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::by_quic::{self, FrameBatch, ToQuic};
use crate::admin::report::QueueReport;

/// Messages of control connections that may wait. A peer's control connection sends a few datagrams
/// per second, a handshake is about 16; one that carries packets brings many in each message.
const CONTROL_MAX: usize = 1024;
/// Bytes of all such messages: some 10 ms of control's work on QUIC packets. More would only be delay,
/// and anybody may claim to be where a peer is.
const CONTROL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Datagrams from addresses without a session that are no first packets: handshakes under way, peers
/// that moved, and whatever else anybody sends.
const STRAY_MAX: usize = 512;
/// First packets that may wait. Control sheds those it cannot answer cheaply, so a longer queue would
/// only add delay for the honest ones in it.
const FIRST_MAX: usize = 512;
/// Inner frames that may wait. A peer sends a probe in a second; one that sends thousands loses the
/// surplus here and crowds out no handshake and no rekey of anybody.
const INNER_MAX: usize = 256;
/// Packets from the device that may wait to be looked at; what then waits for a session has a limit
/// of its own in `vpn`.
const DEVICE_MAX: usize = 256;

/// Refused lengths that may wait. One is enough; a lost one is told again by the next refusal.
const TOO_LONG_MAX: usize = 8;

/// Something for control from the network.
#[derive(Debug)]
pub enum FromNetwork {
    /// No sealed frame of a session we know.
    Datagram {
        /// Where it came from.
        received: Received,
        /// All of it, or of several that came together.
        data: BytesMut,
        /// Length of each of them but the last.
        stride: usize,
    },
    /// An authenticated inner frame that is no IP packet; its type byte first.
    Inner {
        /// Who sealed it.
        peer: PeerId,
        /// Where it came from: perhaps a new address of the peer.
        received: Received,
        /// The inner frame.
        inner: Vec<u8>,
    },
}

impl FromNetwork {
    fn len(&self) -> usize {
        match self {
            FromNetwork::Datagram { data, .. } => data.len(),
            FromNetwork::Inner { inner, .. } => inner.len(),
        }
    }
}

/// The reading ends, for control.
pub struct Inbox {
    /// Control connections of peers with a session.
    pub control: Receiver<FromNetwork>,
    /// Inner frames of peers that are no IP packets.
    pub inner: Receiver<FromNetwork>,
    /// From other addresses.
    pub stray: Receiver<FromNetwork>,
    /// First packets of anybody.
    pub first: Receiver<FromNetwork>,
    /// IP packets from the device whose peer has no session yet.
    pub device: Receiver<Vec<u8>>,
    /// Where datagrams of which length were refused by the host itself.
    pub too_long: Receiver<(SocketAddr, usize)>,
    /// Packets for peers whose packets go by QUIC.
    pub frames: Receiver<FrameBatch>,
    /// Bytes in `control`.
    control_bytes: Arc<AtomicUsize>,
}

impl Inbox {
    /// How much waits in each queue.
    pub fn lengths(&self) -> Vec<QueueReport> {
        fn report<T>(name: &'static str, queue: &Receiver<T>) -> QueueReport {
            QueueReport {
                name,
                len: queue.len(),
                limit: queue.max_capacity(),
            }
        }
        vec![
            report("control", &self.control),
            report("inner", &self.inner),
            report("stray", &self.stray),
            report("first", &self.first),
            report("device", &self.device),
            report("frames", &self.frames),
            report("too_long", &self.too_long),
        ]
    }

    /// To be told what was taken out of `control`.
    pub fn taken(&self, input: &[FromNetwork]) {
        let bytes = input.iter().map(FromNetwork::len).sum();
        self.control_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The writing ends, for the data threads.
#[derive(Clone)]
pub struct Outbox {
    control: Sender<FromNetwork>,
    inner: Sender<FromNetwork>,
    stray: Sender<FromNetwork>,
    first: Sender<FromNetwork>,
    device: Sender<Vec<u8>>,
    frames: Sender<FrameBatch>,
    control_bytes: Arc<AtomicUsize>,
    too_long: Sender<(SocketAddr, usize)>,
    drops: Arc<DropCounters>,
}

/// Both ends.
pub fn queues(drops: Arc<DropCounters>) -> (Outbox, Inbox) {
    let (control_tx, control) = mpsc::channel(CONTROL_MAX);
    let (inner_tx, inner) = mpsc::channel(INNER_MAX);
    let (stray_tx, stray) = mpsc::channel(STRAY_MAX);
    let (first_tx, first) = mpsc::channel(FIRST_MAX);
    let (device_tx, device) = mpsc::channel(DEVICE_MAX);
    let (frames_tx, frames) = by_quic::queue();
    let control_bytes = Arc::new(AtomicUsize::new(0));
    let (too_long_tx, too_long) = mpsc::channel(TOO_LONG_MAX);
    let outbox = Outbox {
        control: control_tx,
        inner: inner_tx,
        stray: stray_tx,
        first: first_tx,
        device: device_tx,
        frames: frames_tx,
        control_bytes: Arc::clone(&control_bytes),
        too_long: too_long_tx,
        drops,
    };
    let inbox = Inbox {
        control,
        inner,
        stray,
        first,
        device,
        frames,
        control_bytes,
        too_long,
    };
    (outbox, inbox)
}

impl Outbox {
    /// A datagram that no session opened. Copies only if there is room for it, so that a flood costs
    /// the receiver little more than the system call.
    ///
    /// `known`: it says that it comes from where a peer is.
    pub fn datagram(&self, received: Received, datagram: &[u8], known: bool) {
        let queue = match (sealed::is_initial(datagram), known) {
            (true, _) => &self.first,
            (false, true) => &self.control,
            (false, false) => &self.stray,
        };
        if std::ptr::eq(queue, &self.control) {
            return self.datagrams(received, BytesMut::from(datagram), datagram.len());
        }
        match queue.try_reserve() {
            Ok(place) => place.send(FromNetwork::Datagram {
                received,
                data: BytesMut::from(datagram),
                stride: datagram.len(),
            }),
            Err(_) => self.drops.count(DropReason::ControlBacklog),
        }
    }

    /// Datagrams of `stride` bytes each that came together from where a peer is, none of them a first
    /// packet. HOT PATH for peers whose packets go by QUIC.
    pub fn datagrams(&self, received: Received, data: BytesMut, stride: usize) {
        let waiting = self.control_bytes.load(Ordering::Relaxed);
        let place = self.control.try_reserve();
        match place.ok().filter(|_| waiting < CONTROL_BYTES_MAX) {
            Some(place) => {
                self.control_bytes.fetch_add(data.len(), Ordering::Relaxed);
                place.send(FromNetwork::Datagram {
                    received,
                    data,
                    stride,
                });
            }
            None => {
                let lost = data.len().div_ceil(stride.max(1)) as u64;
                self.drops.add(DropReason::ControlBacklog, lost);
            }
        }
    }

    /// The way to control for packets that go by QUIC.
    pub fn to_quic(&self) -> ToQuic {
        ToQuic::new(self.frames.clone(), Arc::clone(&self.drops))
    }

    /// An inner frame that is no IP packet.
    pub fn inner(&self, peer: PeerId, received: Received, inner: &[u8]) {
        match self.inner.try_reserve() {
            Ok(place) => place.send(FromNetwork::Inner {
                peer,
                received,
                inner: inner.to_vec(),
            }),
            Err(_) => self.drops.count(DropReason::ControlBacklog),
        }
    }

    /// The host refused to send a datagram of `len` bytes.
    pub fn too_long(&self, remote: SocketAddr, len: usize) {
        // Full: enough of them wait.
        let _ = self.too_long.try_send((remote, len));
    }

    /// An IP packet for a peer without a session.
    pub fn device(&self, packet: &[u8]) {
        match self.device.try_reserve() {
            Ok(place) => place.send(packet.to_vec()),
            Err(_) => self.drops.count(DropReason::WaitingQueueFull),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initial() -> Vec<u8> {
        let mut datagram = vec![0xc3, 0, 0, 0, 1];
        datagram.resize(1200, 0);
        datagram
    }

    #[test]
    fn a_flood_of_first_packets_leaves_room_for_control_and_every_lost_one_is_counted() {
        let drops = Arc::new(DropCounters::default());
        let (outbox, mut inbox) = queues(drops.clone());
        let from = Received::from_remote("192.0.2.1:1".parse().unwrap());
        for _ in 0..FIRST_MAX + 10 {
            outbox.datagram(from, &initial(), true);
        }
        assert_eq!(drops.get(DropReason::ControlBacklog), 10);
        outbox.datagram(from, &[0x43; 60], true);
        assert!(inbox.control.try_recv().is_ok());
        assert!(inbox.first.try_recv().is_ok());
    }

    #[test]
    fn merged_datagrams_of_a_peer_are_one_message_and_bounded_by_their_bytes() {
        let drops = Arc::new(DropCounters::default());
        let (outbox, mut inbox) = queues(drops.clone());
        let from = Received::from_remote("192.0.2.1:1".parse().unwrap());
        let run = BytesMut::from(&[0x43; 60_000][..]);
        let fit = CONTROL_BYTES_MAX.div_ceil(run.len());
        for _ in 0..fit + 2 {
            outbox.datagrams(from, run.clone(), 1200);
        }
        assert_eq!(drops.get(DropReason::ControlBacklog), 2 * 50);
        let taken = inbox.control.try_recv().expect("the first is there");
        assert!(matches!(taken, FromNetwork::Datagram { stride: 1200, .. }));
        inbox.taken(&[taken]);
        outbox.datagrams(from, run, 1200);
        assert_eq!(drops.get(DropReason::ControlBacklog), 2 * 50);
    }

    #[test]
    fn a_flood_of_other_packets_of_strangers_leaves_room_for_control() {
        let drops = Arc::new(DropCounters::default());
        let (outbox, mut inbox) = queues(drops.clone());
        let from = Received::from_remote("192.0.2.1:1".parse().unwrap());
        for _ in 0..STRAY_MAX + CONTROL_MAX {
            outbox.datagram(from, &[0x43; 60], false);
        }
        assert_eq!(drops.get(DropReason::ControlBacklog), CONTROL_MAX as u64);
        outbox.datagram(from, &[0x43; 60], true);
        assert!(inbox.control.try_recv().is_ok());
        assert!(inbox.stray.try_recv().is_ok());
    }

    #[test]
    fn a_peer_that_floods_inner_frames_leaves_room_for_control() {
        let drops = Arc::new(DropCounters::default());
        let (outbox, mut inbox) = queues(drops.clone());
        let from = Received::from_remote("192.0.2.1:1".parse().unwrap());
        for _ in 0..CONTROL_MAX + INNER_MAX {
            outbox.inner(PeerId::from_bytes([1; 32]), from, &[3; 10]);
        }
        assert_eq!(drops.get(DropReason::ControlBacklog), CONTROL_MAX as u64);
        outbox.datagram(from, &[0x43; 60], true);
        assert!(inbox.control.try_recv().is_ok());
        assert!(inbox.inner.try_recv().is_ok());
    }
}
