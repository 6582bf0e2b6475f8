//! IP prefixes as a person writes them.
//!
//! `allowed_ips` of a peer is a list of these. A prefix with bits set behind its length is refused
//! and the error says what was probably meant: silently masking it would let a slip of the pen
//! give a peer a whole network.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A network address and the number of bits that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpPrefix {
    addr: IpAddr,
    len: u8,
}

impl IpPrefix {
    /// Checks that `len` fits the family and that no bit behind it is set.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, PrefixError> {
        let len_max = bits(addr);
        if len > len_max {
            return Err(PrefixError::LengthRange {
                len: u32::from(len),
                len_max,
            });
        }
        let masked = mask(addr, len);
        if masked != addr {
            return Err(PrefixError::HostBits {
                addr,
                masked: Self { addr: masked, len },
            });
        }
        Ok(Self { addr, len })
    }

    /// The prefix of exactly one address.
    pub fn host(addr: IpAddr) -> Self {
        Self {
            addr,
            len: bits(addr),
        }
    }

    /// The prefix of `len` bits that holds `addr`; bits behind it are cleared, and `len` is cut to
    /// what the family has.
    pub fn containing(addr: IpAddr, len: u8) -> Self {
        let len = len.min(bits(addr));
        Self {
            addr: mask(addr, len),
            len,
        }
    }

    /// Whether the address lies inside. Families never mix: an IPv4-mapped IPv6 address is IPv6.
    #[inline]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                (net.to_bits() ^ addr.to_bits()) & mask_v4(self.len) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                (net.to_bits() ^ addr.to_bits()) & mask_v6(self.len) == 0
            }
            _ => false,
        }
    }

    /// The network address.
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// How many leading bits count.
    #[expect(clippy::len_without_is_empty, reason = "a prefix is never empty")]
    pub fn len(&self) -> u8 {
        self.len
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for IpPrefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let Some((addr, len)) = text.split_once('/') else {
            return Err(match text.parse() {
                Ok(addr) => PrefixError::NoLength(Self::host(addr)),
                Err(_) => PrefixError::Address(text.to_owned()),
            });
        };
        let addr: IpAddr = addr
            .parse()
            .map_err(|_| PrefixError::Address(addr.to_owned()))?;
        let digits = !len.is_empty() && len.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits {
            len.parse::<u32>().ok()
        } else {
            None
        };
        let number = number.ok_or_else(|| PrefixError::LengthText(len.to_owned()))?;
        match u8::try_from(number) {
            Ok(len) => Self::new(addr, len),
            Err(_) => Err(PrefixError::LengthRange {
                len: number,
                len_max: bits(addr),
            }),
        }
    }
}

/// Why a text is not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The part before the slash is no address.
    #[error("\"{0}\" is not an IP address; a prefix looks like 10.0.0.0/8 or fd00::/64")]
    Address(String),
    /// An address without a slash.
    #[error("the prefix length is missing; write {0} for this one address")]
    NoLength(IpPrefix),
    /// The part behind the slash is no number.
    #[error("prefix length \"{0}\" is not a number")]
    LengthText(String),
    /// The number is too large for the address family.
    #[error("prefix length {len} is out of range; it may be 0 to {len_max} here")]
    LengthRange {
        /// What was written.
        len: u32,
        /// What the family allows.
        len_max: u8,
    },
    /// Bits set behind the prefix length.
    #[error(
        "{addr} has bits set behind its prefix length; write {masked} for the network, or {} for the address",
        IpPrefix::host(*addr)
    )]
    HostBits {
        /// What was written.
        addr: IpAddr,
        /// The network it lies in.
        masked: IpPrefix,
    },
}

fn bits(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn mask(addr: IpAddr, len: u8) -> IpAddr {
    match addr {
        IpAddr::V4(addr) => IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() & mask_v4(len))),
        IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & mask_v6(len))),
    }
}

/// A shift by the full width is no shift, hence the zero.
#[inline]
fn mask_v4(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

#[inline]
fn mask_v6(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(text: &str) -> String {
        text.parse::<IpPrefix>().unwrap_err().to_string()
    }

    #[test]
    fn errors_say_what_to_write_instead() {
        assert!(error("10.1.2.3/8").contains("write 10.0.0.0/8 for the network, or 10.1.2.3/32"));
        assert!(error("10.0.0.1").contains("write 10.0.0.1/32"));
        assert!(error("fd00::1").contains("write fd00::1/128"));
        assert!(error("10.0.0.0/33").contains("0 to 32"));
        assert!(error("10.0.0.0/4000").contains("0 to 32"));
        assert!(error("fd00::/129").contains("0 to 128"));
        assert!(error("10.0.0.0/+8").contains("not a number"));
        assert!(error("10.0.0.0/").contains("not a number"));
        assert!(error("vps/8").contains("\"vps\" is not an IP address"));
    }

    #[test]
    fn the_whole_family_and_no_other_is_in_a_zero_length_prefix() {
        let all: IpPrefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.255.255.255".parse().unwrap()));
        assert!(!all.contains("::".parse().unwrap()));
        let all: IpPrefix = "::/0".parse().unwrap();
        assert!(all.contains("ffff::1".parse().unwrap()));
        assert!(!all.contains("1.2.3.4".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn text_form_round_trips(addr: IpAddr, len in 0u8..=128) {
            let prefix = IpPrefix::containing(addr, len);
            prop_assert_eq!(prefix.to_string().parse::<IpPrefix>().unwrap(), prefix);
            prop_assert!(prefix.contains(addr));
            prop_assert!(prefix.contains(prefix.addr()));
        }

        #[test]
        fn an_address_is_outside_when_a_counted_bit_differs(addr: u32, len in 1u8..=32, bit in 0u8..32) {
            let prefix = IpPrefix::containing(IpAddr::V4(addr.into()), len);
            let flipped = IpAddr::V4((addr ^ (1 << (31 - bit))).into());
            prop_assert_eq!(prefix.contains(flipped), bit >= len);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[0-9a-f./:+-]{0,24}|.*") {
            let _ = text.parse::<IpPrefix>();
        }
    }
}
