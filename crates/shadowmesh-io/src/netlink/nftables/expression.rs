//! Matches and actions as lists of expressions, each a small program step on registers.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{FAMILY_IPV4, big_endian, milliseconds};
use crate::netlink::message::Request;

/// `NFT_REG_VERDICT` and `NFT_REG_1`, which is 16 bytes wide.
const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;

/// `NFTA_LIST_ELEM`, `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`, `NFTA_VERDICT_CODE`.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
/// `NF_DROP`, `NF_ACCEPT`.
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// `NFT_META_*`.
const META_IN_NAME: u32 = 6;
const META_OUT_NAME: u32 = 7;
const META_PROTOCOL: u32 = 16;
/// `NFT_PAYLOAD_*_HEADER`.
const BASE_NETWORK: u32 = 1;
const BASE_TRANSPORT: u32 = 2;
/// Of the IPv4 header.
const SOURCE_OFFSET: u32 = 12;
const DESTINATION_OFFSET: u32 = 16;
/// `IFNAMSIZ`: names are compared with their padding.
const NAME_LEN: usize = 16;
const ICMP: u8 = 1;

/// `NF_NAT_RANGE_*` of linux/netfilter/nf_nat.h.
const PORTS_GIVEN: u32 = 1 << 1;
const RANDOM: u32 = 1 << 2;
const PERSISTENT: u32 = 1 << 3;
const FULLY_RANDOM: u32 = 1 << 4;

/// What a packet must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match<'a> {
    /// It came in by this device.
    InDevice(&'a str),
    /// It goes out by this device.
    OutDevice(&'a str),
    /// It is of this protocol (17 is UDP).
    Protocol(u8),
    /// It is an ICMP message of this type.
    IcmpType(u8),
    /// Its source is in the set.
    SourceIn(&'a str),
    /// It comes from this address.
    Source(Ipv4Addr),
    /// It goes to this address.
    Destination(Ipv4Addr),
    /// It goes to this port; after [`Protocol`](Self::Protocol), which says that there are ports.
    DestinationPort(u16),
}

/// How masquerading chooses the outside port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortChoice {
    /// The inside port where it is free: what the kernel does unless told.
    Keep,
    /// The same, with the flag `persistent`.
    Persistent,
    /// With the flag `random`.
    Random,
    /// With the flag `fully-random`.
    FullyRandom,
    /// The next of these for each new flow.
    Count(RangeInclusive<u16>),
}

/// What is done with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// It is dropped.
    Drop,
    /// It passes; further rules of the chain are not asked.
    Accept,
    /// The flow gets the address of the device it leaves by.
    Masquerade(PortChoice),
    /// The flow goes to this address instead.
    SendTo(Ipv4Addr),
    /// Its destination is put into the set, or stays in it for another while; further rules decide.
    RememberDestination {
        /// The name of the set.
        set: &'a str,
        /// For how long.
        timeout: Duration,
    },
}

impl Match<'_> {
    pub(super) fn encode(&self, list: Request) -> Request {
        match *self {
            Self::InDevice(name) => compare(load_meta(list, META_IN_NAME), &padded_name(name)),
            Self::OutDevice(name) => compare(load_meta(list, META_OUT_NAME), &padded_name(name)),
            Self::Protocol(number) => compare(load_meta(list, META_PROTOCOL), &[number]),
            Self::IcmpType(number) => {
                let list = compare(load_meta(list, META_PROTOCOL), &[ICMP]);
                compare(load_payload(list, BASE_TRANSPORT, 0, 1), &[number])
            }
            Self::SourceIn(set) => {
                let list = load_payload(list, BASE_NETWORK, SOURCE_OFFSET, 4);
                expression(list, "lookup", |data| {
                    // NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG.
                    big_endian(data.text(1, set), 2, REGISTER)
                })
            }
            Self::Source(address) => compare(
                load_payload(list, BASE_NETWORK, SOURCE_OFFSET, 4),
                &address.octets(),
            ),
            // RFC 768: the second two bytes.
            Self::DestinationPort(port) => compare(
                load_payload(list, BASE_TRANSPORT, 2, 2),
                &port.to_be_bytes(),
            ),
            Self::Destination(address) => compare(
                load_payload(list, BASE_NETWORK, DESTINATION_OFFSET, 4),
                &address.octets(),
            ),
        }
    }
}

