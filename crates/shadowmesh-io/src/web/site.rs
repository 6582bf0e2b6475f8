//! What a stranger sees: a web server that somebody once set up and forgot.
//!
//! The texts are those of a well-known server's fresh installation, byte for byte as millions of machines
//! send them, so that no search for our text finds us. No header says which server it is, as
//! administrators often configure it.

use std::convert::Infallible;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Method, Request, Response, StatusCode};

const HOME: &str = "<html><body><h1>It works!</h1></body></html>\n";
/// RFC 6455 §1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// A key is 16 bytes in base64 (RFC 6455 §4.1).
const KEY_LEN: usize = 24;

/// The answer to a request, and whether the connection becomes a stream after it.
pub(super) enum Answer {
    Page(Response<Full<Bytes>>),
    Upgrade(Response<Full<Bytes>>),
}

/// Answers a request. `secret` is the path, with its slash, that only those know who may know that a node
/// is here.
// PROTOCOL SM-WS-3
// PROTOCOL SM-WS-4
pub(super) fn answer(request: &Request<Incoming>, secret: &str) -> Answer {
    let path = request.uri().path();
    if path == secret
        && request.method() == Method::GET
        && let Some(key) = websocket_key(request.headers())
    {
        return Answer::Upgrade(switch(key));
    }
    Answer::Page(match (request.method(), path) {
        (&Method::GET | &Method::HEAD, "/" | "/index.html") => {
            page(StatusCode::OK, "text/html", HOME.into())
        }
        (&Method::GET | &Method::HEAD, _) => error(
            StatusCode::NOT_FOUND,
            "Not Found",
            "The requested URL was not found on this server.",
        ),
        (&Method::OPTIONS, _) => allowing(Response::new(Full::default())),
        (method, _) => {
            let why = format!("The requested method {method} is not allowed for this URL.");
            allowing(error(
                StatusCode::METHOD_NOT_ALLOWED,
                "Method Not Allowed",
                &why,
            ))
        }
    })
}

/// The answer after which the connection is closed.
pub(super) fn last(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// For the service of a connection: answering cannot fail.
pub(super) type Served = Result<Response<Full<Bytes>>, Infallible>;

fn error(status: StatusCode, title: &str, why: &str) -> Response<Full<Bytes>> {
    let text = format!(
        "<!DOCTYPE HTML PUBLIC \"-//IETF//DTD HTML 2.0//EN\">\n<html><head>\n\
         <title>{} {title}</title>\n</head><body>\n<h1>{title}</h1>\n<p>{why}</p>\n</body></html>\n",
        status.as_u16()
    );
    page(status, "text/html; charset=iso-8859-1", text)
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn allowing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    let methods = HeaderValue::from_static("GET,HEAD,OPTIONS");
    response.headers_mut().insert(ALLOW, methods);
    response
}

/// The key of a complete request for an upgrade (RFC 6455 §4.2.1).
fn websocket_key(headers: &HeaderMap) -> Option<&HeaderValue> {
    let says = |name: HeaderName, token: &str| {
        let values = headers.get_all(name).into_iter();
        let mut words = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|v| v.split(','));
        words.any(|word| word.trim().eq_ignore_ascii_case(token))
    };
    let complete = says(CONNECTION, "upgrade")
        && says(UPGRADE, "websocket")
        && says(SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    (complete && key.len() == KEY_LEN).then_some(key)
}

fn switch(key: &HeaderValue) -> Response<Full<Bytes>> {
    let text = [key.as_bytes(), WEBSOCKET_GUID.as_bytes()].concat();
    let accept = BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &text));
    let accept = HeaderValue::try_from(accept).expect("base64 is plain text");
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_rfc_6455() {
        let response = switch(&HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        let accept = &response.headers()[SEC_WEBSOCKET_ACCEPT];
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn only_a_complete_request_for_an_upgrade_is_one() {
        let complete = [
            (CONNECTION, "keep-alive, Upgrade"),
            (UPGRADE, "WebSocket"),
            (SEC_WEBSOCKET_VERSION, "13"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let map = |without: Option<usize>| {
            let rows = complete.iter().enumerate();
            let rows = rows.filter(|(number, _)| Some(*number) != without);
            let rows =
                rows.map(|(_, (name, value))| (name.clone(), HeaderValue::from_static(value)));
            rows.collect::<HeaderMap>()
        };
        assert!(websocket_key(&map(None)).is_some());
        for number in 0..complete.len() {
            assert!(
                websocket_key(&map(Some(number))).is_none(),
                "without {number}"
            );
        }
    }
}
