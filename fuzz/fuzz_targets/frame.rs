//! A datagram as a stranger may send it: header of a sealed frame, inner frame, probe, envelope of a
//! relay, IP packet, beacon on the local network.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shadowmesh_crypto::LanBeacon;
use shadowmesh_wire::PeerId;
use shadowmesh_wire::beacon::{self, Beacon};
use shadowmesh_wire::envelope::{self, LABEL_LEN};
use shadowmesh_wire::inner::InnerType;
use shadowmesh_wire::ip::IpPacket;
use shadowmesh_wire::probe::Probe;
use shadowmesh_wire::sealed::{self, HEADER_LEN};
use shadowmesh_wire::way::{Label, Way};

fuzz_target!(|datagram: &[u8]| {
    header(datagram);
    inner(datagram);
    beacon(datagram);
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
        Ok(InnerType::RelayEnvelope | InnerType::Relayed) => passed_on(frame, body),
        _ => {}
    }
}

/// A relay changes the type and the label, and nothing else.
fn passed_on(frame: &[u8], body: &[u8]) {
    let Some((to, datagram)) = envelope::decode(body) else {
        assert!(body.len() < LABEL_LEN);
        return;
    };
    let from = Label(!to.0);
    let mut passed = frame.to_vec();
    assert!(envelope::readdress(&mut passed, from));
    assert_eq!(passed[0], u8::from(InnerType::Relayed));
    assert_eq!(envelope::decode(&passed[1..]), Some((from, datagram)));
    for way in [Way::Relayed { slot: 1, label: to }, Way::Stream(to.0)] {
        assert_eq!(Way::of(way.address()), way);
    }
}

fn beacon(datagram: &[u8]) {
    let Some(heard) = Beacon::parse(datagram) else {
        let kind = datagram.first().copied().unwrap_or_default();
        assert!(datagram.len() != beacon::LEN || !(0x10..=0x12).contains(&kind));
        return;
    };
    assert_eq!(heard.to_bytes(), datagram);
    let [known, other] = [7, 8].map(|byte| LanBeacon::of(&PeerId::from_bytes([byte; 32])));
    // Sixteen bytes of HMAC are not found by chance.
    assert_eq!(known.open(&heard), None);
    let port = u16::from_be_bytes(heard.port);
    let said = known.make(port, heard.nonce);
    assert_eq!((known.open(&said), other.open(&said)), (Some(port), None));
}
