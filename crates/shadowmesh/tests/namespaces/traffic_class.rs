//! DSCP and ECN across the tunnel, as the kernels on both sides write and read them.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use shadowmesh::lab::wiring::CABLE;
use shadowmesh::lab::{DEVICE, Family, LabNode};
use shadowmesh_io::lab::{Capture, Frame, MemorySink};
use shadowmesh_wire::traffic_class;
use socket2::SockRef;

use crate::support::{TestLab, in_lab};

/// Expedited forwarding (RFC 3246), and ECT(0) beside it.
const EF_ECT0: u8 = 46 << 2 | 0b10;
/// A length that no other datagram of the test has, inside or out.
const PAYLOAD_LEN: usize = 777;
/// IPv4 and UDP header inside, type byte, sealed header and tag around.
const SEALED_LEN: usize = PAYLOAD_LEN + 28 + 30;
const DATAGRAMS: usize = 5;
const CAPTURE_BYTES_MAX: usize = 1 << 22;

// PROTOCOL SM-TC-1
// PROTOCOL SM-TC-2
#[test]
fn expedited_forwarding_and_ect_arrive_and_stand_outside_too() {
    let name = "traffic_class::expedited_forwarding_and_ect_arrive_and_stand_outside_too";
    in_lab(name, 2, |lab| {
        lab.bring_up_full_mesh(Family::V4);
        let (outer, inner) = classes(lab);
        assert_eq!(inner, [EF_ECT0; DATAGRAMS]);
        assert!(
            !outer.is_empty() && outer.iter().all(|class| *class == EF_ECT0),
            "{outer:x?}"
        );
    });
}

// PROTOCOL SM-TC-1
#[test]
fn a_hidden_dscp_arrives_but_does_not_stand_outside() {
    let name = "traffic_class::a_hidden_dscp_arrives_but_does_not_stand_outside";
    in_lab(name, 2, |lab| {
        for node in &mut lab.nodes {
            node.settings.dscp = "hide".into();
        }
        lab.bring_up_full_mesh(Family::V4);
        let (outer, inner) = classes(lab);
        assert_eq!(inner, [EF_ECT0; DATAGRAMS]);
        assert!(
            !outer.is_empty() && outer.iter().all(|class| *class == 0b10),
            "{outer:x?}"
        );
    });
}

/// Sends marked datagrams through the tunnel; the traffic classes of the datagrams on the first node's
/// cable, and of the packets on the second node's device.
fn classes(lab: &TestLab) -> (Vec<u8>, Vec<u8>) {
    let [first, second] = &lab.nodes[..] else {
        unreachable!("two nodes were built");
    };
    let capture = |node: &LabNode, interface: &str| {
        let sink = MemorySink::new(CAPTURE_BYTES_MAX);
        node.netns
            .run(|| Capture::start(interface, sink).expect("a capture"))
    };
    let (cable, device) = (capture(first, CABLE), capture(second, DEVICE));
    let bind = |address| move || UdpSocket::bind(SocketAddr::new(address, 0)).unwrap();
    let receiver = second.netns.run(bind(second.overlay_v4().into()));
    let sender = first.netns.run(bind(first.overlay_v4().into()));
    SockRef::from(&sender)
        .set_tos_v4(u32::from(EF_ECT0))
        .unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut buffer = [0; 2048];
    for _ in 0..DATAGRAMS {
        sender
            .send_to(&[7; PAYLOAD_LEN], receiver.local_addr().unwrap())
            .unwrap();
        assert_eq!(receiver.recv(&mut buffer).unwrap(), PAYLOAD_LEN);
    }
    let (cable, _) = cable.stop().unwrap();
    let (device, _) = device.stop().unwrap();
    let outer = of_length(cable.frames().filter(|frame| frame.outgoing), SEALED_LEN);
    let inner = of_length(device.frames(), PAYLOAD_LEN);
    (outer, inner)
}

/// The traffic classes of the frames that carry a UDP datagram of this length.
fn of_length<'f>(frames: impl Iterator<Item = Frame<'f>>, len: usize) -> Vec<u8> {
    let carries = |frame: &Frame<'f>| {
        frame
            .udp_datagrams()
            .any(|datagram| datagram.payload.len() == len)
    };
    let of = |frame: Frame<'f>| frame.ip().map(traffic_class::of);
    frames.filter(carries).filter_map(of).collect()
}
