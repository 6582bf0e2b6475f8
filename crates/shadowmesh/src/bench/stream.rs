//! The measuring stream: one TCP connection that does one thing.
//!
//! ```text
//! client: kind (1 byte) ‖ duration in ms (4 bytes, big endian)
//! upload:   client sends until the time is over and closes its half;
//!           server answers bytes (8) ‖ time in µs from first byte to end (8), big endian
//! download: server sends until the time is over and closes
//! echo:     server sends back what comes, in messages of 64 bytes
//! ```

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What a stream measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client to server.
    Upload = 1,
    /// Server to client.
    Download = 2,
    /// Round trips.
    Echo = 3,
}

/// Bytes moved in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Payload bytes that arrived.
    pub bytes: u64,
    /// From the first to the last.
    pub elapsed: Duration,
}

impl Moved {
    /// In Gbit/s.
    pub fn gbit_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.elapsed.as_secs_f64().max(1e-9) / 1e9
    }
}

/// Size of one read or write: several device super-packets.
const CHUNK: usize = 256 << 10;
/// A ping that carries something, still one small packet.
pub const ECHO_LEN: usize = 64;
/// Longest measurement a server takes part in.
pub const DURATION_MAX: Duration = Duration::from_secs(60);
/// The other end is silent that long: it is gone.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Sends for `duration`; what arrived is counted by the other end.
pub fn upload(server: SocketAddr, duration: Duration) -> io::Result<Moved> {
    let mut stream = open(server, Kind::Upload, duration)?;
    send_for(&mut stream, duration)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; 16];
    stream.read_exact(&mut answer)?;
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
    Ok(Moved {
        bytes: number(&answer[..8]),
        elapsed: Duration::from_micros(number(&answer[8..])),
    })
}

/// Lets the other end send for `duration` and counts.
pub fn download(server: SocketAddr, duration: Duration) -> io::Result<Moved> {
    let mut stream = open(server, Kind::Download, duration)?;
    receive_all(&mut stream)
}

/// Round trips one after the other for `duration`, at most `count_max`.
pub fn round_trips(
    server: SocketAddr,
    duration: Duration,
    count_max: usize,
) -> io::Result<Vec<Duration>> {
    let mut stream = open(server, Kind::Echo, duration)?;
    let mut message = [0; ECHO_LEN];
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < count_max && start.elapsed() < duration {
        let sent = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        times.push(sent.elapsed());
    }
    Ok(times)
}

fn open(server: SocketAddr, kind: Kind, duration: Duration) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, SILENCE_MAX)?;
    prepare(&stream)?;
    let duration_ms = u32::try_from(duration.as_millis()).map_err(io::Error::other)?;
    let mut head = [0; 5];
    head[0] = kind as u8;
    head[1..].copy_from_slice(&duration_ms.to_be_bytes());
    stream.write_all(&head)?;
    Ok(stream)
}

/// The server's side of one stream.
pub fn serve(mut stream: TcpStream) -> io::Result<()> {
    prepare(&stream)?;
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, duration_ms @ ..] = head;
    let duration = Duration::from_millis(u32::from_be_bytes(duration_ms).into()).min(DURATION_MAX);
    match kind {
        1 => {
            let moved = receive_all(&mut stream)?;
            let mut answer = [0; 16];
            answer[..8].copy_from_slice(&moved.bytes.to_be_bytes());
            answer[8..].copy_from_slice(&(moved.elapsed.as_micros() as u64).to_be_bytes());
            stream.write_all(&answer)
        }
        2 => {
            send_for(&mut stream, duration)?;
            stream.shutdown(Shutdown::Write)
        }
        3 => echo(&mut stream),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))
}

fn send_for(stream: &mut TcpStream, duration: Duration) -> io::Result<()> {
    let chunk = vec![0; CHUNK];
    let start = Instant::now();
    while start.elapsed() < duration {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

/// Counts until the other end closes; the clock starts with the first byte. Bounded in time even if
/// it never closes.
fn receive_all(stream: &mut TcpStream) -> io::Result<Moved> {
    let mut chunk = vec![0; CHUNK];
    let first = stream.read(&mut chunk)?;
    let start = Instant::now();
    let mut bytes = first as u64;
    while start.elapsed() < DURATION_MAX + SILENCE_MAX {
        match stream.read(&mut chunk)? {
            0 => break,
            n => bytes += n as u64,
        }
    }
    Ok(Moved {
        bytes,
        elapsed: start.elapsed(),
    })
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut message = [0; ECHO_LEN];
    let start = Instant::now();
    while start.elapsed() < DURATION_MAX {
        match stream.read_exact(&mut message) {
            Ok(()) => stream.write_all(&message)?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
