//! The Prometheus endpoint: `GET /metrics` over plain HTTP/1.1.
//!
//! It asks the engine for its figures, as `status` does, and writes them as OpenMetrics text. It names
//! no peer and no address, so whoever may read it learns how much, never with whom. There is no
//! login: it listens on the loopback unless the configuration says otherwise, and a reader can do nothing
//! but read. What a reader may cost is limited: so many connections, so long each, and one question to
//! the engine a second however many ask.

mod text;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use shadowmesh_io::late;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use crate::admin::Command;

/// Limit: readers at once. A Prometheus server is one.
const CONNECTIONS_MAX: usize = 16;
/// Connections the kernel holds for us while we are busy.
const BACKLOG: i32 = 64;
/// Limit: how long one connection lasts, from its first byte to its last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit: how long a reader takes to ask.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit: bytes of a request. hyper demands 8192 at least.
const REQUEST_LEN_MAX: usize = 8192;
/// Figures younger than this are told again, so that readers cannot keep the control thread busy.
const FRESH: Duration = Duration::from_secs(1);
/// The engine answers between two batches; longer means it hangs.
const ENGINE_TIMEOUT: Duration = Duration::from_secs(5);

/// What `text` writes (OpenMetrics 1.0 §3.4). Prometheus has asked for it since its version 2.5.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// The bound endpoint.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    figures: Arc<Figures>,
}

/// The last text, and where a newer one comes from.
#[derive(Debug)]
struct Figures {
    commands: mpsc::Sender<Command>,
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl MetricsServer {
    /// Binds the address. Must run inside a tokio runtime.
    pub async fn bind(listen: SocketAddr, commands: mpsc::Sender<Command>) -> io::Result<Self> {
        Ok(Self {
            // Ahead of the address, where that is not there yet.
            listener: TcpListener::from_std(late::listen(listen, BACKLOG)?.0)?,
            figures: Arc::new(Figures {
                commands,
                last: Mutex::default(),
            }),
        })
    }

    /// What was really bound.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until told to stop.
    pub async fn run(self, mut stop: oneshot::Receiver<()>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &places) => accepted,
                _ = &mut stop => return,
            };
            match accepted {
                Ok((stream, place)) => {
                    let figures = Arc::clone(&self.figures);
                    tokio::spawn(async move {
                        // Whoever is slower than that is shown the door; nothing is lost by it.
                        let _ = timeout(CONNECTION_TIMEOUT, figures.serve(stream)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to be closed.
                    tracing::warn!(%error, "cannot accept on the metrics endpoint");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

impl Figures {
    async fn serve(&self, stream: TcpStream) {
        let service =
            service_fn(|request| async move { Ok::<_, Infallible>(self.answer(&request).await) });
        let served = http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(REQUEST_LEN_MAX)
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a reader of the metrics left early");
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, "/metrics") => match self.text().await {
                Some(text) => response(StatusCode::OK, OPENMETRICS, text),
                None => {
                    let why = "the node does not answer; it is going down, or look at its log\n";
                    response(StatusCode::SERVICE_UNAVAILABLE, PLAIN, why)
                }
            },
            (&Method::GET | &Method::HEAD, "/") => response(
                StatusCode::OK,
                PLAIN,
                "the figures of this node are at /metrics\n",
            ),
            (&Method::GET | &Method::HEAD, _) => {
                response(StatusCode::NOT_FOUND, PLAIN, "only /metrics is here\n")
            }
            _ => {
                let code = StatusCode::METHOD_NOT_ALLOWED;
                let mut refused = response(code, PLAIN, "figures can only be read: GET /metrics\n");
                let allowed = HeaderValue::from_static("GET, HEAD");
                refused.headers_mut().insert(ALLOW, allowed);
                refused
            }
        }
    }

    /// The figures of this moment or the last second. `None`: the engine does not answer. Held locked
    /// while asking, so that many readers are one question.
    async fn text(&self) -> Option<Bytes> {
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &*last
            && at.elapsed() < FRESH
        {
            return Some(text.clone());
        }
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(Command::Metrics { reply }).await.ok()?;
            answer.await.ok()
        };
        let report = timeout(ENGINE_TIMEOUT, asked).await.ok().flatten()?;
        let text = Bytes::from(text::of(*report));
        *last = Some((Instant::now(), text.clone()));
        Some(text)
    }
}

fn response(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
