//! The one stream of a control connection, and its messages.
//!
//! The side that connected opens bidirectional stream 0 and speaks first. Nothing is read before
//! the connection is authenticated: early data waits inside QUIC until then, so a replayed Hello
//! has no effect.

use bytes::Bytes;
use quinn_proto::{Connection, Dir, ReadError, StreamId, WriteError};
use shadowmesh_wire::control::{ControlError, ControlMessage, Decoder};

/// Limit: bytes waiting for the peer to read. Beyond this it does not read at all.
const OUTGOING_MAX: usize = 128 * 1024;
/// Limit: bytes taken out of QUIC in one go; the loop around it comes back for the rest.
const CHUNK_MAX: usize = 16 * 1024;

/// The control stream.
#[derive(Debug, Default)]
pub(crate) struct ControlStream {
    id: Option<StreamId>,
    decoder: Decoder,
    /// Encoded and not yet taken by QUIC. Limit: [`OUTGOING_MAX`] and one message.
    outgoing: Vec<u8>,
    /// Whether the peer closed its direction.
    ended: bool,
}

/// Why a control stream cannot go on. All are the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    /// A message does not parse.
    #[error(transparent)]
    Message(#[from] ControlError),
    /// The peer ended, reset or stopped the stream.
    #[error("peer ended the control stream")]
    Ended,
    /// The peer does not read.
    #[error("peer does not read its control stream")]
    Backlog,
}

impl ControlStream {
    /// Opens the stream, as the side that connected. False: not allowed yet.
    pub(crate) fn open(&mut self, quic: &mut Connection) -> bool {
        if self.id.is_none() {
            self.id = quic.streams().open(Dir::Bi);
        }
        self.id.is_some()
    }

    /// Takes the stream the peer opened, if it did.
    pub(crate) fn accept(&mut self, quic: &mut Connection) {
        if self.id.is_none() {
            self.id = quic.streams().accept(Dir::Bi);
        }
    }

    /// Early data was refused: what was written is gone, and so is the stream.
    pub(crate) fn restart(&mut self) {
        *self = Self::default();
    }

    /// Whether there is a stream.
    pub(crate) fn is_open(&self) -> bool {
        self.id.is_some()
    }

    #[cfg(test)]
    pub(crate) fn outgoing_len(&self) -> usize {
        self.outgoing.len()
    }

    /// Writes a message, or keeps it until QUIC takes it.
    // PROTOCOL SM-CT-1
    pub(crate) fn send(
        &mut self,
        message: &ControlMessage,
        quic: &mut Connection,
    ) -> Result<(), StreamError> {
        // Looked at before, so that what is refused is not kept either.
        if self.outgoing.len() > OUTGOING_MAX {
            return Err(StreamError::Backlog);
        }
        message.encode(&mut self.outgoing)?;
        self.flush(quic)
    }

    /// Hands waiting bytes to QUIC, as many as it takes.
    pub(crate) fn flush(&mut self, quic: &mut Connection) -> Result<(), StreamError> {
        let Some(id) = self.id else { return Ok(()) };
        while !self.outgoing.is_empty() {
            match quic.send_stream(id).write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(WriteError::Blocked) => break,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    return Err(StreamError::Ended);
                }
            }
        }
        Ok(())
    }

    /// The next message, if a whole one has arrived.
    pub(crate) fn next(
        &mut self,
        quic: &mut Connection,
    ) -> Result<Option<ControlMessage>, StreamError> {
        loop {
            if let Some(message) = self.decoder.next_message()? {
                return Ok(Some(message));
            }
            if self.ended {
                return Err(StreamError::Ended);
            }
            match self.read(quic)? {
                Some(bytes) => self.decoder.push(&bytes),
                None => return Ok(None),
            }
        }
    }

    fn read(&mut self, quic: &mut Connection) -> Result<Option<Bytes>, StreamError> {
        let Some(id) = self.id else { return Ok(None) };
        let mut stream = quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            return Err(StreamError::Ended);
        };
        let chunk = chunks.next(CHUNK_MAX);
        // Credit for the peer goes out with the next datagrams; `Net` asks QUIC for them anyway.
        let _ = chunks.finalize();
        match chunk {
            Ok(Some(chunk)) => Ok(Some(chunk.bytes)),
            Ok(None) | Err(ReadError::Reset(_)) => {
                self.ended = true;
                Err(StreamError::Ended)
            }
            Err(ReadError::Blocked) => Ok(None),
        }
    }
}
