//! Streams: WebSocket over TLS, for peers that no UDP reaches. One thread for all of them, and one for what
//! comes before: TLS handshakes, proxies, and the web site that strangers see. The first goes before other
//! programs as a sender does; the second is work for whoever comes, so it is an ordinary thread, and a flood of
//! handshakes takes nothing from the streams that stand.
//!
//! A stream is a way like any other once it stands: [`Links`](super::links::Links) hands what goes to its
//! address to the stream's queue ([`outgoing`]), and what comes in is judged as a receiver judges datagrams
//! ([`arrivals`]). So nobody else knows the difference, and a session moves from UDP to a stream and back as it
//! moves between addresses.
//!
//! ```text
//! control: want(peer) ──> keeper of the peer ── connects ──> stream ── ends ──> waits, again
//!                                                  │
//! control <── Up(peer, address), Down(address) ────┘   <── server: streams of others
//! ```
//!
//! Each peer with a URL has a keeper. It opens a stream when one is wanted, and opens it again while that
//! is so, with longer and longer pauses. Streams of others come from the server; nobody knows whose they
//! are before the handshake inside has proved it.

mod arrivals;
mod outgoing;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;

use aws_lc_rs::hmac;
use shadowmesh_io::web::{
    Accepted, Client, Incoming, ProxyUrl, Refusal, Server, WebError, WebStream, WebUrl,
};
use shadowmesh_net::DropReason;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::way::Way;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{self, Instant, Interval};

use super::{Shared, priority};
use arrivals::Arrivals;

pub use outgoing::{Kind, StreamTable};

/// What keeps a path for another protocol from being ours.
const PATH_LABEL: &[u8] = b"shadowmesh web path v1";
/// Bytes of the MAC that stand in the path.
const PATH_MAC_LEN: usize = 16;

/// Every timer of this module.
mod timing {
    use std::time::Duration;

    /// How often a stream's silence is looked at.
    pub const TICK: Duration = Duration::from_secs(5);
    // PROTOCOL SM-WS-6
    /// Silence of the other side after which it is asked: less than proxies (60 s) and NATs (RFC 5382: two
    /// hours, in practice minutes) forget in.
    pub const PING_AFTER: Duration = Duration::from_secs(20);
    // PROTOCOL SM-WS-6
    /// Silence after which it is gone; and how long one that came in may go without anything of a session, which
    /// has a probe on every way at least each 25 s.
    pub const DEAD_AFTER: Duration = Duration::from_secs(60);
    // PROTOCOL SM-WS-6
    /// After the host's network changed the other side of a stream of ours is asked, and answers within this,
    /// or the stream led through what is gone. A handshake of TLS takes two of these round trips.
    pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);
    // PROTOCOL SM-WS-6
    /// A message that has not left after so long will be of no use when it does: that is 35 kbit/s at most,
    /// less than a handshake needs. Longer than a mobile network is dark on its way from cell to cell.
    pub const STALLED_AFTER: Duration = Duration::from_secs(15);
    // PROTOCOL SM-WS-6
    /// A stream that came in and carries no session by then is of somebody who will have none: a handshake
    /// takes 10 s at most (SM-HS-10).
    pub const SESSION_WITHIN: Duration = Duration::from_secs(15);
    /// A stream on which no datagram passed for so long is closed by the side that opened it.
    pub const IDLE_MAX: Duration = Duration::from_secs(300);
    /// A stream stays wanted for so long after it was asked for.
    pub const WANTED: Duration = Duration::from_secs(120);
    /// The first pause after a failure; doubled by every further one, up to the last.
    pub const PAUSE_FIRST: Duration = Duration::from_millis(500);
    pub const PAUSE_LAST: Duration = Duration::from_secs(30);
    /// A stream that carried a session and lasted so long was no failure.
    pub const LASTED: Duration = Duration::from_secs(10);
}

/// Things that happened, waiting for control. Streams wait when it is full.
const EVENTS_MAX: usize = 256;
/// Streams that came in and wait to be served.
const ACCEPTED_MAX: usize = 16;

