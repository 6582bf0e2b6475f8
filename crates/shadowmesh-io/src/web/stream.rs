//! Messages over a connection that both sides agreed to use for them.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{client, server};
use tokio_websockets::{Config, Limits, Message, ServerBuilder, WebSocketStream};

use super::places::Place;
use super::wire::Wire;
use super::{MESSAGE_LEN_MAX, WebError};

/// A connection under a stream: TLS over TCP, on either side.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {
    /// For who knows which it is.
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

pub(super) type Boxed = Box<dyn Connection>;

/// Pings, pongs and the like that may come while something waits for the other side to take it. Each ping
/// leaves an answer waiting; a live peer sends one in a while, and reads.
const SIGNS_MAX: u32 = 64;
/// What came in.
#[derive(Debug)]
pub enum Incoming {
    /// A binary message of at most [`MESSAGE_LEN_MAX`] bytes.
    Message(BytesMut),
    /// A ping or a pong: the other side lives. Pings are answered already.
    Sign,
}

/// One stream of messages. Driven by polling, so that one task serves both directions: neither must wait
/// for the other, or two sides that both only write would wait for ever.
pub struct WebStream {
    socket: WebSocketStream<Boxed>,
    /// Signs of life since everything had been sent. Limit: [`SIGNS_MAX`].
    signs: u32,
    /// Among the server's connections, until it is dropped; none on the other side.
    place: Option<Place>,
}

/// Limits of both sides. A message goes in one frame, so it leaves in one write.
pub(super) fn limits() -> (Config, Limits) {
    let config = Config::default().frame_size(MESSAGE_LEN_MAX);
    let limits = Limits::default().max_payload_len(Some(MESSAGE_LEN_MAX));
    (config, limits)
}

impl WebStream {
    /// The server's side of a connection on which the client has asked for a stream and was told yes.
    pub fn serve(connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::serve_in(Box::new(connection), None)
    }

    /// The same for one that has a place among those of its source.
    pub(super) fn serve_in(connection: Boxed, place: Option<Place>) -> Self {
        let (config, limits) = limits();
        let builder = ServerBuilder::new().config(config).limits(limits);
        Self::new(builder.serve(connection), place)
    }

    pub(super) fn new(socket: WebSocketStream<Boxed>, place: Option<Place>) -> Self {
        Self {
            socket,
            signs: 0,
            place,
        }
    }

    /// Whoever is at the other end is known: no stranger who comes later is given the place of this stream.
    pub fn vouch(&mut self) {
        if let Some(place) = &mut self.place {
            place.vouch();
        }
    }

    /// From now on the runtime that this is called in drives the stream, and no longer the one that opened it,
    /// which may end.
    pub fn rehome(&mut self) -> io::Result<()> {
        // Through the box, which is a connection of its own.
        let connection: &mut dyn Connection = &mut **self.socket.get_mut();
        let connection = connection.as_any();
        if let Some(tls) = connection.downcast_mut::<server::TlsStream<Wire>>() {
            return tls.get_mut().0.rehome();
        }
        if let Some(tls) = connection.downcast_mut::<client::TlsStream<Wire>>() {
            return tls.get_mut().0.rehome();
        }
        // Of a caller's own making: it knows no runtime.
        Ok(())
    }

    /// Hands over a message; wait with [`poll_sent`](Self::poll_sent) before the next, or they pile up.
    pub fn send(&mut self, message: BytesMut) -> Result<(), WebError> {
        Ok(Pin::new(&mut self.socket).start_send(Message::binary(message))?)
    }

    /// Asks the other side whether it is there.
    pub fn ping(&mut self) -> Result<(), WebError> {
        Ok(Pin::new(&mut self.socket).start_send(Message::ping(BytesMut::new()))?)
    }

    /// Ready when everything handed over has been given to the system.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebError>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
        self.signs = 0;
        Poll::Ready(Ok(()))
    }

    /// The next thing from the other side; `None` when it closed the stream, or its place was given to
    /// somebody else.
    // PROTOCOL SM-WS-6
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming, WebError>>> {
        if let Some(place) = &mut self.place
            && place.poll_taken(cx).is_ready()
        {
            return Poll::Ready(None);
        }
        let message = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            None => return Poll::Ready(None),
        };
        if message.is_binary() {
            let payload = message.into_payload().into();
            return Poll::Ready(Some(Ok(Incoming::Message(payload))));
        }
        if message.is_close() {
            return Poll::Ready(None);
        }
        self.signs += 1;
        if self.signs > SIGNS_MAX {
            return Poll::Ready(Some(Err(WebError::Pings)));
        }
        Poll::Ready(Some(Ok(Incoming::Sign)))
    }

    /// Says goodbye as far as that goes without waiting.
    pub fn close(&mut self, cx: &mut Context<'_>) {
        let _ = Pin::new(&mut self.socket).poll_close(cx);
    }
}
