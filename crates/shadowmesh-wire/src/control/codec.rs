//! CBOR form of the messages: `[kind, body]`.
//!
//! Kinds are numbers on the wire and stand in [`kind`], once. Bodies are written and read by
//! derived code; only the address is ours, to hold it to the two forms an address has.

use std::net::{IpAddr, SocketAddr};

use minicbor::{Decode, Decoder as CborDecoder, Encode, Encoder, data::Type};

use super::{
    CANDIDATES_MAX, CandidateAddress, CandidateKind, Candidates, ControlError, ControlMessage,
    Hello, MESSAGE_LEN_MAX, Mapping,
};
use crate::way::Label;

/// Bytes of the length prefix.
pub(super) const PREFIX_LEN: usize = 2;

mod kind {
    pub(super) const HELLO: u64 = 0;
    pub(super) const REKEY_REQUEST: u64 = 1;
    pub(super) const REKEY_RESPONSE: u64 = 2;
    pub(super) const REKEY_CONFIRM: u64 = 3;
    pub(super) const OBSERVED_ADDRESS: u64 = 4;
    pub(super) const BENCH_REQUEST: u64 = 5;
    pub(super) const BENCH_REPLY: u64 = 6;
    pub(super) const BYE: u64 = 7;
    pub(super) const DATA_PLANE: u64 = 8;
    pub(super) const RELAY_REFUSED: u64 = 10;
    pub(super) const CANDIDATES: u64 = 9;
    pub(super) const SECOND_PORT: u64 = 11;
    pub(super) const SECOND_OBSERVED: u64 = 12;
}

#[derive(Encode, Decode)]
struct Share<'a> {
    #[n(0)]
    epoch: u32,
    #[cbor(b(1), with = "minicbor::bytes")]
    share: &'a [u8],
}

#[derive(Encode, Decode)]
struct Epoch {
    #[n(0)]
    epoch: u32,
}

#[derive(Encode, Decode)]
struct Address<'a> {
    #[cbor(b(0), with = "minicbor::bytes")]
    ip: &'a [u8],
    #[n(1)]
    port: u16,
}

#[derive(Encode, Decode)]
struct PlaneChange {
    #[n(0)]
    turn: u32,
    #[n(1)]
    plane: u8,
}

#[derive(Encode, Decode)]
struct Refusal {
    #[n(0)]
    label: u64,
    #[n(1)]
    reason: u8,
}

#[derive(Encode, Decode)]
struct Search<'a> {
    #[n(0)]
    round: u32,
    #[n(1)]
    mapping: u8,
    #[b(2)]
    addresses: Vec<Place<'a>>,
}

#[derive(Encode, Decode)]
struct Place<'a> {
    #[cbor(b(0), with = "minicbor::bytes")]
    ip: &'a [u8],
    #[n(1)]
    port: u16,
    #[n(2)]
    kind: u8,
}

#[derive(Encode, Decode)]
struct Number {
    #[n(0)]
    value: u16,
}

impl ControlMessage {
    /// Appends the message with its length prefix. On an error `out` is as it was.
    // PROTOCOL SM-CT-1
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), ControlError> {
        let start = out.len();
        out.extend_from_slice(&[0; PREFIX_LEN]);
        self.write(out);
        let len = out.len() - start - PREFIX_LEN;
        if len > MESSAGE_LEN_MAX {
            out.truncate(start);
            return Err(ControlError::TooLong(len));
        }
        out[start..start + PREFIX_LEN].copy_from_slice(&(len as u16).to_be_bytes());
        Ok(())
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => put(out, kind::HELLO, hello),
            Self::RekeyRequest { epoch, share } => {
                put(
                    out,
                    kind::REKEY_REQUEST,
                    &Share {
                        epoch: *epoch,
                        share,
                    },
                );
            }
            Self::RekeyResponse { epoch, share } => {
                put(
                    out,
                    kind::REKEY_RESPONSE,
                    &Share {
                        epoch: *epoch,
                        share,
                    },
                );
            }
            Self::RekeyConfirm { epoch } => {
                put(out, kind::REKEY_CONFIRM, &Epoch { epoch: *epoch });
            }
            Self::ObservedAddress(address) => put_address(out, kind::OBSERVED_ADDRESS, address),
            Self::SecondObserved(address) => put_address(out, kind::SECOND_OBSERVED, address),
            Self::SecondPort { port } => put(out, kind::SECOND_PORT, &Number { value: *port }),
            Self::BenchRequest { seconds } => {
                put(out, kind::BENCH_REQUEST, &Number { value: *seconds });
            }
            Self::BenchReply { port } => put(out, kind::BENCH_REPLY, &Number { value: *port }),
            Self::Bye { reason } => {
                put(
                    out,
                    kind::BYE,
                    &Number {
                        value: u16::from(*reason),
                    },
                );
            }
            Self::DataPlane { turn, plane } => {
                let (turn, plane) = (*turn, *plane);
                put(out, kind::DATA_PLANE, &PlaneChange { turn, plane });
            }
            Self::RelayRefused { label, reason } => {
                let (label, reason) = (label.0, *reason);
                put(out, kind::RELAY_REFUSED, &Refusal { label, reason });
            }
            Self::Candidates(candidates) => put_candidates(out, candidates),
            // Only a decoder makes these; sent on, it stays a kind with an empty body.
            Self::Unknown(kind) => put(out, *kind, &[(); 0]),
        }
    }

    /// Reads one message without its length prefix.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ControlError> {
        let mut cbor = CborDecoder::new(bytes);
        let message = read_message(&mut cbor).map_err(|_| ControlError::Malformed)?;
        if cbor.position() != bytes.len() {
            return Err(ControlError::Malformed);
        }
        Ok(message)
    }
}

