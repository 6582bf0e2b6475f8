//! "Too big": the ICMP message that tells a sender how long its packets may be.
//!
//! IPv4: destination unreachable, fragmentation needed and DF set, with the next hop's MTU (RFC 792,
//! RFC 1191 §4). IPv6: packet too big (RFC 4443 §3.2). [`too_big`] makes the message or says why
//! there is none to be made: not for IPv4 packets that may be fragmented, and never in answer to what
//! ICMP must not answer (RFC 1122 §3.2.2, RFC 4443 §2.4): ICMP errors, fragments but the first,
//! packets to or from other than one host.
//!
//! The message claims to come from the packet's own destination. It is written to the device, behind
//! which the sender's kernel stands: an address of ours would look to it like its own and be refused
//! as a martian, and any other would not pass a reverse path filter; the destination is routed to the
//! very device it comes from. Kernels judge the message by the packet it quotes, not by who sent it.

use std::net::IpAddr;

use crate::checksum;
use crate::ip::{IPV4_HEADER_LEN_MIN, IPV6_HEADER_LEN, IpPacket, IpVersion};

/// IP protocol numbers.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Bytes of the ICMP header of both messages.
const ICMP_HEADER_LEN: usize = 8;
/// Longest message: RFC 1812 §4.3.2.3, and the smallest IPv6 MTU (RFC 4443 §2.4 c).
const LEN_MAX_V4: usize = 576;
const LEN_MAX_V6: usize = 1280;
/// No IPv6 link is smaller (RFC 8200 §5), and hosts do not believe who says so.
pub const IPV6_MTU_MIN: usize = 1280;
const HOP_LIMIT: u8 = 64;
/// DF in the flags and fragment offset field.
const DF: u8 = 0x40;

/// The message for the sender of `packet`, which should not be longer than `mtu`. `None` where none
/// is due, or where the packet is not longer than what may be said.
// PROTOCOL SM-MT-5
pub fn too_big(packet: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let packet = IpPacket::parse(packet).ok()?;
    if !is_one_host(packet.source()) || !is_one_host(packet.destination()) {
        return None;
    }
    if answers_nothing(&packet) {
        return None;
    }
    match packet.version() {
        IpVersion::V4 => {
            let may_fragment = packet.as_bytes()[6] & DF == 0;
            (!may_fragment && packet.total_len() > mtu).then(|| v4(&packet, mtu))
        }
        IpVersion::V6 => {
            let mtu = mtu.max(IPV6_MTU_MIN);
            (packet.total_len() > mtu).then(|| v6(&packet, mtu))
        }
    }
}

fn is_one_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_multicast() && !address.is_unspecified() && !address.is_loopback() && !broadcast
}

/// Fragments but the first, and ICMP errors.
fn answers_nothing(packet: &IpPacket<'_>) -> bool {
    let Some(transport) = packet.transport() else {
        return true;
    };
    let kind = packet.as_bytes().get(transport.at).copied();
    match (packet.version(), transport.protocol) {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (IpVersion::V4, ICMP) => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        // Errors have numbers below 128; a redirect is to be answered no more than they are.
        (IpVersion::V6, ICMPV6) => kind.is_none_or(|kind| kind < 128 || kind == 137),
        _ => false,
    }
}