/// What the streams are to be.
pub struct StreamsConfig {
    /// Who may be reached by a stream, and where.
    pub targets: BTreeMap<PeerId, Target>,
    /// Through which proxy.
    pub proxy: Option<ProxyUrl>,
    /// For streams of others; bound already.
    pub server: Option<Server>,
    /// Nothing is sent by UDP at all.
    pub only: bool,
}

/// Where a peer takes streams.
#[derive(Debug, Clone)]
pub struct Target {
    /// Host and port.
    pub url: WebUrl,
    /// A stream is kept at all times, not only when it is asked for: there is no other way, or the
    /// configuration says so.
    pub always: bool,
}

/// Something happened to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEvent {
    /// There is one to this peer, by this address.
    Up {
        /// To whom.
        peer: PeerId,
        /// How it is known from now on.
        address: SocketAddr,
    },
    /// It leads nowhere any more.
    Down {
        /// How it was known.
        address: SocketAddr,
    },
}

/// The path of a node's streams on its web server.
// PROTOCOL SM-WS-3
pub fn secret_path(id: &PeerId) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, id.as_bytes());
    let mac = hmac::sign(&key, PATH_LABEL);
    let digits = mac.as_ref()[..PATH_MAC_LEN]
        .iter()
        .map(|byte| format!("{byte:02x}"));
    digits.fold(String::from("/"), |path, digits| path + &digits)
}

/// The streams, for control. Dropping it ends them all.
pub struct Streams {
    wishes: BTreeMap<PeerId, Arc<Wish>>,
    /// Tells keepers and streams that the host's network changed.
    changes: watch::Sender<()>,
    events: mpsc::Receiver<StreamEvent>,
    threads: Vec<thread::JoinHandle<()>>,
    /// Dropped to end the threads.
    alive: Vec<oneshot::Sender<()>>,
}

impl Streams {
    /// Starts the threads. Nothing is started, and `None` returned, when there is nobody to serve.
    pub(super) fn start(config: StreamsConfig, shared: &Shared) -> io::Result<Option<Self>> {
        if config.targets.is_empty() && config.server.is_none() {
            return Ok(None);
        }
        let wish = |(id, target): (&PeerId, &Target)| (*id, Arc::new(Wish::new(target.always)));
        let wishes: BTreeMap<_, _> = config.targets.iter().map(wish).collect();
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let (alive, ended) = oneshot::channel();
        let (open, closed) = oneshot::channel();
        let (changes, changed) = watch::channel(());
        let (runtime, door) = (runtime()?, runtime()?);
        let doors = door.handle().clone();
        let carrier = Arc::new(Carrier {
            shared: shared.clone(),
            arrivals: Mutex::new(Arrivals::new(shared.clone())),
            ids: AtomicU64::new(1),
            events: events_in,
            changes: changed,
        });
        let all = wishes.clone();
        // From here on an error ends what has started.
        let mut streams = Self {
            wishes,
            changes,
            events,
            threads: Vec::new(),
            alive: vec![alive, open],
        };
        // Before the streams' thread asks to go first, so that none inherits that.
        streams.spawn("web", move || open_doors(&door, closed))?;
        streams.spawn("streams", move || {
            run(&runtime, config, &all, (&carrier, &doors), ended)
        })?;
        Ok(Some(streams))
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name(name.into());
        self.threads.push(thread.spawn(work)?);
        Ok(())
    }

    /// A stream to this peer would help. Whether there is somewhere to open one to.
    pub fn want(&self, peer: &PeerId) -> bool {
        let wish = self.wishes.get(peer);
        wish.is_some_and(|wish| {
            wish.renew();
            true
        })
    }

    /// A link, an address or a route of the host changed: streams of ours that lead nowhere are ended, and
    /// opened again at once.
    pub fn network_changed(&self) {
        self.changes.send_replace(());
    }

