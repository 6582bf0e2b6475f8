//! 0-RTT can be recorded and sent again; all it gets is nothing.

use std::cell::RefCell;
use std::rc::Rc;

use shadowmesh_net::NetEvent;
use shadowmesh_sim::{HostConfig, Passing, World, seeds};

use crate::{ends, seconds, sessions};

// PROTOCOL SM-HS-11
#[test]
fn a_recorded_return_with_early_data_makes_no_second_session() {
    seeds::each("replayed_early_data", 3, |seed| {
        for restart_between in [false, true] {
            replay(seed, restart_between);
        }
    });
}

fn replay(seed: u64, restart_between: bool) {
    let mut world = World::new(seed);
    let (client, server) = world.pair(HostConfig::default());
    assert!(world.settle(client, server));
    world.run_for(seconds(5));

    let seen: Rc<RefCell<Vec<Passing>>> = Rc::default();
    let recorder = seen.clone();
    world.tap(Some(Box::new(move |passing| {
        if passing.from == client {
            recorder.borrow_mut().push(passing.clone());
        }
        true
    })));
    world.jump_clock(client, seconds(300));
    assert!(world.settle(client, server));
    let early = world.host(client).events.iter().any(|(_, e)| {
        matches!(
            e,
            NetEvent::Handshaken {
                early_data: true,
                ..
            }
        )
    });
    assert!(early, "the return used 0-RTT, else this test shows nothing");
    world.run_for(seconds(5));
    world.tap(None);

    if restart_between {
        world.kill(client);
        world.start(server);
    }
    let server_sessions = sessions(&world, server);
    let client_ends = ends(&world, client);
    for passing in seen.take() {
        world.inject(server, passing.remote, passing.data);
    }
    world.run_for(seconds(20));
    assert_eq!(
        sessions(&world, server),
        server_sessions,
        "a replay made a session"
    );
    assert_eq!(world.ledger.violations(), Vec::<String>::new());
    if !restart_between {
        assert_eq!(
            ends(&world, client),
            client_ends,
            "a replay disturbed the true session"
        );
        assert!(world.settle(client, server));
    }
}
