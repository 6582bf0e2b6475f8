//! Policy rules: which routing table a packet is looked up in (ip-rule(8)), as the kernel writes them.
//!
//! Of the many things a rule may ask for, those are known by name that our own rules need; of a foreign
//! rule also whether it takes every packet that carries no mark, because then it decides before all
//! rules that come after it.

use super::message::{Request, attributes, u32_at};
use super::{Rule, TABLE_LOCAL};

/// Attributes of linux/fib_rules.h.
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
pub(super) const INPUT_DEVICE: u16 = 3;
pub(super) const PRIORITY: u16 = 6;
const MARK: u16 = 10;
const L3_DOMAIN: u16 = 19;
const TABLE: u16 = 15;
const MARK_MASK: u16 = 16;
const OUTPUT_DEVICE: u16 = 17;
const USERS: u16 = 20;
const PROTOCOL: u16 = 21;
const IP_PROTOCOL: u16 = 22;
const SOURCE_PORTS: u16 = 23;
const DESTINATION_PORTS: u16 = 24;

/// `FR_ACT_TO_TBL` and `FR_ACT_BLACKHOLE`.
const LOOK_UP: u8 = 1;
pub(super) const BLACKHOLE: u8 = 6;
/// `FIB_RULE_INVERT`: everything that does not match.
const INVERTED: u32 = 2;

/// `struct fib_rule_hdr`: family, prefix lengths, TOS, table, two reserved, action, flags.
pub(super) fn rule_header(ipv6: bool, action: u8, flags: u32) -> [u8; 12] {
    let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    let mut header = [family as u8, 0, 0, 0, 0, 0, 0, action, 0, 0, 0, 0];
    header[8..].copy_from_slice(&flags.to_ne_bytes());
    header
}

pub(super) fn rule_request(kind: u16, flags: u16, rule: &Rule) -> Request {
    let inverted = if rule.all_but_mark.is_some() {
        INVERTED
    } else {
        0
    };
    let header = rule_header(rule.ipv6, LOOK_UP, inverted);
    let mut request = Request::new(kind, flags, &header)
        .number(PRIORITY, rule.priority)
        .number(TABLE, rule.table)
        .attribute(PROTOCOL, &[rule.protocol]);
    if let Some(mark) = rule.all_but_mark.or(rule.only_mark) {
        request = request.number(MARK, mark).number(MARK_MASK, u32::MAX);
    }
    if let Some(port) = rule.own_udp_port {
        let [low, high] = port.to_ne_bytes();
        // What this host itself sends counts as coming in by its loopback device; so does the question
        // whether what came in may have come by that device (strict reverse path filtering).
        if rule.only_mark.is_none() {
            request = request.text(INPUT_DEVICE, "lo");
        }
        request = request
            .attribute(IP_PROTOCOL, &[libc::IPPROTO_UDP as u8])
            .attribute(SOURCE_PORTS, &[low, high, low, high]);
    }
    request
}

pub(super) fn parse_rule(body: &[u8]) -> Option<Rule> {
    let header = body.first_chunk::<12>()?;
    let ipv6 = match libc::c_int::from(header[0]) {
        libc::AF_INET => false,
        libc::AF_INET6 => true,
        _ => return None,
    };
    let inverted = u32_at(header, 8)? & INVERTED != 0;
    let mut rule = Rule {
        ipv6,
        priority: 0,
        table: u32::from(header[4]),
        all_but_mark: None,
        only_mark: None,
        own_udp_port: None,
        protocol: 0,
        takes_unmarked: false,
    };
    let (mut mark, mut chooses, mut udp) = (None, header[1] > 0 || header[2] > 0, false);
    for (kind, value) in attributes(&body[12..]) {
        match kind {
            PRIORITY => rule.priority = u32_at(value, 0)?,
            TABLE => rule.table = u32_at(value, 0)?,
            PROTOCOL => rule.protocol = *value.first()?,
            MARK => mark = u32_at(value, 0).filter(|mark| *mark != 0),
            IP_PROTOCOL => udp = value == [libc::IPPROTO_UDP as u8],
            SOURCE_PORTS => {
                let port = value.first_chunk::<2>()?;
                rule.own_udp_port = Some(u16::from_ne_bytes(*port));
            }
            _ => {}
        }
        chooses |= matches!(
            kind,
            DESTINATION
                | SOURCE
                | INPUT_DEVICE
                | OUTPUT_DEVICE
                | L3_DOMAIN
                | USERS
                | IP_PROTOCOL
                | SOURCE_PORTS
                | DESTINATION_PORTS
        );
    }
    rule.own_udp_port = rule.own_udp_port.filter(|_| udp && !inverted);
    rule.all_but_mark = mark.filter(|_| inverted && !chooses);
    rule.only_mark = mark.filter(|_| !inverted);
    let is_lookup = header[7] == LOOK_UP && rule.table != TABLE_LOCAL;
    rule.takes_unmarked = is_lookup && !chooses && mark.is_some() == inverted;
    Some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::ROUTE_PROTOCOL;
    use crate::netlink::message::messages;

    fn read_back(rule: &Rule) -> Rule {
        let bytes = rule_request(libc::RTM_NEWRULE, 0, rule).finish(1);
        parse_rule(messages(&bytes).next().unwrap().body).unwrap()
    }

    #[test]
    fn our_rules_read_back_as_they_were_written() {
        let all = Rule::all_but_mark(true, 5183, 70_001, 0x830);
        assert_eq!(read_back(&all), all);
        assert!(all.takes_unmarked);
        let port = Rule::own_udp_port(false, 5182, 254, 4433);
        assert_eq!(read_back(&port), port);
        let marked = Rule::marked_udp_port(false, 5182, 254, 4433, 0x830);
        assert_eq!(read_back(&marked), marked);
        assert!(!port.takes_unmarked && port.protocol == ROUTE_PROTOCOL);
    }

    #[test]
    fn a_rule_is_the_same_where_the_kernel_does_not_say_who_made_it() {
        let ours = Rule::all_but_mark(false, 5182, 8300, 0x830);
        let unsaid = Rule {
            protocol: 0,
            ..ours
        };
        assert_eq!(unsaid, ours);
        assert_ne!(
            unsaid,
            Rule {
                table: 8301,
                ..ours
            }
        );
    }

    #[test]
    fn a_rule_for_some_packets_only_does_not_take_the_unmarked() {
        let header = rule_header(false, LOOK_UP, 0);
        let plain = || Request::new(libc::RTM_NEWRULE, 0, &header).number(TABLE, 52);
        let parse = |request: Request| {
            let bytes = request.finish(1);
            parse_rule(messages(&bytes).next().unwrap().body).unwrap()
        };
        assert!(parse(plain()).takes_unmarked);
        assert!(!parse(plain().number(MARK, 7)).takes_unmarked);
        assert!(!parse(plain().text(INPUT_DEVICE, "eth0")).takes_unmarked);
        assert!(!parse(plain().attribute(L3_DOMAIN, &[1])).takes_unmarked);
        assert!(!parse(plain().number(TABLE, TABLE_LOCAL)).takes_unmarked);
    }
}
