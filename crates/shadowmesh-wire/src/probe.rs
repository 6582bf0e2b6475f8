//! The sealed ping.
//!
//! A probe travels as the body of an inner frame of type [`Probe`](crate::inner::InnerType::Probe),
//! so it is authentic and private like any data. A request carries a token, the reply carries it
//! back; who asked keeps the time beside the token. Bytes behind the fixed part are padding: a
//! probe may be made as long as a datagram whose way through a path is to be tested.

/// Bytes of an encoded probe without padding.
pub const PROBE_LEN: usize = 9;

/// Question or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Please answer.
    Request,
    /// The answer; carries the token of the request.
    Reply,
}

/// One probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Probe {
    /// Question or answer.
    pub kind: ProbeKind,
    /// Chosen by who asks; names the question.
    pub token: u64,
}

impl Probe {
    /// The body of the inner frame, without the inner type byte.
    pub fn encode(&self) -> [u8; PROBE_LEN] {
        let mut out = [0; PROBE_LEN];
        out[0] = match self.kind {
            ProbeKind::Request => 0,
            ProbeKind::Reply => 1,
        };
        out[1..].copy_from_slice(&self.token.to_be_bytes());
        out
    }

    /// Reads the body of an inner frame, without the inner type byte.
    pub fn decode(body: &[u8]) -> Result<Self, ProbeError> {
        let (&[kind, ref token @ ..], _padding) = body
            .split_first_chunk::<PROBE_LEN>()
            .ok_or(ProbeError::TooShort)?;
        let kind = match kind {
            0 => ProbeKind::Request,
            1 => ProbeKind::Reply,
            other => return Err(ProbeError::UnknownKind(other)),
        };
        Ok(Self {
            kind,
            token: u64::from_be_bytes(*token),
        })
    }

    /// The answer to this request.
    pub fn reply(&self) -> Self {
        Self {
            kind: ProbeKind::Reply,
            token: self.token,
        }
    }
}

/// Why a body is not a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// Shorter than [`PROBE_LEN`].
    #[error("probe shorter than {PROBE_LEN} bytes")]
    TooShort,
    /// Neither request nor reply.
    #[error("probe kind {0} is not known")]
    UnknownKind(u8),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn probes_round_trip_with_and_without_padding(token: u64, reply: bool, padding: Vec<u8>) {
            let request = Probe { kind: ProbeKind::Request, token };
            let probe = if reply { request.reply() } else { request };
            let mut body = probe.encode().to_vec();
            prop_assert_eq!(Probe::decode(&body), Ok(probe));
            body.extend(padding);
            prop_assert_eq!(Probe::decode(&body), Ok(probe));
            prop_assert_eq!(Probe::decode(&body[..PROBE_LEN - 1]), Err(ProbeError::TooShort));
        }

        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
            let _ = Probe::decode(&bytes);
        }
    }
}
