//! What verbs print: text for people, or one JSON object with `--json`.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

/// Writes to standard output. A reader that went away (`| head`) is not our error.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// One line to standard output.
pub fn line(text: impl std::fmt::Display) {
    print(&format!("{text}\n"));
}

/// The result of a verb as one JSON object.
pub fn json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("results are plain data");
    line(text);
}

/// The same in one line, where more may follow on the same stream.
pub fn json_line(value: &impl Serialize) {
    line(serde_json::to_string(value).expect("results are plain data"));
}

/// `1.2 GB`, in powers of 1000 as networks count.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `12,345`
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `340 ms`, `12 s`, `3 min 12 s`, `2 h 5 min`, `3 d 4 h`
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// How long ago, or how old, for tables: the largest unit alone, as `12 s`, `3 min`, `2 h`, `3 d`.
pub fn age(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..86400 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86400),
    }
}

/// Microseconds as milliseconds with enough digits for a LAN: `0.412 ms`. Round trips and costs of
/// microseconds are written so everywhere, and all other times by [`duration`] or [`age`].
pub fn rtt(us: u64) -> String {
    format!("{}.{:03} ms", us / 1000, us % 1000)
}

/// Microseconds of a duration, for JSON.
pub fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

/// Milliseconds of a duration, for JSON.
pub fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

/// The beginning of a PeerId, for tables.
pub fn short_id(id: &str) -> String {
    let beginning: String = id.chars().take(11).collect();
    format!("{beginning}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_234_567), "1.2 MB");
        assert_eq!(bytes(999_990), "1.0 MB");
        assert_eq!(count(1), "1");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(duration(Duration::from_millis(340)), "340 ms");
        assert_eq!(duration(Duration::from_secs(192)), "3 min 12 s");
        assert_eq!(duration(Duration::from_secs(7500)), "2 h 5 min");
        assert_eq!(rtt(412), "0.412 ms");
        assert_eq!(rtt(12_005), "12.005 ms");
        assert_eq!(age(59_999), "59 s");
        assert_eq!(age(7_500_000), "2 h");
    }
}
