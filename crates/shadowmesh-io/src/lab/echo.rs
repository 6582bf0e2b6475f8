//! Pinging (ICMP echo, RFC 792 and RFC 4443), with every round trip kept.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::checksum;
use crate::poll::{self, Watch};

const HEADER_LEN: usize = 8;
/// After the header: a number that is ours, and the sequence in full.
const PAYLOAD_LEN_MIN: usize = 16;

/// A series of pings.
#[derive(Debug, Clone, Copy)]
pub struct Echo {
    /// Whom to ping.
    pub target: IpAddr,
    /// How many.
    pub count: u32,
    /// Time between two; they do not wait for each other's answers.
    pub interval: Duration,
    /// How long to wait for answers after the last.
    pub timeout: Duration,
    /// Bytes after the ICMP header; at least 16.
    pub payload_len: usize,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EchoReport {
    /// Requests sent.
    pub sent: u32,
    /// Requests the network refused at once (no route, queue full); part of `sent`.
    pub refused: u32,
    /// Answers, each request counted once.
    pub received: u32,
    /// Further answers to a request already answered.
    pub duplicates: u32,
    /// Round trips in the order the answers came.
    pub round_trips: Vec<Duration>,
}

impl EchoReport {
    /// The round trip that the given part (0 to 1) of all answers stays within.
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort_unstable();
        let rank = (part.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).copied()
    }
}

impl Echo {
    /// Pings from the calling thread and its namespace, until all answers are in or the timeout
    /// is over.
    pub fn run(&self) -> io::Result<EchoReport> {
        Run::new(self)?.finish()
    }

    /// Pings at the interval, however many it takes, until any of the requests is answered; how long that
    /// took from the first one on, or `None` after `limit`. An answer counts however late it comes, or a
    /// machine that is busy would look like one that is out of reach. There need not even be a route to
    /// the target at the start.
    pub fn until_answered(&self, limit: Duration) -> io::Result<Option<Duration>> {
        Run::new(self)?.until_answered(limit)
    }
}

