//! The way through an HTTP proxy: CONNECT (RFC 9110 §9.3.6).

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::WebError;
use super::url::{Authority, ProxyUrl};

/// Longest answer of a proxy that is read.
const ANSWER_LEN_MAX: usize = 8 * 1024;

/// Asks the proxy at the other end of `connection` for a connection to `target`; afterwards the bytes are
/// the target's.
pub(super) async fn connect(
    connection: &mut TcpStream,
    proxy: &ProxyUrl,
    target: &Authority,
) -> Result<(), WebError> {
    let name = || proxy.authority().to_string();
    let broken = |source| WebError::Unreachable {
        whom: format!("proxy {}", name()),
        source,
    };
    let request = request(proxy, target);
    connection
        .write_all(request.as_bytes())
        .await
        .map_err(broken)?;
    let mut answer = Vec::new();
    // The target says nothing before we do, so nothing of it can follow the answer.
    while !answer.ends_with(b"\r\n\r\n") {
        let len = connection.read_buf(&mut answer).await.map_err(broken)?;
        if len == 0 || answer.len() > ANSWER_LEN_MAX {
            return Err(WebError::NoProxy { proxy: name() });
        }
    }
    match status(&answer) {
        Some(200..=299) => Ok(()),
        Some(status) => Err(WebError::ProxyRefused {
            proxy: name(),
            status,
            hint: hint(status, proxy),
        }),
        None => Err(WebError::NoProxy { proxy: name() }),
    }
}

fn request(proxy: &ProxyUrl, target: &Authority) -> String {
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = proxy.authorization() {
        request += &format!("Proxy-Authorization: {authorization}\r\n");
    }
    request + "\r\n"
}

/// `HTTP/1.1 200 …`
fn status(answer: &[u8]) -> Option<u16> {
    let rest = answer.strip_prefix(b"HTTP/1.")?;
    let [b'0'..=b'9', b' ', a, b, c, b' ' | b'\r', ..] = rest else {
        return None;
    };
    std::str::from_utf8(&[*a, *b, *c]).ok()?.parse().ok()
}

fn hint(status: u16, proxy: &ProxyUrl) -> &'static str {
    match (status, proxy.authorization()) {
        (407, None) => "; it wants a name and password: http://name:password@host:port",
        (407, Some(_)) => "; it does not take this name and password",
        (403 | 405, _) => "; it does not let this port or host through",
        (502..=504, _) => "; it cannot reach the server",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_of_http_1_is_an_answer() {
        assert_eq!(
            status(b"HTTP/1.1 200 Connection established\r\n\r\n"),
            Some(200)
        );
        assert_eq!(status(b"HTTP/1.0 407\r\n\r\n"), Some(407));
        for other in [
            &b"SSH-2.0-x"[..],
            b"HTTP/2 200 \r\n",
            b"HTTP/1.1 2000 ",
            b"",
        ] {
            assert_eq!(status(other), None);
        }
    }
}
