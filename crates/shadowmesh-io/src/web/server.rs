//! Listens, shows the site, and hands over those who know the secret path.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::places::{Place, Places, lock};
use super::site::{self, Answer, Served};
use super::stream::WebStream;
use super::wire::Wire;
use super::{ServerError, tls};
use crate::late;
use crate::underlay;

/// Time for the TLS handshake.
pub(super) const TLS_MAX: Duration = Duration::from_secs(10);
/// Time for the head of a request, and for the next one to come.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// What a client may send before its handshake is done: a first message of 2 KB, which a server may ask for
/// once more, and as much again for what will come with later suites and for records of the smallest size.
const HELLO_LEN_MAX: usize = 16 * 1024;
/// Answers on one connection, after which a web server of the usual settings closes it: each costs work, and
/// the next handshake is counted.
const ANSWERS_MAX: usize = 100;
/// A connection that never becomes a stream ends, however often it asks for a page.
const VISIT_MAX: Duration = Duration::from_secs(600);
/// Longest head of a request.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Connections the kernel holds for us while we are busy.
const BACKLOG: i32 = 256;
/// Between two attempts to have an address that somebody else has.
const BIND_PAUSE: Duration = Duration::from_secs(5);
/// Out of descriptors or memory: others must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server shows and hides.
pub struct ServerOptions<'a> {
    /// TCP addresses.
    pub listen: &'a [SocketAddr],
    /// A certificate chain and its key, in PEM files; `None` makes a self-signed one.
    pub certificate: Option<(&'a Path, &'a Path)>,
    /// The path of streams, beginning with `/`.
    pub secret_path: String,
}

/// Why somebody was turned away, or its connection ended before it was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its source or site has all the places it may have, or there is none.
    Place,
    /// Its source, its site, or all together began too many handshakes.
    Rate,
    /// Its handshake took too long or too many bytes, or was none.
    Handshake,
}

/// A stream that came in.
pub struct Accepted {
    /// From where, as TCP says.
    pub remote: SocketAddr,
    /// The stream.
    pub stream: WebStream,
}

/// A bound server. Nobody is answered until it runs.
pub struct Server {
    listeners: Vec<StdListener>,
    waiting: Waiting,
    visitors: Visitors,
}

/// What every connection needs.
#[derive(Clone)]
struct Visitors {
    tls: TlsAcceptor,
    secret_path: Arc<str>,
    places: Places,
    refused: Arc<dyn Fn(Refusal) + Send + Sync>,
}

impl Server {
    /// Binds every address and reads or makes the certificate. An address that cannot be bound is tried
    /// again while the server runs.
    pub fn bind(options: ServerOptions<'_>) -> Result<Self, ServerError> {
        let tls = tls::server(options.certificate)?;
        let (mut listeners, waiting) = (Vec::new(), Waiting::default());
        for address in options.listen {
            match listen(*address) {
                Ok(listener) => listeners.push(listener),
                Err(error) => waiting.set(*address, Some(error.to_string())),
            }
        }
        Ok(Self {
            listeners,
            waiting,
            visitors: Visitors {
                tls: TlsAcceptor::from(Arc::new(tls)),
                secret_path: options.secret_path.into(),
                places: Places::default(),
                refused: Arc::new(|_| {}),
            },
        })
    }

    /// What could not be bound until now.
    pub fn waiting(&self) -> Waiting {
        self.waiting.clone()
    }

    /// What was really bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.listeners.iter();
        addresses
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Whom to tell of everybody who is turned away: to be counted.
    pub fn on_refused(&mut self, refused: impl Fn(Refusal) + Send + Sync + 'static) {
        self.visitors.refused = Arc::new(refused);
    }

    /// Serves until the receiving end of `accepted` is gone; within a tokio runtime, which does the handshakes
    /// and shows the site. Whoever carries a stream in another one moves it there first
    /// ([`WebStream::rehome`]).
    pub async fn run(self, accepted: mpsc::Sender<Accepted>) -> io::Result<()> {
        for listener in self.listeners {
            let listener = TcpListener::from_std(listener)?;
            let visitors = self.visitors.clone();
            tokio::spawn(accept_all(listener, visitors, accepted.clone()));
        }
        for (address, _) in self.waiting.all() {
            let (waiting, visitors) = (self.waiting.clone(), self.visitors.clone());
            tokio::spawn(listen_later(address, waiting, visitors, accepted.clone()));
        }
        accepted.closed().await;
        Ok(())
    }
}

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let listener = late::listen(address, BACKLOG)?.0;
    // Streams inherit it.
    underlay::mark(&listener);
    Ok(listener)
}

/// Addresses that could not be bound, with the reason. Limit: those of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<BTreeMap<SocketAddr, String>>>);

impl Waiting {
    /// All of them.
    pub fn all(&self) -> Vec<(SocketAddr, String)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(at, why)| (*at, why.clone())).collect()
    }

    fn set(&self, address: SocketAddr, why: Option<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) => drop(all.insert(address, why)),
            None => drop(all.remove(&address)),
        }
    }
}