    /// The next event. Never returns once the thread is gone.
    pub async fn event(&mut self) -> StreamEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.alive.clear();
        // Whoever waits to tell an event need not.
        self.events.close();
        for thread in self.threads.drain(..) {
            // A panic there was printed there.
            let _ = thread.join();
        }
    }
}

/// Whether a stream to a peer is wanted, as the keeper sees it.
struct Wish {
    always: bool,
    until: Mutex<Option<Instant>>,
    renewed: Notify,
}

impl Wish {
    fn new(always: bool) -> Self {
        Self {
            always,
            until: Mutex::default(),
            renewed: Notify::new(),
        }
    }

    fn renew(&self) {
        let until = Instant::now() + timing::WANTED;
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        self.renewed.notify_one();
    }

    fn is_wanted(&self) -> bool {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        self.always || until.is_some_and(|until| Instant::now() < until)
    }

    async fn wait(&self) {
        while !self.is_wanted() {
            self.renewed.notified().await;
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// The thread of handshakes and of the web site.
// PROTOCOL SM-WS-9
fn open_doors(runtime: &Runtime, closed: oneshot::Receiver<()>) {
    priority::ordinary();
    runtime.block_on(async {
        // The other end is dropped and never sends.
        let _ = closed.await;
    });
}

fn run(
    runtime: &Runtime,
    config: StreamsConfig,
    wishes: &BTreeMap<PeerId, Arc<Wish>>,
    (carrier, doors): (&Arc<Carrier>, &Handle),
    ended: oneshot::Receiver<()>,
) {
    priority::sender();
    runtime.block_on(async {
        let client = Client::new();
        for (peer, target) in config.targets {
            let keeper = Keeper {
                path: secret_path(&peer),
                peer,
                url: target.url,
                wish: Arc::clone(&wishes[&peer]),
                proxy: config.proxy.clone(),
                client: client.clone(),
                doors: doors.clone(),
                carrier: Arc::clone(carrier),
            };
            tokio::spawn(keeper.run());
        }
        if let Some(server) = config.server {
            tokio::spawn(serve_others(server, doors.clone(), Arc::clone(carrier)));
        }
        // The other end is dropped and never sends.
        let _ = ended.await;
    });
}

async fn serve_others(mut server: Server, doors: Handle, carrier: Arc<Carrier>) {
    let drops = Arc::clone(&carrier.shared.drops);
    server.on_refused(move |refusal| drops.count(drop_reason(refusal)));
    let (accepted, mut arrivals) = mpsc::channel::<Accepted>(ACCEPTED_MAX);
    doors.spawn(async move {
        if let Err(error) = server.run(accepted).await {
            tracing::error!(%error, "no streams are taken any more");
        }
    });
    while let Some(Accepted { remote, mut stream }) = arrivals.recv().await {
        tracing::debug!(%remote, "a stream came in");
        if let Err(error) = stream.rehome() {
            tracing::debug!(%remote, %error, "a stream that came in is lost");
            continue;
        }
        let carrier = Arc::clone(&carrier);
        tokio::spawn(async move { carrier.carry(stream, None).await });
    }
}

fn drop_reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Place => DropReason::WebPlace,
        Refusal::Rate => DropReason::WebRate,
        Refusal::Handshake => DropReason::WebHandshake,
    }
}

/// Keeps the stream to one peer while it is wanted.
struct Keeper {
    peer: PeerId,
    url: WebUrl,
    path: String,
    proxy: Option<ProxyUrl>,
    wish: Arc<Wish>,
    client: Client,
    /// Where handshakes are done.
    doors: Handle,
    carrier: Arc<Carrier>,
}

impl Keeper {
    async fn run(self) {
        let mut changes = self.carrier.changes.clone();
        let mut pause = timing::PAUSE_FIRST;
        loop {
            self.wish.wait().await;
            changes.mark_unchanged();
            let opened = tokio::select! {
                opened = self.open() => opened,
                // It may lead through what is gone.
                Ok(()) = changes.changed() => continue,
            };
            match opened {
                Ok(stream) => {
                    let since = Instant::now();
                    tracing::debug!(peer = %self.peer, "a stream by WebSocket stands");
                    let ours = Some((self.peer, &*self.wish));
                    let carried = self.carrier.carry(stream, ours).await;
                    if carried && since.elapsed() > timing::LASTED {
                        pause = timing::PAUSE_FIRST;
                    }
                }
                // The first failure is news, the same again is not.
                Err(error) if pause == timing::PAUSE_FIRST => {
                    tracing::warn!(peer = %self.peer, %error, "no stream by WebSocket");
                }
                Err(error) => {
                    tracing::debug!(peer = %self.peer, %error, "no stream by WebSocket");
                }
            }
            tokio::select! {
                () = time::sleep(pause) => pause = (2 * pause).min(timing::PAUSE_LAST),
                // Also one during the life of the stream: it may be what ended it.
                Ok(()) = changes.changed() => pause = timing::PAUSE_FIRST,
            }
        }
    }
}

impl Keeper {
    /// Opens the stream, on the thread for that. Given up when dropped.
    // PROTOCOL SM-WS-9
    async fn open(&self) -> Result<WebStream, WebError> {
        let (client, proxy) = (self.client.clone(), self.proxy.clone());
        let (url, path) = (self.url.clone(), self.path.clone());
        let whom = url.to_string();
        let connect = async move { client.connect(&url, &path, proxy.as_ref()).await };
        let mut opening = JoinSet::new();
        opening.spawn_on(connect, &self.doors);
        let lost = |source| WebError::Unreachable {
            whom: whom.clone(),
            source,
        };
        let opened = match opening.join_next().await {
            Some(Ok(opened)) => opened,
            // The thread ends, and this one with it.
            Some(Err(error)) => Err(lost(io::Error::other(error))),
            None => Err(lost(io::ErrorKind::Interrupted.into())),
        };
        let mut stream = opened?;
        stream.rehome().map_err(lost)?;
        Ok(stream)
    }
}

/// What every stream works with.
struct Carrier {
    shared: Shared,
    arrivals: Mutex<Arrivals>,
    /// The number of the next stream.
    ids: AtomicU64,
    events: mpsc::Sender<StreamEvent>,
    /// The host's network changed.
    changes: watch::Receiver<()>,
}

impl Carrier {
    /// Serves a stream until it ends; whether it carried a session. `ours`: to whom we opened it, and
    /// whether it is still wanted.
    async fn carry(&self, stream: WebStream, ours: Option<(PeerId, &Wish)>) -> bool {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let address = Way::Stream(id).address();
        let table = self.shared.links.streams();
        let outgoing = table.open(id, &self.shared.drops);
        if let Some((peer, _)) = ours {
            self.tell(StreamEvent::Up { peer, address }).await;
        }
        let now = Instant::now();
        let mut exchange = Exchange {
            stream,
            outgoing,
            address,
            times: Times::new(now),
            tick: time::interval(timing::TICK),
        };
        let wish = ours.map(|(_, wish)| wish);
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        let ended = loop {
            let asked = exchange.times.asked;
            let answer_due = asked.map_or(now, |asked| asked + timing::ANSWER_WITHIN);
            tokio::select! {
                ended = poll_fn(|cx| exchange.poll(self, wish, cx)) => break ended,
                Ok(()) = changes.changed(), if wish.is_some() => {
                    if let Err(error) = exchange.ask() {
                        break error.into();
                    }
                }
                () = time::sleep_until(answer_due), if asked.is_some() => {
                    if let Err(end) = exchange.times.answered() {
                        break end;
                    }
                }
            }
        };
        tracing::debug!(%address, reason = %ended, "a stream ended");
        poll_fn(|cx| {
            exchange.stream.close(cx);
            Poll::Ready(())
        })
        .await;
        table.remove(id);
        self.tell(StreamEvent::Down { address }).await;
        exchange.times.carried.is_some()
    }

