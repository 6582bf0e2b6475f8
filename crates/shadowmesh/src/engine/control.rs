//! The control thread: tells the node what happened and does what it asks.
//!
//! One rule orders everything here: *mutate once, drain fully, wait*. After every batch of input the
//! node is drained in the order snapshot, events, datagrams, device packets. The snapshot first, because
//! the answer to a datagram that has left may already need it; whether there is another one is seen by its
//! version, and no event tells of it that could be lost.
//!
//! No input can starve another: each turn takes a bounded batch from whichever queue the runtime
//! found ready, picked at random, and the timer is looked at on every turn.

use std::collections::HashMap;
use std::future;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use shadowmesh_io::udp::{SendFault, Transmit};
use shadowmesh_net::{DropReason, NetEvent};
use shadowmesh_vpn::Node;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::ControlMessage;
use shadowmesh_wire::offload::{Coalescer, IOV_LEN_MAX};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{self, Instant as TokioInstant};

use super::by_quic::FrameBatch;
use super::host::HostView;
use super::inbox::{FromNetwork, Inbox};
use super::network::{Network, News};
use super::receiver::coalescer;
use super::streams::{StreamEvent, Streams};
use super::{DataThreads, EngineError, Hooks, Shared, Started, report};
use crate::admin::report::{NodeReport, SessionCounts};
use crate::admin::{BenchFailure, Command, PingFailure, PingReply};
use crate::bench::responder::Responder;

/// Inputs of one kind taken in one turn.
const BATCH_MAX: usize = 64;
/// Messages taken in one turn that hold up to 64 KB each: a millisecond of work.
const LONG_BATCH_MAX: usize = 16;
/// First packets taken in one turn: fewer, since each may start a handshake.
const FIRST_BATCH_MAX: usize = 16;
/// Bytes merged and written to the device together: what one turn brings.
const DELIVERY_BYTES_MAX: usize = 1024 * 1024;
/// Measurements that wait for a peer's answer at once.
const BENCHES_MAX: usize = 8;
/// Pings that wait for their reply at once; the oldest wait is given up beyond that.
const PINGS_MAX: usize = 1024;

/// The node and everything that waits for it.
pub struct Control {
    node: Node,
    shared: Shared,
    /// The version of the snapshot that the data threads have. `None`: not looked at yet.
    published: Option<u64>,
    /// `None` where there are none and never will be.
    streams: Option<Streams>,
    started: Started,
    host: HostView,
    since: Instant,
    hooks: Hooks,
    responder: Responder,
    pings: HashMap<u64, oneshot::Sender<Result<PingReply, PingFailure>>>,
    /// IP packets on their way to the device, one behind the other. Limit: [`DELIVERY_BYTES_MAX`] and
    /// one packet.
    arrived: Vec<u8>,
    coalescer: Coalescer,
    sessions: SessionCounts,
    benches: Vec<(PeerId, oneshot::Sender<Result<SocketAddr, BenchFailure>>)>,
}

/// How the control thread ended, and who waits to hear that everything else has too.
pub struct Ended {
    outcome: Result<(), EngineError>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Ended {
    /// Tells those who asked for the end that it is reached.
    pub fn confirm(self) -> Result<(), EngineError> {
        for reply in self.waiting {
            // Whoever asked may have gone; the end does not depend on it.
            let _ = reply.send(());
        }
        self.outcome
    }
}

/// Why the loop ends.
enum End {
    Asked(oneshot::Sender<()>),
    Signal,
    Failed(EngineError),
}

impl Control {
    /// A control thread that has not begun.
    pub fn new(
        node: Node,
        shared: Shared,
        streams: Option<Streams>,
        started: Started,
        host: HostView,
        hooks: Hooks,
    ) -> Self {
        let coalescer = coalescer(shared.device.offloads());
        Self {
            node,
            shared,
            published: None,
            streams,
            started,
            host,
            since: Instant::now(),
            hooks,
            responder: Responder::default(),
            pings: HashMap::new(),
            arrived: Vec::new(),
            coalescer,
            sessions: SessionCounts::default(),
            benches: Vec::new(),
        }
    }

