//! Message streams that are ordinary web traffic to everybody else: WebSocket (RFC 6455) over TLS 1.3 over
//! TCP, for networks that let nothing else through.
//!
//! [`Client`] opens a [`WebStream`] to a [`WebUrl`], through an HTTP proxy if there is one. [`Server`]
//! listens and shows everybody a small, ordinary web site; only a request for a secret path becomes a
//! stream. Messages go through unread: what is in them, and what a stream is for, is the caller's.
//!
//! Policy:
//! - The certificate of the server is not verified, and a proxy that breaks TLS open is not noticed. What
//!   goes through is sealed and authenticated end to end already; here TLS is a coat, not a lock. That is
//!   why there are no roots to keep, and why a self-signed certificate does.
//! - TLS 1.3 only, HTTP/1.1 only, key exchange as browsers offer it: X25519MLKEM768 before X25519.
//! - Strangers are limited where they cost something: connections and handshakes in all and from one source,
//!   time for a handshake and a request, length of a message, pings. Who is known keeps its place
//!   ([`WebStream::vouch`]).
//! - Handshakes and pages are work for strangers, and messages are work for peers: whoever wants them apart
//!   runs the server and opens streams in one runtime, and carries them in another ([`WebStream::rehome`]).
//! - Session tickets are given and used as web servers and browsers do, or the server would be the one that
//!   has none.
//! - Nothing queues here beyond one message: a stream says when it took the last one, and who has more to
//!   send decides what waits and what is dropped.
//!
//! | module | what it does |
//! |---|---|
//! | `url` | `https://…` of a server, `http://…` of a proxy |
//! | `client`, `proxy` | the way out |
//! | `server`, `site` | who comes in, and what a stranger sees |
//! | `places`, `gate` | how many may come in, and how many handshakes they may begin |
//! | `stream` | messages, once both sides agreed |
//! | `wire` | the TCP connection under it |
//! | `tls` | both sides' settings, the certificate |

mod client;
mod gate;
mod places;
mod proxy;
mod server;
mod site;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod url;
mod wire;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

pub use client::Client;
pub use server::{Accepted, Refusal, Server, ServerOptions, Waiting};
pub use stream::{Incoming, WebStream};
pub use url::{ProxyUrl, UrlError, WebUrl};

/// The longest message in either direction; a longer one ends the stream.
pub const MESSAGE_LEN_MAX: usize = 64 * 1024;

/// Why there is no stream, or no longer one.
#[derive(Debug, Error)]
pub enum WebError {
    /// The name has no address, or nobody answers there.
    #[error("cannot reach {whom}: {source}")]
    Unreachable {
        /// Host and port.
        whom: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// It took too long.
    #[error("no answer from {whom} within {limit:?}")]
    TimedOut {
        /// Host and port.
        whom: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The proxy answered, but not with a connection.
    #[error("proxy {proxy} refused with status {status}{hint}")]
    ProxyRefused {
        /// Host and port of the proxy.
        proxy: String,
        /// Its HTTP status.
        status: u16,
        /// What may help.
        hint: &'static str,
    },
    /// What the proxy said is no HTTP.
    #[error("{proxy} does not speak HTTP as a proxy does")]
    NoProxy {
        /// Host and port of what was taken for a proxy.
        proxy: String,
    },
    /// No TLS 1.3 there.
    #[error("no TLS 1.3 with {whom}: {source}")]
    Tls {
        /// Host and port.
        whom: String,
        /// What rustls says.
        source: io::Error,
    },
    /// A web server that knows nothing of the path, or none at all.
    #[error(
        "{whom} is no node with this PeerId, or something between answers in its place: {source}"
    )]
    NotUpgraded {
        /// Host and port.
        whom: String,
        /// What the WebSocket library says.
        source: tokio_websockets::Error,
    },
    /// The other side broke the rules of WebSocket, or the connection broke.
    #[error("the stream ended: {0}")]
    Ended(#[from] tokio_websockets::Error),
    /// More pings than a live peer sends.
    #[error("the stream ended: too many pings")]
    Pings,
}

/// Why there is no server.
#[derive(Debug, Error)]
pub enum ServerError {
    /// A file of the certificate is missing or is something else.
    #[error("cannot use {what} {}: {why}", path.display())]
    Certificate {
        /// Which of the two files.
        what: &'static str,
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The TLS library refuses.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
}
