//! `kill -9` of one side under traffic.

use super::Measured;
use super::field::{Field, inner, text};
use serde_json::json;
use shadowmesh::lab::Family;
use std::time::Duration;

/// Deaths on each side.
const ROUNDS: usize = 5;

const RECOVERY_MAX: Duration = Duration::from_millis(1500);

/// Traffic of the survivor towards the victim: 1,000 a second, from before the kill to after.
const PINGS: u32 = 4000;

/// Either side dies and is started again at once; the other is not touched. The time counts from the
/// start of the new process to the first answer that the survivor gets from it.
pub fn run() -> Result<Measured, String> {
    let mut field = Field::running(2, Family::V4)?;
    let mut times = Vec::new();
    for round in 0..ROUNDS * 2 {
        let victim = round % 2;
        times.push(die_and_return(&mut field, victim)?);
        std::thread::sleep(Duration::from_secs(1));
    }
    let worst = times.iter().max().copied().unwrap_or_default();
    let ms: Vec<u64> = times.iter().map(|time| time.as_millis() as u64).collect();
    Ok(Measured {
        pass: worst <= RECOVERY_MAX,
        figure: format!(
            "{} deaths, worst {} ms, each {ms:?}",
            ms.len(),
            worst.as_millis()
        ),
        values: json!({ "recovery_ms": ms }),
    })
}

fn die_and_return(field: &mut Field, victim: usize) -> Result<Duration, String> {
    let survivor = 1 - victim;
    let [first, second] = &mut field.lab.nodes[..] else {
        return Err("not two nodes".into());
    };
    let (victim, survivor) = if survivor == 0 {
        (second, first)
    } else {
        (first, second)
    };
    let address = inner(victim, Family::V4);
    std::thread::scope(|scope| {
        let survivor = &*survivor;
        let traffic = scope.spawn(|| survivor.ping(address, PINGS, Duration::from_millis(1)));
        std::thread::sleep(Duration::from_millis(500));
        victim.kill().map_err(text)?;
        std::thread::sleep(Duration::from_millis(200));
        victim.start().map_err(text)?;
        let limit = RECOVERY_MAX * 10;
        let time = survivor.ping_until_answered(address, limit);
        traffic
            .join()
            .expect("pinging does not panic")
            .map_err(text)?;
        time.ok_or_else(|| format!("no answer within {limit:?} of the restart"))
    })
}
