//! MSS clamping: what a TCP handshake says of segment sizes, lowered to what the way takes.
//!
//! [`clamp`] looks at SYN and SYN-ACK only. An MSS option (RFC 9293 §3.7.1) that is larger than the
//! path's packets less the headers is overwritten and the checksum corrected by what changed
//! (RFC 1624), so that a wrong checksum stays wrong; everything else stays as it is. A handshake
//! without the option already means 536 (IPv4) or 1220 (IPv6) and gets none.

use crate::checksum;
use crate::ip::{IPV4_HEADER_LEN_MIN, IPV6_HEADER_LEN, IpPacket, IpVersion, PROTOCOL_TCP};

/// Bytes of a TCP header without options.
const TCP_HEADER_LEN_MIN: usize = 20;
const TCP_CHECKSUM_AT: usize = 16;
const SYN: u8 = 0x02;
/// Option kinds.
const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: u8 = 4;

/// Lowers the MSS of a TCP handshake so that its segments make packets of at most `inner_len_max`
/// bytes. Says whether anything was changed. The checksum must be a finished one.
// PROTOCOL SM-MT-6
pub fn clamp(packet: &mut [u8], inner_len_max: usize) -> bool {
    let Some((at, tcp_at, mss)) = find_mss(packet) else {
        return false;
    };
    let headers = TCP_HEADER_LEN_MIN
        + match packet[0] >> 4 {
            4 => IPV4_HEADER_LEN_MIN,
            _ => IPV6_HEADER_LEN,
        };
    let most = inner_len_max
        .saturating_sub(headers)
        .min(usize::from(u16::MAX)) as u16;
    if mss <= most {
        return false;
    }
    // At an odd offset the option's two bytes lie in two words of the sum.
    let odd = (at - tcp_at) % 2 == 1;
    let in_sum = |value: u16| if odd { value.swap_bytes() } else { value };
    let checksum_at = tcp_at + TCP_CHECKSUM_AT;
    let old = u16::from_be_bytes([packet[checksum_at], packet[checksum_at + 1]]);
    // RFC 1624 equation 3: HC' = ~(~HC + ~m + m').
    let sum = u64::from(!old) + u64::from(!in_sum(mss)) + u64::from(in_sum(most));
    packet[at..at + 2].copy_from_slice(&most.to_be_bytes());
    packet[checksum_at..checksum_at + 2].copy_from_slice(&(!checksum::fold(sum)).to_be_bytes());
    true
}

