//! The course of a random run: rounds in which something happens to the world while packets flow, then peace.
//!
//! Three things must hold whatever happens. *Safety*, at every moment: no packet comes out twice, at the wrong
//! host, or from where it must not. *Bounds*: no node ever has more to send at once than `WAITING_MAX`.
//! *Recovery*, at the end: once the network is sound and everything runs, no packet is lost between those that
//! have a way.

use std::time::Duration;

use rand::Rng;

use crate::world::World;

/// Time for the nodes to notice that the network is sound again: longer than their longest patience
/// with a silent peer and their longest pause between attempts.
pub(super) const HEALING: Duration = Duration::from_secs(45);
/// Datagrams that a node may have to send after one input. The most that is right is a round of guesses at
/// ports with every peer at once, beside some probes and handshakes.
const WAITING_MAX: usize = 1024;

/// A world, and what befalls it.
pub(super) trait Chaos {
    /// The world.
    fn world(&mut self) -> &mut World;

    /// Something happens.
    fn act(&mut self);

    /// Everything is put in order, and everybody runs.
    fn pacify(&mut self);

    /// How long everybody then has to notice.
    fn healing(&self) -> Duration {
        HEALING
    }

    /// A packet for each ordered pair; the numbers of those that must arrive on a sound network.
    fn send_all(&mut self) -> Vec<u64>;

    /// What must never have happened, beside what every ledger says. Asked at the end.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What happened in a run.
#[derive(Clone, Copy, Debug)]
pub struct RandomFigures {
    /// Packets handed to devices.
    pub sent: usize,
    /// Packets that came out.
    pub delivered: usize,
    /// The most datagrams that a node had to send after one input.
    pub waiting_max: usize,
    /// Fingerprint of the run.
    pub trace: u64,
    /// Events in it.
    pub events: u64,
}

/// Runs it to its end.
///
/// # Errors
/// What was violated, and how.
pub(super) fn run(mut chaos: impl Chaos, rounds: usize) -> Result<RandomFigures, String> {
    for _ in 0..rounds {
        chaos.act();
        traffic(&mut chaos);
        check_safety(&mut chaos)?;
    }
    check_recovery(&mut chaos)?;
    chaos.check()?;
    let world = chaos.world();
    let (sent, delivered) = world.ledger.totals();
    let trace = world.trace();
    let waiting_max = world.waiting_max();
    if waiting_max > WAITING_MAX {
        return Err(format!(
            "a node had {waiting_max} datagrams to send at once"
        ));
    }
    Ok(RandomFigures {
        sent,
        delivered,
        waiting_max,
        trace: trace.hash(),
        events: trace.events(),
    })
}

/// Packets between all pairs for up to two seconds.
fn traffic(chaos: &mut impl Chaos) {
    for _ in 0..chaos.world().rng().random_range(1..40) {
        chaos.send_all();
        let pause = chaos.world().rng().random_range(1..100);
        chaos.world().run_for(Duration::from_millis(pause));
    }
}

fn check_safety(chaos: &mut impl Chaos) -> Result<(), String> {
    match chaos.world().ledger.violations().first() {
        Some(violation) => Err(violation.clone()),
        None => Ok(()),
    }
}

fn check_recovery(chaos: &mut impl Chaos) -> Result<(), String> {
    chaos.pacify();
    let end = chaos.world().now() + chaos.healing();
    while chaos.world().now() < end {
        chaos.send_all();
        chaos.world().run_for(Duration::from_millis(250));
    }
    let mut expected = Vec::new();
    for _ in 0..20 {
        expected.extend(chaos.send_all());
        chaos.world().run_for(Duration::from_millis(100));
    }
    chaos.world().run_for(Duration::from_secs(5));
    check_safety(chaos)?;
    let ledger = &chaos.world().ledger;
    match expected.iter().find(|number| !ledger.arrived(**number)) {
        None => Ok(()),
        Some(number) => {
            let (entry, lost) = (ledger.entry(*number), ledger.lost(&expected));
            let of = expected.len();
            Err(format!(
                "on a sound network {lost} of {of} packets were lost, the first {entry:?}"
            ))
        }
    }
}