impl Action<'_> {
    pub(super) fn encode(&self, list: Request) -> Request {
        match self {
            Self::Drop => verdict(list, DROP),
            Self::Accept => verdict(list, ACCEPT),
            Self::Masquerade(choice) => masquerade(list, choice),
            Self::SendTo(address) => {
                let list = expression(list, "immediate", |data| {
                    let data = big_endian(data, 1, REGISTER);
                    data.nested(2, |value| value.attribute(DATA_VALUE, &address.octets()))
                });
                // NFTA_NAT_TYPE (1 is destination), NFTA_NAT_FAMILY, NFTA_NAT_REG_ADDR_MIN.
                expression(list, "nat", |data| {
                    numbers(data, &[(1, 1), (2, FAMILY_IPV4.into()), (3, REGISTER)])
                })
            }
            Self::RememberDestination { set, timeout } => {
                let list = load_payload(list, BASE_NETWORK, DESTINATION_OFFSET, 4);
                expression(list, "dynset", |data| {
                    // NFTA_DYNSET_SET_NAME, _OP (1 is update), _SREG_KEY, _TIMEOUT.
                    numbers(data.text(1, set), &[(3, 1), (4, REGISTER)])
                        .attribute(6, &milliseconds(*timeout))
                })
            }
        }
    }
}

fn masquerade(list: Request, choice: &PortChoice) -> Request {
    // NFTA_MASQ_FLAGS, NFTA_MASQ_REG_PROTO_MIN.
    let flags = |list, flags| expression(list, "masq", |data| numbers(data, &[(1, flags)]));
    match choice {
        PortChoice::Keep => expression(list, "masq", |data| data),
        PortChoice::Persistent => flags(list, PERSISTENT),
        PortChoice::Random => flags(list, RANDOM),
        PortChoice::FullyRandom => flags(list, FULLY_RANDOM),
        PortChoice::Count(ports) => {
            let (first, count) = (u32::from(*ports.start()), ports.len() as u32);
            // NFTA_NG_DREG, _MODULUS, _TYPE (0 is counting up), _OFFSET.
            let list = expression(list, "numgen", |data| {
                numbers(data, &[(1, REGISTER), (2, count), (3, 0), (4, first)])
            });
            // NFTA_BYTEORDER_SREG, _DREG, _OP (1 is to network order), _LEN, _SIZE.
            let list = expression(list, "byteorder", |data| {
                numbers(
                    data,
                    &[(1, REGISTER), (2, REGISTER), (3, 1), (4, 2), (5, 2)],
                )
            });
            expression(list, "masq", |data| {
                numbers(data, &[(1, PORTS_GIVEN), (2, REGISTER)])
            })
        }
    }
}

fn verdict(list: Request, code: u32) -> Request {
    // NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA.
    expression(list, "immediate", |data| {
        big_endian(data, 1, REGISTER_VERDICT).nested(2, |value| {
            value.nested(DATA_VERDICT, |verdict| {
                big_endian(verdict, VERDICT_CODE, code)
            })
        })
    })
}

fn load_meta(list: Request, key: u32) -> Request {
    // NFTA_META_DREG, NFTA_META_KEY.
    expression(list, "meta", |data| {
        numbers(data, &[(1, REGISTER), (2, key)])
    })
}

fn load_payload(list: Request, base: u32, offset: u32, len: u32) -> Request {
    // NFTA_PAYLOAD_DREG, _BASE, _OFFSET, _LEN.
    expression(list, "payload", |data| {
        numbers(data, &[(1, REGISTER), (2, base), (3, offset), (4, len)])
    })
}

fn compare(list: Request, value: &[u8]) -> Request {
    // NFTA_CMP_SREG, NFTA_CMP_OP (0 is equal), NFTA_CMP_DATA.
    expression(list, "cmp", |data| {
        numbers(data, &[(1, REGISTER), (2, 0)]).nested(3, |data| data.attribute(DATA_VALUE, value))
    })
}

fn expression(list: Request, name: &str, fill: impl FnOnce(Request) -> Request) -> Request {
    list.nested(LIST_ELEMENT, |element| {
        element
            .text(EXPRESSION_NAME, name)
            .nested(EXPRESSION_DATA, fill)
    })
}

fn numbers(data: Request, values: &[(u16, u32)]) -> Request {
    values
        .iter()
        .fold(data, |data, (kind, value)| big_endian(data, *kind, *value))
}

fn padded_name(name: &str) -> [u8; NAME_LEN] {
    let mut padded = [0; NAME_LEN];
    let len = name.len().min(NAME_LEN - 1);
    padded[..len].copy_from_slice(&name.as_bytes()[..len]);
    padded
}
