//! Messages on the control stream.
//!
//! Every message is a two byte big endian length and that many bytes of CBOR (RFC 8949): an array
//! of the message kind and the message body. Bodies are arrays too, so a later version appends
//! fields and an older one skips them; a kind we do not know becomes
//! [`ControlMessage::Unknown`] and is ignored. What is known but malformed is an error, and an
//! error ends the stream: behind it no byte has a meaning.
//!
//! [`Decoder`] takes bytes in any pieces, as a stream brings them, and holds at most one unfinished
//! message of [`MESSAGE_LEN_MAX`] bytes beside what was pushed last.

mod codec;
mod decoder;
mod message;

pub use decoder::Decoder;
pub use message::{
    CANDIDATES_MAX, CandidateAddress, CandidateKind, Candidates, ControlMessage, Hello, Mapping,
};

/// Longest message, without its length prefix. A rekey share is 1.6 KB; 16 KiB leaves room for
/// signed records and still bounds what a peer can make us hold.
// PROTOCOL SM-CT-1
pub const MESSAGE_LEN_MAX: usize = 16 * 1024;

/// Why bytes are not a control message, or a message does not fit one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Longer than [`MESSAGE_LEN_MAX`].
    #[error("control message of {0} bytes; the limit is {MESSAGE_LEN_MAX}")]
    TooLong(usize),
    /// Not CBOR, not the shape of its kind, or bytes left over.
    #[error("malformed control message")]
    Malformed,
}