    async fn tell(&self, event: StreamEvent) {
        // Nobody is there to hear it only at the end.
        let _ = self.events.send(event).await;
    }

    /// Takes in a message; whether any of it was of a session.
    fn receive(&self, remote: SocketAddr, message: &mut [u8]) -> Result<bool, End> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.receive(remote, message).map_err(End::Bundle)
    }
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the other side closed it, or others needed its place")]
    Closed,
    #[error("{0}")]
    Web(#[from] WebError),
    #[error("{0}")]
    Bundle(shadowmesh_wire::bundle::BundleError),
    #[error("silence for {:?}", timing::DEAD_AFTER)]
    Dead,
    #[error(
        "no answer within {:?} after the network changed",
        timing::ANSWER_WITHIN
    )]
    Unanswered,
    #[error("nothing left for {:?}", timing::STALLED_AFTER)]
    Stalled,
    #[error("it carries no session")]
    NoSession,
    #[error("nothing to carry")]
    Idle,
}

/// Both directions of one stream.
struct Exchange {
    stream: WebStream,
    outgoing: Arc<outgoing::Outgoing>,
    address: SocketAddr,
    times: Times,
    tick: Interval,
}

/// What a stream is judged by.
struct Times {
    opened: Instant,
    /// The last sign of life.
    heard: Instant,
    /// When the other side was asked whether the stream outlived a change of the host's network.
    asked: Option<Instant>,
    /// The last message with datagrams, either way.
    used: Instant,
    /// Since when a message of ours has been waiting to leave.
    stalled: Option<Instant>,
    /// The last that came of a session.
    carried: Option<Instant>,
}