/// Where the MSS of a handshake stands, where its TCP header begins, and what it says.
fn find_mss(packet: &[u8]) -> Option<(usize, usize, u16)> {
    let view = IpPacket::parse(packet).ok()?;
    // Cheap and mostly final: no handshake is longer than a few options.
    if view.version() == IpVersion::V4 && view.protocol() != PROTOCOL_TCP {
        return None;
    }
    let transport = view.transport()?;
    if transport.protocol != PROTOCOL_TCP {
        return None;
    }
    let tcp = view.as_bytes().get(transport.at..)?;
    if tcp.len() < TCP_HEADER_LEN_MIN || tcp[13] & SYN == 0 {
        return None;
    }
    let header_len = usize::from(tcp[12] >> 4) * 4;
    let options = tcp.get(TCP_HEADER_LEN_MIN..header_len)?;
    let mut at = 0;
    while at < options.len() {
        match (options[at], options.get(at + 1).copied()) {
            (END, _) => return None,
            (NOP, _) => at += 1,
            (MSS, Some(MSS_LEN)) => {
                let value = options.get(at + 2..at + 4)?;
                let value_at = transport.at + TCP_HEADER_LEN_MIN + at + 2;
                return Some((
                    value_at,
                    transport.at,
                    u16::from_be_bytes([value[0], value[1]]),
                ));
            }
            (_, Some(len)) if len >= 2 => at += usize::from(len),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A TCP packet with these options and a right checksum.
    fn tcp(v6: bool, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), END);
        let mut segment = vec![0x11; TCP_HEADER_LEN_MIN];
        segment[12] = (((TCP_HEADER_LEN_MIN + options.len()) / 4) << 4) as u8;
        segment[13] = flags;
        segment[16..18].fill(0);
        segment.extend(&options);
        segment.extend(payload);
        let mut packet = if v6 {
            let mut header = vec![0; 40];
            header[0] = 0x60;
            header[4..6].copy_from_slice(&(segment.len() as u16).to_be_bytes());
            header[6] = PROTOCOL_TCP;
            header[8..40].fill(0x3d);
            header
        } else {
            let mut header = vec![0; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&((20 + segment.len()) as u16).to_be_bytes());
            header[9] = PROTOCOL_TCP;
            header[12..20].fill(0x3d);
            header
        };
        let at = packet.len();
        packet.extend(segment);
        let sum = !sum_of(&packet, at);
        packet[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn sum_of(packet: &[u8], at: usize) -> u16 {
        let version = if packet[0] >> 4 == 4 {
            IpVersion::V4
        } else {
            IpVersion::V6
        };
        let segment = &packet[at..];
        let pseudo = checksum::pseudo_header(version, packet, PROTOCOL_TCP);
        checksum::fold(pseudo + segment.len() as u64 + u64::from(checksum::sum(segment)))
    }

    fn some_option() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            Just(vec![NOP]),
            Just(vec![4, 2]),
            any::<u8>().prop_map(|shift| vec![3, 3, shift]),
            proptest::collection::vec(any::<u8>(), 8).prop_map(|mut time| {
                time.splice(0..0, [8, 10]);
                time
            }),
        ]
    }

    proptest! {
        // PROTOCOL SM-MT-6
        #[test]
        fn the_mss_is_lowered_wherever_it_stands_and_the_checksum_stays_right(
            v6: bool, ack: bool, mss: u16, inner_len_max in 518usize..9000,
            before in proptest::collection::vec(some_option(), 0..3),
            after in proptest::collection::vec(some_option(), 0..2),
            payload in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let mut options: Vec<u8> = before.concat();
            let at = options.len();
            options.extend([MSS, MSS_LEN]);
            options.extend(mss.to_be_bytes());
            options.extend(after.concat());
            prop_assume!(options.len() <= 40);
            let flags = if ack { SYN | 0x10 } else { SYN };
            let original = tcp(v6, flags, &options, &payload);
            let mut packet = original.clone();
            let header = if v6 { 40 } else { 20 };
            let most = (inner_len_max - header - 20) as u16;
            prop_assert_eq!(clamp(&mut packet, inner_len_max), mss > most);
            prop_assert_eq!(sum_of(&packet, header), 0xffff);
            let mut expected = original;
            let value_at = header + 20 + at + 2;
            expected[value_at..value_at + 2].copy_from_slice(&mss.min(most).to_be_bytes());
            let sum_at = header + 16;
            expected[sum_at..sum_at + 2].copy_from_slice(&packet[sum_at..sum_at + 2]);
            prop_assert_eq!(&packet, &expected, "nothing else changed");
            prop_assert!(!clamp(&mut packet, inner_len_max), "once is enough");
        }

        // PROTOCOL SM-MT-6
        #[test]
        fn a_wrong_checksum_stays_wrong(v6: bool, by in 1u16..0xffff) {
            let mut packet = tcp(v6, SYN, &[MSS, MSS_LEN, 0x20, 0x20], &[]);
            let header = if v6 { 40 } else { 20 };
            let at = header + 16;
            let wrong = u16::from_be_bytes([packet[at], packet[at + 1]]).wrapping_add(by);
            packet[at..at + 2].copy_from_slice(&wrong.to_be_bytes());
            prop_assume!(sum_of(&packet, header) != 0xffff);
            prop_assert!(clamp(&mut packet, 1300));
            prop_assert_ne!(sum_of(&packet, header), 0xffff);
        }

        #[test]
        fn any_options_are_judged_without_panic(
            v6: bool, options in proptest::collection::vec(any::<u8>(), 0..=40), flags: u8,
        ) {
            let mut packet = tcp(v6, flags, &options, &[]);
            let changed = clamp(&mut packet, 600);
            prop_assert!(!changed || flags & SYN != 0);
            if changed {
                prop_assert_eq!(sum_of(&packet, if v6 { 40 } else { 20 }), 0xffff);
            }
        }

        #[test]
        fn any_bytes_are_judged_without_panic(mut bytes: Vec<u8>) {
            clamp(&mut bytes, 600);
        }
    }

    #[test]
    fn segments_that_begin_nothing_are_left_alone() {
        let options = [MSS, MSS_LEN, 0x20, 0x20];
        let mut data = tcp(false, 0x10, &options, b"data");
        assert!(!clamp(&mut data, 600));
        let mut udp = tcp(false, SYN, &options, &[]);
        udp[9] = 17;
        assert!(!clamp(&mut udp, 600));
    }
}