    /// Works until something ends it, then tells the peers.
    pub async fn run(
        mut self,
        mut inbox: Inbox,
        mut commands: mpsc::Receiver<Command>,
        mut network: Network,
        threads: &mut DataThreads,
        mut signals: Signals,
    ) -> Ended {
        // A peer that waits between two attempts of its own learns at once that we are back.
        self.node.connect_all(Instant::now());
        let end = loop {
            self.drain();
            let due = self.node.poll_timeout().map(|(at, _)| at);
            let end = tokio::select! {
                command = commands.recv() => self.handle_command(command, &inbox),
                input = take(&mut inbox.control, LONG_BATCH_MAX) => {
                    inbox.taken(&input);
                    self.handle_network(input)
                }
                input = take(&mut inbox.frames, LONG_BATCH_MAX) => self.handle_frames(input),
                input = take(&mut inbox.inner, BATCH_MAX) => self.handle_network(input),
                input = take(&mut inbox.stray, BATCH_MAX) => self.handle_network(input),
                input = take(&mut inbox.first, FIRST_BATCH_MAX) => self.handle_network(input),
                input = take(&mut inbox.device, BATCH_MAX) => self.handle_device(input),
                input = take(&mut inbox.too_long, BATCH_MAX) => self.handle_too_long(input),
                news = network.news() => self.handle_news(news),
                event = stream_event(&mut self.streams) => self.handle_stream(event),
                () = sleep_until(due) => None,
                () = signals.recv() => Some(End::Signal),
                error = threads.failure() => Some(End::Failed(error)),
            };
            if let Some(end) = end {
                break end;
            }
            self.handle_time(due);
        };
        self.say_goodbye();
        match end {
            End::Asked(reply) => Ended {
                outcome: Ok(()),
                waiting: vec![reply],
            },
            End::Signal => Ended {
                outcome: Ok(()),
                waiting: Vec::new(),
            },
            End::Failed(error) => Ended::failed(error),
        }
    }

    fn handle_network(&mut self, input: Vec<FromNetwork>) -> Option<End> {
        let now = Instant::now();
        for item in input {
            match item {
                FromNetwork::Datagram {
                    received,
                    data,
                    stride,
                } if stride < data.len() => {
                    self.node.handle_datagrams(received, data, stride, now);
                }
                FromNetwork::Datagram { received, data, .. } => {
                    self.node.handle_datagram(received, data, now);
                }
                FromNetwork::Inner {
                    peer,
                    received,
                    inner,
                } => self.node.handle_inner(&peer, received, &inner, now),
            }
        }
        None
    }

    fn handle_device(&mut self, input: Vec<Vec<u8>>) -> Option<End> {
        let now = Instant::now();
        for packet in input {
            self.node.handle_device(&packet, now);
        }
        None
    }

    fn handle_frames(&mut self, input: Vec<FrameBatch>) -> Option<End> {
        let now = Instant::now();
        for batch in input {
            let peer = batch.peer;
            self.node.handle_frames(&peer, batch.frames(), now);
        }
        None
    }

    fn handle_too_long(&mut self, input: Vec<(SocketAddr, usize)>) -> Option<End> {
        let now = Instant::now();
        for (remote, len) in input {
            self.node.handle_too_long(remote, len, now);
        }
        None
    }

    fn handle_news(&mut self, news: News) -> Option<End> {
        let now = Instant::now();
        match news {
            News::Addresses(addresses) => self.node.set_own_addresses(addresses, now),
            News::Changed => {
                self.node.network_changed(now);
                if let Some(streams) = &self.streams {
                    streams.network_changed();
                }
            }
            News::Heard(heard) => self.node.learn_address(&heard.peer, heard.address, now),
            News::Host(view) => {
                self.node.set_host(view.networks.clone(), view.apart);
                self.started.addresses.clone_from(&view.addresses);
                self.host = view;
            }
        }
        None
    }

    fn handle_stream(&mut self, event: StreamEvent) -> Option<End> {
        let now = Instant::now();
        match event {
            StreamEvent::Up { peer, address } => self.node.learn_address(&peer, address, now),
            StreamEvent::Down { address } => self.node.stream_down(address, now),
        }
        None
    }

    fn handle_time(&mut self, due: Option<Instant>) {
        let now = Instant::now();
        if due.is_some_and(|due| due <= now) {
            self.node.handle_timeout(now);
        }
    }

