//! A TCP connection at a steady rate, for as long as a check wants it.

use shadowmesh_io::netns::Netns;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const CHUNK_LEN: usize = 64 * 1024;

/// A flow that stands still for this long is over.
const STALL_MAX: Duration = Duration::from_secs(10);

/// The connection with its two ends.
pub struct Flow {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<io::Result<()>>,
    receiver: JoinHandle<io::Result<()>>,
}

impl Flow {
    /// Sends `pattern` again and again from a program in `from` to one in `to`. A sender that was
    /// held up catches up, so a bound on the average is a bound on what really got through.
    pub fn start(
        from: &Netns,
        to: &Netns,
        address: IpAddr,
        bytes_per_second: u64,
        pattern: &[u8],
    ) -> io::Result<Self> {
        let listener = to.run(|| TcpListener::bind((address, 0)))?;
        let target = listener.local_addr()?;
        let stream = from.run(|| TcpStream::connect_timeout(&target, STALL_MAX))?;
        let (accepted, _) = listener.accept()?;
        stream.set_write_timeout(Some(STALL_MAX))?;
        accepted.set_read_timeout(Some(STALL_MAX))?;
        let received = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let chunk: Vec<u8> = pattern.iter().copied().cycle().take(CHUNK_LEN).collect();
        let (counter, signal) = (Arc::clone(&received), Arc::clone(&stop));
        Ok(Self {
            received,
            stop,
            sender: thread::spawn(move || send(stream, &chunk, bytes_per_second, &signal)),
            receiver: thread::spawn(move || receive(accepted, &counter)),
        })
    }

    /// Bytes that arrived so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// The average rate that arrives during `time`, in Mbit/s.
    pub fn mbit_s_during(&self, time: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.received());
        thread::sleep(time);
        (self.received() - before) as f64 * 8.0 / 1e6 / start.elapsed().as_secs_f64()
    }

    /// Ends the flow; all that was sent has arrived.
    pub fn stop(self) -> io::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().expect("the sender does not panic")?;
        self.receiver.join().expect("the receiver does not panic")?;
        Ok(self.received.load(Ordering::Relaxed))
    }
}

fn send(mut stream: TcpStream, chunk: &[u8], rate: u64, stop: &AtomicBool) -> io::Result<()> {
    let start = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        while (sent as f64) < start.elapsed().as_secs_f64() * rate as f64 {
            stream.write_all(chunk)?;
            sent += chunk.len() as u64;
        }
        thread::sleep(Duration::from_millis(1));
    }
    stream.shutdown(std::net::Shutdown::Write)
}

fn receive(mut stream: TcpStream, received: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            len => received.fetch_add(len as u64, Ordering::Relaxed),
        };
    }
}
