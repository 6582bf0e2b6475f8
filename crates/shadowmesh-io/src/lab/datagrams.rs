//! Numbered UDP datagrams from one program to another: how many arrive, and how many do not.
//!
//! The source hands the kernel up to 16 datagrams with one call, as media servers and QUIC libraries
//! do, and uses no segmentation offload: the question is what a tunnel makes of small packets, each
//! of which the kernel gives it alone. Paced, it sleeps [`TICK`] between bursts and sends what is due. The sink must not be what is measured, so it has
//! a large buffer, wakes once in a millisecond and takes everything in batches; on a bare cable it
//! keeps up with the fastest source. Numbers make the count of lost ones exact.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::batch::{ReceiveBatch, SEND_BATCH_LEN, SendBatch};
use crate::sys;

/// A number of the run and a number of the datagram, in the payload's first bytes.
pub const DATAGRAM_PAYLOAD_LEN_MIN: usize = 16;
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
        let unspecified: SocketAddr = match self.target {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(unspecified)?;
        socket.connect(self.target)?;
        let mut payload = vec![0x5a; self.payload_len];
        payload[..8].copy_from_slice(&self.token.to_be_bytes());
        let mut sender = Sender {
            socket,
            batch: SendBatch::new(&payload, 8),
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
            sender.send(SEND_BATCH_LEN as u64)?;
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
    socket: UdpSocket,
    batch: SendBatch,
    report: SourceReport,
}

impl Sender {
    fn send(&mut self, count: u64) -> io::Result<()> {
        let mut left = count;
        while left > 0 {
            let burst = left.min(SEND_BATCH_LEN as u64) as usize;
            let sent = match self.batch.send(&self.socket, self.report.sent, burst) {
                Ok(sent) => sent as u64,
                // A full queue, or an earlier ICMP error: this datagram is lost, and counts as lost.
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENOBUFS | libc::EAGAIN | libc::ECONNREFUSED | libc::EMSGSIZE) => {
                        self.report.refused += 1;
                        1
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

/// Where the datagrams go.
pub struct DatagramSink {
    socket: Socket,
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
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        // Beyond the limit for ordinary users; where that is refused, up to the limit.
        if sys::set_option(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            SINK_BUFFER_LEN as libc::c_int,
        )
        .is_err()
        {
            socket.set_recv_buffer_size(SINK_BUFFER_LEN)?;
        }
        socket.bind(&address.into())?;
        Ok(Self { socket })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        let address = self.socket.local_addr()?;
        address
            .as_socket()
            .ok_or_else(|| io::Error::other("an IP socket without an IP address"))
    }

    /// Counts until `done` is set and nothing has come for `quiet`.
    pub fn run(&self, token: u64, done: &AtomicBool, quiet: Duration) -> io::Result<SinkReport> {
        let mut batch = ReceiveBatch::new();
        let mut count = Count::default();
        let mut last_look_with_any = Instant::now();
        loop {
            let finishing = done.load(Ordering::Acquire);
            let mut any = false;
            while batch.receive(&self.socket)? > 0 {
                let now = Instant::now();
                for head in batch.heads() {
                    if head[..8] == token.to_be_bytes() {
                        let number = head[8..16].try_into().expect("eight bytes");
                        count.add(u64::from_be_bytes(number), now);
                        any = true;
                    }
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
        if number >= NUMBER_MAX + SEND_BATCH_LEN as u64 {
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

    fn run(rate: Option<f64>, duration: Duration) -> (SourceReport, SinkReport) {
        let sink = DatagramSink::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let source = DatagramSource {
            target: sink.address().unwrap(),
            payload_len: 64,
            rate,
            duration,
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
        let (sent, received) = run(Some(5000.0), Duration::from_millis(200));
        assert!((100..=1001).contains(&sent.sent), "{sent:?}");
        assert_eq!(received.received, sent.sent);
        assert_eq!((received.duplicates, received.reordered), (0, 0));
    }

    #[test]
    fn a_flood_is_faster_than_any_pace_in_real_time() {
        let (sent, received) = run(None, Duration::from_millis(100));
        assert!(sent.sent > 2000, "{sent:?}");
        assert!(received.received > 1000, "{received:?}");
    }

    #[test]
    fn another_run_s_datagrams_are_not_counted() {
        let sink = DatagramSink::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let source = DatagramSource {
            target: sink.address().unwrap(),
            payload_len: 16,
            rate: Some(1000.0),
            duration: Duration::from_millis(20),
            token: 1,
        };
        source.run().unwrap();
        let report = sink.run(2, &AtomicBool::new(true), Duration::ZERO).unwrap();
        assert_eq!(report, SinkReport::default());
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