/// Tries to bind an address until it can be had, and serves it then.
// PROTOCOL SM-ST-2
async fn listen_later(
    address: SocketAddr,
    waiting: Waiting,
    visitors: Visitors,
    accepted: mpsc::Sender<Accepted>,
) {
    let listener = loop {
        tokio::select! {
            () = sleep(BIND_PAUSE) => {}
            () = accepted.closed() => return,
        }
        match listen(address).and_then(TcpListener::from_std) {
            Ok(listener) => break listener,
            Err(error) => waiting.set(address, Some(error.to_string())),
        }
    };
    waiting.set(address, None);
    accept_all(listener, visitors, accepted).await;
}

async fn accept_all(listener: TcpListener, visitors: Visitors, accepted: mpsc::Sender<Accepted>) {
    loop {
        let arrival = tokio::select! {
            arrival = listener.accept() => arrival,
            () = accepted.closed() => return,
        };
        match arrival {
            Ok((tcp, remote)) => {
                // PROTOCOL SM-WS-7
                // PROTOCOL SM-WS-9
                match visitors.places.enter(remote.ip(), Instant::now()) {
                    Ok((place, turn)) => {
                        let visit = visit(
                            tcp,
                            remote,
                            (place, turn),
                            visitors.clone(),
                            accepted.clone(),
                        );
                        tokio::spawn(visit);
                    }
                    Err(refusal) => (visitors.refused)(refusal),
                }
            }
            // It was this one's own: the next may be there already.
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::debug!(%error, "a TCP connection could not be accepted");
                visitors.places.spare();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether only the connection that was to be accepted failed (accept(2)), which whoever opened it can bring
/// about; and not the listener, for want of descriptors or memory.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}

/// One connection, from its first byte until it ends or becomes a stream.
async fn visit(
    tcp: TcpStream,
    remote: SocketAddr,
    (mut place, turn): (Place, Instant),
    visitors: Visitors,
    accepted: mpsc::Sender<Accepted>,
) {
    let greeted = tokio::select! {
        greeted = greet(tcp, turn, &visitors) => greeted,
        () = poll_fn(|cx| place.poll_taken(cx)) => None,
    };
    let Some(tls) = greeted else {
        return (visitors.refused)(Refusal::Handshake);
    };
    place.greeted();
    let upgraded = tokio::select! {
        upgraded = show(tls, &visitors) => upgraded,
        () = poll_fn(|cx| place.poll_taken(cx)) => None,
    };
    if let Some(upgraded) = upgraded
        && let Some(stream) = stream(upgraded, place)
    {
        // Full or gone: there is nobody to serve it.
        let _ = accepted.send(Accepted { remote, stream }).await;
    }
}

/// The handshake, when its turn has come.
// PROTOCOL SM-WS-9
async fn greet(tcp: TcpStream, turn: Instant, visitors: &Visitors) -> Option<TlsStream<Wire>> {
    sleep_until(turn.into()).await;
    let wire = Wire::limited(tcp, HELLO_LEN_MAX);
    let accepted = timeout(TLS_MAX, visitors.tls.accept(wire)).await;
    let mut tls = accepted.ok()?.ok()?;
    tls.get_mut().0.unlimit();
    Some(tls)
}

/// Shows a visitor the site until it goes, or asks for a stream. Whatever a stranger does wrong is nobody's
/// news.
async fn show(tls: TlsStream<Wire>, visitors: &Visitors) -> Option<Upgraded> {
    let upgrade: Mutex<Option<OnUpgrade>> = Mutex::new(None);
    let answers = AtomicUsize::new(0);
    let service = service_fn(async |mut request| {
        let is_last = answers.fetch_add(1, Ordering::Relaxed) + 1 >= ANSWERS_MAX;
        Served::Ok(match site::answer(&request, &visitors.secret_path) {
            Answer::Page(response) if is_last => site::last(response),
            Answer::Page(response) => response,
            Answer::Upgrade(response) => {
                *lock(&upgrade) = Some(hyper::upgrade::on(&mut request));
                response
            }
        })
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(HEAD_LEN_MAX)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(tls), service)
        .with_upgrades();
    // After an upgrade this ends at once, and the connection lives on in `upgrade`.
    timeout(VISIT_MAX, serving).await.ok()?.ok()?;
    let upgrade = lock(&upgrade).take()?;
    upgrade.await.ok()
}

/// The stream on an upgraded connection. A client that did not wait for our answer speaks something else.
fn stream(upgraded: Upgraded, place: Place) -> Option<WebStream> {
    let Parts { io, read_buf, .. } = upgraded
        .downcast::<TokioIo<TlsStream<Wire>>>()
        .ok()
        .filter(|parts| parts.read_buf.is_empty())?;
    debug_assert!(read_buf.is_empty());
    Some(WebStream::serve_in(Box::new(io.into_inner()), Some(place)))
}
