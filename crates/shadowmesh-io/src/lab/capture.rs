//! Recording what passes an interface (`AF_PACKET`, packet(7)).

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::frame::Frame;
use crate::poll::{self, Waker, Watch};
use crate::{netlink, sys};

/// The kernel holds this much while our thread waits for a CPU.
const SOCKET_BUFFER_BYTES: libc::c_int = 64 << 20;

/// virtio-net header in front of every frame, Ethernet header, largest IP packet.
const FRAME_BYTES_MAX: usize = VNET_HDR_LEN + 18 + 65_535;
const VNET_HDR_LEN: usize = 10;

/// Frames from devices without link-layer header begin with IP (`ARPHRD_NONE`).
const HARDWARE_NONE: u16 = libc::ARPHRD_NONE;

/// Where captured frames go.
pub trait FrameSink: Send + 'static {
    /// One frame, in the order the interface saw them.
    fn frame(&mut self, frame: &Frame<'_>);
}

impl<F: FnMut(&Frame<'_>) + Send + 'static> FrameSink for F {
    fn frame(&mut self, frame: &Frame<'_>) {
        self(frame);
    }
}

/// A running capture.
pub struct Capture<S> {
    /// `None` only once stopped.
    thread: Option<JoinHandle<io::Result<(S, CaptureStats)>>>,
    control: Arc<StopSignal>,
}

struct StopSignal {
    stop: AtomicBool,
    waker: Waker,
}

/// What a capture saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CaptureStats {
    /// Frames given to the sink.
    pub frames: u64,
    /// Frames the kernel dropped because we were too slow, or could not describe. A capture that
    /// proves an absence needs this to be 0.
    pub lost: u64,
}

impl<S: FrameSink> Capture<S> {
    /// Starts recording `interface` of the calling thread's namespace, both directions. What
    /// passes after this returns is recorded. (On `lo` every frame passes twice.)
    pub fn start(interface: &str, sink: S) -> io::Result<Self> {
        let socket = open(interface)?;
        let waker = Waker::new()?;
        let control = Arc::new(StopSignal {
            stop: AtomicBool::new(false),
            waker,
        });
        let theirs = Arc::clone(&control);
        let thread = std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || record(&socket, sink, &theirs))?;
        Ok(Self {
            thread: Some(thread),
            control,
        })
    }

    /// Ends the recording after what has passed so far, and returns the sink.
    pub fn stop(mut self) -> io::Result<(S, CaptureStats)> {
        self.control.stop();
        let thread = self
            .thread
            .take()
            .expect("only this method takes it, and takes self too");
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A capture that is dropped ends by itself; nobody waits for it.
impl<S> Drop for Capture<S> {
    fn drop(&mut self) {
        self.control.stop();
    }
}

impl StopSignal {
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
    }
}

fn open(interface: &str) -> io::Result<OwnedFd> {
    let link = netlink::Handle::new()
        .and_then(|handle| handle.link_by_name(interface))
        .map_err(io::Error::other)?;
    // Protocol 0: nothing arrives before the socket is bound to the one interface.
    let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)?;
    sys::set_option(&socket, libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1)?;
    if sys::set_option(
        &socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        SOCKET_BUFFER_BYTES,
    )
    .is_err()
    {
        sys::set_option(
            &socket,
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            SOCKET_BUFFER_BYTES,
        )?;
    }
    let mut address: libc::sockaddr_ll = sys::zeroed_address(libc::AF_PACKET);
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = link.index as libc::c_int;
    sys::bind(&socket, &address)?;
    Ok(socket)
}

fn record<S: FrameSink>(
    socket: &OwnedFd,
    mut sink: S,
    control: &StopSignal,
) -> io::Result<(S, CaptureStats)> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut stats = CaptureStats::default();
    loop {
        // Read the flag first: what passed before `stop` is in the socket by now.
        let stopping = control.stop.load(Ordering::Relaxed);
        loop {
            match receive(socket, &mut buffer)? {
                Received::Frame(frame) => {
                    sink.frame(&frame);
                    stats.frames += 1;
                }
                Received::Unreadable => stats.lost += 1,
                Received::Nothing => break,
            }
        }
        if stopping {
            stats.lost += dropped(socket)?;
            return Ok((sink, stats));
        }
        poll::wait(
            &mut [Watch::readable(socket), Watch::readable(&control.waker)],
            None,
        )?;
    }
}

