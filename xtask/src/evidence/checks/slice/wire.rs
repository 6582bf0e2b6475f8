//! What the wire shows: a capture that misses nothing, from before the first packet to the end.

use super::Measured;
use super::field::{Field, REKEY_INTERVAL, inner, text};
use super::flow::Flow;
use serde_json::json;
use shadowmesh::lab::Family;
use std::time::Duration;

const PLAINTEXT: &[u8] = b"Only the two ends of the tunnel may ever read this sentence. ";

/// Slow enough that the capture keeps up on a small machine, and still half a gigabyte.
const BYTES_PER_SECOND: u64 = 25_000_000;

/// What the same search must find inside: the plaintext, and addresses of both IP versions.
const SECRETS_MIN: usize = 3;

const PINGS: u32 = 2000;

/// First contact, pings in both IP versions, known plaintext during two key exchanges, and the end of
/// the session: nothing of it in clear, everything QUIC, no frame missed.
pub fn run() -> Result<Measured, String> {
    let mut field = Field::build(2, Family::V4)?;
    let watch = field.observe(&PLAINTEXT[..32])?;
    field.start()?;
    let control = field.observe_inside(&PLAINTEXT[..32])?;
    let (from, to) = (field.node(0), field.node(1));
    let before = field.epoch(0, 1)?;
    let address = inner(to, Family::V4);
    let flow = Flow::start(&from.netns, &to.netns, address, BYTES_PER_SECOND, PLAINTEXT);
    let flow = flow.map_err(text)?;
    for family in [Family::V4, Family::V6] {
        from.ping(inner(to, family), PINGS, Duration::from_millis(1))
            .map_err(text)?;
    }
    std::thread::sleep(REKEY_INTERVAL * 2);
    let bytes = flow.stop().map_err(text)?;
    let rekeys = field.epoch(0, 1)?.saturating_sub(before);
    let (inside, _) = control.stop()?;
    field.lab.stop_all().map_err(text)?;
    let (seen, stats) = watch.stop()?;
    Ok(Measured {
        pass: seen.is_clean() && stats.lost == 0 && rekeys > 0 && inside.leaks.len() >= SECRETS_MIN,
        figure: format!(
            "{}; {} frames missed, {} MB of known plaintext, {rekeys} rekeys; the \
             same search on the device finds {} secrets",
            seen.figure(),
            stats.lost,
            bytes / 1_000_000,
            inside.leaks.len()
        ),
        values: json!({
            "capture": seen.to_json(),
            "capture_missed": stats.lost,
            "plaintext_bytes": bytes,
            "rekeys": rekeys,
            "secrets_inside": inside.leaks,
        }),
    })
}
