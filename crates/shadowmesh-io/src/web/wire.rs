//! The TCP connection under TLS: one that can be told how much it may still read, and that can be moved from
//! one runtime to another.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What the kernel holds that has not been sent yet. What waits beyond that should do so where it can be
/// dropped: a full TCP buffer of some megabytes is seconds on a slow line.
const UNSENT_MAX: u32 = 128 * 1024;

/// A TCP connection that carries datagrams.
pub(super) struct Wire {
    /// None only after it could not be moved: there is nothing to read or write then.
    tcp: Option<TcpStream>,
    /// How many bytes may still be read, if that is limited.
    left: Option<usize>,
}

impl Wire {
    /// Nothing waits for company, little waits in the kernel. Where the system refuses, all is slower and
    /// works.
    pub(super) fn new(tcp: TcpStream) -> Self {
        let _ = tcp.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = socket2::SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_MAX);
        Self {
            tcp: Some(tcp),
            left: None,
        }
    }

    /// One of which at most so many bytes are read until [`unlimit`](Self::unlimit); more is an error.
    pub(super) fn limited(tcp: TcpStream, len_max: usize) -> Self {
        Self {
            left: Some(len_max),
            ..Self::new(tcp)
        }
    }

    /// From now on it reads what comes.
    pub(super) fn unlimit(&mut self) {
        self.left = None;
    }

    /// From now on the runtime that this is called in drives it, and no longer the one that opened it.
    pub(super) fn rehome(&mut self) -> io::Result<()> {
        if let Some(tcp) = self.tcp.take() {
            self.tcp = Some(TcpStream::from_std(tcp.into_std()?)?);
        }
        Ok(())
    }

    fn tcp(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let tcp = self.tcp.as_mut();
        tcp.map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.tcp()?.poll_read(cx, buffer))?;
        let len = buffer.filled().len() - before;
        if let Some(left) = &mut self.left {
            let rest = left.checked_sub(len);
            let too_much =
                || io::Error::new(io::ErrorKind::InvalidData, "too much before the handshake");
            *left = rest.ok_or_else(too_much)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.tcp()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.tcp()?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp()?.poll_shutdown(cx)
    }
}
