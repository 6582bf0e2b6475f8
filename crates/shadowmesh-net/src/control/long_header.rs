//! As much of a QUIC long header (RFC 9000 §17.2) as decides what to do with a datagram.

use super::settings::QUIC_VERSION;

const LONG_AND_FIXED: u8 = 0xc0;
const TYPE: u8 = 0x30;
const TYPE_INITIAL: u8 = 0x00;
const TYPE_ZERO_RTT: u8 = 0x10;
/// Longest connection id of QUIC version 1.
const CID_LEN_MAX: usize = 20;

/// Checked view of a long header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LongHeader<'a> {
    packet_type: u8,
    /// Destination connection id.
    pub(crate) destination: &'a [u8],
    /// Whether there is a token. Only an Initial has one.
    has_token: bool,
}

impl<'a> LongHeader<'a> {
    /// Reads the header of a QUIC version 1 packet.
    pub(crate) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (&first, rest) = datagram.split_first()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        if first & LONG_AND_FIXED != LONG_AND_FIXED || u32::from_be_bytes(*version) != QUIC_VERSION
        {
            return None;
        }
        let (destination, rest) = connection_id(rest)?;
        let (_source, rest) = connection_id(rest)?;
        let packet_type = first & TYPE;
        // The token length is a varint; it is zero exactly when its first byte's value bits are
        // zero and it is the shortest form. A longer zero would be a token of length zero written
        // oddly, which nobody we know writes.
        let has_token = packet_type == TYPE_INITIAL && *rest.first()? != 0;
        Some(Self {
            packet_type,
            destination,
            has_token,
        })
    }

    /// Whether this is an Initial without a token.
    pub(crate) fn is_first(&self) -> bool {
        self.packet_type == TYPE_INITIAL && !self.has_token
    }

    /// Whether this is an Initial with a token: a claim that its address is proven.
    pub(crate) fn claims_proof(&self) -> bool {
        self.has_token
    }

    /// Whether QUIC may know this packet by the id the other side chose, or begin a connection.
    pub(crate) fn starts_connection(&self) -> bool {
        matches!(self.packet_type, TYPE_INITIAL | TYPE_ZERO_RTT)
    }
}

fn connection_id(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    let len = usize::from(len);
    if len > CID_LEN_MAX {
        return None;
    }
    rest.split_at_checked(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn initial(token: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xc3, 0, 0, 0, 1, 8];
        bytes.extend([7; 8]);
        bytes.extend([0, token.len() as u8]);
        bytes.extend(token);
        bytes.extend([0; 32]);
        bytes
    }

    #[test]
    fn an_initial_without_a_token_is_a_first_one() {
        assert!(LongHeader::parse(&initial(&[])).unwrap().is_first());
        let with_token = initial(&[1; 40]);
        let header = LongHeader::parse(&with_token).unwrap();
        assert!(!header.is_first() && header.starts_connection());
        assert_eq!(header.destination, [7; 8]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(bytes: Vec<u8>) {
            let _ = LongHeader::parse(&bytes);
        }

        #[test]
        fn any_cut_of_an_initial_is_judged_without_panic(len in 0usize..60) {
            let bytes = initial(&[]);
            let _ = LongHeader::parse(&bytes[..len.min(bytes.len())]);
        }
    }
}