    /// `None` stands for nobody being left to send commands; the node goes on without.
    fn handle_command(&mut self, command: Option<Command>, inbox: &Inbox) -> Option<End> {
        match command? {
            Command::Status { reply } => drop(reply.send(self.report())),
            Command::Doctor { reply } => {
                let report = report::doctor(&self.node, self.report());
                let _ = reply.send(Box::new(report));
            }
            Command::Retry { reply } => {
                self.node.search_now(Instant::now());
                let _ = reply.send(());
            }
            Command::Metrics { reply } => {
                let sessions = self.sessions.clone();
                let queues = inbox.lengths();
                let report = report::metrics(&self.node, self.report(), sessions, queues);
                let _ = reply.send(Box::new(report));
            }
            Command::Peers { reply } => {
                let _ = reply.send(report::peers(&self.node));
            }
            Command::Ping { peer, reply } => self.ping(peer, reply),
            Command::BenchPrepare {
                peer,
                duration,
                reply,
            } => self.prepare_bench(peer, duration, reply),
            Command::Down { reply } => return Some(End::Asked(reply)),
        }
        None
    }

    fn report(&self) -> NodeReport {
        let overflow = self.shared.links.receive_drops();
        report::node(&self.node, &self.started, &self.host, self.since, overflow)
    }

    fn ping(&mut self, peer: PeerId, reply: oneshot::Sender<Result<PingReply, PingFailure>>) {
        self.pings.retain(|_, reply| !reply.is_closed());
        if self.pings.len() >= PINGS_MAX {
            // Dropping the sender tells the asker that there will be no answer.
            return;
        }
        match self.node.ping(&peer, Instant::now()) {
            Ok(token) => drop(self.pings.insert(token, reply)),
            Err(error) => {
                // Whoever asks wants to reach the peer, as a packet to it would.
                self.node.connect(&peer, Instant::now());
                let _ = reply.send(Err(report::ping_failure(&error)));
            }
        }
    }

    fn prepare_bench(
        &mut self,
        peer: PeerId,
        duration: Duration,
        reply: oneshot::Sender<Result<SocketAddr, BenchFailure>>,
    ) {
        self.benches.retain(|(_, reply)| !reply.is_closed());
        if self.benches.len() >= BENCHES_MAX {
            let _ = reply.send(Err(BenchFailure::Refused));
            return;
        }
        let seconds = duration.as_secs().try_into().unwrap_or(u16::MAX);
        let request = ControlMessage::BenchRequest { seconds };
        match self.node.send_control(&peer, &request, Instant::now()) {
            Ok(()) => self.benches.push((peer, reply)),
            Err(error) => {
                self.node.connect(&peer, Instant::now());
                let _ = reply.send(Err(report::bench_failure(&error)));
            }
        }
    }

    /// Does everything the node asks for. Another turn follows only where an event or a refused datagram led
    /// to something new, which neither does again and again: events of state are told once for each change,
    /// and a length that the host refuses is not tried on that path any more.
    fn drain(&mut self) {
        loop {
            while let Some(event) = self.node.poll_event() {
                self.handle_net_event(event);
            }
            self.publish();
            while let Some(transmit) = self.node.poll_transmit() {
                self.send(&transmit);
                self.publish();
            }
            self.deliver();
            // What an event led to (a bench reply) may want to be sent.
            match self.node.poll_event() {
                Some(event) => self.handle_net_event(event),
                None if self.arrived.len() >= DELIVERY_BYTES_MAX => {}
                None => return,
            }
        }
    }

    /// Gives the data threads what the node says of sessions, if it is not what they have.
    // PROTOCOL SM-OV-6
    fn publish(&mut self) {
        let version = Some(self.node.snapshot_version());
        if self.published != version {
            self.published = version;
            self.shared.cell.store(self.node.snapshot());
        }
    }

    fn handle_net_event(&mut self, event: NetEvent) {
        report::log_event(&self.node, &event);
        self.sessions.count(&event);
        match event {
            NetEvent::PingReply {
                token, rtt, path, ..
            } => {
                if let Some(reply) = self.pings.remove(&token) {
                    let path = report::path(&self.node, path, Some(rtt));
                    let _ = reply.send(Ok(PingReply { rtt, path }));
                }
            }
            NetEvent::LearnedKey(identity) => (self.hooks.learned)(identity),
            NetEvent::WantStream { peer } => {
                if let Some(streams) = &self.streams {
                    streams.want(&peer);
                }
            }
            NetEvent::StreamCarries { address } => self.shared.links.streams().mark(address),
            NetEvent::SocketsDone { keep } => {
                if let Err(error) = self.shared.links.extra().close_all_but(&keep) {
                    tracing::debug!(%error, "sockets that are not needed stay open");
                }
            }
            NetEvent::Control { peer, message } => self.handle_control(peer, message),
            _ => {}
        }
    }

