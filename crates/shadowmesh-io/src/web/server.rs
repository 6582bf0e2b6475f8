//! Listens, shows the site, and hands over those who know the secret path.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_websockets::ServerBuilder;

use super::site::{self, Answer, Served};
use super::stream::{Boxed, WebStream, limits, tune};
use super::{ServerError, tls};

/// Connections at once, streams among them. Each costs a descriptor, of which a process has 1024 by default,
/// and about 40 KB.
const CONNECTIONS_MAX: usize = 768;
/// Of one source: an IPv4 address or an IPv6 /64. An office behind one NAT fits.
const SOURCE_MAX: usize = 64;
/// Time for the TLS handshake.
const TLS_MAX: Duration = Duration::from_secs(10);
/// Time for the head of a request, and for the next one to come.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// A connection that never becomes a stream ends, however often it asks for a page.
const VISIT_MAX: Duration = Duration::from_secs(600);
/// Longest head of a request.
const HEAD_LEN_MAX: usize = 16 * 1024;
/// Connections the kernel holds for us while we are busy.
const BACKLOG: i32 = 256;
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
    visitors: Visitors,
}

/// What every connection needs.
#[derive(Clone)]
struct Visitors {
    tls: TlsAcceptor,
    secret_path: Arc<str>,
    sources: Sources,
}

impl Server {
    /// Binds every address and reads or makes the certificate.
    pub fn bind(options: ServerOptions<'_>) -> Result<Self, ServerError> {
        let tls = tls::server(options.certificate)?;
        let bind = |address: &SocketAddr| {
            listen(*address).map_err(|source| ServerError::Bind {
                address: *address,
                source,
            })
        };
        let listeners = options.listen.iter().map(bind);
        Ok(Self {
            listeners: listeners.collect::<Result<_, _>>()?,
            visitors: Visitors {
                tls: TlsAcceptor::from(Arc::new(tls)),
                secret_path: options.secret_path.into(),
                sources: Sources::default(),
            },
        })
    }

    /// What was really bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.listeners.iter();
        addresses
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Serves until the receiving end of `accepted` is gone; within a tokio runtime.
    pub async fn run(self, accepted: mpsc::Sender<Accepted>) -> io::Result<()> {
        for listener in self.listeners {
            let listener = TcpListener::from_std(listener)?;
            let visitors = self.visitors.clone();
            tokio::spawn(accept_all(listener, visitors, accepted.clone()));
        }
        accepted.closed().await;
        Ok(())
    }
}

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // As with UDP: `[::]` and `0.0.0.0` are bound side by side.
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for old connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
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
                if let Some(place) = visitors.sources.admit(remote.ip()) {
                    tokio::spawn(visit(
                        tcp,
                        remote,
                        place,
                        visitors.clone(),
                        accepted.clone(),
                    ));
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a TCP connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, from its first byte until it ends or becomes a stream. Whatever a stranger does wrong is
/// nobody's news.
async fn visit(
    tcp: TcpStream,
    remote: SocketAddr,
    place: Place,
    visitors: Visitors,
    accepted: mpsc::Sender<Accepted>,
) {
    tune(&tcp);
    let Ok(Ok(tls)) = timeout(TLS_MAX, visitors.tls.accept(tcp)).await else {
        return;
    };
    let upgrade: Mutex<Option<OnUpgrade>> = Mutex::new(None);
    let service = service_fn(async |mut request| {
        Served::Ok(match site::answer(&request, &visitors.secret_path) {
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
    if !matches!(timeout(VISIT_MAX, serving).await, Ok(Ok(()))) {
        return;
    }
    let Some(upgrade) = lock(&upgrade).take() else {
        return;
    };
    if let Ok(upgraded) = upgrade.await
        && let Some(stream) = stream(upgraded, place)
    {
        // Full or gone: there is nobody to serve it.
        let _ = accepted.send(Accepted { remote, stream }).await;
    }
}

/// The stream on an upgraded connection. A client that did not wait for our answer speaks something else.
fn stream(upgraded: Upgraded, place: Place) -> Option<WebStream> {
    let Parts { io, read_buf, .. } = upgraded
        .downcast::<TokioIo<TlsStream<TcpStream>>>()
        .ok()
        .filter(|parts| parts.read_buf.is_empty())?;
    debug_assert!(read_buf.is_empty());
    let (config, limits) = limits();
    let builder = ServerBuilder::new().config(config).limits(limits);
    let socket = builder.serve(Box::new(io.into_inner()) as Boxed);
    Some(WebStream::new(socket, Some(place)))
}

/// How many connections each source has.
// PROTOCOL SM-WS-7
#[derive(Clone, Default)]
struct Sources(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    /// Limit: [`CONNECTIONS_MAX`] in all, [`SOURCE_MAX`] each. None is zero.
    by_source: BTreeMap<IpAddr, usize>,
    all: usize,
}

/// One connection's place in the count, given back when dropped.
pub(super) struct Place {
    sources: Sources,
    source: IpAddr,
}

impl Sources {
    fn admit(&self, from: IpAddr) -> Option<Place> {
        let source = source_of(from);
        let mut counts = lock(&self.0);
        let of_source = counts.by_source.get(&source).copied().unwrap_or(0);
        if counts.all >= CONNECTIONS_MAX || of_source >= SOURCE_MAX {
            return None;
        }
        counts.all += 1;
        counts.by_source.insert(source, of_source + 1);
        drop(counts);
        Some(Place {
            sources: self.clone(),
            source,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.sources.0);
        counts.all -= 1;
        match counts.by_source.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.by_source.remove(&self.source)),
        }
    }
}

/// An IPv6 host has its whole /64 (RFC 7934).
fn source_of(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V4(_) => from,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}

/// Nothing here is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    // PROTOCOL SM-WS-7
    #[test]
    fn a_source_has_its_share_of_connections_and_all_together_theirs() {
        let sources = Sources::default();
        let admit = |text: &str| sources.admit(text.parse().unwrap());
        let mut places: Vec<Place> = (0..SOURCE_MAX).filter_map(|_| admit("192.0.2.1")).collect();
        assert_eq!(places.len(), SOURCE_MAX);
        assert!(admit("192.0.2.1").is_none());
        drop(places.pop());
        places.extend(admit("192.0.2.1"));
        assert_eq!(places.len(), SOURCE_MAX);

        // Hosts of one /64 are one source, those of another are another.
        places.extend((0..SOURCE_MAX).filter_map(|n| admit(&format!("2001:db8::{n:x}"))));
        assert!(admit("2001:db8::ffff").is_none());
        places.extend(admit("2001:db8:0:1::1"));
        assert_eq!(places.len(), 2 * SOURCE_MAX + 1);

        let rest = CONNECTIONS_MAX - places.len();
        places.extend((0..rest).filter_map(|n| admit(&format!("10.0.{}.{}", n / 200, n % 200))));
        assert_eq!(places.len(), CONNECTIONS_MAX);
        assert!(admit("198.51.100.1").is_none());
        drop(places);
        assert!(lock(&sources.0).by_source.is_empty());
    }
}
