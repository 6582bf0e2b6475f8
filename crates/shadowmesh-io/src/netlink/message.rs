//! The form of routing messages: header, family header, attributes (rtnetlink(7), netlink(7)).
//!
//! Native byte order, everything padded to four bytes. Decoding never trusts a length: what does
//! not fit ends the iteration, because the kernel does not send it and nothing else may.

use std::net::IpAddr;

const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// Bits of an attribute's type that are flags (nested, network byte order).
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

const fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A request under construction.
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of a type with flags and the fixed header of its family.
    pub(super) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(header);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = ATTRIBUTE_HEADER_LEN + value.len();
        self.bytes.extend_from_slice(&(length as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(padded(self.bytes.len()), 0);
        self
    }

    /// Adds a number.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a text with its terminating zero.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an address, 4 or 16 bytes.
    pub(super) fn address(self, kind: u16, value: IpAddr) -> Self {
        match value {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// Adds an attribute that holds what `fill` adds.
    pub(super) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self = fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Adds bytes as they are (the fixed header of a nested device).
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The finished message.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// A received message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages of one received datagram.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let length = u32_at(header, 0)? as usize;
        let body = bytes.get(HEADER_LEN..length)?;
        let message = Message {
            kind: u16_at(header, 4)?,
            flags: u16_at(header, 6)?,
            sequence: u32_at(header, 8)?,
            body,
        };
        bytes = bytes.get(padded(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`, as type and value.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16_at(bytes, 0)? as usize;
        let kind = u16_at(bytes, 2)? & ATTRIBUTE_TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_LEN..length)?;
        bytes = bytes.get(padded(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The number at `offset`.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The number at `offset`.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// A text with or without its terminating zero.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// An address of 4 or 16 bytes.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_as_it_was_built() {
        let bytes = Request::new(16, 5, &[1, 2, 3, 4])
            .text(3, "eth0")
            .nested(18, |nested| nested.text(1, "veth").number(2, 77))
            .address(4, "10.0.0.1".parse().unwrap())
            .finish(9);
        assert_eq!(bytes.len() % 4, 0);
        let message = messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence), (16, 5, 9));
        let found: Vec<_> = attributes(&message.body[4..]).collect();
        assert_eq!(text(found[0].1), "eth0");
        let nested: Vec<_> = attributes(found[1].1).collect();
        assert_eq!(
            (text(nested[0].1), u32_at(nested[1].1, 0)),
            ("veth".into(), Some(77))
        );
        assert_eq!(address(found[2].1), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(messages(&bytes).count(), 1);
    }

    #[test]
    fn lengths_that_lie_end_the_iteration() {
        let bytes = Request::new(16, 5, &[]).number(1, 2).finish(9);
        for cut in 0..bytes.len() {
            assert_eq!(messages(&bytes[..cut]).count(), 0, "{cut} bytes");
        }
        for length in [0u16, 1, 3, 9, u16::MAX] {
            let mut attribute = [0u8; 8];
            attribute[..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(attributes(&attribute).count(), 0, "length {length}");
        }
        assert_eq!(
            messages(&[0; 64]).count(),
            0,
            "length 0 must not repeat for ever"
        );
    }
}
