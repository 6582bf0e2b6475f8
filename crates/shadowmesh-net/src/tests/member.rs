//! A member that says whatever it likes.

use proptest::collection::vec;
use proptest::prelude::*;
use shadowmesh_wire::control::{ControlMessage, Hello};
use shadowmesh_wire::sealed::ReceiverIndex;

use super::bare::Bare;
use super::harness::{World, ms};

fn hello() -> ControlMessage {
    ControlMessage::Hello(Hello {
        version: 1,
        boot: 77,
        index: ReceiverIndex(5),
        reset_token: [0; 16],
        cipher_speeds: [1, 1],
        mtu: 1420,
        holds_your_key: false,
        data_plane: None,
        beside: None,
        call: None,
    })
}

fn encoded(message: &ControlMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    bytes
}

/// Something to write on the control stream.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let epoch = || prop_oneof![0..3u32, any::<u32>()];
    let share = || prop_oneof![vec(any::<u8>(), 0..50), vec(any::<u8>(), 1600..=1600)];
    prop_oneof![
        4 => (epoch(), share()).prop_map(|(epoch, share)| encoded(
            &ControlMessage::RekeyRequest { epoch, share }
        )),
        2 => (epoch(), share()).prop_map(|(epoch, share)| encoded(
            &ControlMessage::RekeyResponse { epoch, share }
        )),
        2 => epoch().prop_map(|epoch| encoded(&ControlMessage::RekeyConfirm { epoch })),
        1 => Just(encoded(&hello())),
        1 => any::<[u8; 4]>().prop_map(|ip| encoded(&ControlMessage::ObservedAddress(
            (ip, 1).into()
        ))),
        1 => any::<u16>().prop_map(|seconds| encoded(&ControlMessage::BenchRequest { seconds })),
        1 => any::<u8>().prop_map(|reason| encoded(&ControlMessage::Bye { reason })),
        1 => (100u64..).prop_map(|kind| encoded(&ControlMessage::Unknown(kind))),
        1 => vec(any::<u8>(), 0..100),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // PROTOCOL SM-CT-1
    // PROTOCOL SM-CT-2
    // PROTOCOL SM-EP-2
    #[test]
    fn whatever_a_member_says_others_keep_their_sessions_and_it_may_come_back(
        polite: bool,
        words in vec(words(), 1..8),
    ) {
        let mut world = World::new(3, 21);
        for node in [0, 2] {
            world.introduce(1, node, false);
            world.introduce(node, 1, true);
        }
        world.join(2, 1);
        let mut member = Bare::client(&world, 0, 1);
        member.talk(&mut world, 1);
        if polite {
            member.say(&mut world, 1, &encoded(&hello()));
            prop_assert!(world.is_up(1, 0));
            // Late enough for a rekey that is not too soon after the start.
            world.run(ms(1_100));
        }
        for words in &words {
            member.say(&mut world, 1, words);
        }
        prop_assert!(world.traffic_flows(1, 2));
        // The others', the one that broke the protocol and drains, and a new one to its address.
        prop_assert!(world.nodes[1].net.open_connections() <= 3);
        world.connect(0, 1);
        prop_assert!(world.run_until(ms(3_000), |world| world.is_up(0, 1) && world.is_up(1, 0)));
        prop_assert!(world.traffic_flows(0, 1));
        prop_assert!(world.traffic_flows(1, 2));
    }
}
