//! Bulk TCP between two namespaces: does everything arrive, unchanged, and how fast.
//!
//! Inner congestion control is always set to Cubic and reported: the machine's default decides the
//! figure otherwise (under BBR a bare veth drops to about half).

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, Digest, SHA256};
use shadowmesh_io::netns::Netns;
use socket2::{Domain, Socket, Type};

/// One write or read call. 256 KB keeps system calls rare without leaving the cache.
const CHUNK_LEN: usize = 256 * 1024;
/// Congestion control of the inner connection, the usual default of Linux machines.
pub const CONGESTION: &str = "cubic";
/// A connection that stalls this long has failed.
const STALL_MAX: Duration = Duration::from_secs(20);

/// When a transfer ends.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    /// After so many bytes, each chunk different, hashed on both sides.
    Bytes(u64),
    /// After so much time; nothing is hashed, so that the network and not SHA-256 is measured.
    Time(Duration),
}

/// What one transfer did.
#[derive(Debug, Clone)]
pub struct BulkReport {
    /// Bytes the receiving program read.
    pub bytes: u64,
    /// From the first byte read to the end of the stream.
    pub elapsed: Duration,
    /// Both ends hashed the stream and agree. Always false when nothing was hashed.
    pub intact: bool,
}

impl BulkReport {
    /// Payload rate.
    pub fn gbit_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Sends `amount` over one TCP connection from a program in `from` to one in `to` that listens on
/// `address`.
pub fn transfer(
    from: &Netns,
    to: &Netns,
    address: IpAddr,
    amount: Amount,
) -> io::Result<BulkReport> {
    transfer_patiently(from, to, address, amount, STALL_MAX)
}

/// As [`transfer`], where the connection may stall for as long as `stall_max`.
pub fn transfer_patiently(
    from: &Netns,
    to: &Netns,
    address: IpAddr,
    amount: Amount,
    stall_max: Duration,
) -> io::Result<BulkReport> {
    let listener = to.run(|| listen(address))?;
    let target = listener.local_addr()?;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(&listener, amount, stall_max));
        let sent = from.run(|| send(target, amount, stall_max));
        let received = receiver.join().expect("the receiving half does not panic");
        let ((bytes, elapsed, read), sent) = (received?, sent?);
        Ok(BulkReport {
            bytes,
            elapsed,
            intact: matches!((sent, read), (Some(a), Some(b)) if a.as_ref() == b.as_ref()),
        })
    })
}

fn listen(address: IpAddr) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address, 0);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_tcp_congestion(CONGESTION.as_bytes())?;
    socket.bind(&address.into())?;
    socket.listen(1)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Waits for the sender at most [`STALL_MAX`]: if it could not connect, nobody ever comes.
fn accept(listener: &TcpListener, stall_max: Duration) -> io::Result<TcpStream> {
    let deadline = Instant::now() + STALL_MAX;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(stall_max))?;
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() > deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(error),
        }
    }
}

fn receive(
    listener: &TcpListener,
    amount: Amount,
    stall_max: Duration,
) -> io::Result<(u64, Duration, Option<Digest>)> {
    let mut stream = accept(listener, stall_max)?;
    let mut hash = hash_for(amount);
    let mut chunk = vec![0u8; CHUNK_LEN];
    let mut bytes = 0;
    let mut start = None;
    loop {
        let len = stream.read(&mut chunk)?;
        let start = *start.get_or_insert_with(Instant::now);
        if len == 0 {
            let elapsed = start.elapsed();
            // The sender waits for this byte, so that its close cannot race the last data.
            stream.write_all(&[1])?;
            return Ok((bytes, elapsed, hash.map(Context::finish)));
        }
        bytes += len as u64;
        if let Some(hash) = &mut hash {
            hash.update(&chunk[..len]);
        }
    }
}

fn send(target: SocketAddr, amount: Amount, stall_max: Duration) -> io::Result<Option<Digest>> {
    let mut stream = connect(target, stall_max)?;
    let mut hash = hash_for(amount);
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut chunk = vec![0u8; CHUNK_LEN];
    noise.fill(&mut chunk);
    let start = Instant::now();
    let mut sent = 0u64;
    loop {
        let len = match amount {
            Amount::Bytes(total) => (total - sent).min(CHUNK_LEN as u64) as usize,
            Amount::Time(limit) if start.elapsed() >= limit => 0,
            Amount::Time(_) => CHUNK_LEN,
        };
        if len == 0 {
            break;
        }
        if let Some(hash) = &mut hash {
            noise.fill(&mut chunk[..len]);
            hash.update(&chunk[..len]);
        }
        stream.write_all(&chunk[..len])?;
        sent += len as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0u8; 1])?;
    Ok(hash.map(Context::finish))
}

fn connect(target: SocketAddr, stall_max: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_tcp_congestion(CONGESTION.as_bytes())?;
    socket.connect_timeout(&target.into(), STALL_MAX)?;
    socket.set_write_timeout(Some(stall_max))?;
    socket.set_read_timeout(Some(stall_max))?;
    Ok(socket.into())
}

fn hash_for(amount: Amount) -> Option<Context> {
    matches!(amount, Amount::Bytes(_)).then(|| Context::new(&SHA256))
}

/// xorshift64: bytes that no layer on the way can have guessed, cheap enough not to be the limit.
struct Noise(u64);

impl Noise {
    fn fill(&mut self, out: &mut [u8]) {
        for word in out.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}
