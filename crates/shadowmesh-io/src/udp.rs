//! UDP sockets that move many datagrams per system call.
//!
//! A [`UdpLink`] is one bound socket, IPv4 or IPv6 (an IPv6 link never takes IPv4, so a node binds
//! one of each to the same port). Receiving fills a [`RecvBatch`] with `recvmmsg` and GRO: each
//! buffer holds one or more datagrams of one sender, all `stride` bytes long but the last. Sending
//! takes a run of equal segments and hands it over with GSO. Neither blocks.
//!
//! Policy:
//! - Nothing is fragmented unless the caller says that it may be: `IP_PMTUDISC_PROBE` sets DF and
//!   ignores the kernel's cached path MTU, because finding the path MTU is the protocol's business and
//!   ICMP can be forged. A [`Transmit`] with `may_fragment` goes without DF.
//! - Where the kernel or the route cannot do GSO, the same call sends segment by segment, for this
//!   socket and from then on. A run that is refused because a segment exceeds the interface MTU
//!   is not mistaken for that.
//! - Send errors are the caller's to judge; [`SendFault::of`] sorts them by what to do about them.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};

use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};

#[cfg(target_os = "linux")]
mod send;

use crate::late;
#[cfg(target_os = "linux")]
use crate::sys;
use crate::underlay;

/// What we ask for in each direction: 50 ms at 1 Gbit/s, enough for a control thread that is busy
/// with a handshake; larger ones only add queueing delay.
const SOCKET_BUFFER_BYTES: usize = 7 * 1024 * 1024;

/// Largest payload of one GSO run: the 65535 of an IPv4 total length less 20 of IP and 8 of UDP.
/// (IPv6 would allow 20 more; one limit for both keeps runs interchangeable.)
pub const GSO_BYTES_MAX: usize = 65_507;

/// The payload that fits 576 bytes of IPv4, which every network passes whole.
const UNFRAGMENTED_MAX: usize = 548;

/// One receive buffer: GRO builds up to 65535 bytes, and a shorter buffer would cut them.
const RECV_BUFFER_BYTES: usize = 65_536;

/// Layout of `SO_MEMINFO` (linux/sock_diag.h, `SK_MEMINFO_*`): nine counters, drops the last.
#[cfg(target_os = "linux")]
const MEMINFO_WORDS: usize = 9;
#[cfg(target_os = "linux")]
const MEMINFO_DROPS: usize = 8;

/// A run of datagrams to one peer.
#[derive(Debug, Clone)]
pub struct Transmit<'a> {
    /// Where to.
    pub remote: SocketAddr,
    /// Which of our addresses to send from; `None` lets the route decide.
    pub local_ip: Option<IpAddr>,
    /// The traffic class of the IP header: DSCP (RFC 2474) and ECN (RFC 3168).
    pub traffic_class: u8,
    /// The network may cut it: IPv4 without DF. For rare datagrams that must pass every path.
    pub may_fragment: bool,
    /// `Some(n)`: `contents` is a run of `n`-byte datagrams, the last may be shorter.
    pub segment_size: Option<usize>,
    /// The datagram or datagrams.
    pub contents: &'a [u8],
}

/// What is known about one received buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub remote: SocketAddr,
    /// Which of our addresses it was sent to.
    pub local_ip: Option<IpAddr>,
    /// The ECN bits, if any are set.
    pub ecn: Option<u8>,
    /// Length of every datagram in the buffer but the last, which may be shorter. Never 0.
    pub stride: usize,
    /// Bytes in the buffer.
    pub len: usize,
}

/// A bound, nonblocking UDP socket.
pub struct UdpLink {
    socket: UdpSocket,
    state: UdpSocketState,
    local_addr: SocketAddr,
    /// Whether the host has the address, when last looked.
    is_here: AtomicBool,
    /// 1 once GSO proved not to work here. Ours and not quinn-udp's, which also gives GSO up for
    /// good when a segment was merely larger than the interface MTU.
    gso_segments: AtomicUsize,
    /// Held while DF is off.
    #[cfg(target_os = "linux")]
    fragmenting: Mutex<()>,
}

