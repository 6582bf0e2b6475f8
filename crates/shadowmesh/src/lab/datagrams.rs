//! UDP between two namespaces, datagram by datagram or in super-packets: how many arrive at a pace, or in a flood.
//!
//! See [`shadowmesh_io::lab::DatagramSource`] for how the sending and the counting program work.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

pub use shadowmesh_io::lab::Batching;
use shadowmesh_io::lab::{DatagramSink, DatagramSource, SinkReport, SourceReport};
use shadowmesh_io::netns::Netns;

/// When nothing has come for so long after the last was sent, the rest is lost. Above the queues
/// of any tunnel here; the slowest was seen to hold packets for 30 ms.
const LATE_MAX: Duration = Duration::from_millis(60);

/// One series.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// UDP payload of each datagram.
    pub payload_len: usize,
    /// Datagrams per second; `None` is as fast as the sending program can.
    pub rate: Option<f64>,
    /// For how long.
    pub duration: Duration,
    /// How programs hand them to the kernel and take them from it.
    pub batching: Batching,
}

/// What became of a series.
#[derive(Debug, Clone, Copy)]
pub struct SeriesReport {
    /// What the sending program did.
    pub source: SourceReport,
    /// What the receiving program saw.
    pub sink: SinkReport,
    payload_len: usize,
}

impl SeriesReport {
    /// Datagrams handed over in a second.
    pub fn offered_packets_s(&self) -> f64 {
        self.source.sent as f64 / self.source.elapsed.as_secs_f64().max(1e-9)
    }

    /// Datagrams received in a second. A queue that is still full when the sender stops does not raise
    /// it: time counts until the last datagram has come.
    pub fn received_packets_s(&self) -> f64 {
        let elapsed = self.source.elapsed.max(self.sink.elapsed);
        self.sink.received as f64 / elapsed.as_secs_f64().max(1e-9)
    }

    /// Payload of these, in Gbit/s.
    pub fn received_gbit_s(&self) -> f64 {
        self.received_packets_s() * self.payload_len as f64 * 8.0 / 1e9
    }

    /// Part of the datagrams that never came, 0 to 1.
    pub fn loss(&self) -> f64 {
        let lost = self.source.sent.saturating_sub(self.sink.received);
        lost as f64 / self.source.sent.max(1) as f64
    }
}

/// Sends a series from a program in `from` to one in `to` that listens on `address`.
pub fn series(from: &Netns, to: &Netns, address: IpAddr, plan: Series) -> io::Result<SeriesReport> {
    let sink = to.run(|| DatagramSink::bind(SocketAddr::new(address, 0), plan.batching))?;
    // The port tells this series from the last one's stragglers already; it will do as token too.
    let target = sink.address()?;
    let token = u64::from(target.port());
    let source = DatagramSource {
        target,
        payload_len: plan.payload_len,
        rate: plan.rate,
        duration: plan.duration,
        batching: plan.batching,
        token,
    };
    let done = AtomicBool::new(false);
    let (source, sink) = thread::scope(|scope| {
        let sink = scope.spawn(|| sink.run(token, &done, LATE_MAX));
        let sent = from.run(|| source.run());
        done.store(true, Ordering::Release);
        let received = sink.join().expect("the receiving half does not panic");
        (sent, received)
    });
    Ok(SeriesReport {
        source: source?,
        sink: sink?,
        payload_len: plan.payload_len,
    })
}
