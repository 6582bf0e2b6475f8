//! Resident memory of processes over a time, and whether it grows.

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Short enough that a minute's trial has a slope, long enough not to be felt.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// Looks at processes from a thread of its own.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Series>>,
}

impl Watch {
    /// Starts looking.
    pub fn start(pids: Vec<u32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let signal = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let start = Instant::now();
            let mut all = vec![Series::default(); pids.len()];
            while !signal.load(Ordering::Relaxed) {
                for (series, pid) in all.iter_mut().zip(&pids) {
                    if let Some(kib) = resident_kib(*pid) {
                        series.0.push((start.elapsed().as_secs_f64(), kib));
                    }
                }
                thread::sleep(SAMPLE_INTERVAL);
            }
            all
        });
        Self { stop, thread }
    }

    /// Ends it.
    pub fn stop(self) -> Memory {
        self.stop.store(true, Ordering::Relaxed);
        Memory(self.thread.join().expect("looking does not panic"))
    }
}

/// What was seen.
pub struct Memory(Vec<Series>);

impl Memory {
    /// The most that any process held at any time.
    pub fn most_kib(&self) -> u64 {
        let all = self.0.iter().flat_map(|series| &series.0);
        all.map(|(_, kib)| *kib).max().unwrap_or(u64::MAX)
    }

    /// Whether the second half of every series, drawn out over `time`, grows by no more than `kib_max`.
    /// The first half is for buffers and tables that grow to the size they need.
    pub fn is_flat(&self, time: Duration, kib_max: f64) -> bool {
        let grown = |series: &Series| series.slope() * time.as_secs_f64() <= kib_max;
        !self.0.is_empty() && self.0.iter().all(grown)
    }

    /// For a person: start, end and slope of each.
    pub fn figure(&self) -> String {
        let one = |series: &Series| {
            format!(
                "{} to {} KiB ({:+.1} KiB/min)",
                series.first(),
                series.last(),
                series.slope() * 60.0
            )
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(" and ")
    }

    /// For a program.
    pub fn to_json(&self) -> Value {
        let one = |series: &Series| {
            json!({
                "start_kib": series.first(),
                "end_kib": series.last(),
                "slope_kib_per_minute": series.slope() * 60.0,
            })
        };
        self.0.iter().map(one).collect()
    }
}

/// Of one process: seconds since the start, KiB.
#[derive(Debug, Clone, Default)]
struct Series(Vec<(f64, u64)>);

impl Series {
    fn first(&self) -> u64 {
        self.0.first().map_or(0, |(_, kib)| *kib)
    }

    fn last(&self) -> u64 {
        self.0.last().map_or(0, |(_, kib)| *kib)
    }

    /// KiB per second in the second half, by least squares; without samples it grows without end.
    fn slope(&self) -> f64 {
        let half = &self.0[self.0.len() / 2..];
        if half.len() < 2 {
            return f64::INFINITY;
        }
        let n = half.len() as f64;
        let mean_s = half.iter().map(|(s, _)| s).sum::<f64>() / n;
        let mean_kib = half.iter().map(|(_, kib)| *kib as f64).sum::<f64>() / n;
        let covariance: f64 = half
            .iter()
            .map(|(s, kib)| (s - mean_s) * (*kib as f64 - mean_kib))
            .sum();
        let variance: f64 = half.iter().map(|(s, _)| (s - mean_s).powi(2)).sum();
        covariance / variance
    }
}

/// `VmRSS` of a process, none when it is gone.
fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(of: impl Fn(f64) -> f64) -> Memory {
        let samples = (0..200).map(|s| (f64::from(s), of(f64::from(s)) as u64));
        Memory(vec![Series(samples.collect())])
    }

    #[test]
    fn a_leak_is_told_from_warming_up_and_from_noise() {
        let time = Duration::from_secs(200);
        let warm = memory(|s| 20_000.0 + 3000.0 * (s / 20.0).min(1.0));
        assert!(warm.is_flat(time, 100.0));
        let noisy = memory(|s| 20_000.0 + (s * 7.0 % 5.0) * 40.0);
        assert!(noisy.is_flat(time, 100.0));
        let leak = memory(|s| 20_000.0 + s * 10.0);
        assert!(!leak.is_flat(time, 100.0));
        assert_eq!(leak.most_kib(), 21_990);
        assert!(!Memory(vec![Series::default()]).is_flat(time, 100.0));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident_kib(std::process::id()).is_some_and(|kib| kib > 100));
        assert_eq!(resident_kib(u32::MAX), None);
    }
}