impl Times {
    fn new(now: Instant) -> Self {
        Self {
            opened: now,
            heard: now,
            asked: None,
            used: now,
            stalled: None,
            carried: None,
        }
    }

    /// Why the stream is to end, if it is. `wish`: it is ours, and whether it is still wanted.
    // PROTOCOL SM-WS-6
    fn judge(&self, wish: Option<&Wish>, now: Instant) -> Result<(), End> {
        let since = |at: Instant| now.saturating_duration_since(at);
        if since(self.heard) >= timing::DEAD_AFTER {
            return Err(End::Dead);
        }
        let stalled = self.stalled.map(since);
        if stalled.is_some_and(|stalled| stalled >= timing::STALLED_AFTER) {
            return Err(End::Stalled);
        }
        let without_session = match self.carried {
            None => since(self.opened) >= timing::SESSION_WITHIN,
            Some(at) => since(at) >= timing::DEAD_AFTER,
        };
        if wish.is_none() && without_session {
            return Err(End::NoSession);
        }
        let is_spare = wish.is_some_and(|wish| !wish.always);
        if is_spare && since(self.used) >= timing::IDLE_MAX {
            return Err(End::Idle);
        }
        Ok(())
    }

    /// The time for the answer is over: whether there was one.
    // PROTOCOL SM-WS-6
    fn answered(&mut self) -> Result<(), End> {
        match self.asked.take() {
            Some(asked) if self.heard < asked => Err(End::Unanswered),
            _ => Ok(()),
        }
    }

    /// Whether the other side is to be asked for a sign of life.
    // PROTOCOL SM-WS-6
    fn is_quiet(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= timing::PING_AFTER
    }
}

/// Messages taken in before others get their turn.
const TURN_MAX: usize = 16;

impl Exchange {
    /// The host's network changed: is the other side still there?
    fn ask(&mut self) -> Result<(), WebError> {
        self.times.asked = Some(Instant::now());
        self.stream.ping()
    }

