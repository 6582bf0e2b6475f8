//! What an observer of the underlay sees: does a datagram parse as QUIC version 1?
//!
//! The rules are those of RFC 9000 §17 for somebody without keys: what header protection leaves
//! readable. A datagram may hold several long-header packets, each with its length, and ends with at
//! most one short-header packet, which has none.

/// QUIC version 1 (RFC 9000 §15).
const VERSION: u32 = 1;

/// Longest connection id of version 1 (RFC 9000 §17.2).
const ID_LEN_MAX: usize = 20;

/// A stateless reset may be as short as this (RFC 9000 §10.3), and nobody can tell it from a packet.
const SHORT_LEN_MIN: usize = 21;

/// A packet that carries a packet number has at least 4 bytes of it and payload, and a 16-byte tag
/// (RFC 9001 §5.4.2: the sample must exist).
const PROTECTED_LEN_MIN: usize = 4 + 16;

/// What kind of packet a datagram begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Initial, 0-RTT, Handshake or Retry.
    Long,
    /// 1-RTT, a stateless reset, or a sealed frame: all alike from outside.
    Short,
}

/// The kind of a well-formed datagram; `None` for anything else.
pub fn parse(datagram: &[u8]) -> Option<Kind> {
    let first = *datagram.first()?;
    if first & 0x40 == 0 {
        return None; // the fixed bit, which we never grease
    }
    if first & 0x80 == 0 {
        return (datagram.len() >= SHORT_LEN_MIN).then_some(Kind::Short);
    }
    let mut rest = datagram;
    while let Some(first) = rest.first() {
        if first & 0x80 == 0 {
            parse(rest)?;
            break;
        }
        rest = &rest[long_packet_len(rest)?..];
    }
    Some(Kind::Long)
}

/// Length of the long-header packet at the front.
fn long_packet_len(bytes: &[u8]) -> Option<usize> {
    let first = *bytes.first()?;
    let version = u32::from_be_bytes(*bytes.get(1..)?.first_chunk()?);
    if first & 0x40 == 0 || version != VERSION {
        return None;
    }
    let mut at = 5;
    for _ in 0..2 {
        let len = usize::from(*bytes.get(at)?);
        if len > ID_LEN_MAX {
            return None;
        }
        at += 1 + len;
    }
    match (first >> 4) & 3 {
        0 => {
            let (token_len, size) = varint(bytes.get(at..)?)?;
            protected_end(bytes, at + size + token_len)
        }
        // Retry: a token and a 16-byte integrity tag, to the end of the datagram.
        3 => (bytes.len() >= at + 16).then_some(bytes.len()),
        _ => protected_end(bytes, at),
    }
}

fn protected_end(bytes: &[u8], at: usize) -> Option<usize> {
    let (len, size) = varint(bytes.get(at..)?)?;
    let end = at + size + len;
    (len >= PROTECTED_LEN_MIN && end <= bytes.len()).then_some(end)
}

/// RFC 9000 §16: value and size.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let size = 1usize << (*bytes.first()? >> 6);
    let bytes = bytes.get(..size)?;
    let value = bytes[1..]
        .iter()
        .fold(u64::from(bytes[0] & 0x3f), |value, byte| {
            value << 8 | u64::from(*byte)
        });
    // A length beyond any datagram is refused before it is added to anything.
    Some((
        usize::try_from(value)
            .ok()
            .filter(|value| *value < 1 << 20)?,
        size,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn initial(payload: usize) -> Vec<u8> {
        let mut packet = vec![0xc3, 0, 0, 0, 1, 8];
        packet.extend([7; 8]);
        packet.push(8);
        packet.extend([9; 8]);
        packet.push(0); // no token
        packet.extend((0x4000 | payload as u16).to_be_bytes());
        packet.extend(vec![5; payload]);
        packet
    }

    #[test]
    fn long_headers_follow_each_other_and_a_short_one_ends_the_datagram() {
        let mut datagram = initial(100);
        assert_eq!(parse(&datagram), Some(Kind::Long));
        datagram.extend(initial(50));
        assert_eq!(parse(&datagram), Some(Kind::Long));
        datagram.push(0x40);
        assert_eq!(parse(&datagram), None, "a short header needs its length");
        datagram.extend([1; 40]);
        assert_eq!(parse(&datagram), Some(Kind::Long));
    }

    #[test]
    fn what_is_not_quic_is_refused() {
        assert_eq!(parse(&[]), None);
        assert_eq!(parse(&[0x00; 60]), None, "no fixed bit");
        assert_eq!(parse(&[0x45; 20]), None, "too short");
        let mut other_version = initial(100);
        other_version[4] = 2;
        assert_eq!(parse(&other_version), None);
        let mut cut = initial(100);
        cut.truncate(80);
        assert_eq!(parse(&cut), None);
        let mut zero_padded = initial(100);
        zero_padded.extend([0; 30]);
        assert_eq!(parse(&zero_padded), None);
    }

    #[test]
    fn a_sealed_frame_is_a_short_header() {
        assert_eq!(parse(&[0x43; 30]), Some(Kind::Short));
    }
}
