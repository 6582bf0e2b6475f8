//! What is known and what can be tried from here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use shadowmesh_io::underlay;
use shadowmesh_io::web::{Client, ProxyUrl, WebError, WebUrl};
use shadowmesh_wire::PeerId;

use super::host::HostFacts;
use crate::admin::client::{self, ClientError};
use crate::admin::protocol::{Request, Response};
use crate::admin::report::{DoctorReport, PathKind};
use crate::cli::addresses::{host_addresses, is_public};
use crate::cli::args::{Global, UpArgs};
use crate::cli::failure::Failure;
use crate::cli::output::short_id;
use crate::cli::{ask, load, unexpected, up};
use crate::config::Config;
use crate::engine::streams;
use crate::identity_file;

/// When a question by UDP is sent: more than once, because one may be lost.
const ASKED_AT: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(300),
    Duration::from_millis(800),
];
/// Then no answer comes any more.
const ANSWER_MAX: Duration = Duration::from_millis(1800);
/// Where a node listens that nobody told otherwise.
const PORT_DEFAULT: u16 = 4433;
/// Limit: addresses that are asked.
const QUESTIONS_MAX: usize = 64;

/// Everything the findings are drawn from.
pub struct Facts {
    /// The configuration as it is now; the node may run with an older one.
    pub config: Config,
    /// What the running node knows; `None`: none runs, or it does not answer us.
    pub node: Option<DoctorReport>,
    /// A node runs, and only its user may ask it.
    pub node_is_locked: bool,
    /// What keeps a node from starting, or from listening.
    pub host: HostFacts,
    /// PeerId of this machine, where it can be read.
    pub own: Option<String>,
    /// Who was asked by UDP from here, and what came of it.
    pub udp: Vec<UdpAnswer>,
    /// Whether a datagram to our own address outside comes back to us; `None`: there is none, or no node.
    pub hairpin: Option<bool>,
    /// Whether a node answers at each address of `node.announce`, asked from this machine.
    pub announced: Vec<UdpAnswer>,
    /// Whether IPv4 and IPv6 lead out.
    pub ways_out: [WayOut; 2],
    /// Who takes WebSocket over TLS, and whether it can be reached.
    pub web: Vec<WebAnswer>,
    /// The proxy that leads there.
    pub proxy: Option<String>,
    /// How far the clock is behind the time when the identity was written.
    pub clock_behind: Option<Duration>,
}

/// A question by UDP.
#[derive(Clone, Debug)]
pub struct UdpAnswer {
    /// Whom.
    pub whom: String,
    /// Where.
    pub address: SocketAddr,
    /// After what time an answer came.
    pub took: Option<Duration>,
    /// The machine there said that no program has that port (ICMP).
    pub is_closed: bool,
    /// A router, or this machine, said that nobody has that address.
    pub is_unreachable: bool,
    /// It is no address of the configuration, but another port of one.
    pub is_guess: bool,
}

/// A way out of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct WayOut {
    /// There is an address that can be reached from elsewhere.
    pub public: bool,
    /// There is a route to the internet.
    pub route: bool,
}

/// A stream that was opened.
#[derive(Clone, Debug)]
pub struct WebAnswer {
    /// To whom.
    pub whom: String,
    /// Where.
    pub url: String,
    /// How long it took, or what went wrong.
    pub opened: Result<Duration, String>,
}

/// Gathers all facts. Takes about two seconds, or more where streams are configured and do not open. With
/// `retry` the node looks for better paths before, for as long as it takes to say that there are none.
pub fn gather(global: &Global, retry: bool) -> Result<Facts, Failure> {
    let config = load(global, &UpArgs::default())?.config;
    if retry {
        match ask(global, &Request::Retry)? {
            Response::Retrying => std::thread::sleep(config.paths.connect_timeout),
            answer => return Err(unexpected(&answer)),
        }
    }
    let (node, node_is_locked) = match ask_node(&config.node.state_dir) {
        Err(NodeError::Locked) => (None, true),
        Err(NodeError::Failed(failure)) => return Err(failure),
        Ok(node) => (node, false),
    };
    let host = match node.is_some() || node_is_locked {
        true => HostFacts::beside_a_node(&config),
        false => HostFacts::gather(&config),
    };
    let outside = node.as_ref().and_then(address_outside);
    let announced = &config.node.announce;
    let mut asked = questions(&config, outside);
    let others = asked.len();
    asked.extend(announced.iter().map(|at| UdpAnswer {
        whom: "ourselves".into(),
        address: *at,
        took: None,
        is_closed: false,
        is_unreachable: false,
        is_guess: false,
    }));
    let mut udp = ask_by_udp(asked);
    let announced = udp.split_off(others);
    let hairpin = outside.and_then(|address| {
        let at = udp.iter().position(|answer| answer.address == address)?;
        Some(udp.swap_remove(at).took.is_some())
    });
    let proxy = up::proxy(&config);
    Ok(Facts {
        web: open_streams(&config, proxy.as_ref())?,
        proxy: proxy.map(|proxy| proxy.to_string()),
        ways_out: ways_out(),
        clock_behind: clock_behind(&config.node.state_dir),
        own: node.as_ref().map(|report| report.node.id.clone()),
        node,
        node_is_locked,
        host,
        udp,
        hairpin,
        announced,
        config,
    })
}