enum Received<'a> {
    Frame(Frame<'a>),
    /// There was a frame, but the kernel could not hand it over.
    Unreadable,
    Nothing,
}

fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
    let received = sys::receive_from::<libc::sockaddr_ll>(socket, buffer, 0);
    let (length, from) = match received {
        Ok(received) => received,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::Nothing),
        // The interface went down or away; what it had is recorded.
        Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {
            return Ok(Received::Nothing);
        }
        // Linux before 6.2 has no words for UDP super-packets in the offload header.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            return Ok(Received::Unreadable);
        }
        Err(error) => return Err(error),
    };
    let time = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (header, bytes) = buffer[..length]
        .split_at_checked(VNET_HDR_LEN)
        .ok_or_else(|| io::Error::other("a captured frame lacks its offload header"))?;
    // gso_type (without the ECN bit) and gso_size, in the machine's byte order.
    let cut = header[1] & 0x7f != 0;
    Ok(Received::Frame(Frame {
        time,
        outgoing: from.sll_pkttype == libc::PACKET_OUTGOING,
        ethernet: from.sll_hatype != HARDWARE_NONE,
        segment_size: cut.then_some(u16::from_ne_bytes([header[4], header[5]])),
        bytes,
    }))
}

fn dropped(socket: &OwnedFd) -> io::Result<u64> {
    let none = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let stats = sys::get_option(socket, libc::SOL_PACKET, libc::PACKET_STATISTICS, none)?;
    Ok(u64::from(stats.tp_drops))
}

/// A frame kept in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFrame {
    /// See [`Frame`].
    pub time: Duration,
    /// See [`Frame`].
    pub outgoing: bool,
    /// See [`Frame`].
    pub ethernet: bool,
    /// See [`Frame`].
    pub segment_size: Option<u16>,
    /// See [`Frame`].
    pub bytes: Vec<u8>,
}

impl StoredFrame {
    /// The frame, to look into.
    pub fn as_frame(&self) -> Frame<'_> {
        Frame {
            time: self.time,
            outgoing: self.outgoing,
            ethernet: self.ethernet,
            segment_size: self.segment_size,
            bytes: &self.bytes,
        }
    }
}

/// Keeps the latest frames, as many as fit into a number of bytes.
pub struct MemorySink {
    frames: VecDeque<StoredFrame>,
    bytes: usize,
    bytes_max: usize,
    forgotten: u64,
}

impl MemorySink {
    /// Keeps at most `bytes_max` bytes of frames.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
            bytes_max,
            forgotten: 0,
        }
    }

    /// What is kept, oldest first.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        self.frames.iter().map(StoredFrame::as_frame)
    }

    /// How many older frames had to go.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

impl FrameSink for MemorySink {
    fn frame(&mut self, frame: &Frame<'_>) {
        self.bytes += frame.bytes.len();
        self.frames.push_back(StoredFrame {
            time: frame.time,
            outgoing: frame.outgoing,
            ethernet: frame.ethernet,
            segment_size: frame.segment_size,
            bytes: frame.bytes.to_vec(),
        });
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.frames.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes.len();
            self.forgotten += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_the_latest_frames_within_its_bound() {
        let mut sink = MemorySink::new(250);
        for number in 0..10u8 {
            let bytes = [number; 100];
            sink.frame(&Frame {
                time: Duration::ZERO,
                outgoing: false,
                ethernet: true,
                segment_size: None,
                bytes: &bytes,
            });
        }
        let kept: Vec<u8> = sink.frames().map(|frame| frame.bytes[0]).collect();
        assert_eq!(kept, [8, 9]);
        assert_eq!(sink.forgotten(), 8);
    }
}