    /// Does what can be done; ready when the stream has ended.
    fn poll(&mut self, carrier: &Carrier, wish: Option<&Wish>, cx: &mut Context<'_>) -> Poll<End> {
        match self.turn(carrier, wish, cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn turn(
        &mut self,
        carrier: &Carrier,
        wish: Option<&Wish>,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        while self.tick.poll_tick(cx).is_ready() {
            self.check(wish)?;
        }
        for _ in 0..TURN_MAX {
            let sent = self.send(cx)?;
            let received = self.receive(carrier, cx)?;
            if !sent && !received {
                return Ok(());
            }
        }
        // There is more; the others first.
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn check(&mut self, wish: Option<&Wish>) -> Result<(), End> {
        let now = Instant::now();
        if self.outgoing.take_mark() {
            self.carried(now);
        }
        self.times.judge(wish, now)?;
        self.outgoing.expire(now.into_std());
        if self.times.is_quiet(now) {
            self.stream.ping()?;
        }
        Ok(())
    }

    /// Hands over the next message if the last one is on its way; whether there was one.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let now = Instant::now();
        if self.stream.poll_sent(cx)?.is_pending() {
            self.times.stalled.get_or_insert(now);
            return Ok(false);
        }
        self.times.stalled = None;
        let Poll::Ready(message) = self.outgoing.poll_pop(cx, now.into_std()) else {
            return Ok(false);
        };
        self.times.used = now;
        self.stream.send(message)?;
        Ok(true)
    }

    fn receive(&mut self, carrier: &Carrier, cx: &mut Context<'_>) -> Result<bool, End> {
        let Poll::Ready(incoming) = self.stream.poll_receive(cx) else {
            return Ok(false);
        };
        let now = Instant::now();
        self.times.heard = now;
        if let Incoming::Message(mut message) = incoming.ok_or(End::Closed)?? {
            self.times.used = now;
            if carrier.receive(self.address, &mut message)? {
                self.carried(now);
            }
        }
        Ok(true)
    }

    /// Something of a session came.
    fn carried(&mut self, now: Instant) {
        if self.times.carried.replace(now).is_none() {
            self.stream.vouch();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    // PROTOCOL SM-WS-3
    #[test]
    fn the_path_is_the_mac_of_a_constant_under_the_peer_id() {
        // printf 'shadowmesh web path v1' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0707…
        let path = secret_path(&PeerId::from_bytes([7; 32]));
        assert_eq!(path, "/a62b4a579e899b22f9f2017ca03e3744");
        assert_ne!(path, secret_path(&PeerId::from_bytes([8; 32])));
    }

    // PROTOCOL SM-WS-6
    #[test]
    fn a_stream_ends_that_is_silent_or_stands_still_or_of_others_and_without_a_session() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let spare = Wish::new(false);
        let mut times = Times::new(start);
        assert!(times.judge(None, at(14)).is_ok());
        assert!(matches!(times.judge(None, at(15)), Err(End::NoSession)));
        assert!(times.judge(Some(&spare), at(15)).is_ok());
        times.carried = Some(at(10));
        assert!(times.judge(None, at(15)).is_ok());

        times.stalled = Some(at(5));
        assert!(times.judge(None, at(19)).is_ok());
        assert!(matches!(times.judge(None, at(20)), Err(End::Stalled)));
        times.stalled = None;
        assert!(!times.is_quiet(at(19)) && times.is_quiet(at(20)));
        assert!(times.judge(None, at(59)).is_ok());
        assert!(matches!(times.judge(None, at(60)), Err(End::Dead)));

        // It answers pings for ever, and its session has ended.
        times.heard = at(300);
        assert!(times.judge(None, at(69)).is_ok());
        assert!(matches!(times.judge(None, at(70)), Err(End::NoSession)));
        times.carried = Some(at(275));
        assert!(times.judge(None, at(300)).is_ok());
        assert!(times.judge(Some(&Wish::new(true)), at(300)).is_ok());
        assert!(matches!(times.judge(Some(&spare), at(300)), Err(End::Idle)));
    }

    // PROTOCOL SM-WS-6
    #[test]
    fn a_stream_ends_on_which_nothing_comes_after_the_network_changed() {
        let start = Instant::now();
        let mut times = Times::new(start);
        times.asked = Some(start + Duration::from_secs(1));
        assert!(matches!(times.answered(), Err(End::Unanswered)));
        times.asked = Some(start + Duration::from_secs(1));
        times.heard = start + Duration::from_secs(2);
        assert!(times.answered().is_ok() && times.asked.is_none());
    }
}
