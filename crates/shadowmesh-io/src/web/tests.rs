//! Client and server against each other, and against those who are neither.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, NamedGroup};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::server::TLS_MAX;
use super::*;

const SECRET: &str = "/0123456789abcdef";

/// A running server on the loopback device: its port, and who came in.
async fn server() -> (SocketAddr, mpsc::Receiver<Accepted>) {
    let server = Server::bind(ServerOptions {
        listen: &["127.0.0.1:0".parse().unwrap()],
        certificate: None,
        secret_path: SECRET.into(),
    });
    let server = server.unwrap();
    let [address] = server.addresses()[..] else {
        panic!("one address was bound");
    };
    let (accepted, arrivals) = mpsc::channel(8);
    tokio::spawn(server.run(accepted));
    (address, arrivals)
}

fn url(address: SocketAddr) -> WebUrl {
    format!("https://{address}").parse().unwrap()
}

async fn pair() -> (WebStream, WebStream) {
    let (address, mut arrivals) = server().await;
    let client = Client::new();
    let ours = client.connect(&url(address), SECRET, None).await.unwrap();
    let theirs = arrivals.recv().await.unwrap();
    assert!(theirs.remote.ip().is_loopback());
    (ours, theirs.stream)
}

async fn send(stream: &mut WebStream, message: &[u8]) {
    stream.send(BytesMut::from(message)).unwrap();
    poll_fn(|cx| stream.poll_sent(cx)).await.unwrap();
}

