//! Opens a stream: DNS, TCP, perhaps a proxy, TLS, upgrade.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_websockets::ClientBuilder;

use super::stream::{Boxed, WebStream, limits};
use super::url::Authority;
use super::wire::Wire;
use super::{ProxyUrl, WebError, WebUrl, proxy, tls};
use crate::underlay;

/// All of it together: a TCP and a TLS handshake and an upgrade through a slow proxy.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// One address of a name that has several; then the next is tried.
const ADDRESS_MAX: Duration = Duration::from_secs(3);
/// Addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;

/// Opens streams.
#[derive(Clone)]
pub struct Client {
    tls: TlsConnector,
}

impl Client {
    /// One for all streams: it remembers TLS sessions, so that another stream to the same server is cheaper.
    #[expect(clippy::new_without_default, reason = "a key schedule is no default")]
    pub fn new() -> Self {
        Self {
            tls: TlsConnector::from(Arc::new(tls::client())),
        }
    }

    /// A stream to the server at `url` whose secret path is `path`, through `proxy` if there is one; then
    /// the proxy looks the name up.
    // PROTOCOL SM-WS-1
    pub async fn connect(
        &self,
        url: &WebUrl,
        path: &str,
        proxy: Option<&ProxyUrl>,
    ) -> Result<WebStream, WebError> {
        let whom = url.authority().to_string();
        let timed_out = |_| WebError::TimedOut {
            whom,
            limit: CONNECT_MAX,
        };
        timeout(CONNECT_MAX, self.connect_untimed(url, path, proxy))
            .await
            .map_err(timed_out)?
    }

    async fn connect_untimed(
        &self,
        url: &WebUrl,
        path: &str,
        proxy: Option<&ProxyUrl>,
    ) -> Result<WebStream, WebError> {
        let mut tcp = reach(proxy.map_or(url.authority(), ProxyUrl::authority)).await?;
        if let Some(proxy) = proxy {
            proxy::connect(&mut tcp, proxy, url.authority()).await?;
        }
        let whom = || url.authority().to_string();
        let name = ServerName::try_from(url.host().to_owned())
            .expect("the host was checked to be a name or an address");
        let tls = self
            .tls
            .connect(name, Wire::new(tcp))
            .await
            .map_err(|source| WebError::Tls {
                whom: whom(),
                source,
            })?;
        // The library writes the Host header from this.
        let uri = Uri::builder()
            .scheme("wss")
            .authority(url.host_header())
            .path_and_query(path)
            .build()
            .expect("host and path were checked");
        let (config, limits) = limits();
        let builder = ClientBuilder::from_uri(uri).config(config).limits(limits);
        let upgraded = builder.connect_on(Box::new(tls) as Boxed).await;
        let (socket, _) = upgraded.map_err(|source| WebError::NotUpgraded {
            whom: whom(),
            source,
        })?;
        Ok(WebStream::new(socket, None))
    }
}

/// A TCP connection to the first address that answers.
async fn reach(to: &Authority) -> Result<TcpStream, WebError> {
    let unreachable = |source| WebError::Unreachable {
        whom: to.to_string(),
        source,
    };
    let addresses = lookup_host((to.host.as_str(), to.port))
        .await
        .map_err(unreachable)?;
    let mut last = std::io::Error::other("the name has no address");
    for address in addresses.take(ADDRESSES_MAX) {
        match timeout(ADDRESS_MAX, open(address)).await {
            Ok(Ok(tcp)) => {
                return Ok(tcp);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(unreachable(last))
}

/// A TCP connection of the underlay.
// PROTOCOL SM-DV-4
async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    underlay::mark(&socket);
    socket.connect(address).await
}
