//! Numbered UDP datagrams from one program to another: how many arrive, and how many do not.
//!
//! There are two ways of doing it ([`Batching`]). *Alone*, the source hands the kernel up to 16 datagrams
//! with one call, as media servers do, and uses no segmentation offload: the question is what a tunnel
//! makes of small packets, each of which the kernel gives it alone. *Together*, it hands over up to 64 as
//! one super-packet (`UDP_SEGMENT`), and the sink takes such (`UDP_GRO`), as QUIC libraries do.
//!
//! Paced, the source sleeps [`TICK`] between bursts and sends what is due. The sink must not be what is
//! measured, so it has a large buffer, wakes once in a millisecond and takes everything in batches; on a
//! bare cable it keeps up with the fastest source. Numbers make the count of lost ones exact.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::batch::{HEAD_LEN, ReceiveBatch, SEND_BATCH_LEN, SendBatch};
use super::super_packet::{self, SEGMENTS_MAX, SuperPacket};
use crate::sys;
use crate::udp::{RecvBatch, UdpLink};

/// A number of the run and a number of the datagram, in the payload's first bytes.
pub const DATAGRAM_PAYLOAD_LEN_MIN: usize = 16;
/// Where the second of them stands.
const NUMBER_AT: usize = 8;
/// Time between bursts of a paced source. At 1 Gbit/s of 1300 bytes a burst is 20 datagrams: no
/// queue of a tunnel is too short for that, and a finer clock would eat the CPU it measures.
const TICK: Duration = Duration::from_micros(200);
/// A source that was not scheduled for longer than this does not make up for it: the burst would
/// measure the scheduler and the queue, not the tunnel.
const CATCH_UP_MAX: Duration = Duration::from_millis(1);
/// Buffer of the sink: 10 ms of the fastest flood a machine of today makes.
const SINK_BUFFER_LEN: usize = 32 << 20;
/// Between two looks of the sink into its buffer.
const SINK_NAP: Duration = Duration::from_millis(1);
/// Numbers above this are not ours; it bounds the memory of the count (2 MB).
const NUMBER_MAX: u64 = 1 << 24;

/// How datagrams pass between a program and its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batching {
    /// Each is a packet of its own; `sendmmsg` and `recvmmsg` save system calls and nothing else.
    Alone,
    /// Up to 64, or 64 KB, are one super-packet.
    Together,
}

/// A bounded series of datagrams of one size.
#[derive(Debug, Clone, Copy)]
pub struct DatagramSource {
    /// Where to.
    pub target: SocketAddr,
    /// UDP payload; at least [`DATAGRAM_PAYLOAD_LEN_MIN`].
    pub payload_len: usize,
    /// Datagrams per second; `None` is as fast as the program can.
    pub rate: Option<f64>,
    /// For how long.
    pub duration: Duration,
    /// How they are handed to the kernel.
    pub batching: Batching,
    /// Tells this run from others; the sink must be given the same.
    pub token: u64,
}

/// What a source did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceReport {
    /// Datagrams the application handed over, each with its own number.
    pub sent: u64,
    /// Part of `sent` that the kernel refused at once because a queue was full.
    pub refused: u64,
    /// From the first to the last.
    pub elapsed: Duration,
}

impl DatagramSource {
    /// Sends from the calling thread and its namespace until the time is over.
    pub fn run(&self) -> io::Result<SourceReport> {
        assert!(
            self.payload_len >= DATAGRAM_PAYLOAD_LEN_MIN,
            "no room for the numbers"
        );
        let mut payload = vec![0x5a; self.payload_len];
        payload[..8].copy_from_slice(&self.token.to_be_bytes());
        let mut sender = Sender {
            outlet: Outlet::new(self.batching, self.target, &payload)?,
            report: SourceReport::default(),
        };
        let start = Instant::now();
        match self.rate {
            None => self.flood(&mut sender, start)?,
            Some(rate) => self.paced(&mut sender, rate, start)?,
        }
        sender.report.elapsed = start.elapsed();
        Ok(sender.report)
    }

    fn flood(&self, sender: &mut Sender, start: Instant) -> io::Result<()> {
        while sender.report.sent < NUMBER_MAX && start.elapsed() < self.duration {
            sender.send(sender.outlet.batch_len() as u64)?;
        }
        Ok(())
    }

    fn paced(&self, sender: &mut Sender, rate: f64, start: Instant) -> io::Result<()> {
        let burst_max = (rate * CATCH_UP_MAX.as_secs_f64()).max(1.0) as u64;
        // Datagrams that were due while the source was not scheduled, and that nobody sends.
        let mut forgone = 0;
        loop {
            let elapsed = start.elapsed();
            if elapsed >= self.duration || sender.report.sent >= NUMBER_MAX {
                return Ok(());
            }
            let due = ((rate * elapsed.as_secs_f64()) as u64)
                .saturating_sub(sender.report.sent + forgone);
            forgone += due.saturating_sub(burst_max);
            sender.send(due.min(burst_max))?;
            std::thread::sleep(TICK);
        }
    }
}