impl UdpLink {
    /// Binds a socket of the address's family, ahead of its address where that is not there yet
    /// ([`late`]). Port 0 takes a free one. What is sent from it carries the mark of the underlay.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let link = Self::bind_unmarked(address)?;
        underlay::mark(&link.socket);
        Ok(link)
    }

    /// As [`bind`](Self::bind), without the mark: for what programs do, whose datagrams go into the mesh.
    pub fn bind_unmarked(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            // Else `[::]:port` would also take the IPv4 port that our IPv4 link wants, and hand
            // us IPv4 senders as ::ffff:a.b.c.d, a second name for the same address.
            socket.set_only_v6(true)?;
        }
        let is_here = late::bind(&socket, address).map_err(|error| explain_bind(error, address))?;
        enlarge_buffers(&socket);
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // quinn-udp asks for a timestamp with every datagram; nobody here reads them.
        #[cfg(target_os = "linux")]
        sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)?;
        Ok(Self {
            local_addr: socket.local_addr()?,
            is_here: AtomicBool::new(is_here),
            gso_segments: AtomicUsize::new(state.max_gso_segments()),
            #[cfg(target_os = "linux")]
            fragmenting: Mutex::new(()),
            socket,
            state,
        })
    }

    /// The bound address, with the port that was given.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Whether the host had the address when last looked: without it nothing can be sent from here.
    pub fn is_here(&self) -> bool {
        self.is_here.load(Ordering::Relaxed)
    }

    /// Looks whether the host has the address now.
    pub fn look(&self) -> bool {
        let ip = self.local_addr.ip();
        let is_here = ip.is_unspecified() || late::is_here(ip);
        self.is_here.store(is_here, Ordering::Relaxed);
        is_here
    }

    /// How many segments one [`send`](Self::send) passes to the kernel at once; 1 means that GSO
    /// does not work here. `send` takes longer runs too, and splits them.
    pub fn max_gso_segments(&self) -> usize {
        self.gso_segments.load(Ordering::Relaxed)
    }

    /// How many datagrams the kernel has dropped since the socket was bound because its receive
    /// buffer was full, that is, because we were too slow.
    #[cfg(target_os = "linux")]
    pub fn receive_drops(&self) -> io::Result<u32> {
        let info = sys::get_option(
            &self.socket,
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            [0u32; MEMINFO_WORDS],
        )?;
        Ok(info[MEMINFO_DROPS])
    }

    /// How many datagrams the kernel has dropped because we were too slow; this platform does
    /// not say.
    #[cfg(not(target_os = "linux"))]
    pub fn receive_drops(&self) -> io::Result<u32> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this platform does not count dropped datagrams",
        ))
    }

    /// Receives what is there, up to the batch's number of buffers, replacing its contents.
    /// Returns the number of filled buffers; `WouldBlock` when nothing waits. HOT PATH.
    pub fn recv_batch(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.filled = 0;
        let mut buffers = batch.storage.chunks_exact_mut(RECV_BUFFER_BYTES);
        let mut slices: [_; quinn_udp::BATCH_SIZE] = std::array::from_fn(|_| {
            IoSliceMut::new(buffers.next().expect("storage for every buffer"))
        });
        batch.filled =
            self.state
                .recv(UdpSockRef::from(&self.socket), &mut slices, &mut batch.meta)?;
        Ok(batch.filled)
    }

    /// Sends the whole run, in as many system calls as GSO needs. HOT PATH.
    ///
    /// On an error part of the run may be gone already; datagrams may be lost anyway, so callers
    /// either drop the run or, for `WouldBlock`, use [`try_send`](Self::try_send) and go on where
    /// it stopped.
    pub fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut rest = transmit.clone();
        while !rest.contents.is_empty() {
            let sent = self.try_send(&rest)?;
            rest.contents = &rest.contents[sent..];
        }
        Ok(())
    }

    /// Hands the first part of the run to the kernel, as much as one system call takes, and
    /// returns its length in bytes: whole segments, or the rest. HOT PATH.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<usize> {
        let limit = self.max_gso_segments();
        let length = run_length(transmit, limit);
        if transmit.may_fragment && transmit.remote.is_ipv4() && length > UNFRAGMENTED_MAX {
            return self.send_fragmentable(transmit, length).map(|()| length);
        }
        match self.send_raw(transmit, length) {
            // An address that went away is answered with the same error.
            Err(error)
                if limit > 1
                    && may_mean_no_gso(&error)
                    && is_run(transmit, length)
                    && self.look() =>
            {
                let length = run_length(transmit, 1);
                self.send_raw(transmit, length)?;
                // The lone segment went where the run did not, so the run was the trouble.
                self.gso_segments.store(1, Ordering::Relaxed);
                tracing::info!(%error, "UDP segmentation offload does not work here; going on without");
                Ok(length)
            }
            other => other.map(|()| length),
        }
    }

    #[cfg(target_os = "linux")]
    fn send_raw(&self, transmit: &Transmit<'_>, length: usize) -> io::Result<()> {
        send::send(&self.socket, transmit, length)
    }

    /// Elsewhere the ECN bits have to do.
    #[cfg(not(target_os = "linux"))]
    fn send_raw(&self, transmit: &Transmit<'_>, length: usize) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.remote,
            ecn: quinn_udp::EcnCodepoint::from_bits(transmit.traffic_class & 0b11),
            contents: &transmit.contents[..length],
            segment_size: transmit.segment_size,
            src_ip: transmit.local_ip,
        };
        self.state
            .try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    /// Sends one datagram without DF.
    ///
    /// DF is a property of the socket, and not of a datagram, so it is off for the time of one system
    /// call, and what other threads send in that moment goes without it too. That harms nothing: it is
    /// data of a length that passes the path anyway. Who sends probes, whose whole meaning is DF, must
    /// not do so beside this; here both are the control thread's. `IP_PMTUDISC_OMIT` and not `DONT`,
    /// because it too ignores what ICMP made the kernel believe, so that a run that is sent in that
    /// moment is not refused for a forged MTU.
    #[cfg(target_os = "linux")]
    fn send_fragmentable(&self, transmit: &Transmit<'_>, length: usize) -> io::Result<()> {
        let set =
            |value| sys::set_option(&self.socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value);
        // Nothing is behind the lock that a panic could leave half done.
        let guard = self
            .fragmenting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        set(libc::IP_PMTUDISC_OMIT)?;
        let sent = self.send_raw(transmit, length);
        set(libc::IP_PMTUDISC_PROBE)?;
        drop(guard);
        sent
    }

    /// This platform's sockets are left as they are.
    #[cfg(not(target_os = "linux"))]
    fn send_fragmentable(&self, transmit: &Transmit<'_>, length: usize) -> io::Result<()> {
        self.send_raw(transmit, length)
    }
}

