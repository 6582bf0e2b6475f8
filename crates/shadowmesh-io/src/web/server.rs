//! Listens, shows the site, and hands over those who know the secret path.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::site::{self, Answer, Served};
use super::stream::{WebStream, tune};
use super::{ServerError, tls};

/// Connections at once, streams among them. Each costs a descriptor, of which a process has 1024 by default,
/// and about 40 KB.
const CONNECTIONS_MAX: usize = 768;
/// Of these, such as nobody has vouched for ([`WebStream::vouch`]): who merely comes cannot take the places
/// of those who are known.
const STRANGERS_MAX: usize = 512;
/// Of one source: an IPv4 address or an IPv6 /64. An office behind one NAT fits.
const SOURCE_MAX: usize = 64;
/// Of one site: an IPv4 address or an IPv6 /48, which is what one customer gets at most (RFC 6177), and
/// anybody from a tunnel broker for nothing. Two full sources.
const SITE_MAX: usize = 128;
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
    places: Places,
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
                places: Places::default(),
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
                if let Some(place) = visitors.places.admit(remote.ip()) {
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

/// One connection, from its first byte until it ends or becomes a stream.
async fn visit(
    tcp: TcpStream,
    remote: SocketAddr,
    mut place: Place,
    visitors: Visitors,
    accepted: mpsc::Sender<Accepted>,
) {
    let upgraded = tokio::select! {
        upgraded = show(tcp, &visitors) => upgraded,
        () = poll_fn(|cx| place.poll_taken(cx)) => None,
    };
    if let Some(upgraded) = upgraded
        && let Some(stream) = stream(upgraded, place)
    {
        // Full or gone: there is nobody to serve it.
        let _ = accepted.send(Accepted { remote, stream }).await;
    }
}

/// Shows a visitor the site until it goes, or asks for a stream. Whatever a stranger does wrong is nobody's
/// news.
async fn show(tcp: TcpStream, visitors: &Visitors) -> Option<Upgraded> {
    tune(&tcp);
    let tls = timeout(TLS_MAX, visitors.tls.accept(tcp))
        .await
        .ok()?
        .ok()?;
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
    timeout(VISIT_MAX, serving).await.ok()?.ok()?;
    let upgrade = lock(&upgrade).take()?;
    upgrade.await.ok()
}

/// The stream on an upgraded connection. A client that did not wait for our answer speaks something else.
fn stream(upgraded: Upgraded, place: Place) -> Option<WebStream> {
    let Parts { io, read_buf, .. } = upgraded
        .downcast::<TokioIo<TlsStream<TcpStream>>>()
        .ok()
        .filter(|parts| parts.read_buf.is_empty())?;
    debug_assert!(read_buf.is_empty());
    Some(WebStream::serve_in(Box::new(io.into_inner()), Some(place)))
}

/// Who has a place.
// PROTOCOL SM-WS-7
#[derive(Clone, Default)]
struct Places(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    /// In the order of arrival. Limit: [`CONNECTIONS_MAX`] in all, [`STRANGERS_MAX`], [`SOURCE_MAX`] and
    /// [`SITE_MAX`].
    places: BTreeMap<u64, Holder>,
    /// The number of the next.
    next: u64,
}

struct Holder {
    source: IpAddr,
    site: IpAddr,
    /// Dropped to give the place to somebody else; none for those who are known.
    stranger: Option<oneshot::Sender<Infallible>>,
}

/// One connection's place, given back when dropped.
pub(super) struct Place {
    places: Places,
    number: u64,
    standing: Standing,
}

/// What may happen to a place.
enum Standing {
    /// It may be taken: then this is ready.
    Stranger(oneshot::Receiver<Infallible>),
    /// It was.
    Gone,
    /// It will not be.
    Known,
}

impl Places {
    fn admit(&self, from: IpAddr) -> Option<Place> {
        let [source, site] = [64, 48].map(|len| network_of(from, len));
        let mut held = lock(&self.0);
        let count = |which: &dyn Fn(&Holder) -> bool| {
            let holders = held.places.values();
            holders.filter(|holder| which(holder)).count()
        };
        if count(&|holder| holder.source == source) >= SOURCE_MAX
            || count(&|holder| holder.site == site) >= SITE_MAX
        {
            return None;
        }
        if count(&Holder::is_stranger) >= STRANGERS_MAX || held.places.len() >= CONNECTIONS_MAX {
            held.make_room(site)?;
        }
        let number = held.next;
        held.next += 1;
        let (stranger, taken) = oneshot::channel();
        let holder = Holder {
            source,
            site,
            stranger: Some(stranger),
        };
        held.places.insert(number, holder);
        drop(held);
        Some(Place {
            places: self.clone(),
            number,
            standing: Standing::Stranger(taken),
        })
    }
}

impl Holder {
    fn is_stranger(&self) -> bool {
        self.stranger.is_some()
    }
}

impl Held {
    /// Takes the place of a stranger, for somebody from `site`: the oldest of the site that has the most of
    /// them. So who fills the table with strangers loses to whoever else comes, and never the other way.
    /// `None`: no site has more than `site` itself.
    fn make_room(&mut self, site: IpAddr) -> Option<()> {
        let mut strangers: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for holder in self.places.values().filter(|holder| holder.is_stranger()) {
            *strangers.entry(holder.site).or_default() += 1;
        }
        let ours = strangers.get(&site).copied().unwrap_or(0);
        let most = strangers.values().copied().max()?;
        if most <= ours {
            return None;
        }
        let (&number, _) = self
            .places
            .iter()
            .find(|(_, holder)| holder.is_stranger() && strangers[&holder.site] == most)?;
        self.places.remove(&number);
        Some(())
    }
}

impl Place {
    /// Ready when somebody else was given the place.
    pub(super) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.standing {
            Standing::Stranger(taken) => {
                // Nothing is ever sent: this is the other end being dropped.
                let _ = ready!(Pin::new(taken).poll(cx));
                self.standing = Standing::Gone;
                Poll::Ready(())
            }
            Standing::Gone => Poll::Ready(()),
            Standing::Known => Poll::Pending,
        }
    }

    /// Whoever has it is known. Too late if it was taken meanwhile.
    pub(super) fn vouch(&mut self) {
        if let Some(holder) = lock(&self.places.0).places.get_mut(&self.number) {
            holder.stranger = None;
            self.standing = Standing::Known;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.places.0).places.remove(&self.number);
    }
}

