//! Where a server or a proxy is.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::pki_types::ServerName;
use thiserror::Error;

const HTTPS_PORT: u16 = 443;
/// What proxies listen on that do not say otherwise.
const PROXY_PORT: u16 = 3128;

/// What is wrong with a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Of a server: `https`.
    #[error("it must begin with https://")]
    NotHttps,
    /// Of a proxy: `http`.
    #[error("it must begin with http:// (the connection to the proxy itself is not encrypted)")]
    NotHttp,
    /// Nothing between the slashes.
    #[error("it names no host")]
    NoHost,
    /// Something that is neither a name nor an address.
    #[error("the host is neither a name nor an IP address (an IPv6 address stands in brackets)")]
    BadHost,
    /// No number from 1 to 65535.
    #[error("the port must be a number from 1 to 65535")]
    BadPort,
    /// A path, query or fragment.
    #[error("nothing may follow the host and port; the path is derived from the PeerId")]
    HasPath,
    /// The same of a proxy.
    #[error("nothing may follow the host and port of a proxy")]
    ProxyPath,
    /// Name and password for a server.
    #[error("a name and password are for proxies only")]
    HasUser,
    /// A % without two hexadecimal digits.
    #[error("the name or password has a % that is not followed by two hexadecimal digits")]
    BadUser,
}

/// A web server: `https://host`, `https://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebUrl(Authority);

/// An HTTP proxy: `http://host:port`, `http://name:password@host:port`.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    authority: Authority,
    /// What `Proxy-Authorization` says.
    authorization: Option<String>,
}

/// A host, without brackets, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    pub host: String,
    pub port: u16,
}

impl WebUrl {
    pub(super) fn authority(&self) -> &Authority {
        &self.0
    }

    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// As `Host:` says it: without the port that everybody assumes.
    pub(super) fn host_header(&self) -> String {
        match self.0.port {
            HTTPS_PORT => bracketed(&self.0.host),
            _ => self.0.to_string(),
        }
    }
}

impl FromStr for WebUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = after_scheme(text, "https://").ok_or(UrlError::NotHttps)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(UrlError::HasUser);
        }
        if rest.contains(['/', '?', '#']) {
            return Err(UrlError::HasPath);
        }
        Authority::parse(rest, HTTPS_PORT).map(Self)
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.host_header())
    }
}

impl ProxyUrl {
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }
}

impl FromStr for ProxyUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = after_scheme(text, "http://").ok_or(UrlError::NotHttp)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err(UrlError::ProxyPath);
        }
        // A password may hold an @ of its own that nobody wrote as %40.
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, rest),
        };
        let authorization = user.map(basic).transpose()?;
        Ok(Self {
            authority: Authority::parse(host, PROXY_PORT)?,
            authorization,
        })
    }
}

/// Without the password.
impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Authority {
    fn parse(text: &str, default_port: u16) -> Result<Self, UrlError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(UrlError::BadHost)?;
                host.parse::<Ipv6Addr>().map_err(|_| UrlError::BadHost)?;
                let port = match port {
                    "" => None,
                    _ => Some(port.strip_prefix(':').ok_or(UrlError::BadPort)?),
                };
                (host, port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err(UrlError::NoHost);
        }
        // What TLS does not take for a name is none: `192.0.2.256`, `-relay`.
        if ServerName::try_from(host).is_err() {
            return Err(UrlError::BadHost);
        }
        let port = match port {
            None => default_port,
            Some(port) if port.contains(':') => return Err(UrlError::BadHost),
            Some(port) => port.parse().map_err(|_| UrlError::BadPort)?,
        };
        if port == 0 {
            return Err(UrlError::BadPort);
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", bracketed(&self.host), self.port)
    }
}

fn bracketed(host: &str) -> String {
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.into(),
    }
}

/// Schemes are written in any case (RFC 3986 §3.1).
fn after_scheme<'t>(text: &'t str, scheme: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// RFC 7617; of the URL's name and password the percent signs are undone first.
fn basic(user: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(user.len());
    let mut rest = user.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digit = |at: usize| tail.get(at).and_then(|byte| (*byte as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err(UrlError::BadUser);
        };
        bytes.push((high * 16 + low) as u8);
        rest = &tail[2..];
    }
    if !bytes.contains(&b':') {
        bytes.push(b':');
    }
    Ok(format!("Basic {}", BASE64.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> Result<String, UrlError> {
        text.parse::<WebUrl>().map(|url| url.0.to_string())
    }

    #[test]
    fn a_server_is_a_host_and_perhaps_a_port() {
        assert_eq!(
            server("https://relay.example").unwrap(),
            "relay.example:443"
        );
        assert_eq!(
            server("HTTPS://relay.example:8443/").unwrap(),
            "relay.example:8443"
        );
        assert_eq!(server("https://192.0.2.7").unwrap(), "192.0.2.7:443");
        assert_eq!(
            server("https://[2001:db8::7]:444").unwrap(),
            "[2001:db8::7]:444"
        );
        let url: WebUrl = "https://[2001:db8::7]".parse().unwrap();
        assert_eq!(url.to_string(), "https://[2001:db8::7]");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        assert_eq!(server("relay.example"), Err(UrlError::NotHttps));
        assert_eq!(server("wss://relay.example"), Err(UrlError::NotHttps));
        assert_eq!(server("https://"), Err(UrlError::NoHost));
        assert_eq!(server("https://:443"), Err(UrlError::NoHost));
        assert_eq!(server("https://a b"), Err(UrlError::BadHost));
        assert_eq!(server("https://2001:db8::7"), Err(UrlError::BadHost));
        assert_eq!(server("https://[relay]"), Err(UrlError::BadHost));
        for name in ["192.0.2.256", "1.2.3", "relay-", "-relay"] {
            let url = format!("https://{name}");
            assert_eq!(server(&url), Err(UrlError::BadHost));
        }
        assert_eq!(server("https://relay:0"), Err(UrlError::BadPort));
        assert_eq!(server("https://relay:70000"), Err(UrlError::BadPort));
        assert_eq!(server("https://relay/x"), Err(UrlError::HasPath));
        assert_eq!(server("https://me@relay"), Err(UrlError::HasUser));
        let proxy = |text: &str| text.parse::<ProxyUrl>().map(|_| ());
        assert_eq!(proxy("https://proxy:1"), Err(UrlError::NotHttp));
        assert_eq!(proxy("http://a%g0@proxy"), Err(UrlError::BadUser));
        assert_eq!(proxy("http://proxy/x"), Err(UrlError::ProxyPath));
    }

    #[test]
    fn a_proxys_password_is_used_and_never_shown() {
        let proxy: ProxyUrl = "http://me:p%40ss@proxy.example".parse().unwrap();
        // me:p@ss
        assert_eq!(proxy.authorization(), Some("Basic bWU6cEBzcw=="));
        for shown in [format!("{proxy}"), format!("{proxy:?}")] {
            assert_eq!(shown, "http://proxy.example:3128");
        }
        let plain: ProxyUrl = "http://192.0.2.9:8080".parse().unwrap();
        assert_eq!(plain.authorization(), None);
    }
}