impl AsFd for UdpLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Buffers for [`UdpLink::recv_batch`], kept and reused by the receiving thread (2 MiB).
///
/// One allocation, so that a place in a batch is one number: what is merged for the device comes
/// from several buffers, and a list of offsets, unlike one of references, can be kept and reused.
pub struct RecvBatch {
    storage: Box<[u8]>,
    meta: [RecvMeta; quinn_udp::BATCH_SIZE],
    filled: usize,
}

impl RecvBatch {
    /// How many there are.
    pub const BUFFERS: usize = quinn_udp::BATCH_SIZE;
    /// Distance between the starts of two buffers in [`bytes`](Self::bytes).
    pub const BUFFER_BYTES: usize = RECV_BUFFER_BYTES;

    /// An empty batch.
    #[expect(clippy::new_without_default, reason = "2 MiB are not taken by default")]
    pub fn new() -> Self {
        Self {
            storage: vec![0; RECV_BUFFER_BYTES * quinn_udp::BATCH_SIZE].into_boxed_slice(),
            meta: [RecvMeta::default(); quinn_udp::BATCH_SIZE],
            filled: 0,
        }
    }

    /// The buffers of the last receive with what is known about each; the slice has exactly
    /// `len` bytes. Cut it into datagrams with `chunks_mut(stride)`.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Received, &mut [u8])> {
        let buffers = self.storage.chunks_exact_mut(RECV_BUFFER_BYTES);
        let filled = self.meta.iter().zip(buffers).take(self.filled);
        filled.map(|(meta, buffer)| {
            let received = Received {
                remote: meta.addr,
                local_ip: meta.dst_ip,
                ecn: meta.ecn.map(|ecn| ecn as u8),
                stride: meta.stride.max(1),
                len: meta.len,
            };
            (received, &mut buffer[..meta.len])
        })
    }

    /// All buffers in a row; the `n`th starts at `n * BUFFER_BYTES`.
    pub fn bytes(&self) -> &[u8] {
        &self.storage
    }
}