struct Sender {
    outlet: Outlet,
    report: SourceReport,
}

impl Sender {
    fn send(&mut self, count: u64) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let burst = left.min(self.outlet.batch_len() as u64) as usize;
            let sent = match self.outlet.send(self.report.sent, burst) {
                Ok(sent) => sent as u64,
                // A full queue, or an earlier ICMP error: what one call means is lost, and counts as
                // lost.
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOBUFS | libc::EAGAIN | libc::ECONNREFUSED | libc::EMSGSIZE) => {
                        let lost = self.outlet.refused_of(burst);
                        self.report.refused += lost;
                        lost
                    }
                    _ => return Err(error),
                },
            };
            self.report.sent += sent;
            left -= sent.min(left);
        }
        Ok(())
    }
}

/// The socket of a source.
enum Outlet {
    Alone(UdpSocket, SendBatch),
    Together(SuperPacket),
}

impl Outlet {
    fn new(batching: Batching, target: SocketAddr, payload: &[u8]) -> io::Result<Self> {
        if batching == Batching::Together {
            return Ok(Self::Together(SuperPacket::new(
                target, payload, NUMBER_AT,
            )?));
        }
        let unspecified: SocketAddr = match target {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(unspecified)?;
        socket.connect(target)?;
        Ok(Self::Alone(socket, SendBatch::new(payload, NUMBER_AT)))
    }

    /// Datagrams of one call.
    fn batch_len(&self) -> usize {
        match self {
            Self::Alone(..) => SEND_BATCH_LEN,
            Self::Together(packet) => packet.segments(),
        }
    }

    fn send(&mut self, first: u64, count: usize) -> io::Result<usize> {
        match self {
            Self::Alone(socket, batch) => batch.send(socket, first, count),
            Self::Together(packet) => packet.send(first, count),
        }
    }

    /// How many of a burst are lost with one error: `sendmmsg` stops before the first.
    fn refused_of(&self, burst: usize) -> u64 {
        match self {
            Self::Alone(..) => 1,
            Self::Together(_) => burst as u64,
        }
    }
}

/// Where the datagrams go.
pub struct DatagramSink(Inlet);

/// The socket of a sink.
enum Inlet {
    Alone(Socket),
    Together(UdpLink),
}

/// What arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkReport {
    /// Different datagrams of the run.
    pub received: u64,
    /// Datagrams that came a second time.
    pub duplicates: u64,
    /// Datagrams that came after one with a higher number.
    pub reordered: u64,
    /// From the first to the last.
    pub elapsed: Duration,
}

impl DatagramSink {
    /// A sink in the namespace of the calling thread.
    pub fn bind(address: SocketAddr, batching: Batching) -> io::Result<Self> {
        let inlet = match batching {
            Batching::Alone => {
                let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
                enlarge_buffer(&socket)?;
                socket.bind(&address.into())?;
                Inlet::Alone(socket)
            }
            Batching::Together => {
                let link = UdpLink::bind_unmarked(address)?;
                enlarge_buffer(&link)?;
                Inlet::Together(link)
            }
        };
        Ok(Self(inlet))
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Inlet::Alone(socket) => socket
                .local_addr()?
                .as_socket()
                .ok_or_else(|| io::Error::other("an IP socket without an IP address")),
            Inlet::Together(link) => Ok(link.local_addr()),
        }
    }

    /// Counts until `done` is set and nothing has come for `quiet`.
    pub fn run(&self, token: u64, done: &AtomicBool, quiet: Duration) -> io::Result<SinkReport> {
        match &self.0 {
            Inlet::Alone(socket) => {
                let mut batch = ReceiveBatch::new();
                count(token, done, quiet, |each| {
                    let received = batch.receive(socket)?;
                    batch.heads().for_each(each);
                    Ok(received)
                })
            }
            Inlet::Together(link) => {
                let mut batch = RecvBatch::new();
                count(token, done, quiet, |each| {
                    super_packet::receive(link, &mut batch, each)
                })
            }
        }
    }
}

/// Beyond the limit for ordinary users; where that is refused, up to the limit.
fn enlarge_buffer(socket: &impl AsFd) -> io::Result<()> {
    let len = SINK_BUFFER_LEN as libc::c_int;
    let forced = sys::set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, len);
    forced.or_else(|_| sys::set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, len))
}

