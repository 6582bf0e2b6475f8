//! Scenarios in the simulated world, one behaviour in each file. Every one runs with a few seeds;
//! `cargo xtask sim --seed N NAME` replays one, `--runs N` tries more.

mod anti_spoofing;
mod attacker_on_the_path;
mod behind_nat;
mod both_call_at_once;
mod clock_jump;
mod data_plane;
mod direct;
mod early_frames;
mod failed_rekey;
mod handshake_loss;
mod handshake_time;
mod hole_punching;
mod hostile_peer;
mod middleboxes;
mod noise;
mod path_mtu;
mod random;
mod rekey;
mod relay_crowd;
mod relay_death;
mod relay_liar;
mod relays;
mod removed_peer;
mod replayed_early_data;
mod restart;
mod roaming;
mod same_seed_same_run;
mod streams;
mod waiting_packets;
mod whole_mesh;

use std::time::Duration;

use shadowmesh_net::{DropReason, NetEvent};
use shadowmesh_sim::{HostId, World};

/// How often a host reported that a session came up.
fn sessions(world: &World, host: HostId) -> usize {
    world
        .host(host)
        .events
        .iter()
        .filter(|(_, e)| matches!(e, NetEvent::PeerUp { .. }))
        .count()
}

/// How often a host reported that a session ended.
fn ends(world: &World, host: HostId) -> usize {
    world
        .host(host)
        .events
        .iter()
        .filter(|(_, e)| matches!(e, NetEvent::PeerDown { .. }))
        .count()
}

/// All that a host has dropped so far, by reason.
fn drops(world: &World, host: HostId) -> Vec<(DropReason, u64)> {
    world.host(host).node().drops().nonzero().collect()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