/// What a failed send calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendFault {
    /// `EAGAIN`: our own buffer is full. Wait until the socket is writable, or drop.
    Full,
    /// `ENOBUFS`: a queue below us is full. Waiting for writability does not help: drop, and let
    /// congestion control see the loss.
    Overrun,
    /// `EMSGSIZE`, or a run refused for it: a datagram exceeds what the interface can carry.
    TooBig,
    /// No route, no such network, or the interface is down: this path cannot work now. (IPv4
    /// says the same when the address to send from is not ours.)
    Unreachable,
    /// The address to send from is not (any more) ours (IPv6).
    LocalAddressGone,
    /// The host's firewall refuses.
    Forbidden,
    /// Anything else.
    Other,
}

impl SendFault {
    /// Sorts an error of [`UdpLink::send`].
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::Full,
            Some(libc::ENOBUFS | libc::ENOMEM) => Self::Overrun,
            Some(libc::EMSGSIZE) => Self::TooBig,
            Some(
                libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::EHOSTDOWN
                | libc::ENODEV,
            ) => Self::Unreachable,
            Some(libc::EADDRNOTAVAIL | libc::EINVAL) => Self::LocalAddressGone,
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden,
            _ => Self::Other,
        }
    }
}

/// How many bytes of the run one system call may take: whole segments within both GSO limits.
fn run_length(transmit: &Transmit<'_>, segments_max: usize) -> usize {
    let total = transmit.contents.len();
    match transmit.segment_size {
        Some(size) if size > 0 && size < total => {
            let segments = segments_max.min(GSO_BYTES_MAX / size).max(1);
            total.min(segments * size)
        }
        _ => total,
    }
}

/// Whether the first `length` bytes are more than one segment, so that GSO is involved.
fn is_run(transmit: &Transmit<'_>, length: usize) -> bool {
    transmit.segment_size.is_some_and(|size| size < length)
}

/// `EIO`: the route cannot (IPsec, a device without checksum offload). `EINVAL` also says so on
/// some drivers, but mainly that a segment exceeds the MTU. Sending one segment alone tells.
fn may_mean_no_gso(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

/// Asks for [`SOCKET_BUFFER_BYTES`], above the administrator's limit where we may, else up to it.
/// Small buffers lose datagrams in bursts but everything works, so failing is not an error.
fn enlarge_buffers(socket: &Socket) {
    #[cfg(target_os = "linux")]
    {
        let half = (SOCKET_BUFFER_BYTES / 2) as libc::c_int; // the kernel doubles what it is told
        let receive = sys::set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, half);
        let send = sys::set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, half);
        if receive.is_ok() && send.is_ok() {
            return;
        }
    }
    for bytes in [
        SOCKET_BUFFER_BYTES,
        SOCKET_BUFFER_BYTES / 2,
        SOCKET_BUFFER_BYTES / 4,
    ] {
        let receive = socket.set_recv_buffer_size(bytes);
        if receive.is_ok() && socket.set_send_buffer_size(bytes).is_ok() {
            return;
        }
    }
    tracing::debug!("the UDP socket keeps its default buffers");
}