/// Counts what `receive` shows, which takes what is there and returns 0 when nothing was.
fn count(
    token: u64,
    done: &AtomicBool,
    quiet: Duration,
    mut receive: impl FnMut(&mut dyn FnMut(&[u8; HEAD_LEN])) -> io::Result<usize>,
) -> io::Result<SinkReport> {
    let mut count = Count::default();
    let mut last_look_with_any = Instant::now();
    loop {
        let finishing = done.load(Ordering::Acquire);
        let mut any = false;
        loop {
            let now = Instant::now();
            let received = receive(&mut |head| {
                if head[..NUMBER_AT] == token.to_be_bytes() {
                    let number = head[NUMBER_AT..].try_into().expect("eight bytes");
                    count.add(u64::from_be_bytes(number), now);
                    any = true;
                }
            })?;
            if received == 0 {
                break;
            }
        }
        if any {
            last_look_with_any = Instant::now();
        } else if finishing && last_look_with_any.elapsed() > quiet {
            return Ok(count.report);
        }
        std::thread::sleep(SINK_NAP);
    }
}

/// Which numbers were seen, one bit each.
#[derive(Default)]
struct Count {
    seen: Vec<u64>,
    next: u64,
    first: Option<Instant>,
    report: SinkReport,
}

impl Count {
    fn add(&mut self, number: u64, now: Instant) {
        if number >= NUMBER_MAX + SEGMENTS_MAX as u64 {
            return;
        }
        let (word, bit) = ((number / 64) as usize, 1u64 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.report.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        self.report.received += 1;
        if number < self.next {
            self.report.reordered += 1;
        }
        self.next = self.next.max(number + 1);
        self.report.elapsed = now - *self.first.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn run(
        batching: Batching,
        rate: Option<f64>,
        duration: Duration,
    ) -> (SourceReport, SinkReport) {
        let sink = DatagramSink::bind((Ipv4Addr::LOCALHOST, 0).into(), batching).unwrap();
        let source = DatagramSource {
            target: sink.address().unwrap(),
            payload_len: 64,
            rate,
            duration,
            batching,
            token: 7,
        };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let received = scope.spawn(|| sink.run(7, &done, Duration::from_millis(50)).unwrap());
            let sent = source.run().unwrap();
            done.store(true, Ordering::Release);
            (sent, received.join().unwrap())
        })
    }

    #[test]
    fn a_paced_series_arrives_whole_and_at_no_more_than_its_rate_in_real_time() {
        for batching in [Batching::Alone, Batching::Together] {
            let (sent, received) = run(batching, Some(5000.0), Duration::from_millis(200));
            assert!((100..=1001).contains(&sent.sent), "{batching:?} {sent:?}");
            assert_eq!(received.received, sent.sent, "{batching:?}");
            assert_eq!((received.duplicates, received.reordered), (0, 0));
        }
    }

    #[test]
    fn a_flood_is_faster_than_any_pace_in_real_time() {
        for batching in [Batching::Alone, Batching::Together] {
            let (sent, received) = run(batching, None, Duration::from_millis(100));
            assert!(sent.sent > 2000, "{batching:?} {sent:?}");
            assert!(received.received > 1000, "{batching:?} {received:?}");
        }
    }

    #[test]
    fn another_run_s_datagrams_are_not_counted() {
        let localhost = (Ipv4Addr::LOCALHOST, 0).into();
        let sink = DatagramSink::bind(localhost, Batching::Alone).unwrap();
        let source = DatagramSource {
            target: sink.address().unwrap(),
            payload_len: 16,
            rate: Some(1000.0),
            duration: Duration::from_millis(20),
            batching: Batching::Alone,
            token: 1,
        };
        source.run().unwrap();
        let report = sink.run(2, &AtomicBool::new(true), Duration::ZERO).unwrap();
        assert_eq!(report, SinkReport::default());
    }

    #[test]
    fn datagrams_that_are_sent_together_arrive_as_super_packets() {
        let sink = UdpLink::bind_unmarked((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let mut source = SuperPacket::new(sink.local_addr(), &[7; 100], NUMBER_AT).unwrap();
        assert_eq!(source.send(40, 33).unwrap(), 33);
        let (mut batch, mut numbers) = (RecvBatch::new(), Vec::new());
        let buffers = super_packet::receive(&sink, &mut batch, |head: &[u8; HEAD_LEN]| {
            numbers.push(u64::from_be_bytes(head[NUMBER_AT..].try_into().unwrap()));
        });
        assert_eq!(buffers.unwrap(), 1);
        assert_eq!(numbers, (40..73).collect::<Vec<_>>());
    }

    #[test]
    fn a_number_counts_once_and_late_ones_are_told() {
        let mut count = Count::default();
        let now = Instant::now();
        for number in [0, 2, 1, 2, u64::MAX] {
            count.add(number, now);
        }
        let report = count.report;
        assert_eq!(report.received, 3);
        assert_eq!((report.duplicates, report.reordered), (1, 1));
    }
}
