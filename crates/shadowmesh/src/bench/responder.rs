//! The temporary listener a node opens when a peer wants to measure.
//!
//! A peer asks over its control stream, so only members get this far. The listener is bound to this
//! node's overlay addresses and takes connections only from addresses that are the asking peer's
//! (which the tunnel has already checked against spoofing). It is bounded in every direction: how
//! many listeners, how long each, how many streams, one stream at a time.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use shadowmesh_wire::PeerId;
use shadowmesh_wire::prefix::IpPrefix;

use super::stream;

/// Peers that may measure at the same time: their traffic competes, so more tell nobody anything.
const LISTENERS_MAX: usize = 4;
/// Streams of one listener; a measurement needs three.
const STREAMS_MAX: usize = 32;
/// Longest life of a listener after the last request.
const LIFE_MAX: Duration = Duration::from_secs(150);
/// Time to connect on top of what the peer asked for.
const LIFE_EXTRA: Duration = Duration::from_secs(10);
/// How often a waiting listener looks for connections and for its end.
const ACCEPT_POLL: Duration = Duration::from_millis(5);

/// Why no listener was opened.
#[derive(Debug, thiserror::Error)]
pub enum RespondError {
    /// Other peers measure already.
    #[error("as many peers as allowed measure already")]
    Busy,
    /// The operating system says no.
    #[error("cannot listen on the overlay: {0}")]
    Io(#[from] io::Error),
}

/// Opens and counts the listeners of one node.
#[derive(Clone, Debug, Default)]
pub struct Responder {
    /// At most [`LISTENERS_MAX`].
    open: Arc<Mutex<BTreeMap<PeerId, Listening>>>,
}

#[derive(Debug)]
struct Listening {
    port: u16,
    until: Instant,
}

impl Responder {
    /// Listens for `peer`, on every address in `own`, for connections from `allowed`; the port. A
    /// peer that asks again gets the port it has, for longer.
    pub fn open(
        &self,
        peer: PeerId,
        own: &[IpAddr],
        allowed: Vec<IpPrefix>,
        duration: Duration,
    ) -> Result<u16, RespondError> {
        let until = Instant::now() + (duration + LIFE_EXTRA).min(LIFE_MAX);
        let mut open = self.lock();
        if let Some(listening) = open.get_mut(&peer) {
            listening.until = until;
            return Ok(listening.port);
        }
        if open.len() >= LISTENERS_MAX {
            return Err(RespondError::Busy);
        }
        let (port, listeners) = bind(own)?;
        let server = Server {
            peer,
            listeners,
            allowed,
            responder: self.clone(),
        };
        thread::Builder::new()
            .name("bench".into())
            .spawn(move || server.run())?;
        open.insert(peer, Listening { port, until });
        Ok(port)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Listening>> {
        // Nothing in here panics half way through a change.
        self.open
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// One port on all addresses.
fn bind(own: &[IpAddr]) -> io::Result<(u16, Vec<TcpListener>)> {
    let (first, others) = own.split_first().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let listener = TcpListener::bind((*first, 0))?;
    let port = listener.local_addr()?.port();
    let mut listeners = vec![listener];
    // One address is enough to measure; a port that is taken on another only narrows the choice.
    listeners.extend(
        others
            .iter()
            .filter_map(|ip| TcpListener::bind((*ip, port)).ok()),
    );
    for listener in &listeners {
        listener.set_nonblocking(true)?;
    }
    Ok((port, listeners))
}

struct Server {
    peer: PeerId,
    listeners: Vec<TcpListener>,
    allowed: Vec<IpPrefix>,
    responder: Responder,
}

impl Server {
    fn run(self) {
        let mut streams = 0;
        while streams < STREAMS_MAX && !self.over() {
            match self
                .listeners
                .iter()
                .find_map(|listener| listener.accept().ok())
            {
                None => thread::sleep(ACCEPT_POLL),
                Some((stream, from)) if self.admits(from) => {
                    streams += 1;
                    if let Err(error) = stream::serve(stream) {
                        tracing::debug!(%error, "measuring stream ended early");
                    }
                }
                Some(_) => {
                    tracing::debug!("measuring stream from an address that is not the peer's")
                }
            }
        }
        self.responder.lock().remove(&self.peer);
    }

    fn over(&self) -> bool {
        let open = self.responder.lock();
        open.get(&self.peer)
            .is_none_or(|listening| listening.until < Instant::now())
    }

    fn admits(&self, from: SocketAddr) -> bool {
        self.allowed.iter().any(|prefix| prefix.contains(from.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const SHORT: Duration = Duration::from_millis(100);

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    #[test]
    fn a_peer_measures_both_directions_and_round_trips() {
        let responder = Responder::default();
        let allowed = vec![IpPrefix::host(LOCALHOST)];
        let port = responder
            .open(peer(1), &[LOCALHOST], allowed, SHORT)
            .unwrap();
        let server = SocketAddr::new(LOCALHOST, port);
        for moved in [
            stream::upload(server, SHORT),
            stream::download(server, SHORT),
        ] {
            let moved = moved.unwrap();
            assert!(moved.bytes > 0 && moved.elapsed >= SHORT / 2, "{moved:?}");
            assert!(moved.gbit_s() > 0.0);
        }
        let times = stream::round_trips(server, Duration::from_secs(5), 10).unwrap();
        assert_eq!(times.len(), 10);
    }

    #[test]
    fn a_stranger_gets_nothing() {
        let responder = Responder::default();
        let allowed = vec!["10.9.9.9/32".parse().unwrap()];
        let port = responder
            .open(peer(1), &[LOCALHOST], allowed, SHORT)
            .unwrap();
        assert!(stream::round_trips(SocketAddr::new(LOCALHOST, port), SHORT, 1).is_err());
    }

    #[test]
    fn asking_again_gives_the_same_port_and_listeners_are_few() {
        let responder = Responder::default();
        let open = |n| responder.open(peer(n), &[LOCALHOST], Vec::new(), SHORT);
        let port = open(1).unwrap();
        assert_eq!(open(1).unwrap(), port);
        for n in 2..=LISTENERS_MAX as u8 {
            open(n).unwrap();
        }
        assert!(matches!(open(100), Err(RespondError::Busy)));
    }

    #[test]
    fn a_listener_ends_when_its_time_is_over() {
        let responder = Responder::default();
        let port = responder
            .open(peer(1), &[LOCALHOST], Vec::new(), SHORT)
            .unwrap();
        responder.lock().get_mut(&peer(1)).unwrap().until = Instant::now();
        let server = SocketAddr::new(LOCALHOST, port);
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::net::TcpStream::connect(server).is_ok() {
            assert!(Instant::now() < deadline, "still listening");
            thread::sleep(ACCEPT_POLL);
        }
        assert!(responder.lock().is_empty());
    }
}