async fn receive(stream: &mut WebStream) -> Option<Result<BytesMut, WebError>> {
    loop {
        let next = timeout(
            Duration::from_secs(5),
            poll_fn(|cx| stream.poll_receive(cx)),
        );
        match next.await.expect("something comes, or the end")? {
            Ok(Incoming::Message(message)) => return Some(Ok(message)),
            Ok(Incoming::Sign) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// Writes and reads at once, as a stream's owner does.
async fn exchange(stream: &mut WebStream, message: &[u8], times: usize) -> usize {
    let (mut sent, mut received) = (0, 0);
    poll_fn(|cx| {
        while sent < times && stream.poll_sent(cx).map(Result::unwrap).is_ready() {
            stream.send(BytesMut::from(message)).unwrap();
            sent += 1;
        }
        let is_sent = stream.poll_sent(cx).map(Result::unwrap).is_ready();
        while received < times
            && let Poll::Ready(next) = stream.poll_receive(cx)
        {
            if let Incoming::Message(other) = next.unwrap().unwrap() {
                assert_eq!(other.len(), message.len());
                received += 1;
            }
        }
        match is_sent && received == times {
            true => Poll::Ready(received),
            false => Poll::Pending,
        }
    })
    .await
}

// PROTOCOL SM-WS-2
#[tokio::test]
async fn messages_of_every_length_go_both_ways() {
    let (mut ours, mut theirs) = pair().await;
    for len in [1, 125, 126, 1400, 65535, MESSAGE_LEN_MAX] {
        let message: Vec<u8> = (0..len).map(|n| n as u8).collect();
        send(&mut ours, &message).await;
        assert_eq!(receive(&mut theirs).await.unwrap().unwrap(), message);
        send(&mut theirs, &message).await;
        assert_eq!(receive(&mut ours).await.unwrap().unwrap(), message);
    }
}

#[tokio::test]
async fn two_sides_that_both_write_more_than_any_buffer_holds_do_not_block_each_other() {
    let (mut ours, mut theirs) = pair().await;
    let message = vec![7; MESSAGE_LEN_MAX];
    let both = async {
        tokio::join!(
            exchange(&mut ours, &message, 300),
            exchange(&mut theirs, &message, 300)
        )
    };
    let done = timeout(Duration::from_secs(20), both).await;
    assert_eq!(done.expect("neither waits for the other"), (300, 300));
}

// PROTOCOL SM-WS-6
#[tokio::test]
async fn a_message_that_is_too_long_or_a_flood_of_pings_ends_the_stream() {
    let (mut ours, mut theirs) = pair().await;
    ours.send(BytesMut::zeroed(MESSAGE_LEN_MAX + 1)).unwrap();
    // It leaves in two frames, each of a length that is allowed.
    let sent = poll_fn(|cx| {
        let _ = ours.poll_sent(cx);
        theirs.poll_receive(cx)
    });
    assert!(matches!(sent.await, Some(Err(WebError::Ended(_)))));

    let (mut ours, mut theirs) = pair().await;
    for _ in 0..1000 {
        ours.ping().unwrap();
    }
    let ended = poll_fn(|cx| {
        let _ = ours.poll_sent(cx);
        loop {
            match theirs.poll_receive(cx) {
                Poll::Ready(Some(Ok(Incoming::Sign))) => {}
                other => return other,
            }
        }
    });
    assert!(matches!(ended.await, Some(Err(WebError::Pings))));
}

#[tokio::test]
async fn a_ping_is_answered_and_a_dropped_stream_ends_the_other_side() {
    let (mut ours, mut theirs) = pair().await;
    ours.ping().unwrap();
    let pong = poll_fn(|cx| {
        let _ = theirs.poll_receive(cx);
        let _ = theirs.poll_sent(cx);
        let _ = ours.poll_sent(cx);
        ours.poll_receive(cx)
    });
    assert!(matches!(pong.await, Some(Ok(Incoming::Sign))));
    drop(ours);
    assert!(!matches!(receive(&mut theirs).await, Some(Ok(_))));
}

// PROTOCOL SM-WS-1
#[tokio::test]
async fn tls_is_1_3_with_the_hybrid_group_that_browsers_put_first() {
    let (address, _arrivals) = server().await;
    let mut visitor = visitor(address).await;
    let (_, tls) = visitor.get_ref();
    assert_eq!(
        tls.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    let group = tls
        .negotiated_key_exchange_group()
        .map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(tls.alpn_protocol(), Some(&b"http/1.1"[..]));
    visitor.shutdown().await.unwrap();
}

// PROTOCOL SM-WS-1
#[tokio::test]
async fn who_comes_again_resumes_as_with_any_web_server() {
    let (address, _arrivals) = server().await;
    let connector = TlsConnector::from(Arc::new(tls::client()));
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let mut visitor = visitor_with(&connector, address).await;
        assert_eq!(visitor.get_ref().1.handshake_kind(), Some(kind));
        // The tickets come before the answer.
        ask(&mut visitor, &request("GET", "/", "")).await;
        assert_eq!(visitor.get_ref().1.tls13_tickets_received(), 2);
    }
}

/// A plain HTTPS client.
async fn visitor(address: SocketAddr) -> TlsStream<TcpStream> {
    visitor_with(&TlsConnector::from(Arc::new(tls::client())), address).await
}

async fn visitor_with(connector: &TlsConnector, address: SocketAddr) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("www.example.org").unwrap();
    connector.connect(name, tcp).await.unwrap()
}

/// Sends one request and reads one answer: head, and body as long as `Content-Length` says (a `HEAD` has
/// none).
async fn ask(
    visitor: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
) -> (String, String) {
    visitor.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(visitor.read_u8().await.expect("the connection is kept"));
    }
    let head = String::from_utf8(head).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.map_or(0, |text| text.parse().unwrap());
    let mut body = vec![
        0;
        if request.starts_with("HEAD") {
            0
        } else {
            length
        }
    ];
    visitor.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn request(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: www.example.org\r\n{more}\r\n")
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

// PROTOCOL SM-WS-4
#[tokio::test]
async fn a_stranger_sees_an_ordinary_site_on_one_kept_connection() {
    let (address, mut arrivals) = server().await;
    let mut visitor = visitor(address).await;
    let (head, body) = ask(&mut visitor, &request("GET", "/", "")).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/html\r\n"), "{head}");
    assert!(head.contains("\r\nDate: "), "{head}");
    assert!(body.contains("It works!"));
    let names: Vec<&str> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(
        names,
        ["Content-Type", "Content-Length", "Date", ""],
        "{head}"
    );

    let (without_body, _) = ask(&mut visitor, &request("HEAD", "/", "")).await;
    let undated = |head: &str| {
        head.lines()
            .filter(|line| !line.starts_with("Date"))
            .collect::<String>()
    };
    assert_eq!(undated(&without_body), undated(&head));

    let (missing, page) = ask(&mut visitor, &request("GET", "/favicon.ico", "")).await;
    assert!(
        missing.starts_with("HTTP/1.1 404 Not Found\r\n"),
        "{missing}"
    );
    let (refused, _) = ask(&mut visitor, &request("POST", "/", "Content-Length: 0\r\n")).await;
    assert!(
        refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
        "{refused}"
    );

    // The secret path is like any other to those who come without the rest, and the rest is nothing to
    // any other path.
    for (path, more) in [(SECRET, ""), ("/", UPGRADE), ("/0123456789abcdee", UPGRADE)] {
        let (head, body) = ask(&mut visitor, &request("GET", path, more)).await;
        if path == "/" {
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        } else {
            assert_eq!((undated(&head), &body), (undated(&missing), &page));
        }
    }
    let (_, last) = ask(&mut visitor, &request("GET", "/", "Connection: close\r\n")).await;
    assert_eq!(last, body);
    assert!(visitor.read_u8().await.is_err(), "closed when asked to");
    assert!(arrivals.try_recv().is_err());
}

// PROTOCOL SM-WS-3
#[tokio::test]
async fn only_the_secret_path_becomes_a_stream() {
    let (address, mut arrivals) = server().await;
    let refused = Client::new()
        .connect(&url(address), "/fedcba9876543210", None)
        .await;
    let error = refused.err().expect("another path is a page").to_string();
    assert!(error.contains("is no node with this PeerId"), "{error}");
    let mut visitor = visitor(address).await;
    let (head, _) = ask(&mut visitor, &request("GET", SECRET, UPGRADE)).await;
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{head}"
    );
    assert!(arrivals.recv().await.is_some());
}

/// A proxy that knows CONNECT and wants `authorization`, if that is given; what it was asked is kept.
async fn proxy(authorization: Option<&'static str>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await?);
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                log.lock().unwrap().push(target.clone());
                if authorization.is_some_and(|wanted| !head.contains(wanted)) {
                    let refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                    return client.write_all(refusal).await;
                }
                let mut server = TcpStream::connect(target).await?;
                client
                    .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    .await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await?;
                Ok(())
            });
        }
    });
    (address, asked)
}

