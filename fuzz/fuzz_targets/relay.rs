//! A relay whose clients write what they like, and strangers who write to all of them.
//!
//! Two nodes talk over a relay that somebody else uses too, whom neither of them knows. The input is a list
//! of steps: what is done and by whom, a length, and as many bytes. Whatever comes, no packet comes out that
//! nobody sent, or twice, or at the wrong node; the relay takes part in nobody's network; and unless one of
//! the three themselves did wrong, the two reach each other in the end.

#![no_main]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use shadowmesh_net::{NetEvent, Received};
use shadowmesh_sim::scenario::relay::Relayed;
use shadowmesh_sim::{HostConfig, HostId, NatKind, World};
use shadowmesh_wire::PeerId;
use shadowmesh_wire::control::{ControlMessage, Decoder};
use shadowmesh_wire::envelope;
use shadowmesh_wire::sealed::{HEADER_LEN, TAG_LEN};
use shadowmesh_wire::way::Label;

const STEPS_MAX: usize = 24;
/// Datagrams that are kept to be sent once more.
const SEEN_MAX: usize = 64;
/// Somebody without a session.
const STRANGER: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1)),
    1000,
);

fuzz_target!(|input: &[u8]| {
    let mut stage = Stage::new();
    for (kind, _, bytes) in shadowmesh_fuzz::steps(input).take(STEPS_MAX) {
        stage.act(kind, bytes);
    }
    stage.judge();
});

struct Stage {
    world: World,
    relay: HostId,
    /// Those who talk, who only uses the relay, and the relay.
    all: [HostId; 4],
    /// What went over the network.
    seen: Rc<RefCell<Vec<Vec<u8>>>>,
    /// None of those whom the two rely on did wrong.
    honest: bool,
}

impl Stage {
    fn new() -> Self {
        let Relayed {
            mut world,
            a,
            b,
            relays,
        } = Relayed::new(1, [NatKind::Open; 2], 1);
        let relay = relays[0];
        let client = world.add_host(HostConfig::default());
        world.use_relay(client, relay);
        world.start(client);
        let seen: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
        let sight = Rc::clone(&seen);
        // Nothing passes between the two but over the relay.
        world.tap(Some(Box::new(move |passing| {
            let mut seen = sight.borrow_mut();
            if seen.len() < SEEN_MAX {
                seen.push(passing.data.clone());
            }
            let ends = [passing.from, passing.to];
            !(ends.contains(&a) && ends.contains(&b))
        })));
        world.run_for(Duration::from_millis(200));
        Self {
            world,
            relay,
            all: [a, b, client, relay],
            seen,
            honest: true,
        }
    }

    fn id(&self, host: HostId) -> PeerId {
        self.world.host(host).id()
    }

    /// One step: its lowest three bits say what is done, the next who does it, the next to whom.
    fn act(&mut self, kind: u8, bytes: &[u8]) {
        let [a, b, client, relay] = self.all;
        let who = self.all[usize::from(kind >> 3 & 3)];
        let whom = self.all[usize::from(kind >> 5 & 3)];
        match kind & 7 {
            0 => self.say_inside(who, bytes),
            1 => {
                let head = envelope::encode(Label::of(&self.id(whom)));
                self.say_inside(who, &[&head[..], bytes].concat());
            }
            2 => self.say_on_stream(who, whom, bytes),
            3 => self.world.inject(whom, STRANGER, bytes.to_vec()),
            4 => self.say_again(who, whom, bytes),
            5 => {
                let ms = bytes.iter().map(|byte| u64::from(*byte) * 20).sum();
                self.world.run_for(Duration::from_millis(ms));
            }
            6 => {
                self.world.send(a, b);
                self.world.send(b, a);
            }
            _ => self.world.start(if who == relay { relay } else { client }),
        }
        self.world.run_for(Duration::from_millis(50));
        assert_eq!(self.world.ledger.violations(), [""; 0]);
    }

    /// An inner frame in the session with the relay, well sealed; or the relay gives one on in somebody's
    /// name.
    fn say_inside(&mut self, who: HostId, inner: &[u8]) {
        if who == self.relay {
            self.honest = false;
            let from = self.id(self.all[0]);
            let received = Received::from_remote(self.world.host(who).address());
            return self.world.with_node(who, |node, now| {
                node.handle_inner(&from, received, inner, now);
            });
        }
        self.honest &= who == self.all[2];
        let relay = self.id(self.relay);
        let source = self.world.host(who).address();
        let snapshot = self.world.host(who).node().snapshot();
        let outbound = snapshot.forwarding().outbound(&relay);
        let Some(outbound) = outbound.filter(|_| !inner.is_empty()) else {
            return;
        };
        let Some(counter) = outbound.sealer.reserve(1) else {
            return;
        };
        let mut frame = [&[0; HEADER_LEN][..], inner, &[0; TAG_LEN]].concat();
        outbound.sealer.seal(counter, &mut frame);
        self.world.inject(self.relay, source, frame);
    }

    /// A message on the control stream, if there is a session.
    fn say_on_stream(&mut self, who: HostId, whom: HostId, bytes: &[u8]) {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        let Ok(Some(message)) = decoder.next_message() else {
            return;
        };
        // It is not a message that can be sent.
        if matches!(message, ControlMessage::Unknown(_)) {
            return;
        }
        self.honest &= who == self.all[2];
        let whom = self.id(whom);
        let _ = self
            .world
            .with_node(who, |node, now| node.send_control(&whom, &message, now));
    }

    /// A datagram that was on the network once, in the name of who sent it or of a stranger, with some bytes
    /// changed as groups of three say: two the place, one the value.
    fn say_again(&mut self, who: HostId, whom: HostId, bytes: &[u8]) {
        let seen = self.seen.borrow();
        let Some((which, changes)) = bytes.split_first() else {
            return;
        };
        let Some(datagram) = seen.get(usize::from(*which) % SEEN_MAX) else {
            return;
        };
        let mut datagram = datagram.clone();
        for change in changes.chunks_exact(3) {
            let at = usize::from(u16::from_be_bytes([change[0], change[1]]));
            if let Some(byte) = datagram.get_mut(at) {
                *byte = change[2];
            }
        }
        drop(seen);
        let remote = match who == whom {
            true => STRANGER,
            false => self.world.host(who).address(),
        };
        self.world.inject(whom, remote, datagram);
    }

    fn judge(mut self) {
        let [a, b, client, relay] = self.all;
        let relays_id = self.id(relay);
        // The relay hears of nobody, and who only uses it of nobody else.
        let stranger = |event: &NetEvent| match event {
            NetEvent::PeerUp { peer, .. } => *peer != relays_id,
            _ => false,
        };
        for host in [client, relay] {
            let mut events = self.world.host(host).events.iter();
            assert!(!events.any(|(_, event)| stranger(event)));
        }
        if self.honest {
            assert!(self.world.settle(a, b), "what others do is nothing to them");
        }
        assert_eq!(self.world.ledger.violations(), [""; 0]);
    }
}