/// Why a running node tells nothing.
enum NodeError {
    /// It is another user's.
    Locked,
    /// It answers something else.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for NodeError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn ask_node(state_dir: &Path) -> Result<Option<DoctorReport>, NodeError> {
    let mut answers = match client::request(state_dir, &Request::Doctor) {
        Err(ClientError::NotRunning { .. }) => return Ok(None),
        Err(ClientError::NotAllowed { .. }) => return Err(NodeError::Locked),
        answers => answers?,
    };
    match answers.next() {
        Some(Ok(Response::Doctor(report))) => Ok(Some(*report)),
        Some(Ok(Response::Error(report))) => Err(report.into()),
        Some(answer) => Err(NodeError::Failed(unexpected(&answer?))),
        None => Ok(None),
    }
}

/// Where somebody outside sees us, who is reached by UDP, when that is no address of this host.
fn address_outside(report: &DoctorReport) -> Option<SocketAddr> {
    let host = host_addresses();
    let mut observed = observations(report).into_iter();
    let (_, address) = observed.find(|(_, address)| !host.contains(&address.ip()))?;
    Some(address)
}

/// Who sees us where, of those that are reached straight by UDP: a relay between, or a stream, would tell
/// of something else. Who sees us from two ports stands there twice.
pub fn observations(report: &DoctorReport) -> Vec<(String, SocketAddr)> {
    let is_direct = |kind: Option<PathKind>| kind == Some(PathKind::Direct);
    let peers = report.peers.iter().filter_map(|peer| {
        let kind = peer.path.as_ref().map(|path| path.kind);
        let whom = peer.name.clone().unwrap_or_else(|| short_id(&peer.id));
        peer.observed
            .filter(|_| is_direct(kind))
            .map(|address| (whom, address))
    });
    let is_peer = |id: &str| report.peers.iter().any(|peer| peer.id == id);
    let relays = report.node.relays.iter().filter_map(|relay| {
        let kind = relay.path.as_ref().map(|path| path.kind);
        relay
            .observed
            .filter(|_| is_direct(kind) && !is_peer(&relay.id))
            .map(|address| (relay_name(&relay.id, relay.name.as_deref()), address))
    });
    let seconds = report.node.relays.iter().filter_map(|relay| {
        let kind = relay.path.as_ref().map(|path| path.kind);
        let second = relay.observed_second.filter(|_| is_direct(kind))?;
        Some((relay_name(&relay.id, relay.name.as_deref()), second))
    });
    peers.chain(relays).chain(seconds).collect()
}

/// What a relay is called.
pub fn relay_name(id: &str, name: Option<&str>) -> String {
    format!("relay {}", name.map_or_else(|| short_id(id), str::to_owned))
}

fn questions(config: &Config, outside: Option<SocketAddr>) -> Vec<UdpAnswer> {
    let question = |whom: &str, address: &SocketAddr| UdpAnswer {
        whom: whom.to_owned(),
        address: *address,
        took: None,
        is_closed: false,
        is_unreachable: false,
        is_guess: false,
    };
    let mut questions = Vec::new();
    for peer in &config.peers {
        let whom = peer
            .name
            .clone()
            .unwrap_or_else(|| short_id(&peer.id.to_string()));
        questions.extend(peer.address.iter().map(|address| question(&whom, address)));
        // A slip of the port is looked for where nodes usually are.
        let usual = peer
            .address
            .iter()
            .filter(|address| address.port() != PORT_DEFAULT);
        questions.extend(usual.map(|address| UdpAnswer {
            is_guess: true,
            ..question(&whom, &SocketAddr::new(address.ip(), PORT_DEFAULT))
        }));
    }
    for relay in &config.relay.uses {
        let whom = relay_name(&relay.id.to_string(), None);
        questions.extend(relay.addresses.iter().map(|at| question(&whom, at)));
    }
    questions.truncate(QUESTIONS_MAX);
    questions.extend(outside.iter().map(|at| question("ourselves", at)));
    questions
}

