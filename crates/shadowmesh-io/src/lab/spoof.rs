//! UDP datagrams that claim any source address, at a given rate: what an attacker off the path
//! can send. Only for networks of our own making.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::checksum;
use crate::sys;

const IP_HEADER_LEN: usize = 20;
const UDP_HEADER_LEN: usize = 8;
const UDP: u8 = 17;

/// How long the sender sleeps between bursts: short enough that a burst at 50,000/s is 50
/// datagrams, long enough that sleeping is cheaper than spinning.
const TICK: Duration = Duration::from_millis(1);

/// A bounded flood.
#[derive(Debug, Clone, Copy)]
pub struct SpoofedFlood {
    /// Where to.
    pub destination: SocketAddrV4,
    /// Datagrams per second.
    pub rate: u32,
    /// For how long.
    pub duration: Duration,
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FloodReport {
    /// Datagrams the kernel took.
    pub sent: u64,
    /// Datagrams it refused because a queue was full.
    pub refused: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl SpoofedFlood {
    /// Sends from the calling thread (and its namespace) until the time is over or `stop` is
    /// set. For each datagram, `make` gets its number and an empty payload to fill, and returns
    /// the source to claim. Behind its rate it catches up, so the number sent is exact where the
    /// machine can do it at all; after twice the duration it gives up.
    pub fn run(
        &self,
        stop: &AtomicBool,
        mut make: impl FnMut(u64, &mut Vec<u8>) -> SocketAddrV4,
    ) -> io::Result<FloodReport> {
        // IPPROTO_RAW: the packet brings its own IP header.
        let socket = sys::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
        let mut address: libc::sockaddr_in = sys::zeroed_address(libc::AF_INET);
        address.sin_addr.s_addr = u32::from_ne_bytes(self.destination.ip().octets());
        let total = (u128::from(self.rate) * self.duration.as_nanos() / 1_000_000_000) as u64;
        let (mut report, mut number) = (FloodReport::default(), 0);
        let (mut payload, mut packet) = (Vec::new(), Vec::new());
        let start = Instant::now();
        let give_up = self.duration * 2;
        while number < total && start.elapsed() < give_up && !stop.load(Ordering::Relaxed) {
            let due = u128::from(self.rate) * start.elapsed().as_nanos() / 1_000_000_000;
            // At most one tenth of a second's worth before looking at the clock and `stop` again.
            let burst = number + u64::from(self.rate / 10).max(1);
            while number < total.min(due as u64).min(burst) {
                payload.clear();
                let source = make(number, &mut payload);
                write_packet(
                    &mut packet,
                    source,
                    self.destination,
                    number as u16,
                    &payload,
                );
                match sys::send_to(&socket, &packet, &address) {
                    Ok(_) => report.sent += 1,
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                        report.refused += 1;
                    }
                    Err(error) => return Err(error),
                }
                number += 1;
            }
            std::thread::sleep(TICK);
        }
        report.elapsed = start.elapsed();
        Ok(report)
    }
}

/// Builds the whole IP packet; the kernel fills the IP checksum and nothing else.
fn write_packet(
    packet: &mut Vec<u8>,
    source: SocketAddrV4,
    destination: SocketAddrV4,
    id: u16,
    payload: &[u8],
) {
    let udp_len = (UDP_HEADER_LEN + payload.len()) as u16;
    packet.clear();
    packet.extend_from_slice(&[0x45, 0]);
    packet.extend_from_slice(&(IP_HEADER_LEN as u16 + udp_len).to_be_bytes());
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(&[0x40, 0, 64, UDP, 0, 0]);
    packet.extend_from_slice(&source.ip().octets());
    packet.extend_from_slice(&destination.ip().octets());
    packet.extend_from_slice(&source.port().to_be_bytes());
    packet.extend_from_slice(&destination.port().to_be_bytes());
    packet.extend_from_slice(&udp_len.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    let sum = udp_checksum(*source.ip(), *destination.ip(), &packet[IP_HEADER_LEN..]);
    packet[IP_HEADER_LEN + 6..IP_HEADER_LEN + 8].copy_from_slice(&sum.to_be_bytes());
}

/// The UDP checksum (RFC 768) of a datagram whose own checksum field is zero.
fn udp_checksum(source: Ipv4Addr, destination: Ipv4Addr, datagram: &[u8]) -> u16 {
    let length = (datagram.len() as u16).to_be_bytes();
    let pseudo = [0, UDP, length[0], length[1]];
    match !checksum::sum(&[&source.octets(), &destination.octets(), &pseudo, datagram]) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spoofed_datagram_has_the_claimed_source_and_a_checksum_that_verifies() {
        let mut packet = Vec::new();
        let source = "203.0.113.7:5555".parse().unwrap();
        let destination = "10.0.0.1:4433".parse().unwrap();
        write_packet(&mut packet, source, destination, 1, b"odd");
        assert_eq!(packet.len(), 31);
        assert_eq!(packet[12..16], [203, 0, 113, 7]);
        let datagram = &packet[IP_HEADER_LEN..];
        let pseudo = [0, UDP, 0, datagram.len() as u8];
        let sum = checksum::sum(&[&packet[12..16], &packet[16..20], &pseudo, datagram]);
        assert_eq!(sum, 0xffff);
    }
}
