//! What control messages say.

use std::{fmt, net::SocketAddr};

use crate::sealed::ReceiverIndex;
use crate::way::Label;

/// One message on the control stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlMessage {
    /// First message of both sides.
    Hello(Hello),
    /// Asks for a new epoch.
    RekeyRequest {
        /// Number of the epoch to be made.
        epoch: u32,
        /// Public halves of the asker's fresh keys.
        share: Vec<u8>,
    },
    /// Answers a [`Self::RekeyRequest`]; the answerer already opens frames of the new epoch.
    RekeyResponse {
        /// Number of the epoch.
        epoch: u32,
        /// The answerer's share.
        share: Vec<u8>,
    },
    /// The asker seals in the new epoch; the answerer may do so too.
    RekeyConfirm {
        /// Number of the epoch.
        epoch: u32,
    },
    /// The address we see you at.
    ObservedAddress(SocketAddr),
    /// Asks the peer to open a sink for a throughput measurement on its overlay address.
    BenchRequest {
        /// How long the sink is wanted, in seconds; the peer may allow less.
        seconds: u16,
    },
    /// Answers a [`Self::BenchRequest`].
    BenchReply {
        /// TCP port of the sink; 0 says no.
        port: u16,
    },
    /// The sender leaves on purpose; no reconnect is wanted.
    Bye {
        /// Why, for a person to read in a log.
        reason: u8,
    },
    /// From now on the sender sends packets in this data plane, and asks the receiver to do so too.
    DataPlane {
        /// Counts the changes of a session; of two messages with the same number, QUIC's counts.
        turn: u32,
        /// 0 sealed frames, 1 QUIC datagrams.
        plane: u8,
    },
    /// A relay could not pass on a datagram of yours.
    RelayRefused {
        /// For whom it was.
        label: Label,
        /// 0 nobody with that label has a session here, 1 this node relays nothing for you.
        reason: u8,
    },
    /// Where the sender may be reached by UDP, as far as it knows.
    Candidates(Candidates),
    /// A relay can be asked at another port too, where it is reached by UDP: who asks learns where it is seen
    /// from there.
    SecondPort {
        /// The port, at the address of the first.
        port: u16,
    },
    /// The address we see you at from our second port.
    SecondObserved(SocketAddr),
    /// A kind this version does not know. To be ignored.
    // PROTOCOL SM-CT-3
    Unknown(u64),
}

/// Where a peer may be reached: a proposal to try all of it at the same time.
// PROTOCOL SM-PA-6
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    /// Counts the searches of a session; who hears a higher number answers with its own addresses.
    pub round: u32,
    /// How the sender's address translation treats it.
    pub mapping: Mapping,
    /// At most [`CANDIDATES_MAX`].
    pub addresses: Vec<CandidateAddress>,
}

/// Limit: addresses in one [`Candidates`].
pub const CANDIDATES_MAX: usize = 32;

/// One address, and how its owner knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CandidateAddress {
    /// The address.
    pub address: SocketAddr,
    /// How its owner knows of it.
    pub kind: CandidateKind,
}

/// How an address came to its owner (RFC 8445 §5.1.1 knows the first two).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// An address of the host itself.
    Host,
    /// A router maps it, because the host asked.
    Mapped,
    /// Others see the host there.
    Observed,
    /// The host's translation will probably use it next.
    Predicted,
    /// An address of the host itself on a tunnel device: another VPN leads there.
    Tunnel,
}

/// What observers in different places make of a node's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mapping {
    /// There are fewer than two observers.
    #[default]
    Unknown,
    /// All see the same address.
    Stable,
    /// Each sees another port, one close to the other.
    Sequential,
    /// Each sees another port, or another address.
    Random,
}

/// What each side tells the other before any sealed frame.
// PROTOCOL SM-CT-2
#[derive(Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Hello {
    /// Version of the protocol above QUIC.
    #[n(0)]
    pub version: u16,
    /// Drawn at every start of the process: another value says that older sessions are dead.
    #[n(1)]
    pub boot: u64,
    /// Where the sender of this message wants sealed frames sent.
    #[n(2)]
    pub index: ReceiverIndex,
    /// Ends a datagram by which the sender says that it lost the keys of `index`.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub reset_token: [u8; 16],
    /// Measured speed in MB/s of AES-256-GCM and of ChaCha20-Poly1305; 0 refuses the cipher.
    #[n(4)]
    pub cipher_speeds: [u32; 2],
    /// MTU of the sender's device, in bytes.
    #[n(5)]
    pub mtu: u16,
    /// Whether the sender has the receiver's full public key, so that the short certificate is
    /// enough next time.
    #[n(6)]
    pub holds_your_key: bool,
    /// Which data plane the sender wants: 0 sealed frames, 1 whichever passes, 2 QUIC datagrams.
    /// Missing where a version does not know of the choice.
    #[n(7)]
    pub data_plane: Option<u8>,
    /// Where the sender receives by another session with the same peer, if it has one.
    #[n(8)]
    pub beside: Option<ReceiverIndex>,
    /// Of a client: which of its calls this is, counted up from its start. Both sides so know which of two is
    /// the newer, in whatever order they arrived.
    #[n(9)]
    pub call: Option<u64>,
}

/// The reset token is as good as a secret while the session lives, so it stays out of logs.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("version", &self.version)
            .field("boot", &self.boot)
            .field("index", &self.index)
            .field("cipher_speeds", &self.cipher_speeds)
            .field("mtu", &self.mtu)
            .field("holds_your_key", &self.holds_your_key)
            .field("data_plane", &self.data_plane)
            .field("beside", &self.beside)
            .finish_non_exhaustive()
    }
}
