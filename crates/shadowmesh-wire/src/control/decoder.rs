//! Messages out of a byte stream that comes in pieces.

use super::{ControlError, ControlMessage, MESSAGE_LEN_MAX, codec::PREFIX_LEN};

/// Cuts a byte stream into control messages.
///
/// ```
/// use shadowmesh_wire::control::{ControlMessage, Decoder};
///
/// let mut bytes = Vec::new();
/// ControlMessage::Bye { reason: 1 }.encode(&mut bytes).unwrap();
/// let mut decoder = Decoder::default();
/// for byte in bytes {
///     assert_eq!(decoder.next_message(), Ok(None));
///     decoder.push(&[byte]);
/// }
/// assert_eq!(decoder.next_message(), Ok(Some(ControlMessage::Bye { reason: 1 })));
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that were already returned as messages.
    consumed: usize,
    /// The stream has no meaning behind its first error, so the error is kept.
    failed: Option<ControlError>,
}

impl Decoder {
    /// Takes the next bytes of the stream. Drain [`Self::next_message`] after every push: then no more than
    /// one unfinished message stays behind.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        self.buffer.drain(..self.consumed);
        self.consumed = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; `None` when more bytes are needed. After an error every later call
    /// returns the same error.
    pub fn next_message(&mut self) -> Result<Option<ControlMessage>, ControlError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.read_one().inspect_err(|error| {
            self.failed = Some(*error);
            self.buffer = Vec::new();
            self.consumed = 0;
        })
    }

    // PROTOCOL SM-CT-1
    fn read_one(&mut self) -> Result<Option<ControlMessage>, ControlError> {
        let pending = &self.buffer[self.consumed..];
        let Some((prefix, rest)) = pending.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes(*prefix));
        if len > MESSAGE_LEN_MAX {
            return Err(ControlError::TooLong(len));
        }
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let message = ControlMessage::read(body)?;
        self.consumed += PREFIX_LEN + len;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{
        CANDIDATES_MAX, CandidateAddress, CandidateKind, Candidates, Hello, Mapping,
    };
    use crate::sealed::ReceiverIndex;
    use proptest::{collection::vec, prelude::*};

    fn hello() -> impl Strategy<Value = ControlMessage> {
        (
            any::<(u16, u64, u64, [u8; 16])>(),
            any::<([u32; 2], u16, bool, Option<u8>, [Option<u64>; 2])>(),
        )
            .prop_map(
                |(
                    (version, boot, index, reset_token),
                    (cipher_speeds, mtu, holds_your_key, data_plane, [beside, call]),
                )| {
                    ControlMessage::Hello(Hello {
                        version,
                        boot,
                        index: ReceiverIndex(index),
                        reset_token,
                        cipher_speeds,
                        mtu,
                        holds_your_key,
                        data_plane,
                        beside: beside.map(ReceiverIndex),
                        call,
                    })
                },
            )
    }

    fn candidates(most: usize) -> impl Strategy<Value = ControlMessage> {
        use CandidateKind::{Host, Mapped, Observed, Predicted, Tunnel};
        let kind = prop::sample::select(vec![Host, Mapped, Observed, Predicted, Tunnel]);
        let address = any::<(std::net::IpAddr, u16)>().prop_map(Into::into);
        let address =
            (address, kind).prop_map(|(address, kind)| CandidateAddress { address, kind });
        let mapping = prop::sample::select(vec![
            Mapping::Unknown,
            Mapping::Stable,
            Mapping::Sequential,
            Mapping::Random,
        ]);
        (any::<u32>(), mapping, vec(address, 0..=most)).prop_map(|(round, mapping, addresses)| {
            ControlMessage::Candidates(Candidates {
                round,
                mapping,
                addresses,
            })
        })
    }

    fn message() -> impl Strategy<Value = ControlMessage> {
        let share = || (any::<u32>(), vec(any::<u8>(), 0..2000));
        prop_oneof![
            hello(),
            share().prop_map(|(epoch, share)| ControlMessage::RekeyRequest { epoch, share }),
            share().prop_map(|(epoch, share)| ControlMessage::RekeyResponse { epoch, share }),
            any::<u32>().prop_map(|epoch| ControlMessage::RekeyConfirm { epoch }),
            any::<(std::net::IpAddr, u16)>()
                .prop_map(|address| ControlMessage::ObservedAddress(address.into())),
            any::<(std::net::IpAddr, u16)>()
                .prop_map(|address| ControlMessage::SecondObserved(address.into())),
            any::<u16>().prop_map(|port| ControlMessage::SecondPort { port }),
            any::<u16>().prop_map(|seconds| ControlMessage::BenchRequest { seconds }),
            any::<u16>().prop_map(|port| ControlMessage::BenchReply { port }),
            any::<u8>().prop_map(|reason| ControlMessage::Bye { reason }),
            any::<(u32, u8)>().prop_map(|(turn, plane)| ControlMessage::DataPlane { turn, plane }),
            any::<(u64, u8)>().prop_map(|(label, reason)| {
                let label = crate::way::Label(label);
                ControlMessage::RelayRefused { label, reason }
            }),
            candidates(CANDIDATES_MAX),
            (100u64..).prop_map(ControlMessage::Unknown),
        ]
    }

    fn drain(decoder: &mut Decoder) -> Vec<ControlMessage> {
        std::iter::from_fn(|| decoder.next_message().unwrap()).collect()
    }

    proptest! {
        // PROTOCOL SM-CT-1
        // PROTOCOL SM-CT-2
        #[test]
        fn messages_survive_any_cutting_of_the_stream(
            messages in vec(message(), 1..6),
            piece in 1usize..3000,
        ) {
            let mut bytes = Vec::new();
            for message in &messages {
                message.encode(&mut bytes).unwrap();
            }
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for piece in bytes.chunks(piece) {
                decoder.push(piece);
                read.extend(drain(&mut decoder));
            }
            prop_assert_eq!(read, messages);
        }

        #[test]
        fn any_bytes_are_judged_without_panic(pieces in vec(vec(any::<u8>(), 0..64), 0..8)) {
            let mut decoder = Decoder::default();
            for piece in pieces {
                decoder.push(&piece);
                while let Ok(Some(_)) = decoder.next_message() {}
            }
        }

        #[test]
        fn a_flipped_byte_never_panics(message in message(), at: prop::sample::Index, flip in 1u8..) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_message() {}
        }
    }

    // PROTOCOL SM-CT-1
    #[test]
    fn a_length_over_the_limit_ends_the_stream_at_once() {
        let mut decoder = Decoder::default();
        decoder.push(&(MESSAGE_LEN_MAX as u16 + 1).to_be_bytes());
        let error = ControlError::TooLong(MESSAGE_LEN_MAX + 1);
        assert_eq!(decoder.next_message(), Err(error));
        decoder.push(&[0, 0]);
        assert_eq!(decoder.next_message(), Err(error));

        let share = vec![0; MESSAGE_LEN_MAX];
        let mut out = vec![9];
        let long = ControlMessage::RekeyRequest { epoch: 1, share };
        assert!(matches!(
            long.encode(&mut out),
            Err(ControlError::TooLong(_))
        ));
        assert_eq!(out, [9]);
    }

    // PROTOCOL SM-CT-3
    #[test]
    fn unknown_kinds_and_later_fields_are_skipped() {
        let mut decoder = Decoder::default();
        // [9999, {"a": [1, 2]}]
        let unknown = [0x82, 0x19, 0x27, 0x0f, 0xa1, 0x61, 0x61, 0x82, 0x01, 0x02];
        // [3, [7, "later"]]: a RekeyConfirm with a field of the future
        let later = [0x82, 0x03, 0x82, 0x07, 0x65, b'l', b'a', b't', b'e', b'r'];
        for message in [&unknown, &later] {
            decoder.push(&(message.len() as u16).to_be_bytes());
            decoder.push(message);
        }
        assert_eq!(
            decoder.next_message(),
            Ok(Some(ControlMessage::Unknown(9999)))
        );
        assert_eq!(
            decoder.next_message(),
            Ok(Some(ControlMessage::RekeyConfirm { epoch: 7 }))
        );
        assert_eq!(decoder.next_message(), Ok(None));
    }

    // PROTOCOL SM-CT-2
    #[test]
    fn a_hello_from_before_the_choice_of_data_planes_is_read_as_saying_nothing_of_it() {
        let with = |data_plane| {
            let hello = Hello {
                version: 1,
                boot: 2,
                index: ReceiverIndex(3),
                reset_token: [4; 16],
                cipher_speeds: [5, 6],
                mtu: 1420,
                holds_your_key: true,
                data_plane,
                beside: None,
                call: None,
            };
            let mut bytes = Vec::new();
            ControlMessage::Hello(hello).encode(&mut bytes).unwrap();
            bytes
        };
        // Nothing said is nothing sent: the body is the array of seven that version 1 began with.
        let old = with(None);
        assert_eq!(old[4], 0x87);
        let mut decoder = Decoder::default();
        decoder.push(&old);
        let Ok(Some(ControlMessage::Hello(hello))) = decoder.next_message() else {
            panic!("an old Hello is still a Hello");
        };
        assert_eq!(hello.data_plane, None);
        assert_eq!(with(Some(2))[4], 0x88);
    }

    // PROTOCOL SM-PA-6
    #[test]
    fn more_candidates_than_allowed_are_malformed() {
        let candidate = CandidateAddress {
            address: ([192, 0, 2, 1], 1).into(),
            kind: CandidateKind::Host,
        };
        let with = |count| {
            let mut bytes = Vec::new();
            let candidates = Candidates {
                addresses: vec![candidate; count],
                ..Candidates::default()
            };
            let message = ControlMessage::Candidates(candidates);
            message.encode(&mut bytes).unwrap();
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            decoder.next_message()
        };
        assert!(matches!(
            with(CANDIDATES_MAX),
            Ok(Some(ControlMessage::Candidates(_)))
        ));
        assert_eq!(with(CANDIDATES_MAX + 1), Err(ControlError::Malformed));
    }

    #[test]
    fn bytes_left_over_in_a_message_are_malformed() {
        let mut decoder = Decoder::default();
        decoder.push(&[0, 5, 0x82, 0x03, 0x81, 0x07, 0x00]);
        assert_eq!(decoder.next_message(), Err(ControlError::Malformed));
    }

    #[test]
    fn the_reset_token_stays_out_of_debug_output() {
        let hello = Hello {
            version: 1,
            boot: 2,
            index: ReceiverIndex(3),
            reset_token: [0xab; 16],
            cipher_speeds: [4, 5],
            mtu: 1420,
            holds_your_key: true,
            data_plane: Some(1),
            beside: None,
            call: None,
        };
        let text = format!("{hello:?}");
        assert!(!text.contains("171") && !text.to_lowercase().contains("ab, ab"));
    }
}
