//! A transfer outlives a minute without any network.

use super::super::Measured;
use super::super::field::{self, Field, text};
use serde_json::json;
use shadowmesh::lab::Family;
use shadowmesh::lab::bulk::{self, Amount};
use shadowmesh_io::netlink::Handle;
use shadowmesh_io::netns::Netns;
use std::thread;
use std::time::Duration;

/// How long the cable is out.
const DARKNESS: Duration = Duration::from_secs(60);
/// So long the transfer runs before.
const BEFORE: Duration = Duration::from_millis(500);
/// As much as takes longer than that.
const BYTES: u64 = 1_000_000_000;
/// TCP doubles the time between its attempts, so after a minute without answer the next may be nearly
/// another one away; that is the inner connection's affair.
const STALL_MAX: Duration = Duration::from_secs(180);
/// What is ours: so long after the light is back a ping is answered.
const BACK_MAX: Duration = Duration::from_secs(5);

/// The cable of one machine is pulled in the middle of a transfer, and put back a minute later.
pub fn run() -> Result<Measured, String> {
    let field = Field::running(2, Family::V4)?;
    let (first, second) = (field.node(0), field.node(1));
    let target = field::inner(second, Family::V4);
    let (report, back) = thread::scope(|scope| {
        let transfer = scope.spawn(|| {
            let (from, to) = (&first.netns, &second.netns);
            bulk::transfer_patiently(from, to, target, Amount::Bytes(BYTES), STALL_MAX)
        });
        thread::sleep(BEFORE);
        let back = darken(&field.lab.switch).map(|()| first.ping_until_answered(target, STALL_MAX));
        (transfer.join().expect("no panic"), back)
    });
    let back = back?.ok_or("no ping was answered any more")?;
    let report = report.map_err(text)?;
    let figure = format!(
        "{} MB arrived {}; a ping was answered {:.2} s after the light was back",
        report.bytes / 1_000_000,
        if report.intact { "intact" } else { "CHANGED" },
        back.as_secs_f64(),
    );
    Ok(Measured {
        pass: report.intact && report.bytes == BYTES && back < BACK_MAX,
        figure,
        values: json!({
            "bytes": report.bytes,
            "intact": report.intact,
            "back_ms": back.as_millis() as u64,
            "transfer_ms": report.elapsed.as_millis() as u64,
        }),
    })
}

/// Takes the bridge's end of the first cable down for a minute.
fn darken(switch: &Netns) -> Result<(), String> {
    switch.run(|| {
        let netlink = Handle::new().map_err(text)?;
        let port = netlink.link_by_name("port0").map_err(text)?.index;
        netlink.set_down(port).map_err(text)?;
        thread::sleep(DARKNESS);
        netlink.set_up(port).map_err(text)
    })
}
