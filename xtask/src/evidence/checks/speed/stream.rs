//! One TCP stream whose every byte is compared, and whose longest silence is timed.

use shadowmesh_io::netns::Netns;
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const CHUNK_LEN: usize = 64 * 1024;

/// A stream that stands still for this long is over.
const STALL_MAX: Duration = Duration::from_secs(20);

/// What to send, and how.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Bytes in all.
    pub bytes: usize,
    /// No faster than this; none means as fast as it goes.
    pub bytes_per_second: Option<usize>,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    /// Every byte arrived, in order, and none was another.
    pub intact: bool,
    /// The longest time in which the receiver got nothing, from the middle of the stream on.
    pub silence: Duration,
    /// From the first byte to the last.
    pub elapsed: Duration,
}

/// Sends a stream from a program in `from` to one in `to`, and calls `halfway` from a third thread when
/// half of it has arrived.
pub fn run(
    from: &Netns,
    to: &Netns,
    address: IpAddr,
    plan: Plan,
    halfway: impl FnOnce() -> Result<(), String> + Send,
) -> Result<Stream, String> {
    let text = |error: io::Error| error.to_string();
    let listener = to.run(|| TcpListener::bind((address, 0))).map_err(text)?;
    let target = listener.local_addr().map_err(text)?;
    let stream = from
        .run(|| TcpStream::connect_timeout(&target, STALL_MAX))
        .map_err(text)?;
    let (accepted, _) = listener.accept().map_err(text)?;
    stream.set_write_timeout(Some(STALL_MAX)).map_err(text)?;
    accepted.set_read_timeout(Some(STALL_MAX)).map_err(text)?;
    let (middle, reached) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let sender = scope.spawn(move || send(stream, plan));
        let turn = scope.spawn(move || match reached.recv() {
            Ok(()) => halfway(),
            Err(_) => Err("half of the stream never arrived".to_owned()),
        });
        let received = receive(accepted, plan.bytes, middle);
        let sent = sender.join().expect("the sender does not panic");
        let turned = turn.join().expect("what happens halfway does not panic");
        let received = received.map_err(text)?;
        sent.map_err(text)?;
        turned?;
        Ok(received)
    })
}

fn send(mut stream: TcpStream, plan: Plan) -> io::Result<()> {
    let mut noise = Noise::new();
    let mut chunk = vec![0; CHUNK_LEN];
    let start = Instant::now();
    let mut sent = 0;
    while sent < plan.bytes {
        if let Some(rate) = plan.bytes_per_second {
            let due = Duration::from_secs_f64(sent as f64 / rate as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        let len = CHUNK_LEN.min(plan.bytes - sent);
        noise.fill(&mut chunk[..len]);
        stream.write_all(&chunk[..len])?;
        sent += len;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    // The other side closes when it has read all: then all was acknowledged.
    stream.set_read_timeout(Some(STALL_MAX))?;
    stream.read(&mut [0]).map(|_| ())
}

fn receive(
    mut stream: TcpStream,
    bytes: usize,
    middle: std::sync::mpsc::Sender<()>,
) -> io::Result<Stream> {
    let mut noise = Noise::new();
    let (mut chunk, mut expected) = (vec![0; CHUNK_LEN], vec![0; CHUNK_LEN]);
    let (mut received, mut intact) = (0, true);
    let mut middle = Some(middle);
    let mut silence = Duration::ZERO;
    let start = Instant::now();
    let mut last = start;
    loop {
        let len = stream.read(&mut chunk)?;
        let now = Instant::now();
        if middle.is_none() {
            silence = silence.max(now - last);
        }
        last = now;
        if len == 0 {
            break;
        }
        noise.fill(&mut expected[..len]);
        intact &= chunk[..len] == expected[..len];
        received += len;
        if received >= bytes / 2
            && let Some(middle) = middle.take()
        {
            // Nobody listens any more only if the whole is being given up.
            let _ = middle.send(());
        }
    }
    Ok(Stream {
        intact: intact && received == bytes,
        silence,
        elapsed: last - start,
    })
}

/// xorshift64, byte by byte the same at both ends however the stream is cut.
struct Noise {
    state: u64,
    word: [u8; 8],
    used: usize,
}

impl Noise {
    fn new() -> Self {
        Self {
            state: 0x9e37_79b9_7f4a_7c15,
            word: [0; 8],
            used: 8,
        }
    }

    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            if self.used == self.word.len() {
                self.state ^= self.state << 13;
                self.state ^= self.state >> 7;
                self.state ^= self.state << 17;
                self.word = self.state.to_le_bytes();
                self.used = 0;
            }
            *byte = self.word[self.used];
            self.used += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_does_not_depend_on_how_it_is_cut() {
        let mut whole = [0; 1000];
        Noise::new().fill(&mut whole);
        let (mut pieces, mut noise) = ([0; 1000], Noise::new());
        for piece in pieces.chunks_mut(7) {
            noise.fill(piece);
        }
        assert_eq!(whole, pieces);
        assert!(whole[..500] != whole[500..]);
    }

    /// Both ends in this process, with a proxy between them that changes one byte.
    #[test]
    fn a_changed_byte_and_a_pause_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let bytes = 300_000;
        let sender = thread::spawn(move || {
            let mut stream = TcpStream::connect(target).unwrap();
            let mut all = vec![0; bytes];
            Noise::new().fill(&mut all);
            all[200_000] ^= 1;
            stream.write_all(&all[..160_000]).unwrap();
            thread::sleep(Duration::from_millis(300));
            stream.write_all(&all[160_000..]).unwrap();
        });
        let (middle, reached) = std::sync::mpsc::channel();
        let (accepted, _) = listener.accept().unwrap();
        let stream = receive(accepted, bytes, middle).unwrap();
        sender.join().unwrap();
        assert!(reached.recv().is_ok());
        assert!(!stream.intact);
        assert!(stream.silence >= Duration::from_millis(250), "{stream:?}");
    }
}