fn v4(packet: &IpPacket<'_>, mtu: usize) -> Vec<u8> {
    let head = IPV4_HEADER_LEN_MIN + ICMP_HEADER_LEN;
    let quote = packet.as_bytes();
    let quote = &quote[..quote.len().min(LEN_MAX_V4 - head)];
    let mut out = vec![0; head];
    out.extend_from_slice(quote);
    let total = out.len() as u16;
    out[0] = 0x45;
    // Precedence "internetwork control", as RFC 1812 §4.3.2.5 has it for errors.
    out[1] = 0xc0;
    out[2..4].copy_from_slice(&total.to_be_bytes());
    out[8] = HOP_LIMIT;
    out[9] = ICMP;
    // From its destination to its source.
    out[12..16].copy_from_slice(&quote[16..20]);
    out[16..20].copy_from_slice(&quote[12..16]);
    let sum = !checksum::sum(&out[..IPV4_HEADER_LEN_MIN]);
    out[10..12].copy_from_slice(&sum.to_be_bytes());
    let message = &mut out[IPV4_HEADER_LEN_MIN..];
    message[..2].copy_from_slice(&[3, 4]);
    message[6..8].copy_from_slice(&(mtu.min(usize::from(u16::MAX)) as u16).to_be_bytes());
    let sum = !checksum::sum(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    out
}

fn v6(packet: &IpPacket<'_>, mtu: usize) -> Vec<u8> {
    let head = IPV6_HEADER_LEN + ICMP_HEADER_LEN;
    let quote = packet.as_bytes();
    let quote = &quote[..quote.len().min(LEN_MAX_V6 - head)];
    let mut out = vec![0; head];
    out.extend_from_slice(quote);
    let len = out.len() - IPV6_HEADER_LEN;
    out[0] = 0x60;
    out[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    out[6] = ICMPV6;
    out[7] = HOP_LIMIT;
    out[8..24].copy_from_slice(&quote[24..40]);
    out[24..40].copy_from_slice(&quote[8..24]);
    let pseudo = checksum::pseudo_header(IpVersion::V6, &out, ICMPV6) + len as u64;
    let message = &mut out[IPV6_HEADER_LEN..];
    message[0] = 2;
    message[4..8].copy_from_slice(&(mtu as u32).to_be_bytes());
    let sum = !checksum::fold(pseudo + u64::from(checksum::sum(message)));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(v6: bool, protocol: u8, len: usize) -> Vec<u8> {
        let mut packet = vec![0x5a; len];
        if v6 {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            packet[6] = protocol;
            packet[8..24].copy_from_slice(&[0xfd; 16]);
            packet[24..40].copy_from_slice(&[0xfc; 16]);
        } else {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            packet[6..8].copy_from_slice(&[DF, 0]);
            packet[9] = protocol;
            packet[12..20].copy_from_slice(&[10, 100, 1, 2, 10, 100, 3, 4]);
        }
        packet
    }

    /// What a host checks before it believes the message.
    fn judge(message: &[u8], about: &[u8]) -> usize {
        let outer = IpPacket::parse(message).expect("an IP packet");
        let quoted = IpPacket::parse(about).expect("an IP packet");
        assert_eq!(
            (outer.source(), outer.destination()),
            (quoted.destination(), quoted.source())
        );
        let body = outer.payload();
        let quote = &body[ICMP_HEADER_LEN..];
        assert_eq!(quote, &about[..quote.len()]);
        match outer.version() {
            IpVersion::V4 => {
                assert_eq!(checksum::sum(&message[..20]), 0xffff);
                assert_eq!(checksum::sum(body), 0xffff);
                assert_eq!((outer.protocol(), body[0], body[1]), (ICMP, 3, 4));
                assert!(message.len() <= LEN_MAX_V4);
                // RFC 792: the IP header and eight bytes at least.
                assert!(quote.len() >= quoted.header_len() + 8);
                usize::from(u16::from_be_bytes([body[6], body[7]]))
            }
            IpVersion::V6 => {
                let pseudo = checksum::pseudo_header(IpVersion::V6, message, ICMPV6);
                let sum = pseudo + body.len() as u64 + u64::from(checksum::sum(body));
                assert_eq!(checksum::fold(sum), 0xffff);
                assert_eq!((outer.protocol(), body[0], body[1]), (ICMPV6, 2, 0));
                assert!(message.len() <= LEN_MAX_V6);
                u32::from_be_bytes([body[4], body[5], body[6], body[7]]) as usize
            }
        }
    }

    proptest! {
        // PROTOCOL SM-MT-5
        #[test]
        fn a_message_is_well_formed_and_quotes_its_packet(
            v6: bool, protocol in prop_oneof![Just(6u8), Just(17), Just(132)],
            len in 600usize..9000, mtu in 518usize..9000,
        ) {
            let about = packet(v6, protocol, len);
            let said = if v6 { mtu.max(IPV6_MTU_MIN) } else { mtu };
            match too_big(&about, mtu) {
                Some(message) => prop_assert_eq!(judge(&message, &about), said),
                None => prop_assert!(len <= said),
            }
        }

        #[test]
        fn any_bytes_are_judged_without_panic_and_every_answer_is_well_formed(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool, mtu in 0usize..2000,
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x40 | (*first & 0x0f) };
            }
            if let Some(message) = too_big(&bytes, mtu) {
                prop_assert!(IpPacket::parse(&message).is_ok());
            }
        }
    }

    // PROTOCOL SM-MT-5
    #[test]
    fn packets_that_may_be_fragmented_and_errors_and_later_fragments_and_groups_get_none() {
        let good = packet(false, 17, 1400);
        assert!(too_big(&good, 1300).is_some());
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = good.clone();
            change(&mut packet);
            too_big(&packet, 1300)
        };
        assert_eq!(changed(&|p| p[6] = 0), None, "no DF");
        assert_eq!(changed(&|p| p[7] = 1), None, "a later fragment");
        assert_eq!(changed(&|p| p[16] = 224), None, "to a group");
        assert_eq!(changed(&|p| p[12..16].fill(0)), None, "from nobody");
        let mut error = packet(false, ICMP, 1400);
        error[20] = 3;
        assert_eq!(too_big(&error, 1300), None);
        error[20] = 8;
        assert!(
            too_big(&error, 1300).is_some(),
            "an echo request is no error"
        );

        let good = packet(true, 17, 1400);
        assert!(too_big(&good, 1300).is_some());
        let mut error = packet(true, ICMPV6, 1400);
        error[40] = 2;
        assert_eq!(too_big(&error, 1300), None);
        error[40] = 128;
        assert!(too_big(&error, 1300).is_some());
        let mut fragment = packet(true, 44, 1400);
        fragment[40..44].copy_from_slice(&[17, 0, 0, 0]);
        assert!(too_big(&fragment, 1300).is_some(), "the first");
        fragment[43] = 8;
        assert_eq!(too_big(&fragment, 1300), None, "the second");
        let mut group = good.clone();
        group[24] = 0xff;
        assert_eq!(too_big(&group, 1300), None);
    }

    // PROTOCOL SM-MT-5
    #[test]
    fn ipv6_is_never_told_less_than_1280() {
        assert_eq!(too_big(&packet(true, 6, 1280), 518), None);
        let about = packet(true, 6, 1281);
        assert_eq!(judge(&too_big(&about, 518).unwrap(), &about), 1280);
        let about = packet(false, 6, 1281);
        assert_eq!(judge(&too_big(&about, 518).unwrap(), &about), 518);
    }
}