// PROTOCOL SM-WS-1
#[tokio::test]
async fn a_stream_goes_through_a_proxy_and_says_what_the_proxy_minds() {
    let (address, mut arrivals) = server().await;
    let (proxy, asked) = proxy(Some("Proxy-Authorization: Basic bWU6cEBzcw==")).await;
    let client = Client::new();
    let connect = async |proxy: String| {
        let proxy: ProxyUrl = proxy.parse().unwrap();
        client.connect(&url(address), SECRET, Some(&proxy)).await
    };
    let mut ours = connect(format!("http://me:p%40ss@{proxy}")).await.unwrap();
    let mut theirs = arrivals.recv().await.unwrap().stream;
    send(&mut ours, b"through").await;
    assert_eq!(receive(&mut theirs).await.unwrap().unwrap(), "through");
    assert_eq!(*asked.lock().unwrap(), [address.to_string()]);

    let error = connect(format!("http://{proxy}"))
        .await
        .err()
        .unwrap()
        .to_string();
    assert_eq!(
        error,
        format!(
            "proxy {proxy} refused with status 407; it wants a name and password: http://name:password@host:port"
        )
    );
    // A port where nobody listens any more.
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let error = connect(format!("http://{closed}"))
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot reach {closed}: ")),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_no_certificate_is_said_with_its_file() {
    let path = Path::new("/dev/null");
    let refused = Server::bind(ServerOptions {
        listen: &[],
        certificate: Some((path, path)),
        secret_path: SECRET.into(),
    });
    let error = refused.err().expect("there is none in it").to_string();
    assert!(
        error.starts_with("cannot use certificate /dev/null: "),
        "{error}"
    );
}

/// A visitor from an address of the loopback network, all of which is ours.
async fn visitor_from(ip: [u8; 4], address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((ip, 0).into())?;
    let tcp = socket.connect(address).await?;
    let name = ServerName::try_from("www.example.org").unwrap();
    let connector = TlsConnector::from(Arc::new(tls::client()));
    connector.connect(name, tcp).await
}

/// A server that counts whom it turns away: for want of a place, of a turn, and after a bad handshake.
async fn counting_server() -> (SocketAddr, mpsc::Receiver<Accepted>, Arc<[AtomicUsize; 3]>) {
    let mut server = Server::bind(ServerOptions {
        listen: &["127.0.0.1:0".parse().unwrap()],
        certificate: None,
        secret_path: SECRET.into(),
    })
    .unwrap();
    let address = server.addresses()[0];
    let refused = Arc::new([const { AtomicUsize::new(0) }; 3]);
    let counts = Arc::clone(&refused);
    server.on_refused(move |refusal| {
        counts[refusal as usize].fetch_add(1, Ordering::Relaxed);
    });
    let (accepted, arrivals) = mpsc::channel(8);
    tokio::spawn(server.run(accepted));
    (address, arrivals, refused)
}

