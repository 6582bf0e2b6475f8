//! Two nodes of which one takes streams, and a router between them that lets little else pass.
//!
//! ```text
//!  n1 ── NAT router ── n2          n2 has a TCP listener; the router drops UDP, or forwards nothing
//!            └ perhaps an HTTP proxy
//! ```

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use shadowmesh_io::lab::{NatBox, NatBoxConfig, NatBoxKind};
use shadowmesh_io::netns::Netns;

use super::node::{Family, LabNode};
use super::{LabError, PORT, wait_until};

/// Where n2 is.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The sections of a node that takes streams.
pub const TAKES_STREAMS: &str = "[web]\nlisten = [\"0.0.0.0:443\"]\n";

/// The network between n2 and the router, and the one behind the router.
const OUTSIDE: [u8; 3] = [198, 51, 100];
const INSIDE: [u8; 3] = [10, 7, 1];
const PROXY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 7, 1, 1)), 3128);
/// How long a node may take to listen, and the first connection to come.
const START_MAX: Duration = Duration::from_secs(10);

/// What the router lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passes {
    /// Everything, as a NAT does.
    All,
    /// All but UDP.
    NoUdp,
    /// Nothing at all.
    Nothing,
}

/// Two nodes and the router between them.
pub struct WebLab {
    /// n1
    pub client: LabNode,
    /// n2
    pub server: LabNode,
    router: Arc<NatBox>,
}

impl WebLab {
    /// Builds it, nothing running yet; as [`Lab::build`](super::Lab::build).
    pub fn build(program: &Path, directory: &Path, passes: Passes) -> Result<Self, LabError> {
        let (inside, outside) = (Netns::new()?, Netns::new()?);
        let mut config = NatBoxConfig::new(NatBoxKind::PortRestricted);
        config.udp_blocked = passes == Passes::NoUdp;
        let router = NatBox::new(&config, &outside, OUTSIDE)?;
        router.attach(&inside, INSIDE)?;
        if passes == Passes::Nothing {
            router.netns().set_sysctl("net.ipv4.ip_forward", "0")?;
        }
        let [a, b, c] = INSIDE;
        let client = node(program, directory, "n1", inside, Ipv4Addr::new(a, b, c, 2))?;
        let mut server = node(program, directory, "n2", outside, SERVER)?;
        server.settings.more = TAKES_STREAMS.into();
        Ok(Self {
            client,
            server,
            router: Arc::new(router),
        })
    }

    /// Starts n2, then n1 with these further sections; how long n1 took to reach n2, from the start of its
    /// process.
    pub fn bring_up(&mut self, more: &str, limit: Duration) -> Result<Duration, LabError> {
        let mut client = self.client.as_peer(Family::V4);
        client.addresses.clear();
        self.server.configure(&[client])?;
        let mut server = self.server.as_peer(Family::V4);
        server.web = Some(format!("https://{SERVER}"));
        self.client.settings.more = more.into();
        self.client.configure(&[server])?;
        self.server.start()?;
        await_listener(&self.server)?;
        self.client.start()?;
        self.reached(limit)
    }

    /// How long n1 takes to reach n2.
    pub fn reached(&self, limit: Duration) -> Result<Duration, LabError> {
        // The router forwards no IPv6: only the tunnel does.
        let target = self.server.overlay_v6().into();
        let took = self.client.ping_until_answered(target, limit);
        took.ok_or_else(|| LabError::Unreachable {
            from: self.client.name.clone(),
            to: self.server.name.clone(),
            limit,
        })
    }

    /// What both say of the way to each other: `direct`, `relay`, `web`.
    pub fn kinds(&self) -> [Option<String>; 2] {
        [kind(&self.client), kind(&self.server)]
    }

    /// An HTTP proxy on the router, reached from n1 at the address of the result. It serves one connection.
    pub fn start_proxy(&self) -> Result<Proxy, LabError> {
        let listener = self.router.netns().run(|| TcpListener::bind(PROXY))?;
        let router = Arc::clone(&self.router);
        Ok(Proxy {
            address: PROXY,
            serving: thread::spawn(move || serve_one(&listener, &router)),
        })
    }
}

/// A node with one IPv4 address.
pub fn node(
    program: &Path,
    directory: &Path,
    name: &str,
    netns: Netns,
    address: Ipv4Addr,
) -> Result<LabNode, LabError> {
    let addresses = (address, Ipv6Addr::UNSPECIFIED);
    let mut node = LabNode::new(name.into(), netns, program, directory.join(name), addresses)?;
    node.settings.listen = vec![(Ipv4Addr::UNSPECIFIED, PORT).into()];
    Ok(node)
}

/// Waits until a node that has [`TAKES_STREAMS`] does.
pub fn await_listener(node: &LabNode) -> Result<(), LabError> {
    let says = || node.log().contains("WebSocket over TLS on 0.0.0.0:443");
    if wait_until(START_MAX, says) {
        return Ok(());
    }
    Err(LabError::Io(io::Error::other(format!(
        "{} does not listen: {}",
        node.name,
        node.log()
    ))))
}

/// What a node says of its way to its first peer.
pub fn kind(node: &LabNode) -> Option<String> {
    let peers = node.query("peers", &[]).ok()?;
    Some(peers["peers"][0]["path"]["kind"].as_str()?.to_owned())
}

/// The smallest HTTP proxy there is.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    serving: thread::JoinHandle<io::Result<String>>,
}

impl Proxy {
    /// Waits for its connection to end; where that led.
    pub fn finish(self) -> io::Result<String> {
        self.serving.join().expect("the proxy does not panic")
    }
}

fn serve_one(listener: &TcpListener, router: &NatBox) -> io::Result<String> {
    // Whoever never comes must not be waited for for ever.
    listener.set_nonblocking(true)?;
    let mut arrival = Err(io::ErrorKind::TimedOut.into());
    wait_until(START_MAX, || {
        arrival = listener.accept();
        arrival.is_ok()
    });
    let (mut client, _) = arrival?;
    client.set_nonblocking(false)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let Some(target) = head
        .strip_prefix("CONNECT ")
        .and_then(|rest| rest.split(' ').next())
    else {
        return Err(io::Error::other(format!("not CONNECT: {head}")));
    };
    let mut server = router.netns().run(|| TcpStream::connect(target))?;
    // As real proxies do: else a small answer waits for the one before it to be acknowledged (RFC 896), and
    // that for the next request, and so on with every one that follows.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from_client, mut to_server) = (client.try_clone()?, server.try_clone()?);
    // An error is an end like any other here.
    let outwards = thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let _ = io::copy(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    let _ = outwards.join();
    Ok(target.to_owned())
}