struct Run<'a> {
    plan: &'a Echo,
    socket: Socket,
    /// Raw IPv4 sockets hand over the IP header too.
    ip_header: bool,
    target: SockAddr,
    token: u64,
    start: Instant,
    /// When the next request is due.
    due: Instant,
    pending: HashMap<u32, Instant>,
    report: EchoReport,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Echo) -> io::Result<Self> {
        let (socket, raw) = open(plan.target)?;
        socket.set_nonblocking(true)?;
        let start = Instant::now();
        // Tells our answers from those of another run; nobody is to be fooled, so the seed that
        // the standard library draws for hashing will do.
        let token = RandomState::new().hash_one(start);
        Ok(Self {
            plan,
            socket,
            ip_header: raw && plan.target.is_ipv4(),
            target: SocketAddr::new(plan.target, 0).into(),
            token,
            start,
            due: start,
            pending: HashMap::new(),
            report: EchoReport::default(),
        })
    }

    fn finish(mut self) -> io::Result<EchoReport> {
        let mut deadline = self.start + self.plan.timeout;
        loop {
            let now = Instant::now();
            if self.report.sent < self.plan.count && now >= self.due {
                self.send()?;
                self.due = next_due(self.due, self.plan.interval, now);
                deadline = Instant::now() + self.plan.timeout;
            }
            self.receive_all()?;
            let sent_all = self.report.sent == self.plan.count;
            if sent_all && (self.pending.is_empty() || now >= deadline) {
                return Ok(self.report);
            }
            let next = if sent_all { deadline } else { self.due };
            let wait = next.saturating_duration_since(Instant::now());
            poll::wait(&mut [Watch::readable(&self.socket)], Some(wait))?;
        }
    }

    fn until_answered(mut self, limit: Duration) -> io::Result<Option<Duration>> {
        let deadline = self.start + limit;
        loop {
            let now = Instant::now();
            if now >= self.due {
                // Whatever is in the way of this one may be gone before the next.
                let _ = self.send();
                self.due = next_due(self.due, self.plan.interval, now);
            }
            self.receive_all()?;
            if self.report.received > 0 {
                return Ok(Some(self.start.elapsed()));
            }
            if now >= deadline {
                return Ok(None);
            }
            let wait = self.due.min(deadline).saturating_duration_since(now);
            poll::wait(&mut [Watch::readable(&self.socket)], Some(wait))?;
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let sequence = self.report.sent;
        let message = self.request(sequence);
        self.report.sent += 1;
        let now = Instant::now();
        match self.socket.send_to(&message, &self.target) {
            Ok(_) => drop(self.pending.insert(sequence, now)),
            Err(error) if is_passing(&error) => self.report.refused += 1,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Type, code, checksum, identifier, sequence; then token, full sequence and padding. On
    /// ping sockets the kernel sets identifier and checksum, on raw IPv6 ones the checksum.
    fn request(&self, sequence: u32) -> Vec<u8> {
        let payload_len = self.plan.payload_len.max(PAYLOAD_LEN_MIN);
        let mut message = vec![0; HEADER_LEN + payload_len];
        message[0] = if self.plan.target.is_ipv4() { 8 } else { 128 };
        message[4..6].copy_from_slice(&(self.token as u16).to_be_bytes());
        message[6..8].copy_from_slice(&(sequence as u16).to_be_bytes());
        message[8..16].copy_from_slice(&self.token.to_be_bytes());
        message[16..20].copy_from_slice(&sequence.to_be_bytes());
        let sum = !checksum::sum(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }

    fn receive_all(&mut self) -> io::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let received = match (&self.socket).read(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_passing(&error) => continue,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            if let Some(sequence) = self.answer(&buffer[..received]) {
                self.count(sequence, now);
            }
        }
    }

    /// The sequence of one of our requests that this message answers.
    fn answer(&self, mut bytes: &[u8]) -> Option<u32> {
        if self.ip_header {
            bytes = bytes.get(usize::from(bytes.first()? & 0xf) * 4..)?;
        }
        let reply = if self.plan.target.is_ipv4() { 0 } else { 129 };
        let header = bytes.first_chunk::<20>()?;
        let ours = header[0] == reply && header[8..16] == self.token.to_be_bytes();
        ours.then(|| u32::from_be_bytes([header[16], header[17], header[18], header[19]]))
    }

    fn count(&mut self, sequence: u32, now: Instant) {
        match self.pending.remove(&sequence) {
            Some(sent) => {
                self.report.received += 1;
                self.report
                    .round_trips
                    .push(now.saturating_duration_since(sent));
            }
            None => self.report.duplicates += 1,
        }
    }
}

/// What a machine kept us from sending is sent later, and not in a burst: whose answers would overflow
/// the socket's buffer and look like loss on the way.
fn next_due(due: Instant, interval: Duration, now: Instant) -> Instant {
    (due + interval).max(now)
}

/// A raw socket where we may (root), else a ping socket (`net.ipv4.ping_group_range`); and
/// whether it is raw.
fn open(target: IpAddr) -> io::Result<(Socket, bool)> {
    let (domain, protocol) = if target.is_ipv4() {
        (Domain::IPV4, Protocol::ICMPV4)
    } else {
        (Domain::IPV6, Protocol::ICMPV6)
    };
    match Socket::new(domain, Type::from(libc::SOCK_RAW), Some(protocol)) {
        Ok(socket) => Ok((socket, true)),
        Err(_) => Ok((Socket::new(domain, Type::DGRAM, Some(protocol))?, false)),
    }
}

/// Errors that tell about the network at this moment, not about the program: a ping is lost.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::ENOBUFS
                | libc::EAGAIN
                | libc::ECONNREFUSED
                | libc::EMSGSIZE
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_pause_of_the_machine_requests_go_on_at_their_interval() {
        let interval = Duration::from_millis(2);
        let start = Instant::now();
        let mut due = start;
        let mut now = start + Duration::from_secs(1);
        let mut times = Vec::new();
        while times.len() < 10 {
            if now >= due {
                due = next_due(due, interval, now);
                times.push(now);
            }
            now += Duration::from_micros(100);
        }
        assert!(times[9] - times[1] >= interval * 7);
        assert_eq!(next_due(start, interval, start), start + interval);
    }

    #[test]
    fn quantiles_are_taken_from_the_sorted_round_trips() {
        let round_trips = [30, 10, 20, 40].map(Duration::from_micros).to_vec();
        let report = EchoReport {
            round_trips,
            ..EchoReport::default()
        };
        assert_eq!(report.quantile(0.5), Some(Duration::from_micros(20)));
        assert_eq!(report.quantile(0.99), Some(Duration::from_micros(40)));
        assert_eq!(report.quantile(0.0), Some(Duration::from_micros(10)));
        assert_eq!(EchoReport::default().quantile(0.5), None);
    }
}
