//! A datagram as a stranger may send it: header of a sealed frame, inner frame, probe, IP packet.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::ip::IpPacket;
use shadowmesh_wire::probe::Probe;
use shadowmesh_wire::sealed::{self, HEADER_LEN};

fuzz_target!(|datagram: &[u8]| {
    header(datagram);
    inner(datagram);
});

fn header(datagram: &[u8]) {
    let long = sealed::is_long_header(datagram);
    let index = sealed::receiver_index(datagram);
    assert!(!(long && index.is_some()), "a datagram is of one kind");
    let Some(header) = datagram.first_chunk::<HEADER_LEN>() else {
        assert!(index.is_none());
        return;
    };
    let Some(read) = sealed::read_header(header) else {
        return;
    };
    let mut written = [0; HEADER_LEN];
    sealed::write_header(
        &mut written,
        read.phase,
        read.index,
        u64::from(read.counter_low),
    );
    assert_eq!(
        sealed::read_header(&written),
        Some(read),
        "what is read can be written"
    );
}

fn inner(frame: &[u8]) {
    let Some((kind, body)) = frame.split_first() else {
        return;
    };
    match InnerType::try_from(*kind) {
        Ok(InnerType::Probe) => {
            if let Ok(probe) = Probe::decode(body) {
                assert_eq!(Probe::decode(&probe.encode()), Ok(probe));
            }
        }
        Ok(InnerType::IpPacket) => {
            if let Ok(packet) = IpPacket::parse(body) {
                assert!(
                    packet.total_len() <= body.len(),
                    "a view stays inside its bytes"
                );
                assert_eq!(
                    packet.header_len() + packet.payload().len(),
                    packet.total_len()
                );
                assert_eq!(packet.source().is_ipv4(), packet.destination().is_ipv4());
            }
        }
        _ => {}
    }
}
