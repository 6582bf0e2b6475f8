//! Simulated worlds on all cores: whatever a seed brings, nothing forbidden comes through and all is well again.

use super::Measured;
use serde_json::json;
use shadowmesh_sim::scenario::chaos::RandomFigures;
use std::cell::Cell;
use std::ops::RangeInclusive;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

/// What runs the world of a seed.
pub type Scenario = fn(u64) -> Result<RandomFigures, String>;

/// Failures that the line of the evidence names; all of them are printed as they come.
const NAMED_MAX: usize = 3;

thread_local! {
    /// The seed of the world that this thread runs.
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Does the same for each number, as many at a time as there are cores. The results are in the order of the
/// numbers, whichever was done first.
pub fn on_all_cores<T: Send>(
    numbers: RangeInclusive<u64>,
    job: impl Fn(u64) -> T + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(*numbers.start());
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if !numbers.contains(&number) {
                return;
            }
            let result = job(number);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((number, result));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Runs a world of each scenario for each seed. A failure stops none of the others; each is printed with the
/// command that replays it.
pub fn run(seeds: RangeInclusive<u64>, scenarios: &[Scenario]) -> Result<Measured, String> {
    tell_seed_of_panics();
    let worlds = on_all_cores(seeds.clone(), |seed| {
        SEED.set(Some(seed));
        let run = |scenario: &Scenario| {
            scenario(seed).map_err(|violation| {
                let failure = format!("seed {seed}: {violation}; {}", replay(seed));
                eprintln!("{failure}");
                failure
            })
        };
        scenarios.iter().map(run).collect::<Vec<_>>()
    });
    let (mut sent, mut delivered, mut events, mut waiting) = (0, 0, 0, 0);
    let (mut count, mut failures) = (0, Vec::new());
    for world in worlds.into_iter().flatten() {
        count += 1;
        match world {
            Ok(figures) => {
                sent += figures.sent;
                delivered += figures.delivered;
                events += figures.events;
                waiting = waiting.max(figures.waiting_max);
            }
            Err(failure) => failures.push(failure),
        }
    }
    let mut figure = format!(
        "{count} worlds (seeds {} to {}), {delivered} of {sent} packets delivered, at most {waiting} datagrams of a \
         node waiting",
        seeds.start(),
        seeds.end()
    );
    if !failures.is_empty() {
        let named = failures[..failures.len().min(NAMED_MAX)].join("; ");
        figure += &format!("; {} worlds FAILED: {named}", failures.len());
    }
    let values = json!({
        "worlds": count, "sent": sent, "delivered": delivered, "events": events, "waiting_max": waiting,
        "failures": failures,
    });
    Ok(Measured {
        pass: failures.is_empty(),
        figure,
        values,
    })
}

fn replay(seed: u64) -> String {
    format!("cargo xtask sim --seed {seed} random")
}

/// A panic ends a release build at once: its seed is told before that.
fn tell_seed_of_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            usual(info);
            if let Some(seed) = SEED.get() {
                eprintln!("that was seed {seed}: {}", replay(seed));
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_seeds_and_a_failure_stops_nothing() {
        let squares = on_all_cores(3..=50, |number| {
            thread::yield_now();
            number * number
        });
        assert!(squares.iter().copied().eq((3..=50).map(|n| n * n)));
        let fails_at_two: Scenario = |seed| match seed {
            2 => Err("a violation".into()),
            _ => Ok(RandomFigures {
                sent: 3,
                delivered: 2,
                waiting_max: 7,
                trace: 0,
                events: 1,
            }),
        };
        let found = run(1..=3, &[fails_at_two]).unwrap();
        assert!(!found.pass);
        assert_eq!(
            (&found.values["worlds"], &found.values["sent"]),
            (&3.into(), &6.into())
        );
        assert!(
            found
                .figure
                .contains("seed 2: a violation; cargo xtask sim --seed 2 random")
        );
    }
}