fn put<T: Encode<()>>(out: &mut Vec<u8>, kind: u64, body: &T) {
    let mut cbor = Encoder::new(out);
    cbor.array(2)
        .and_then(|cbor| cbor.u64(kind))
        .and_then(|cbor| cbor.encode(body))
        .expect("a Vec takes every write");
}

fn put_address(out: &mut Vec<u8>, kind: u64, address: &SocketAddr) {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) => put(
            out,
            kind,
            &Address {
                ip: &ip.octets(),
                port,
            },
        ),
        IpAddr::V6(ip) => put(
            out,
            kind,
            &Address {
                ip: &ip.octets(),
                port,
            },
        ),
    }
}

fn put_candidates(out: &mut Vec<u8>, candidates: &Candidates) {
    let octets: Vec<Vec<u8>> = candidates
        .addresses
        .iter()
        .map(|candidate| match candidate.address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        })
        .collect();
    let places = candidates.addresses.iter().zip(&octets);
    let search = Search {
        round: candidates.round,
        mapping: candidates.mapping as u8,
        addresses: places
            .map(|(candidate, ip)| Place {
                ip,
                port: candidate.address.port(),
                kind: candidate.kind as u8,
            })
            .collect(),
    };
    put(out, kind::CANDIDATES, &search);
}

/// Kinds of addresses that a later version may bring are passed over; too many addresses are an error.
// PROTOCOL SM-PA-6
fn read_candidates(cbor: &mut CborDecoder<'_>) -> Result<Candidates, minicbor::decode::Error> {
    let search: Search<'_> = cbor.decode()?;
    if search.addresses.len() > CANDIDATES_MAX {
        return Err(minicbor::decode::Error::message("too many addresses"));
    }
    let mut addresses = Vec::new();
    for place in search.addresses {
        let ip = read_ip(place.ip)?;
        let kind = match place.kind {
            0 => CandidateKind::Host,
            1 => CandidateKind::Mapped,
            2 => CandidateKind::Observed,
            3 => CandidateKind::Predicted,
            4 => CandidateKind::Tunnel,
            _ => continue,
        };
        addresses.push(CandidateAddress {
            address: SocketAddr::new(ip, place.port),
            kind,
        });
    }
    Ok(Candidates {
        round: search.round,
        mapping: match search.mapping {
            1 => Mapping::Stable,
            2 => Mapping::Sequential,
            3 => Mapping::Random,
            _ => Mapping::Unknown,
        },
        addresses,
    })
}

fn read_message(cbor: &mut CborDecoder<'_>) -> Result<ControlMessage, minicbor::decode::Error> {
    if cbor.array()? != Some(2) {
        return Err(minicbor::decode::Error::message(
            "not an array of kind and body",
        ));
    }
    Ok(match cbor.u64()? {
        kind::HELLO => ControlMessage::Hello(cbor.decode::<Hello>()?),
        kind::REKEY_REQUEST => {
            let Share { epoch, share } = cbor.decode()?;
            ControlMessage::RekeyRequest {
                epoch,
                share: share.to_vec(),
            }
        }
        kind::REKEY_RESPONSE => {
            let Share { epoch, share } = cbor.decode()?;
            ControlMessage::RekeyResponse {
                epoch,
                share: share.to_vec(),
            }
        }
        kind::REKEY_CONFIRM => {
            let Epoch { epoch } = cbor.decode()?;
            ControlMessage::RekeyConfirm { epoch }
        }
        kind::OBSERVED_ADDRESS => ControlMessage::ObservedAddress(read_address(cbor)?),
        kind::SECOND_OBSERVED => ControlMessage::SecondObserved(read_address(cbor)?),
        kind::SECOND_PORT => ControlMessage::SecondPort {
            port: cbor.decode::<Number>()?.value,
        },
        kind::BENCH_REQUEST => ControlMessage::BenchRequest {
            seconds: cbor.decode::<Number>()?.value,
        },
        kind::BENCH_REPLY => ControlMessage::BenchReply {
            port: cbor.decode::<Number>()?.value,
        },
        kind::BYE => {
            let reason = cbor.decode::<Number>()?.value;
            ControlMessage::Bye {
                reason: u8::try_from(reason).unwrap_or(u8::MAX),
            }
        }
        kind::DATA_PLANE => {
            let PlaneChange { turn, plane } = cbor.decode()?;
            ControlMessage::DataPlane { turn, plane }
        }
        kind::RELAY_REFUSED => {
            let Refusal { label, reason } = cbor.decode()?;
            let label = Label(label);
            ControlMessage::RelayRefused { label, reason }
        }
        kind::CANDIDATES => ControlMessage::Candidates(read_candidates(cbor)?),
        // PROTOCOL SM-CT-3
        unknown => {
            cbor.skip()?;
            ControlMessage::Unknown(unknown)
        }
    })
}

fn read_address(cbor: &mut CborDecoder<'_>) -> Result<SocketAddr, minicbor::decode::Error> {
    let Address { ip, port } = cbor.decode()?;
    Ok(SocketAddr::new(read_ip(ip)?, port))
}

fn read_ip(ip: &[u8]) -> Result<IpAddr, minicbor::decode::Error> {
    if let Ok(octets) = <[u8; 4]>::try_from(ip) {
        Ok(IpAddr::from(octets))
    } else if let Ok(octets) = <[u8; 16]>::try_from(ip) {
        Ok(IpAddr::from(octets))
    } else {
        Err(minicbor::decode::Error::type_mismatch(Type::Bytes))
    }
}