// PROTOCOL SM-WS-9
#[tokio::test]
async fn a_flood_of_handshakes_from_one_source_gets_few_and_others_get_in_at_once() {
    let (address, mut arrivals, refused) = counting_server().await;
    let began = std::time::Instant::now();
    let mut served = 0;
    for _ in 0..200 {
        served += usize::from(visitor_from([127, 1, 0, 1], address).await.is_ok());
    }
    let more = 2 * began.elapsed().as_secs() as usize + 3;
    assert!((32..=32 + more).contains(&served), "{served} of 200");
    let counts = refused
        .each_ref()
        .map(|count| count.load(Ordering::Relaxed));
    assert_eq!((counts[0], counts[1] + served, counts[2]), (0, 200, 0));
    // Whoever else comes has its own, whether it wants a page or a stream.
    let mut other = visitor_from([127, 2, 0, 1], address).await.unwrap();
    let (head, _) = ask(&mut other, &request("GET", SECRET, UPGRADE)).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(arrivals.recv().await.is_some());
}

// PROTOCOL SM-WS-9
#[tokio::test]
async fn a_flood_of_handshakes_from_many_sources_leaves_some_for_newcomers() {
    let (address, _arrivals, _) = counting_server().await;
    let began = std::time::Instant::now();
    let mut flood = tokio::task::JoinSet::new();
    let mut served = 0;
    // From each of ten neighbourhoods more than it may have, a few at once.
    for number in 0..400u16 {
        let host = 1 + (number / 10) as u8;
        flood.spawn(visitor_from([127, 3, number as u8 % 10, host], address));
        if flood.len() >= 20 {
            served += usize::from(flood.join_next().await.unwrap().unwrap().is_ok());
        }
    }
    while let Some(done) = flood.join_next().await {
        served += usize::from(done.unwrap().is_ok());
    }
    // Ten of the part for newcomers, and the part for all.
    let most = 10 + 64 + (1 + began.elapsed().as_secs() as usize) * 67;
    assert!(served <= most, "{served} in {:?}", began.elapsed());
    assert!(visitor_from([127, 4, 0, 1], address).await.is_ok());
}

// PROTOCOL SM-WS-9
#[tokio::test]
async fn a_handshake_that_is_none_is_ended_before_it_costs_memory() {
    let (address, _arrivals, refused) = counting_server().await;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    // Records of a first message that has no end: type, version, length, of a message of 60,000 bytes.
    let mut record = vec![22, 3, 1, 0x10, 0, 1, 0, 0xea, 0x60];
    record.resize(5 + 0x1000, 0);
    for _ in 0..5 {
        // It may have been ended by then.
        let _ = tcp.write_all(&record).await;
        record[5..9].fill(0);
    }
    // Far sooner than a handshake may take.
    let mut rest = Vec::new();
    let ended = timeout(TLS_MAX / 2, tcp.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "it waits for the rest");
    let counted = async {
        while refused[Refusal::Handshake as usize].load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(TLS_MAX, counted).await.expect("it is counted");
}

// PROTOCOL SM-WS-9
#[tokio::test]
async fn a_connection_has_a_hundred_answers_and_no_more() {
    let (address, _arrivals) = server().await;
    let mut visitor = visitor(address).await;
    for number in 1..=100 {
        let (head, _) = ask(&mut visitor, &request("GET", "/", "")).await;
        let is_last = head.to_ascii_lowercase().contains("connection: close");
        assert_eq!(is_last, number == 100, "{number}: {head}");
    }
    assert!(visitor.read_u8().await.is_err(), "it is closed");
}

// PROTOCOL SM-WS-9
#[test]
fn a_stream_lives_on_in_the_runtime_it_was_moved_to_when_the_one_that_opened_it_ends() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (doors, streams) = (runtime(), runtime());
    let (mut ours, mut theirs) = doors.block_on(pair());
    streams.block_on(async {
        ours.rehome().unwrap();
        theirs.rehome().unwrap();
        doors.shutdown_background();
        for _ in 0..3 {
            send(&mut ours, b"there").await;
            assert_eq!(receive(&mut theirs).await.unwrap().unwrap(), "there");
            send(&mut theirs, b"and back").await;
            assert_eq!(receive(&mut ours).await.unwrap().unwrap(), "and back");
        }
    });
}