fn explain_bind(error: io::Error, address: SocketAddr) -> io::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EADDRINUSE) => "another program (or node) listens there; choose another port",
        Some(libc::EADDRNOTAVAIL) => "no interface of this machine has that address",
        Some(libc::EACCES) => "ports below 1024 need privileges; choose a higher one",
        Some(libc::EAFNOSUPPORT) => "this machine has no such address family",
        _ => return io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")),
    };
    io::Error::new(
        error.kind(),
        format!("cannot listen on {address}: {error}: {hint}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
        let remote = "127.0.0.1:9".parse().unwrap();
        Transmit {
            remote,
            local_ip: None,
            traffic_class: 0,
            may_fragment: false,
            segment_size,
            contents,
        }
    }

    #[test]
    fn a_run_is_cut_at_whole_segments_within_64_segments_and_65507_bytes() {
        let contents = vec![0; 200_000];
        assert_eq!(run_length(&transmit(&contents, Some(100)), 64), 6_400);
        assert_eq!(
            run_length(&transmit(&contents, Some(1_400)), 64),
            46 * 1_400
        );
        assert_eq!(run_length(&transmit(&contents, Some(1_400)), 1), 1_400);
        assert_eq!(run_length(&transmit(&contents[..150], Some(100)), 64), 150);
        assert_eq!(run_length(&transmit(&contents[..99], Some(100)), 64), 99);
        assert_eq!(run_length(&transmit(&contents[..99], None), 64), 99);
    }

    #[test]
    fn a_port_in_use_is_explained() {
        let first = UdpLink::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = UdpLink::bind(first.local_addr())
            .err()
            .expect("the port is taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("choose another port"), "{error}");
    }

    #[test]
    fn an_ipv6_link_leaves_the_same_port_to_an_ipv4_link() {
        let six = UdpLink::bind("[::]:0".parse().unwrap()).unwrap();
        let port = six.local_addr().port();
        UdpLink::bind(SocketAddr::new("0.0.0.0".parse().unwrap(), port)).unwrap();
    }

    #[test]
    fn an_empty_socket_would_block() {
        let link = UdpLink::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = link.recv_batch(&mut RecvBatch::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(SendFault::of(&error), SendFault::Full);
    }

    fn loopback_pair() -> (UdpLink, UdpLink) {
        let bind = || UdpLink::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (bind(), bind())
    }

    /// Everything that waits on the link now, as datagrams.
    fn drain(link: &UdpLink) -> Vec<Vec<u8>> {
        let (mut batch, mut found) = (RecvBatch::new(), Vec::new());
        while link.recv_batch(&mut batch).is_ok() {
            for (meta, bytes) in batch.iter_mut() {
                found.extend(bytes.chunks(meta.stride).map(<[u8]>::to_vec));
            }
        }
        found
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn where_gso_is_refused_the_run_goes_out_segment_by_segment() {
        let (sender, receiver) = loopback_pair();
        // The kernel does GSO only together with checksums, and answers EINVAL otherwise.
        sys::set_option(&sender, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
        assert!(sender.max_gso_segments() > 1);
        let contents: Vec<u8> = (0..95).collect();
        let run = Transmit {
            remote: receiver.local_addr(),
            ..transmit(&contents, Some(10))
        };
        sender.send(&run).unwrap();
        assert_eq!(sender.max_gso_segments(), 1);
        assert_eq!(drain(&receiver), contents.chunks(10).collect::<Vec<_>>());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn datagrams_lost_because_nobody_reads_are_counted() {
        let (sender, receiver) = loopback_pair();
        assert_eq!(receiver.receive_drops().unwrap(), 0);
        let sent = 20_000;
        for _ in 0..sent {
            let one = Transmit {
                remote: receiver.local_addr(),
                ..transmit(b"x", None)
            };
            sender.send(&one).unwrap();
        }
        let drops = receiver.receive_drops().unwrap() as usize;
        assert!(drops > 0, "the buffer took all");
        assert_eq!(drain(&receiver).len() + drops, sent);
    }
}
