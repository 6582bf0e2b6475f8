//! Several things at once between two namespaces: streams beside each other, a ping beside a stream.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use shadowmesh_io::lab::{Echo, EchoReport};
use shadowmesh_io::netns::Netns;

use super::bulk::{self, Amount, BulkReport};

/// Streams reach their full speed in this time; pings beside them begin after it.
const WARM_UP: Duration = Duration::from_millis(500);

/// So many TCP streams side by side for `time`; all of them together, in Gbit/s and bytes.
pub fn streams(
    from: &Netns,
    to: &Netns,
    address: IpAddr,
    count: usize,
    time: Duration,
) -> io::Result<(f64, u64)> {
    let one = || bulk::transfer(from, to, address, Amount::Time(time));
    let reports: io::Result<Vec<BulkReport>> = thread::scope(|scope| {
        let all: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        all.into_iter()
            .map(|stream| stream.join().expect("a stream does not panic"))
            .collect()
    });
    let reports = reports?;
    let gbit_s = reports.iter().map(BulkReport::gbit_s).sum();
    Ok((gbit_s, reports.iter().map(|report| report.bytes).sum()))
}

/// Pings from `from` while one TCP stream saturates the way to `address`; the pings travel with the
/// data and wait where it waits.
pub fn ping_beside_stream(
    from: &Netns,
    to: &Netns,
    address: IpAddr,
    echo: Echo,
) -> io::Result<(EchoReport, BulkReport)> {
    // The stream ends after the last ping was sent, its tail covers the answers.
    let time = WARM_UP + echo.interval * echo.count + WARM_UP / 2;
    thread::scope(|scope| {
        let stream = scope.spawn(|| bulk::transfer(from, to, address, Amount::Time(time)));
        let pings = from.run(|| {
            thread::sleep(WARM_UP);
            echo.run()
        });
        let stream = stream.join().expect("a stream does not panic");
        Ok((pings?, stream?))
    })
}