/// Sends each a frame of no session. A node answers that it knows no such session, in the way of QUIC's
/// stateless reset, to whoever asks: so it shows that datagrams pass, and nothing else.
// PROTOCOL SM-SF-6
fn ask_by_udp(mut questions: Vec<UdpAnswer>) -> Vec<UdpAnswer> {
    let sockets: Vec<Option<UdpSocket>> = questions.iter().map(open_towards).collect();
    let began = Instant::now();
    let mut frame = [0u8; 64];
    for at in ASKED_AT.into_iter().chain([ANSWER_MAX]) {
        while began.elapsed() < at && questions.iter().any(UdpAnswer::is_open) {
            for (socket, question) in sockets.iter().zip(&mut questions) {
                take_answer(socket.as_ref(), began, question);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if at == ANSWER_MAX || aws_lc_rs::rand::fill(&mut frame).is_err() {
            break;
        }
        // A short header with the fixed bit (RFC 9000 §17.3.1).
        frame[0] = frame[0] & 0x3f | 0x40;
        for (socket, question) in sockets.iter().zip(&mut questions) {
            let asked = socket.as_ref().map(|socket| socket.send(&frame));
            if let Some(Err(error)) = asked.filter(|_| question.took.is_none()) {
                question.failed(&error);
            }
        }
    }
    questions
}

impl UdpAnswer {
    /// Whether an answer may still come.
    fn is_open(&self) -> bool {
        self.took.is_none() && !self.is_closed
    }

    /// What the network said, as the kernel passes it on.
    fn failed(&mut self, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => self.is_closed = true,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                self.is_unreachable = true;
            }
            _ => {}
        }
    }
}

/// A socket for each question: only a connected one is told what ICMP brings.
fn open_towards(question: &UdpAnswer) -> Option<UdpSocket> {
    let socket = match question.address {
        SocketAddr::V4(_) => open(Ipv4Addr::UNSPECIFIED.into()),
        SocketAddr::V6(_) => open(Ipv6Addr::UNSPECIFIED.into()),
    }?;
    socket.connect(question.address).ok()?;
    Some(socket)
}

fn open(any: IpAddr) -> Option<UdpSocket> {
    let socket = underlay::udp_socket(any).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

fn take_answer(socket: Option<&UdpSocket>, began: Instant, question: &mut UdpAnswer) {
    let mut answer = [0; 2048];
    match socket.map(|socket| socket.recv(&mut answer)) {
        Some(Ok(_)) if question.took.is_none() => question.took = Some(began.elapsed()),
        // Nothing more for now, or what the network says; it is asked again in a moment.
        Some(Err(error)) => question.failed(&error),
        _ => {}
    }
}

/// Connecting a UDP socket sends nothing; it looks up the route. The addresses are those of
/// documentation (RFC 5737, RFC 3849), to which only a default route leads.
fn ways_out() -> [WayOut; 2] {
    let somewhere: [IpAddr; 2] = [
        Ipv4Addr::new(192, 0, 2, 1).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    ];
    let host = host_addresses();
    somewhere.map(|address| {
        let socket = match address {
            IpAddr::V4(_) => open(Ipv4Addr::UNSPECIFIED.into()),
            IpAddr::V6(_) => open(Ipv6Addr::UNSPECIFIED.into()),
        };
        let mut same = host.iter().filter(|ip| ip.is_ipv4() == address.is_ipv4());
        WayOut {
            public: same.any(|ip| is_public(*ip)),
            route: socket.is_some_and(|socket| socket.connect((address, 9)).is_ok()),
        }
    })
}

fn open_streams(config: &Config, proxy: Option<&ProxyUrl>) -> Result<Vec<WebAnswer>, Failure> {
    let relays = config.relay.uses.iter().map(|relay| {
        let whom = relay_name(&relay.id.to_string(), None);
        (whom, relay.id, relay.web.clone())
    });
    let peers = config.peers.iter().map(|peer| {
        let id = peer.id.to_string();
        let whom = peer.name.clone().unwrap_or_else(|| short_id(&id));
        (whom, peer.id, peer.web.clone())
    });
    let targets: Vec<(String, PeerId, WebUrl)> = relays
        .chain(peers)
        .filter_map(|(whom, id, url)| Some((whom, id, url?)))
        .collect();
    if targets.is_empty() {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start the event loop: {error}")))?;
    Ok(runtime.block_on(async {
        let client = Client::new();
        let opening: Vec<_> = targets
            .into_iter()
            .map(|(whom, id, url)| {
                tokio::spawn(open_stream(client.clone(), whom, id, url, proxy.cloned()))
            })
            .collect();
        let mut answers = Vec::new();
        for stream in opening {
            answers.extend(stream.await);
        }
        answers
    }))
}

async fn open_stream(
    client: Client,
    whom: String,
    id: PeerId,
    url: WebUrl,
    proxy: Option<ProxyUrl>,
) -> WebAnswer {
    let began = Instant::now();
    let path = streams::secret_path(&id);
    let opened = match client.connect(&url, &path, proxy.as_ref()).await {
        Ok(_) => Ok(began.elapsed()),
        // Its server shows others an ordinary site.
        Err(WebError::NotUpgraded { .. }) => {
            Err("a web server answers, but not the node of this PeerId".into())
        }
        Err(error) => Err(error.to_string()),
    };
    WebAnswer {
        whom,
        url: url.to_string(),
        opened,
    }
}

/// A file of ours cannot be from the future.
fn clock_behind(state_dir: &Path) -> Option<Duration> {
    let identity = std::fs::metadata(state_dir.join(identity_file::FILE_NAME)).ok()?;
    let written = identity.modified().ok()?;
    written.duration_since(SystemTime::now()).ok()
}