    fn handle_control(&mut self, peer: PeerId, message: ControlMessage) {
        match message {
            ControlMessage::BenchRequest { seconds } => {
                let port = self.open_bench(peer, Duration::from_secs(seconds.into()));
                let answer = ControlMessage::BenchReply { port };
                // Without a session any more there is nobody left to answer.
                let _ = self.node.send_control(&peer, &answer, Instant::now());
            }
            ControlMessage::BenchReply { port } => self.finish_bench(peer, port),
            _ => {}
        }
    }

    /// A peer wants to measure: the port of a listener for it, or 0 for no.
    fn open_bench(&self, peer: PeerId, duration: Duration) -> u16 {
        let own: Vec<IpAddr> = self.started.addresses.iter().map(|(ip, _)| *ip).collect();
        let allowed = report::allowed_ips(&self.node, &peer).to_vec();
        match self.responder.open(peer, &own, allowed, duration) {
            Ok(port) => port,
            Err(error) => {
                // The peer's question, as often as it likes: nothing for the log of every day.
                tracing::debug!(%peer, %error, "a measurement was refused");
                0
            }
        }
    }

    /// Answers come in the order of the requests: one control stream carries both.
    fn finish_bench(&mut self, peer: PeerId, port: u16) {
        let Some(at) = self.benches.iter().position(|(of, _)| *of == peer) else {
            return;
        };
        let (_, reply) = self.benches.remove(at);
        let sink = (port != 0)
            .then(|| report::overlay_address(&self.node, &peer))
            .flatten()
            .map(|address| SocketAddr::new(address, port));
        let _ = reply.send(sink.ok_or(BenchFailure::Refused));
    }

    fn send(&mut self, transmit: &shadowmesh_net::Transmit) {
        let datagrams = Transmit {
            remote: transmit.remote,
            local_ip: transmit.local_ip,
            traffic_class: transmit.ecn.unwrap_or(0),
            may_fragment: transmit.may_fragment,
            segment_size: transmit.segment_size,
            contents: &transmit.contents,
        };
        let sent = self.shared.links.send_now(transmit.socket, &datagrams);
        if let Err(fault) = sent {
            let reason = match fault {
                SendFault::Full | SendFault::Overrun => DropReason::TransmitBacklog,
                SendFault::TooBig => {
                    let len = transmit.segment_size.unwrap_or(transmit.contents.len());
                    let now = Instant::now();
                    self.node.handle_too_long(transmit.remote, len, now);
                    DropReason::TooBig
                }
                _ => DropReason::SendFailed,
            };
            self.shared.drops.count(reason);
        }
    }

    /// Packets that came by QUIC, merged as those in sealed frames are, and such of the slow path.
    fn deliver(&mut self) {
        self.arrived.clear();
        while self.arrived.len() < DELIVERY_BYTES_MAX
            && let Some(packet) = self.node.poll_device()
        {
            let at = self.arrived.len();
            self.arrived.extend_from_slice(&packet);
            self.coalescer.push(at, &packet);
        }
        let mut slices = [IoSlice::new(&[]); IOV_LEN_MAX];
        for write in self.coalescer.finish() {
            let len = write.gather(&self.arrived, &mut slices);
            if self.shared.device.write_vectored(&slices[..len]).is_err() {
                let packets = write.pieces().count() as u64;
                self.shared.drops.add(DropReason::DeviceFull, packets);
            }
        }
    }

    /// Tells every peer that we leave on purpose, so that none waits for us or calls back.
    fn say_goodbye(&mut self) {
        self.node.shutdown(Instant::now());
        self.drain();
    }
}

impl Ended {
    fn failed(error: EngineError) -> Self {
        Self {
            outcome: Err(error),
            waiting: Vec::new(),
        }
    }
}

/// Waits for input and takes what is there, at most `limit` of it.
async fn take<T>(queue: &mut mpsc::Receiver<T>, limit: usize) -> Vec<T> {
    let mut input = Vec::new();
    if queue.recv_many(&mut input, limit).await == 0 {
        // The data threads are gone; their end is reported in another way.
        future::pending().await
    }
    input
}

async fn stream_event(streams: &mut Option<Streams>) -> StreamEvent {
    match streams {
        Some(streams) => streams.event().await,
        None => future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => time::sleep_until(TokioInstant::from_std(due)).await,
        None => future::pending().await,
    }
}

/// What a service manager or a person at a terminal ends a program with. It hears from the moment it is made,
/// which is before anything is set on the host: nothing is left behind by a signal that comes early.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