/// Of an IPv6 address the first `len` bits (a host has its whole /64, RFC 7934), of an IPv4 address all.
fn network_of(from: IpAddr, len: u32) -> IpAddr {
    match from {
        IpAddr::V4(_) => from,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << (128 - len))).into(),
    }
}

/// Nothing here is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(places: &Places, from: &str) -> Option<Place> {
        places.admit(from.parse().unwrap())
    }

    /// As many as are let in, of so many addresses of 10.0.0.0/8, of each as many as it may have.
    fn crowd(places: &Places, sources: usize) -> Vec<Place> {
        let all = (0..sources * SOURCE_MAX)
            .map(|n| format!("10.0.{}.{}", n / SOURCE_MAX / 200, n / SOURCE_MAX % 200));
        all.filter_map(|from| admit(places, &from)).collect()
    }

    fn is_taken(place: &mut Place) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        place.poll_taken(&mut cx).is_ready()
    }

    // PROTOCOL SM-WS-7
    #[test]
    fn a_source_and_a_site_have_their_share_of_connections() {
        let places = Places::default();
        let mut held = crowd(&places, 1);
        assert_eq!(held.len(), SOURCE_MAX);
        assert!(admit(&places, "10.0.0.0").is_none());
        drop(held.pop());
        held.extend(admit(&places, "10.0.0.0"));
        assert_eq!(held.len(), SOURCE_MAX);

        // Hosts of one /64 are one source, those of another are another, but of the same site.
        held.clear();
        for net in 0..2 {
            let hosts = (0..SOURCE_MAX).map(|n| format!("2001:db8:0:{net}::{n:x}"));
            held.extend(hosts.filter_map(|from| admit(&places, &from)));
            assert!(admit(&places, &format!("2001:db8:0:{net}::ffff")).is_none());
        }
        assert_eq!(held.len(), SITE_MAX);
        assert!(admit(&places, "2001:db8:0:9::1").is_none());
        held.extend(admit(&places, "2001:db8:1::1"));
        assert_eq!(held.len(), SITE_MAX + 1);
        drop(held);
        assert!(lock(&places.0).places.is_empty());
    }

    // PROTOCOL SM-WS-7
    #[test]
    fn strangers_leave_places_to_those_who_are_known_and_make_room_for_each_other() {
        let places = Places::default();
        let mut strangers = crowd(&places, STRANGERS_MAX / SOURCE_MAX);
        assert_eq!(strangers.len(), STRANGERS_MAX);

        // Somebody else comes in place of the oldest of them, and again.
        let mut newcomer = admit(&places, "192.0.2.1").expect("room is made");
        let second = admit(&places, "192.0.2.1").expect("room is made");
        let gone = strangers
            .iter_mut()
            .filter_map(|place| is_taken(place).then_some(place.number));
        assert_eq!(gone.collect::<Vec<_>>(), [0, SOURCE_MAX as u64]);
        strangers.retain_mut(|place| !is_taken(place));
        assert_eq!(lock(&places.0).places.len(), STRANGERS_MAX);

        // Who is known leaves its place to a stranger, and keeps its own whatever comes.
        newcomer.vouch();
        drop(second);
        strangers.extend((0..2).filter_map(|n| admit(&places, &format!("10.1.0.{n}"))));
        assert_eq!(lock(&places.0).places.len(), STRANGERS_MAX + 1);
        let others = (0..300).map(|n| admit(&places, &format!("10.2.{}.{}", n / 200, n % 200)));
        let others: Vec<Place> = others.flatten().collect();
        assert!(!others.is_empty() && !is_taken(&mut newcomer));
        drop((strangers, others, newcomer));
        assert!(lock(&places.0).places.is_empty());
    }

    // PROTOCOL SM-WS-7
    #[test]
    fn whoever_has_the_most_places_gets_no_other_of_anybody() {
        let places = Places::default();
        let mut held = crowd(&places, 6);
        let site = (0..100).map(|n| format!("2001:db8:0:{}::1", n % 2));
        held.extend(site.filter_map(|from| admit(&places, &from)));
        let others =
            (held.len()..STRANGERS_MAX).map(|n| format!("10.{}.{}.1", 1 + n / 200, n % 200));
        held.extend(others.filter_map(|from| admit(&places, &from)));
        assert_eq!(held.len(), STRANGERS_MAX);
        assert!(admit(&places, "2001:db8:0:9::1").is_none());
        assert!(admit(&places, "2001:db8:1:9::1").is_some());
    }

    #[test]
    fn the_known_fill_the_table_and_then_a_newcomer_finds_no_place() {
        let places = Places::default();
        let mut held = Vec::new();
        for n in 0..CONNECTIONS_MAX {
            let mut place = admit(&places, &format!("10.0.{}.{}", n / 200, n % 200)).unwrap();
            place.vouch();
            held.push(place);
        }
        assert!(admit(&places, "192.0.2.1").is_none());
        held.pop();
        assert!(admit(&places, "192.0.2.1").is_some());
    }
}
