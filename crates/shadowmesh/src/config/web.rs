//! What `[web]` says: streams by WebSocket over TLS, where UDP does not pass.

use std::net::SocketAddr;
use std::path::PathBuf;

use shadowmesh_io::web::ProxyUrl;

/// `[web]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebConfig {
    /// TCP addresses for streams of others; empty for none.
    pub listen: Vec<SocketAddr>,
    /// What the server shows; `None`: a self-signed certificate, made at start.
    pub certificate: Option<Certificate>,
    /// The way out for streams that we open.
    pub proxy: ProxyChoice,
    /// When we open any.
    pub usage: WebUse,
}

/// Two PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, and those above it.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Which HTTP proxy streams go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyChoice {
    /// That of the environment variable `HTTPS_PROXY`, if it is set.
    Environment,
    /// None.
    Direct,
    /// This.
    Proxy(ProxyUrl),
}

/// When streams are opened to peers and relays that have a `web`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebUse {
    /// When UDP brings no answer.
    #[default]
    Auto,
    /// At all times.
    Always,
    /// Never.
    Never,
}

impl WebUse {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}
